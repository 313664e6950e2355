"""Assign records to the train, validation and test splits.

How groups are distributed: every group has a place on a line, the hash of seed and key. Within each stratum the groups are
walked along that line: one goes to test while test has room for at least half of it, then to validation in the same way,
else to train; what a stratum gives too much or too little is made up for in the next. So the shares are met to within a group,
the order of rows plays no part, and new rows move only the groups beside the two borders. (A bare hash threshold would move
none, but misses the shares by several groups where groups are few, as businesses are.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunectl.artifacts.records import SPLIT_NAMES, Example, SplitName
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.core.errors import DataError
from tunectl.core.hashing import hash_to_unit
from tunectl.data.split.groups import Group, find_connected_groups

HELD: tuple[SplitName, ...] = ("test", "validation")
"""In the order in which they are filled; where a group is marked for both, the earlier one is taken."""


@dataclass(frozen=True, slots=True)
class SplitRule:
    """Settings of the split as plain values: shares, strata, groups; ``held_out`` has by field the values kept for validation and test."""

    shares: Mapping[SplitName, float]
    stratify: tuple[str, ...]
    group: tuple[str, ...]
    held_out: Mapping[str, Mapping[SplitName, frozenset[str]]]
    seed: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """Split of one record; ``reason`` and ``detail`` are set where it is rejected."""

    part: SplitName
    reason: RejectReason | None = None
    detail: str = ""


@dataclass(slots=True)
class _Group:
    """A group during assignment: its rows, position, stratum, the allowed splits, and the one that it is marked for."""

    group: Group
    at: float
    stratum: tuple[str, ...]
    may: tuple[SplitName, ...]
    marked: SplitName | None
    part: SplitName | None = None

    @property
    def size(self) -> int:
        """Number of its records."""
        return len(self.group.rows)


def assign_splits(examples: Sequence[Example], rule: SplitRule) -> list[Assignment]:
    """Return the split of each of ``examples``, in their order.

    A record with ``split`` (the user's own column) keeps it, and splits named there get no others; the other splits are
    taken from the unmarked records, or from those marked train where all are marked.
    Rejected: ``group_in_other_split`` (its group is marked for two splits) and ``held_out_value``.
    Raises  DataError where there are too few groups to fill three splits.
    """
    marked = {example.split for example in examples if example.split is not None}
    all_marked = bool(examples) and all(example.split is not None for example in examples)
    bundles = [
        _bundle(examples, group, rule, all_marked=all_marked) for group in find_connected_groups(examples, rule.group)
    ]
    missing_parts = [part for part in HELD if part not in marked]
    _distribute(bundles, missing_parts, rule.shares)
    _fill_empty(bundles, missing_parts)
    assignment_of: list[Assignment | None] = [None] * len(examples)
    for bundle in bundles:
        for row in bundle.group.rows:
            assignment_of[row] = _assign_example(examples[row], bundle, rule)
    assignments = [assignment for assignment in assignment_of if assignment is not None]
    _refuse_empty(assignments, bundles, rule)
    return assignments


def _bundle(examples: Sequence[Example], group: Group, rule: SplitRule, *, all_marked: bool) -> _Group:
    members = [examples[row] for row in group.rows]
    marks = {member.split for member in members}
    strata = Counter(tuple(member.fields.get(name, "") for name in rule.stratify) for member in members)
    stratum = min(strata, key=lambda value: (-strata[value], value))
    may = tuple(
        part for part in SPLIT_NAMES if any(part in list_allowed_splits(member, rule.held_out) for member in members)
    )
    marked = next((part for part in HELD if part in marks), None)
    if marked is None and "train" in marks and not all_marked:
        marked = "train"
    bundle = _Group(group, hash_to_unit(f"{rule.seed}\0{group.key}"), stratum, may or ("train",), marked)
    if marked is not None:
        bundle.part = marked
    elif len(bundle.may) == 1:
        bundle.part = bundle.may[0]
    return bundle


def list_allowed_splits(example: Example, held_out: Mapping[str, Mapping[SplitName, frozenset[str]]]) -> set[SplitName]:
    """Return the splits that ``example`` may be in by its values of the fields in ``held_out``; empty where they contradict each other."""
    may: set[SplitName] = set(SPLIT_NAMES)
    for name, values in held_out.items():
        value = example.fields.get(name, "")
        of_value: set[SplitName] = {part for part in HELD if value in values[part]}
        if not of_value:
            of_value = {"train"} if values["validation"] else {"train", "validation"}
        may &= of_value
    return may


def _distribute(bundles: list[_Group], parts: list[SplitName], shares: Mapping[SplitName, float]) -> None:
    carry = dict.fromkeys(parts, 0.0)
    for stratum in sorted({bundle.stratum for bundle in bundles}):
        inside = sorted((b for b in bundles if b.stratum == stratum), key=lambda b: (b.at, b.group.key))
        total = sum(bundle.size for bundle in inside)
        for part in parts:
            room = shares[part] * total + carry[part] - sum(b.size for b in inside if b.part == part)
            for bundle in inside:
                if bundle.part is None and part in bundle.may and bundle.size <= 2 * room:
                    bundle.part = part
                    room -= bundle.size
            carry[part] = room
        for bundle in inside:
            bundle.part = bundle.part or "train"


def _fill_empty(bundles: list[_Group], parts: list[SplitName]) -> None:
    """Give an empty split, with little data, the first group of the split that has most groups."""
    for part in parts:
        counts = Counter(bundle.part for bundle in bundles)
        if counts[part]:
            continue
        giver = max(SPLIT_NAMES, key=lambda name: counts[name])
        spare = [b for b in bundles if b.part == giver and b.marked is None and part in b.may]
        if counts[giver] > 1 and spare:
            min(spare, key=lambda b: (b.at, b.group.key)).part = part


def _assign_example(example: Example, bundle: _Group, rule: SplitRule) -> Assignment:
    part = bundle.part or "train"
    if bundle.marked is not None and example.split not in (None, bundle.marked):
        detail = (
            f"marked {example.split}, but a record of its group (equal input, near duplicate or field) is marked {part}"
        )
        return Assignment(part, "group_in_other_split", detail)
    may = list_allowed_splits(example, rule.held_out)
    if part not in may:
        values = ", ".join(f"{name}={example.fields.get(name, '')}" for name in rule.held_out)
        return Assignment(part, "held_out_value", f"{values} may not be in {part}")
    return Assignment(part)


def _refuse_empty(assignments: list[Assignment], bundles: list[_Group], rule: SplitRule) -> None:
    sizes = Counter(assignment.part for assignment in assignments if assignment.reason is None)
    empty = [part for part in SPLIT_NAMES if not sizes[part]]
    if not empty:
        return
    names = ", ".join(("equal inputs", "near duplicates", *rule.group))
    lost = Counter(assignment.reason for assignment in assignments if assignment.reason is not None)
    rejects = "".join(f"; {count} rejected as {reason}" for reason, count in sorted(lost.items()))
    raise DataError(
        f"split: {' and '.join(empty)} would be empty: {_count(len(assignments), 'record')} in {_count(len(bundles), 'group')} "
        f"that must stay together ({names}){rejects}; at least 3 groups are needed",
        hint="add data, group by fewer fields (split.group), or see what earlier stages rejected: tunectl data rejects",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
