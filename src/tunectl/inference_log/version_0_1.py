"""Convert data of tunectl 0.1 about live traffic to the names of 0.2: bodies of events and windows, rows of snapshots.

These functions never change. Revision 0002 of the database uses them once. Snapshots are always read through them, because the
name of a snapshot is the digest of its files, so those are never rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunectl.artifacts.record_format import rename_keys

EVENT_KINDS: Final = {
    "salt": "hash_key",
    "forgotten": "erased",
    "retained": "pruned",
    "reference_accepted": "reference_set",
}
"""Kinds of events that were renamed."""
_EVENT_KEYS: Final = {
    "forgotten": {"exchanges": "inferences", "opinions": "feedback"},
    "retained": {"exchanges": "inferences"},
    "reference_accepted": {"by": "author", "why": "message"},
    "retrain": {"why": "message"},
}
_WINDOW_KEYS: Final = {
    "required": "required_windows",
    "moved": "shifted",
    "slices": "segments",
    "last": "previous_p_values",
}
_SIGNAL_KEYS: Final = {"adjusted": "adjusted_p_value", "floor": "effect_floor", "moved": "shifted"}
_INFERENCE_KEYS: Final = {"arm": "variant", "latency": "latency_seconds", "forgotten_at": "erased_at"}
_FEEDBACK_KEYS: Final = {"exchange_id": "inference_id", "at": "created_at"}
_SNAPSHOT_KEYS: Final = {"at": "created_at", "exchanges": "inferences"}


def convert_event(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an event of ``kind`` (a kind of 0.1) with the names of 0.2."""
    converted = rename_keys(body, _EVENT_KEYS.get(kind, {}))
    if kind == "reference_accepted" and "window" in converted:  # the oldest shape named one window
        converted = {"windows": [converted.pop("window")], **converted}
    if kind == "retrain" and converted.get("state") == "rolled_back":  # nothing was: a challenger was withdrawn
        converted["state"] = "withdrawn"
    return converted


def convert_window(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a drift window with the names of 0.2; bodies of other windows are returned as they are."""
    if not {"verdict", "consecutive"} <= body.keys():
        return dict(body)
    converted = rename_keys(body, _WINDOW_KEYS)
    if "signals" in converted:
        signals = converted["signals"].items()
        converted["signals"] = {name: rename_keys(signal, _SIGNAL_KEYS) for name, signal in signals}
    return converted


def convert_inference(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``exchanges.jsonl`` as a row of ``inferences.jsonl``."""
    return rename_keys(row, _INFERENCE_KEYS)


def convert_feedback(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``feedback.jsonl`` with the names of 0.2."""
    return rename_keys(row, _FEEDBACK_KEYS)


def convert_snapshot(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a snapshot, or its entry in ``live/window.json`` or in the record of a retrain, with the names of 0.2."""
    return rename_keys(manifest, _SNAPSHOT_KEYS)


def convert_training_window(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``live/window.json`` as that of ``inference_log/window.json``."""
    converted = rename_keys(value, {"forgotten": "erased"})
    return {**converted, "snapshots": [convert_snapshot(item) for item in converted.get("snapshots", [])]}
