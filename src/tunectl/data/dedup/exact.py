"""Remove exact duplicates and merge references: each document once, each pair of input and answer once, one record per input.

Documents are compared with documents, examples with examples. Two answers to one input are references of it, and
duplicates only where they are the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from tunectl.artifacts.records import Document, Example, ReferenceAnswer, RejectedRow, truncate
from tunectl.data.text_normalization import digest16, normalize
from tunectl.data.transform import MergedRecord, Outcome, Record, RejectedRecord, Scope

Form = Callable[[str], str]


def identity(text: str) -> str:
    """Return the text unchanged: texts are compared as they are where ``curate.exact.normalize`` is false."""
    return text


def exact_input_key(example: Example, form: Form = identity) -> bytes:
    """Return the key of an example's input as bytes: roles, texts (normalized by ``form``), tool calls, tools, and declared split.

    The split is in the key because an input in two splits is a leak, which the split stage handles; merging would hide it.
    """
    turns = [(turn.role, form(turn.content), turn.name, turn.tool_calls, turn.train) for turn in example.messages]
    return msgspec.json.encode([turns, example.tools, example.split], order="sorted")


class ExactDedup:
    """The filter that rejects exact duplicates of an earlier record."""

    name = "exact duplicates"
    scope: Scope = "input"

    def __init__(self, *, loose: bool) -> None:
        self.form: Form = normalize if loose else identity
        self.dropped: list[RejectedRow] = []
        """Repeated answers dropped from examples that were kept with others."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield each record, or a reject ``exact_duplicate`` with the id of the one that is kept."""
        seen: dict[bytes, str] = {}
        for record in records:
            if isinstance(record, Document):
                yield self._whole(record, digest16(b"document", self.form(record.text)), seen)
            elif record.answers:
                yield self._answers(record, seen)
            else:
                yield self._whole(record, digest16(b"example", exact_input_key(record, self.form), _body(record)), seen)

    def _whole(self, record: Record, digest: bytes, seen: dict[bytes, str]) -> Outcome:
        if digest in seen:
            return RejectedRecord(record, "exact_duplicate", f"same as {seen[digest]}")
        seen[digest] = record.id
        return record

    def _answers(self, example: Example, seen: dict[bytes, str]) -> Outcome:
        input_digest = exact_input_key(example, self.form)
        new_answers: list[ReferenceAnswer] = []
        twins: list[RejectedRow] = []
        for answer in example.answers:
            digest = digest16(b"answer", input_digest, self.form(answer.text))
            if digest in seen:
                twins.append(
                    RejectedRow(answer.source, "exact_duplicate", f"same as {seen[digest]}", truncate(answer.text))
                )
            else:
                seen[digest] = example.id
                new_answers.append(answer)
        if not new_answers:
            return RejectedRecord(example, "exact_duplicate", twins[0].detail)
        self.dropped += twins
        return replace(example, answers=new_answers) if twins else example


def _body(example: Example) -> bytes:
    return msgspec.json.encode([example.segments, example.tokens])


class MergeReferences:
    """The filter that merges all examples with one input into one record: the first gets the answers of the others.

    The first record's fields, kind and weight are kept; ``conflicts`` counts the merged records that had other fields.
    """

    name = "references"
    scope: Scope = "input"

    def __init__(self) -> None:
        self.conflicts = 0

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield each record, with all its references, or as a ``MergedRecord`` where an earlier one has its input."""
        collected = records if isinstance(records, Sequence) else list(records)
        first_of: dict[bytes, int] = {}
        members: dict[int, list[int]] = {}
        merged: dict[int, int] = {}
        for index, record in enumerate(collected):
            if isinstance(record, Example) and record.answers:
                first = first_of.setdefault(digest16(b"input", exact_input_key(record)), index)
                if first != index:
                    members.setdefault(first, [first]).append(index)
                    merged[index] = first
        for index, record in enumerate(collected):
            if index in merged:
                first_record = collected[merged[index]]
                self.conflicts += record.fields != first_record.fields
                yield MergedRecord(record, first_record.id)
            elif index in members:
                yield _merge_answers([collected[member] for member in members[index]])
            else:
                yield record


def _merge_answers(group: list[Record]) -> Record:
    return replace(
        group[0], answers=[answer for example in group if isinstance(example, Example) for answer in example.answers]
    )
