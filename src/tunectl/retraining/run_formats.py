"""Upgrade the records of retraining from earlier versions. Upgrades are pure: an object in, the object of the next version out."""

from __future__ import annotations

from typing import Any, Final

from tunectl.artifacts.record_format import RecordFormat, rename_keys
from tunectl.inference_log import version_0_1
from tunectl.registry.registry_formats import AUTHORSHIP

_STATES: Final = {"rolled_back": "withdrawn"}
_DATA: Final = {
    "lessons": "examples",
    "new": "new_examples",
    "people": "annotators",
    "held": "held_out",
    "left": "left_out",
}
"""New names of the counts of the data gate. ``edits`` keeps its name."""
_FACTS: Final = {**AUTHORSHIP, "experiment": "canary"}


def upgrade_trigger(record: dict[str, Any]) -> dict[str, Any]:
    """Convert a trigger from the format of tunectl 0.1 to the field names of today. Its id stays, since duplicates are recognized by it."""
    return rename_keys(record, {**AUTHORSHIP, "urgent": "ignore_limits"})


def upgrade_run(record: dict[str, Any]) -> dict[str, Any]:
    """Convert a run from the format of tunectl 0.1 to the field names and states of today. Its key stays: it is a hash of the run's inputs."""
    return {
        **record,
        "trigger": upgrade_trigger(record.get("trigger", {})),
        "steps": [_upgrade_step(step) for step in record.get("steps", [])],
    }


def _upgrade_step(step: dict[str, Any]) -> dict[str, Any]:
    result = rename_keys(step, AUTHORSHIP)
    result["state"] = _STATES.get(result.get("state", ""), result.get("state"))
    if "facts" in result:
        result["facts"] = _upgrade_facts(result["facts"])
    return result


def _upgrade_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a step, with keys of today: drift window, snapshot, counts of the data gate, approval, canary."""
    if "lessons" in facts:
        return rename_keys(facts, _DATA)
    result = rename_keys(facts, _FACTS)
    if "window" in result:
        result["window"] = version_0_1.convert_window(result["window"])
    if "snapshot" in result:
        result["snapshot"] = version_0_1.convert_snapshot(result["snapshot"])
    if "data" in result:
        result["data"] = rename_keys(result["data"], _DATA)
    return result


def upgrade_outcome(record: dict[str, Any]) -> dict[str, Any]:
    """Convert the outcome of a trigger from the format of tunectl 0.1 to the field names of today."""
    return rename_keys({**record, "trigger": upgrade_trigger(record.get("trigger", {}))}, {"words": "detail"})


def upgrade_decision(record: dict[str, Any]) -> dict[str, Any]:
    """Convert a person's decision from the format of tunectl 0.1 to the field names of today: ``approved`` and ``author``."""
    return rename_keys(record, {"yes": "approved", "by": "author"})


def upgrade_marks(record: dict[str, Any]) -> dict[str, Any]:
    """Convert a ``calendar.json`` of tunectl 0.1 to a ``schedule_marks.json``: its times by schedule become the value of ``marks``."""
    return {"marks": record}


RUN: Final = RecordFormat("retrain run", (upgrade_run,))
TRIGGER: Final = RecordFormat("trigger", (upgrade_trigger,))
OUTCOME: Final = RecordFormat("outcome of a trigger", (upgrade_outcome,))
DECISION: Final = RecordFormat("decision", (upgrade_decision,))
MARKS: Final = RecordFormat("file of schedule marks", (upgrade_marks,))
