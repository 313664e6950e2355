"""Steps of an explanation. Each step names one thing (an answer, a release, a gate, rows) that led to the explained thing, or that followed from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from tunectl.artifacts.records import truncate
from tunectl.console.links import link
from tunectl.monitoring import window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunectl.artifacts.records import InferenceRecord
    from tunectl.pipeline.run_ledger import RunSummary
    from tunectl.registry.release_manifest import Lineage, ReleaseManifest
    from tunectl.registry.release_state import ReleaseEvent
    from tunectl.retraining.state_machine import RetrainRun

PREVIEW: Final = 400
"""Characters of a text that are shown."""
MAX_ROWS: Final = 50
"""Most raw rows, files and steps that are listed; of the others the number is given."""


class ExplanationFact(Struct, frozen=True):
    """One name and value of a step, with a link to its page where it has one."""

    name: str
    value: str
    link: str = ""


class ExplanationStep(Struct, frozen=True):
    """One step of an explanation: an object (answer, release, gate, rows), facts about it, and links."""

    kind: str
    """``answer``, ``release``, ``settings``, ``gate``, ``decision``, ``retrain``, ``stage``, ``rows``, ``raw``, ``feedback`` ..."""
    title: str
    text: str = ""
    at: str = ""
    link: str = ""
    facts: list[ExplanationFact] = field(default_factory=list)


def describe_retrain(run: RetrainRun) -> ExplanationStep:
    """Return the step of a retrain: its trigger, state, and the champion of that time."""
    champion = str(run.facts("proposed").get("champion") or "")
    facts = [
        ExplanationFact("started by", f"{run.trigger.kind}{f' ({run.trigger.author})' if run.trigger.author else ''}"),
        ExplanationFact("state", run.state),
        ExplanationFact("champion then", champion or "none", explain_link(champion) if champion else ""),
    ]
    return ExplanationStep(
        "retrain",
        f"Retrain {run.id}",
        run.trigger.message,
        run.steps[0].at.isoformat(),
        link("/retrain/{}", run.id),
        facts,
    )


def describe_decision(event: ReleaseEvent) -> ExplanationStep:
    """Return the step of a promotion or other decision about a release: who decided, when and why."""
    title = f"{event.action.replace('_', ' ')} by {event.author or 'somebody'}"
    return ExplanationStep("decision", title, event.message, event.created_at, release_link(event.release))


def describe_settings(release: ReleaseManifest, lineage: Lineage, runs: Sequence[RunSummary]) -> ExplanationStep:
    """Return the step of a release's base model and settings; ``runs``: the summaries of the ledger."""
    commit = (release.git or "").removesuffix("-dirty")
    command = f"git show {commit[:12]}:artifacts/config/sft.json" if commit else "the build had no commit"
    facts = [
        ExplanationFact("run that built it, and the one before", run.id, link("/runs/compare", new=run.id))
        for run in runs
        if run.release == release.id
    ]
    target = facts[0].link if facts else release_link(release.id)
    facts += [ExplanationFact(f"settings of {stage}", digest[:12]) for stage, digest in lineage.configs.items()]
    return ExplanationStep(
        "settings",
        f"Base {lineage.base}, and the settings of {len(lineage.configs)} stages",
        f"Base revision {lineage.revision[:12]}. The settings in full: {command}",
        link=target,
        facts=facts,
    )


def reject_link(stage: str, reason: str) -> str:
    """Return the address of the page with the rows that a stage rejected for a reason."""
    return link("/data/rows", stage=stage, part="rejects", reason=reason)


def describe_learner(release: str, answers: Sequence[InferenceRecord]) -> ExplanationStep:
    """Return the step of a release that was trained on a row, with the newest answers that it gave."""
    facts = [
        ExplanationFact(
            f"answer of {one.accepted_at:%m-%d %H:%M}", truncate(window.last_user_text(one), 80), explain_link(one.id)
        )
        for one in answers
    ]
    facts.append(ExplanationFact("all its answers", "in the inference log", link("/live", release=release)))
    return ExplanationStep(
        "release",
        f"Release {release} learned it",
        "Whether one answer came from this row, nobody can tell: a model mixes all it learned.",
        link=explain_link(release),
        facts=facts if answers else [ExplanationFact("its answers", "the inference log has none")],
    )


def show_value(value: object) -> str:
    """Return a feedback value as text for the page."""
    return "" if value is None else truncate(value if isinstance(value, str) else str(value), PREVIEW)


def release_link(release: str) -> str:
    """Return the address of a release's page in the console."""
    return link("/releases/{}", release)


def explain_link(name: str) -> str:
    """Return the address of the Explain page of an id."""
    return link("/explain", id=name)
