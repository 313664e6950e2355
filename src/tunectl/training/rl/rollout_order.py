"""Order of rollouts: which inputs each step uses, and how their answers are packed into rows. Pure.

Everything depends only on the seed, so a run that resumes after a kill uses the same inputs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tunectl.training.prefix_sharing import ROW_TOKENS


def prompts_per_step(questions: int, *, steps: int, each: int, seed: int) -> list[tuple[int, ...]]:
    """Return ``each`` different numbers of questions per step (all, where there are fewer); every question is used once per epoch."""
    rng = random.Random(f"{seed}:turns")  # noqa: S311  an order, not a secret
    size = min(each, questions)
    queue: list[int] = []
    result = []
    for _ in range(steps):
        if len(queue) < size:
            order, waiting = rng.sample(range(questions), questions), set(queue)
            head = [number for number in order if number not in waiting][: size - len(queue)]
            queue += head + [number for number in order if number not in set(head)]
        result.append(tuple(queue[:size]))
        del queue[:size]
    return result


def prompt_seed(seed: int, step: int, place: int) -> int:
    """Return the seed of the answers to the prompt at index ``place`` of a step."""
    return random.Random(f"{seed}:write:{step}:{place}").getrandbits(48)  # noqa: S311  a draw, not a secret


def distribute_prompts(lengths: Sequence[int], *, rank: int, world_size: int) -> list[int]:
    """Return the places of the prompts that one of several ranks works on: distributed in turn by falling length, in their order.

    All answers to a prompt stay on one rank. A rank gets none where there are fewer prompts than ranks.
    """
    falling = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    return sorted(falling[rank::world_size])


def pack_answers(lengths: Sequence[int], prompt: int, *, shared: bool, limit: int = ROW_TOKENS) -> list[list[int]]:
    """Return places of the answers of one prompt, distributed evenly to rows of about ``limit`` tokens; one a row unless ``shared``."""
    if not lengths:
        return []
    room = max(1, limit - prompt)
    count = min(len(lengths), -(-sum(lengths) // room)) if shared else len(lengths)
    return [list(range(start, len(lengths), count)) for start in range(count)]
