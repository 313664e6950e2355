"""Reject reasons are a closed set: each is explained, each is used, and no stage can end with another."""

from __future__ import annotations

import ast
from typing import get_args

import msgspec
import pytest
import source_trees

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.artifacts.reject_reasons import REJECT_REASONS, RejectReason
from tunectl.artifacts.row_counts import RowCounter
from tunectl.core.errors import TunectlError
from tunectl.inference_log.feedback import SkipReason


def test_every_reason_is_explained_once() -> None:
    reasons = get_args(RejectReason)
    assert len(reasons) == len(set(reasons))
    assert list(REJECT_REASONS)[:3] == list(reasons)[:3]
    assert set(REJECT_REASONS) == set(reasons)
    assert all(words.endswith(".") and words[0].isupper() for words in REJECT_REASONS.values())


def test_every_reason_is_used() -> None:
    written = {
        node.value
        for path, tree in source_trees.parse_package().items()
        if path.name != "reject_reasons.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(REJECT_REASONS) - written == set()


def test_reasons_of_the_feedback_stage_are_among_them() -> None:
    assert set(get_args(SkipReason)) <= set(REJECT_REASONS)


def test_a_stage_with_another_reason_fails() -> None:
    tally = RowCounter("curate")
    tally.read()
    tally.reject(RejectedRow(Source("a.jsonl", 3), "too_odd"))  # type: ignore[arg-type]
    with pytest.raises(TunectlError) as caught:
        tally.finish(records_out=0)
    assert type(caught.value) is TunectlError
    assert caught.value.message == "curate: 'too_odd' is not a known reason (artifacts/reject_reasons.py has all)"


def test_a_record_with_another_reason_is_not_read() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"Invalid enum value 'too_odd' - at `\$.reason`"):
        msgspec.json.decode(b'{"source": {"file": "a.jsonl", "row": 3}, "reason": "too_odd"}', type=RejectedRow)
