"""Upgrade annotations of earlier versions. Upgrades are pure: an object in, the object of the next version out."""

from __future__ import annotations

from typing import Any, Final

from tunectl.artifacts.record_format import RecordFormat, rename_keys

_KINDS: Final = {"said": "annotation", "undone": "retraction"}


def upgrade_task(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line of ``questions.jsonl`` of 0.1, whose keys are those of today."""
    return dict(record)


def upgrade_event(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line of ``said.jsonl`` of 0.1."""
    result = rename_keys(record, {"what": "kind", "question": "task", "at": "created_at"})
    return {**result, "kind": _KINDS.get(result.get("kind", ""), result.get("kind"))}


TASK: Final = RecordFormat("task", (upgrade_task,))
EVENT: Final = RecordFormat("line of annotations", (upgrade_event,))
