"""Formats that bypass the chat template: segments with labels, and rows that are already tokenized."""

from __future__ import annotations

from typing import Final

from tunectl.artifacts.records import Segment, Tokens
from tunectl.data.readers.row import FormatMismatchError, ParsedRow, RawRow, RowError, list_of

IGNORED = -100
"""Label of a token that is not trained on, in PyTorch and all trainers."""
MAX_ID: Final = 2**31 - 1
"""Largest token id that is read: no vocabulary has so many tokens, and tokenizers hold ids in 32 bits."""


def segments(row: RawRow) -> ParsedRow:
    """Return a row with ``segments: [{text, label}]`` (Axolotl input_output) parsed.

    Raises  RowError ``nothing_trained``, ``empty_turn``.
    """
    result: list[Segment] = []
    for number, item in enumerate(list_of(row.columns, "segments"), 1):
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            raise FormatMismatchError(f"segment {number} is not an object with text and label")
        label = item.get("label", item.get("train"))
        if label not in (True, False):
            raise FormatMismatchError(
                f"the label of segment {number} is {repr(label)[:80]}; allowed are true and false"
            )
        result.append(Segment(item["text"], bool(label)))
    if not any(item.text for item in result):
        raise RowError("empty_turn", "there is no text in the segments")
    if not any(item.train and item.text for item in result):
        raise RowError("nothing_trained", "no segment with text has label true; at least one must be trained on")
    return ParsedRow(segments=result)


def tokens(row: RawRow) -> ParsedRow:
    """Return a row with ``input_ids``, ``labels`` and ``attention_mask`` parsed: padding is cut off, missing labels are the ids.

    Raises  RowError ``wrong_labels`` when the lists have different lengths, ``nothing_trained`` when all labels are -100.
    """
    ids = _numbers(row, "input_ids")
    labels = _numbers(row, "labels") if row.columns.get("labels") is not None else list(ids)
    mask = _numbers(row, "attention_mask") if row.columns.get("attention_mask") is not None else [1] * len(ids)
    if not len(ids) == len(labels) == len(mask):
        raise RowError(
            "wrong_labels",
            f"{len(ids)} input_ids, {len(labels)} labels, {len(mask)} in attention_mask; the lists must have the same length",
        )
    if any(item < 0 for item in ids):
        raise RowError("wrong_labels", f"input_ids holds {min(ids)}; token ids are 0 or more")
    if (largest := max([*ids, *labels], default=0)) > MAX_ID:
        raise RowError("wrong_labels", f"a token id is {largest}; token ids are {MAX_ID} or less")
    if any(item < 0 and item != IGNORED for item in labels):
        raise RowError(
            "wrong_labels",
            f"labels holds {min(item for item in labels if item != IGNORED)}; allowed are token ids of 0 or more, and {IGNORED} for tokens that are not trained on",
        )
    learned_indexes = [index for index, flag in enumerate(mask) if flag]
    result = Tokens([ids[index] for index in learned_indexes], [labels[index] for index in learned_indexes])
    if not any(label != IGNORED for label in result.labels):
        raise RowError(
            "nothing_trained",
            f"every label is {IGNORED}, so no token is trained on; label the tokens of the answer with their ids",
        )
    return ParsedRow(tokens=result)


def _numbers(row: RawRow, name: str) -> list[int]:
    items = list_of(row.columns, name)
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        raise FormatMismatchError(f"column {name!r} is not a list of whole numbers")
    return items
