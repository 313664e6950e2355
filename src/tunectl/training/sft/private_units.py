"""Units of private training: the person or source of each row. No row has answers of two units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from tunectl.artifacts.records import Example, RejectedRow, truncate
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.sft import Privacy
from tunectl.core.errors import DataError


def split_by_unit(examples: Sequence[Example], privacy: Privacy, tally: RowCounter) -> list[Example]:
    """Return the examples, each with the answers of one unit (person or source) only.

    Equal inputs were merged into one example before, with the fields of the first row: where people are the units, answers of the other rows
    are rejected as ``unknown_person``; an example that keeps no answer of its own person is left out.
    Raises  DataError where an example names no person.
    """
    if privacy.unit == "source":
        return [part for example in examples for part in _split_by_source(example)]
    _refuse_nameless(examples, str(privacy.person_field))
    parts = [_drop_other_rows(example, tally) for example in examples]
    return [part for part in parts if part.answers or part.segments or part.tokens is not None]


def find_unit(example: Example, privacy: Privacy) -> str:
    """Return the unit of privacy of an example that ``split_by_unit`` returned: the name of its person or source."""
    if privacy.unit == "source":
        return (example.answers[0].source if example.answers else example.source).file
    return example.fields[str(privacy.person_field)]


def _split_by_source(example: Example) -> Iterator[Example]:
    files = dict.fromkeys(answer.source.file for answer in example.answers)
    if len(files) < 2:
        yield example
        return
    for file in files:
        yield replace(example, answers=[answer for answer in example.answers if answer.source.file == file])


def _drop_other_rows(example: Example, tally: RowCounter) -> Example:
    own = [answer for answer in example.answers if answer.source == example.source]
    if len(own) == len(example.answers):
        return example
    for answer in example.answers:
        if answer.source != example.source:
            tally.read()
            detail = f"its input came first from {example.source.file}:{example.source.row}"
            tally.reject(RejectedRow(answer.source, "unknown_person", detail, truncate(answer.text)))
    return replace(example, answers=own)


def _refuse_nameless(examples: Sequence[Example], field: str) -> None:
    nameless = [example.source for example in examples if not example.fields.get(field)]
    if not nameless:
        return
    fields = sorted({name for example in examples for name in example.fields})
    raise DataError(
        f"sft.privacy.person_field = {field}: {len(nameless)} of {len(examples)} training inputs do not have that field, the first is "
        f"{nameless[0].file}:{nameless[0].row}; fields there are: {', '.join(fields) or 'none'}",
        hint="declare the column that names people in ingest.sources.<name>.fields, leave such rows out, or set sft.privacy.unit=source",
    )
