"""Split pairs and labeled answers into train, validation and test, by input: no input is in two splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from tunectl.artifacts.records import SPLIT_NAMES, LabeledCompletion, PreferencePair, SplitName
from tunectl.core.errors import DataError
from tunectl.core.hashing import hash_to_bytes

R = TypeVar("R", PreferencePair, LabeledCompletion)


def split_by_prompt(
    records: Sequence[PreferencePair | LabeledCompletion],
    split_names: Mapping[str, SplitName],
    shares: Mapping[SplitName, float],
    seed: int,
) -> dict[str, SplitName]:
    """Return the split of each prompt of ``records``: digest of the prompt -> split.

    A prompt that the stage ``split`` has (``split_names``: split by prompt) gets the same one, so that no test input is ever trained
    on; one whose split the data declares gets that; the others are assigned in an order by ``seed`` until ``shares`` are met.

    Raises  DataError when a split would be empty.
    """
    parts: dict[str, SplitName] = {}
    for record in records:
        if record.prompt in split_names:
            parts[record.prompt] = split_names[record.prompt]
        elif record.split is not None:
            parts.setdefault(record.prompt, record.split)
    every = list(dict.fromkeys(record.prompt for record in records))
    free = sorted(
        (prompt for prompt in every if prompt not in parts), key=lambda prompt: hash_to_bytes(f"{seed} {prompt}")
    )
    have = {part: sum(parts.get(prompt) == part for prompt in every) for part in SPLIT_NAMES}
    for index, prompt in enumerate(free):
        empty = [
            part for part in SPLIT_NAMES if not have[part]
        ]  # small data: the last ones go where there is nothing yet
        part = max(
            empty if len(free) - index <= len(empty) else SPLIT_NAMES,
            key=lambda name: shares[name] * len(every) - have[name],
        )
        parts[prompt] = part
        have[part] += 1
    _refuse_empty(have, len(every), len(free))
    return parts


def _refuse_empty(have: Mapping[SplitName, int], prompts: int, free: int) -> None:
    empty = [part for part in SPLIT_NAMES if not have[part]]
    if not empty:
        return
    inputs = "one input" if prompts == 1 else f"{prompts} different inputs"
    bound = ""
    if free < prompts:
        which = "" if prompts == 1 else "all of them " if free == 0 else f"{prompts - free} of them "
        bound = f", {which}bound to {'its' if prompts - free == 1 else 'their'} part by split or by the data"
    raise DataError(
        f"preferences: {' and '.join(empty)} would be empty: there {'is' if prompts == 1 else 'are'} {inputs}{bound}, and each input is in one part only",
        hint="collect preferences on more inputs; at least one for each of train, validation and test is needed",
    )


def with_split(records: Sequence[R], parts: Mapping[str, SplitName]) -> list[R]:
    """Return the records with their split set; ``parts``: digest of the prompt -> split."""
    return [replace(record, split=parts[record.prompt]) for record in records]


def count_moved(records: Sequence[PreferencePair | LabeledCompletion], parts: Mapping[str, SplitName]) -> int:
    """Return how many records have another split in ``parts`` than the data declared."""
    return sum(record.split not in (None, parts[record.prompt]) for record in records)
