"""Order of rollouts: which inputs each step uses, and how their answers are packed into rows. Pure.

Everything depends only on the seed, so a run that resumes after a kill uses the same inputs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tunectl.training.prefix_sharing import ROW_TOKENS


def prompts_per_step(prompt_count: int, *, steps: int, each: int, seed: int) -> list[tuple[int, ...]]:
    """Return for each of ``steps`` steps the indices of its prompts: ``each`` different ones, or all where there are fewer.

    ``prompt_count`` is the number of prompts; every prompt is used once per epoch.
    """
    rng = random.Random(f"{seed}:turns")  # noqa: S311  an order, not a secret
    size = min(each, prompt_count)
    queue: list[int] = []
    result = []
    for _ in range(steps):
        if len(queue) < size:
            order, waiting = rng.sample(range(prompt_count), prompt_count), set(queue)
            head = [number for number in order if number not in waiting][: size - len(queue)]
            queue += head + [number for number in order if number not in set(head)]
        result.append(tuple(queue[:size]))
        del queue[:size]
    return result


def prompt_seed(seed: int, step: int, index: int) -> int:
    """Return the seed for generating the answers to the prompt at index ``index`` of a step."""
    return random.Random(f"{seed}:write:{step}:{index}").getrandbits(48)  # noqa: S311  a draw, not a secret


def distribute_prompts(lengths: Sequence[int], *, rank: int, world_size: int) -> list[int]:
    """Return the sorted indices of the prompts that ``rank``, one of ``world_size`` processes, works on.

    Prompts are sorted by length in tokens, the longest first, and dealt to the ranks in turn. A rank gets none where
    there are fewer prompts than ranks.
    """
    falling = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return sorted(falling[rank::world_size])


def pack_answers(lengths: Sequence[int], prompt: int, *, shared: bool, limit: int = ROW_TOKENS) -> list[list[int]]:
    """Return the indices of the answers in each row: evenly, about ``limit`` tokens a row; one answer a row unless ``shared``.

    ``lengths`` are the tokens of each answer to one prompt, ``prompt`` those of the prompt.
    """
    if not lengths:
        return []
    room = max(1, limit - prompt)
    count = min(len(lengths), -(-sum(lengths) // room)) if shared else len(lengths)
    return [list(range(start, len(lengths), count)) for start in range(count)]
