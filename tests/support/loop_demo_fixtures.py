"""Makes the loop demo importable, and has made-up records of a run for tests of the timeline."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "local_lens"
for place in (HERE, ROOT / "monitoring"):
    if str(place) not in sys.path:
        sys.path.append(str(place))

from tunectl.artifacts.records import DriftWindow  # noqa: E402
from tunectl.canary.canary_store import CanaryRecord  # noqa: E402
from tunectl.canary.sequential_test import CanaryResult, SequentialTestRules  # noqa: E402
from tunectl.registry.release_state import ReleaseEvent  # noqa: E402
from tunectl.retraining import state_machine  # noqa: E402
from tunectl.retraining.state_machine import RetrainRun, Transition, Trigger  # noqa: E402

BEGAN = datetime(2026, 5, 1, 12, tzinfo=UTC)
RULES = SequentialTestRules(0.5, 0, 0.05, 0.05, 0.05, 40, None)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def window(number: int, verdict: str = "ok", evidence: float = 0.4) -> DriftWindow:
    moved = verdict == "drift"
    reason = "shifted in this window: prompt_text" if moved else "none of 12 signals shifted"
    return DriftWindow(
        f"{number:016x}", at(number), at(number + 9), 100, verdict, moved, "r0", "w", reason=reason, evidence=evidence
    )


def retrain() -> RetrainRun:
    facts = {"startsAt": at(95).isoformat(), "labels": {}, "summary": "drift"}
    run = state_machine.new_run(
        "a" * 64,
        1,
        Trigger("alert", "alert-1", at(99.5), "Drift: prompt_text.", "Alertmanager", facts=facts),
        at(100),
        {},
    )
    gate = {
        "verdict": "promote",
        "parts": [
            {
                "name": "slice",
                "items": 30,
                "champion": 30.0,
                "challenger": 55.0,
                "difference": 25.0,
                "low": 18.0,
                "high": 31.5,
            }
        ],
    }
    for second, state, why, told in (
        (100.2, "data_gate", "", {}),
        (101, "training", "101 rows to learn", {"examples": 101, "annotators": 6, "edits": 101, "held_out": 33}),
        (400, "evaluating", "release r1", {"release": "r1"}),
        (460, "staged", "better on the drifted slice", gate),
        (460.1, "canary", "50% of the identities", {"until": at(4000).isoformat()}),
        (540, "promoted", "the challenger is better", {"release": "r1"}),
    ):
        run = state_machine.apply_transition(run, Transition(state, at(second), why, told))
    return run


def experiment(decision: str | None = "promote") -> CanaryRecord:
    reading = CanaryResult(
        "promote", "the challenger is better", 90, 88, 0.4, 0.8, 0.2, 0.6, {"better": 60.0, "harm": 0.1}
    )
    return CanaryRecord(
        "e1", "r1", "r0", "satisfaction", RULES, 0.003, 20, at(460.1), at(4000), "salt", "tunectl retrain controller", "drift", run=retrain().id,
        ended_at=at(539) if decision else None, decision=decision, reading=reading,
    )  # fmt: skip


LOG = [
    ReleaseEvent("add", "r0", at(-90).isoformat()),
    ReleaseEvent("promote", "r0", at(-80).isoformat(), message="what make run built", sequence=1),
    ReleaseEvent("add", "r1", at(400).isoformat()),
    ReleaseEvent("promote", "r1", at(540).isoformat(), message="retrain", previous="r0", sequence=2),
]
