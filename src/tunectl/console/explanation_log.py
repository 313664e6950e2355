"""Read the inference log and its snapshots for explanations: answers of releases, and the data that retrains have frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tunectl.artifacts import names
from tunectl.backends.storage import open_inference_log
from tunectl.console.explanation_steps import ExplanationFact, ExplanationStep, explain_link
from tunectl.console.links import link
from tunectl.console.read_context import stamp_files
from tunectl.inference_log import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from tunectl.artifacts.records import InferenceRecord
    from tunectl.console.read_context import ReadContext
    from tunectl.retraining.run_store import RunStore

SHOWN: Final = 10
"""Number of answers of a snapshot that are listed."""


def describe_snapshot(context: ReadContext, snapshot_facts: dict[str, Any]) -> ExplanationStep:
    """Return a step about the snapshot that a retrain froze; the first of its answers link to their own explanations, where they still exist."""
    facts = [
        ExplanationFact(f"{at:%m-%d %H:%M}", name, explain_link(name))
        for name, at in list(_read_answers(context, snapshot_facts).items())[:SHOWN]
    ]
    return ExplanationStep(
        "rows",
        f"Snapshot {snapshot_facts.get('id', '')} of the inference log",
        f"{snapshot_facts.get('inferences', 0)} answers that people gave feedback on, {snapshot_facts.get('feedback', 0)} pieces of feedback"
        + (f"; the first {SHOWN}:" if len(facts) == SHOWN else ""),
        facts=facts,
    )


def find_newest(context: ReadContext, releases: Sequence[str]) -> dict[str, list[InferenceRecord]]:
    """Return the three newest logged answers of each release; empty where there is no log."""
    root = context.load_settings()
    with open_inference_log.open_if_exists(root.inference_log, context.layout) as log:
        return {} if log is None else {name: log.newest(3, release=name) for name in releases}


def list_retrains_of(context: ReadContext, runs: RunStore, answer: str) -> Iterator[ExplanationStep]:
    """Yield a step for each retrain that trained on the feedback about ``answer``."""
    for run in runs.runs():
        snapshot_facts = run.facts("proposed").get("snapshot")
        if isinstance(snapshot_facts, dict) and answer in _read_answers(context, snapshot_facts):
            yield ExplanationStep(
                "retrain",
                f"Retrain {run.id} froze it, with what people said of it, to learn from",
                f"It is {run.state.replace('_', ' ')}.",
                run.steps[0].at.isoformat(),
                explain_link(run.id),
                [ExplanationFact("the retrain", run.id, link("/retrain/{}", run.id))],
            )


def _read_answers(context: ReadContext, snapshot_facts: dict[str, Any]) -> dict[str, datetime]:
    """Return the ids of the answers of a snapshot, and the time of each request; none where its files were deleted.

    The texts are not shown: somebody may have had theirs erased from the log since.
    """
    name = str(snapshot_facts.get("id", ""))
    section = context.load_settings().feedback.root
    if section.method == "none":
        return {}
    folder = context.layout.root / section.snapshots / name
    stamp = stamp_files([folder / snapshot.MANIFEST])
    if not stamp or not names.is_content_id(name):
        return {}
    return context.cache.get(
        f"snapshot {folder}",
        stamp,
        lambda: {record.id: record.accepted_at for record in snapshot.read_inferences(folder)},
    )
