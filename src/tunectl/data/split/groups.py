"""Which records must stay in one split: equal inputs, near-duplicate clusters, and shared values of declared fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from tunectl.artifacts.records import Example
from tunectl.core import unicode_form
from tunectl.data.record_text import input_text

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """Return the words of ``text``: NFKC, case folded, without punctuation. Texts are compared by them."""
    return _WORD.findall(unicode_form.normalize("NFKC", text).casefold())


def answer_texts(example: Example) -> list[str]:
    """Return the target texts: every reference, or every trained segment; none for a tokenized row."""
    if example.answers:
        return [answer.text for answer in example.answers]
    return [segment.text for segment in example.segments if segment.train]


def prompt_key(example: Example) -> str:
    """Return a digest that two records share when the model sees the same input: roles, folded words, tools, or token ids.

    It decides what stays in one split, counts as contamination, or is one prompt of judgments. Merging rows is stricter: ``exact_input_key``.
    """
    if example.tokens is not None:
        masked = [
            token for token, label in zip(example.tokens.ids, example.tokens.labels, strict=True) if label == -100
        ]
        content: object = masked
    elif example.messages:
        content = (
            [[turn.role, _normalize_text(turn.content), turn.tool_calls] for turn in example.messages],
            example.tools,
        )
    else:
        content = _normalize_text(input_text(example))
    return blake2b(msgspec.json.encode(content, order="sorted"), digest_size=12).hexdigest()


def _normalize_text(text: str) -> str:
    # a text of signs alone has no words, and is then only equal to itself
    return " ".join(split_words(text)) or text


@dataclass(frozen=True, slots=True)
class Group:
    """Examples that must be in one split, by their indexes."""

    key: str
    """Name of the group, constant as long as its declared values or its first input stay, so that more data moves few groups."""
    rows: tuple[int, ...]
    """Their indices in the grouped list, ascending."""


def find_connected_groups(examples: Sequence[Example], fields: Sequence[str]) -> list[Group]:
    """Return the groups of ``examples`` that must stay together, in order of their first record.

    Two records are joined when they have the same input, the same cluster, or the same value of one of ``fields``. A record
    without a value for a field is not joined by it.
    """
    parents = list(range(len(examples)))
    owner: dict[tuple[str, str], int] = {}
    inputs = [prompt_key(example) for example in examples]
    for row, example in enumerate(examples):
        for link in _links(example, inputs[row], fields):
            _join(parents, owner.setdefault(link, row), row)
    members: dict[int, list[int]] = {}
    for row in range(len(examples)):
        members.setdefault(_root(parents, row), []).append(row)
    return [
        Group(_name([examples[row] for row in rows], [inputs[row] for row in rows], fields), tuple(rows))
        for rows in members.values()
    ]


def _links(example: Example, own: str, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield ("input", own)
    if example.cluster is not None:
        yield ("cluster", example.cluster)
    for name in fields:
        if example.fields.get(name):
            yield (f"field {name}", example.fields[name])


def _root(parents: list[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


def _join(parents: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first


def _name(members: list[Example], inputs: list[str], fields: Sequence[str]) -> str:
    for name in fields:
        values = [member.fields[name] for member in members if member.fields.get(name)]
        if values:
            return f"{name}={min(values)}"
    return min(inputs)
