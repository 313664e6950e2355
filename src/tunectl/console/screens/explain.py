"""Screen Explain: everything that led to an answer, a row, a release or a retrain, and everything that followed from it, on one page.

``tunectl explain ID --json`` prints the same struct.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct, field

from tunectl.artifacts.records import Feedback, InferenceRecord, truncate
from tunectl.backends.storage import open_inference_log
from tunectl.console.explanation_log import describe_snapshot, find_newest, list_retrains_of
from tunectl.console.explanation_steps import (
    MAX_ROWS,
    PREVIEW,
    ExplanationFact,
    ExplanationStep,
    describe_decision,
    describe_learner,
    describe_retrain,
    describe_settings,
    explain_link,
    reject_link,
    release_link,
    show_value,
)
from tunectl.console.links import link
from tunectl.console.read_context import ProblemList
from tunectl.core.errors import UsageError
from tunectl.monitoring import window
from tunectl.pipeline import lineage_trace, run_ledger
from tunectl.registry import release_state
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext
    from tunectl.pipeline.lineage_trace import RowStep
    from tunectl.registry.release_manifest import ReleaseManifest
    from tunectl.retraining.state_machine import RetrainRun

SubjectKind = Literal["answer", "release", "retrain", "row", "nothing"]
MIN_PREFIX: Final = 4
"""Shortest beginning of an id, in characters."""
EXAMPLE: Final = "an answer (chatcmpl-...), a release, a retrain, or a row (its id, or FILE:ROW)"


class ExplainScreen(Struct, frozen=True):
    """Content of the screen Explain: steps that led to one answer, row, release or retrain, and steps that followed from it."""

    id: str
    kind: SubjectKind
    title: str
    summary: str
    behind: list[ExplanationStep] = field(default_factory=list)
    """Steps from the thing itself back to the raw data."""
    after: list[ExplanationStep] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """What is not known, and why; one sentence each."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why a part cannot be read, by part."""


def read_explain(context: ReadContext, query: Mapping[str, str]) -> ExplainScreen:
    """Return the steps before and after ``query["id"]``; an unknown id is reported on the page, not raised."""
    name = query.get("id", "").strip()
    if not name:
        return ExplainScreen("", "nothing", "Explain", f"Give the id of {EXAMPLE}.")
    return _Explanation(context, name).build()


class _Explanation:
    """One explanation while it is built."""

    def __init__(self, context: ReadContext, name: str) -> None:
        self.context, self.layout, self.name = context, context.layout, name
        self.store, self.runs = ReleaseRegistry(self.layout.releases), RunStore(self.layout.retrain)
        self.problems = ProblemList()
        self.unknown: list[str] = []
        self.behind: list[ExplanationStep] = []
        self.after: list[ExplanationStep] = []

    def build(self) -> ExplainScreen:
        """Find what the id is, and follow it in both directions."""
        kind, title, summary = self._follow()
        return ExplainScreen(
            self.name, kind, title, summary, self.behind, self.after, self.unknown, self.problems.problems
        )

    def _follow(self) -> tuple[SubjectKind, str, str]:
        run = self.problems.attempt("retrains", self._find_run, None)
        if run is not None:
            return self._explain_retrain(run)
        release = self.problems.attempt("releases", self._find_release, None)
        if release is not None:
            return self._explain_release(release)
        answer = self.problems.attempt("inference log", self._find_answer, None) if "-" in self.name else None
        if answer is not None:
            return self._explain_answer(*answer)
        steps: list[RowStep] = self.problems.attempt(
            "rows", lambda: list(lineage_trace.trace_row(self.layout, self.name)), []
        )
        if steps:
            return self._explain_row(steps)
        self.unknown.append(
            f"No answer, release, retrain or row is called {self.name}. An answer may have been deleted after "
            "inference_log.retention_days; rows are those of the last build."
        )
        return "nothing", self.name, f"Nothing of that name is known. Give the id of {EXAMPLE}."

    def _find_run(self) -> RetrainRun | None:
        matches = [run for run in self.runs.runs() if len(self.name) >= MIN_PREFIX and run.id.startswith(self.name)]
        exact = [run for run in matches if run.id == self.name]
        if not exact and len(matches) != 1:
            return None
        self.name = (exact or matches)[0].id
        return (exact or matches)[0]

    def _find_release(self) -> ReleaseManifest | None:
        if self.name not in {"champion", "previous", "challenger"} and len(self.name) < MIN_PREFIX:
            return None
        try:
            self.name = self.store.find(self.name)
        except UsageError:
            return None
        return self.store.manifest(self.name)

    def _find_answer(self) -> tuple[InferenceRecord, list[Feedback]] | None:
        root = self.context.load_settings()
        with open_inference_log.open_if_exists(root.inference_log, self.layout) as log:
            record = None if log is None else open_inference_log.inference(log, self.name)
            if log is None or record is None:
                return None
            self.name = record.id
            self.context.log_opened(record.id)
            return record, log.feedback_of([record.id]).get(record.id, [])

    def _explain_answer(self, record: InferenceRecord, feedback: list[Feedback]) -> tuple[SubjectKind, str, str]:
        self.behind.append(
            ExplanationStep(
                "answer",
                f"Answer {record.id}",
                truncate(window.answer_text(record) or "", PREVIEW),
                record.accepted_at.isoformat(),
                link("/live/{}", record.id),
                [
                    ExplanationFact("question", truncate(window.last_user_text(record), PREVIEW)),
                    ExplanationFact(
                        "answered by",
                        f"{record.variant}, release {record.release}",
                        self.context.find_release_link(record.release),
                    ),
                    ExplanationFact("chat template", record.template_hash[:12]),
                    ExplanationFact("ended with", record.finish_reason or "it has not ended"),
                ],
            )
        )
        if record.erased_at is not None:
            self.unknown.append(f"The text of this answer was erased on {record.erased_at:%Y-%m-%d}.")
        self._add_release_behind(record.release)
        for one in feedback:
            self.after.append(
                ExplanationStep(
                    "feedback",
                    f"Feedback: {one.kind}",
                    show_value(one.value),
                    one.created_at.isoformat(),
                    link("/live/{}", record.id),
                )
            )
        if not feedback:
            self.unknown.append("Nobody gave feedback on this answer.")
        retrain_steps: list[ExplanationStep] = self.problems.attempt(
            "snapshots", lambda: list(list_retrains_of(self.context, self.runs, record.id)), []
        )
        self.after += retrain_steps
        steps: list[RowStep] = self.problems.attempt(
            "rows", lambda: list(lineage_trace.trace_row(self.layout, self.name)), []
        )
        self._add_row_after(steps, "Nothing was learned from this answer in the build at hand.")
        return (
            "answer",
            f"Answer {record.id}",
            f"Release {record.release} gave this answer on {record.accepted_at:%Y-%m-%d %H:%M} UTC.",
        )

    def _add_release_behind(self, release: str) -> None:
        release_ids: list[str] = self.problems.attempt("releases", self.store.ids, [])
        if release not in release_ids:
            self.unknown.append(
                f"Release {release} is not in this registry: it was the base model, or it lies in another one."
            )
            return
        manifest = self.problems.attempt(f"release {release}", lambda: self.store.manifest(release), None)
        if manifest is not None:
            self._add_release(manifest)

    def _explain_release(self, release: ReleaseManifest) -> tuple[SubjectKind, str, str]:
        self._add_release(release)
        self.problems.attempt("after", lambda: self._add_release_after(release), None)
        pointer = self.problems.attempt("champion", self.store.champion, None)
        role = f"It is {'' if pointer is not None and pointer.release == release.id else 'not '}the champion."
        return "release", f"Release {release.id}", f"Built on {release.created_at[:16].replace('T', ' ')} UTC. {role}"

    def _add_release(self, release: ReleaseManifest) -> None:
        facts = [
            ExplanationFact("commit", release.git or "none: it was built outside Git"),
            ExplanationFact("engine", f"{release.engine}, {release.layout}"),
            *(ExplanationFact(name, f"{value:g}") for name, value in list(release.metrics.items())[:6]),
        ]
        if release.parent:
            facts.append(ExplanationFact("champion before it", release.parent, explain_link(release.parent)))
        self.behind.append(
            ExplanationStep("release", f"Release {release.id}", "", release.created_at, release_link(release.id), facts)
        )
        self._add_gate(release)
        self.problems.attempt("decisions", lambda: self.behind.extend(self._list_decisions(release.id)), None)
        self.problems.attempt("retrains", lambda: self._add_retrain_of(release.id), None)
        self._add_settings(release)
        self.problems.attempt("rows", lambda: self._add_rows_of(release), None)

    def _add_gate(self, release: ReleaseManifest) -> None:
        for stage, verdict in release.verdicts.items():
            state = "passed" if verdict.passed else "did not pass"
            self.behind.append(
                ExplanationStep("gate", f"Gate of {stage}: {state}", verdict.reason, link=release_link(release.id))
            )
        if not release.verdicts:
            self.unknown.append(f"No gate judged release {release.id}: its build had no evaluate stage.")

    def _list_decisions(self, release: str) -> Iterator[ExplanationStep]:
        history = [event for event in self.store.log() if event.release == release]
        events = [event for event in history if event.action not in release_state.ADDITIONS]
        for event in events:
            yield describe_decision(event)
        if not events:
            self.unknown.append(f"Nobody decided anything about release {release} yet.")

    def _add_retrain_of(self, release: str) -> None:
        run = next((one for one in self.runs.runs() if one.facts("evaluating").get("release") == release), None)
        if run is not None:
            self.behind.append(describe_retrain(run))

    def _add_settings(self, release: ReleaseManifest) -> None:
        lineage = release.lineage
        if lineage is None:
            self.unknown.append(f"Release {release.id} does not say what it was made of.")
            return
        names: list[str] = self.problems.attempt("runs", lambda: run_ledger.list_runs(self.layout), [])
        self.behind.append(
            describe_settings(release, lineage, run_ledger.read_summaries(self.layout, names[:MAX_ROWS])[0])
        )

    def _add_rows_of(self, release: ReleaseManifest) -> None:
        if not lineage_trace.is_split_of_release(self.layout, release):
            commit = (release.git or "").removesuffix("-dirty")
            way = (
                f"Get them: git checkout {commit[:12]}; dvc checkout"
                if commit
                else "Its build had no commit to go back to."
            )
            self.unknown.append(f"The rows of release {release.id} are not the ones at hand. {way}")
            return
        files = lineage_trace.count_rows_by_file(self.layout)
        facts = [
            ExplanationFact(
                name,
                ", ".join(f"{count} {part}" for part, count in counts.items()),
                link("/data/rows", stage="split", source=name),
            )
            for name, counts in list(files.items())[:MAX_ROWS]
        ]
        total = sum(counts.get("train", 0) for counts in files.values())
        self.behind.append(
            ExplanationStep(
                "rows",
                f"{total:,} answers of {len(files)} raw files were trained on",
                link=link("/data/rows", stage="split"),
                facts=facts,
            )
        )

    def _add_release_after(self, release: ReleaseManifest) -> None:
        children = [name for name in self.store.ids() if self.store.manifest(name).parent == release.id]
        for name in children[:MAX_ROWS]:
            self.after.append(
                ExplanationStep("release", f"Release {name} was compared with it", link=explain_link(name))
            )
        root = self.context.load_settings()
        with open_inference_log.open_if_exists(root.inference_log, self.layout) as log:
            newest = [] if log is None else log.newest(MAX_ROWS, release=release.id)
        if newest:
            count = f"{MAX_ROWS} or more" if len(newest) == MAX_ROWS else str(len(newest))
            self.after.append(
                ExplanationStep(
                    "answer",
                    f"It gave {count} answers, the newest on {newest[0].accepted_at:%Y-%m-%d %H:%M} UTC",
                    link=link("/live", release=release.id),
                    facts=[
                        ExplanationFact(
                            f"{one.accepted_at:%m-%d %H:%M}",
                            truncate(window.last_user_text(one), 80),
                            explain_link(one.id),
                        )
                        for one in newest[:10]
                    ],
                )
            )
        else:
            self.unknown.append(f"The inference log holds no answer of release {release.id}.")

    def _explain_retrain(self, run: RetrainRun) -> tuple[SubjectKind, str, str]:
        self.behind.append(describe_retrain(run))
        proposed = run.facts("proposed")
        drift = proposed.get("window")
        if isinstance(drift, dict):
            self.behind.append(
                ExplanationStep(
                    "drift",
                    f"Drift window {drift.get('id', '')}",
                    str(drift.get("reason", "")),
                    link=link("/drift/{}", str(drift.get("id", ""))),
                )
            )
        snapshot_facts = proposed.get("snapshot")
        if isinstance(snapshot_facts, dict):
            step = self.problems.attempt("snapshot", lambda: describe_snapshot(self.context, snapshot_facts), None)
            self.behind += [step] if step is not None else []
        else:
            self.unknown.append("No snapshot of live traffic was taken for this retrain.")
        for question in ("retrain", "promote"):
            decision = self.runs.get_decision(run.id, question)
            if decision is not None:
                outcome = "approved" if decision.approved else "refused"
                self.behind.append(
                    ExplanationStep(
                        "decision",
                        f"{question}: {outcome} by {decision.author or 'somebody'}",
                        "",
                        decision.at.isoformat(),
                        link("/retrain/{}", run.id),
                    )
                )
        release = (run.facts("evaluating") or run.facts("rejected")).get("release")
        if release:
            self.after.append(
                ExplanationStep("release", f"It built release {release}", link=explain_link(str(release)))
            )
            self.problems.attempt("decisions", lambda: self.after.extend(self._list_decisions(str(release))), None)
        else:
            self.unknown.append("This retrain has built no release.")
        return (
            "retrain",
            f"Retrain {run.id}",
            f"It is {run.state.replace('_', ' ')}. {run.steps[-1].message or run.trigger.message}",
        )

    def _explain_row(self, steps: list[RowStep]) -> tuple[SubjectKind, str, str]:
        sources = list(dict.fromkeys(step.source for step in steps if step.source))
        self.behind.append(
            ExplanationStep(
                "raw",
                "Raw data",
                "",
                facts=[
                    ExplanationFact("file and row", source, explain_link(source) if source != self.name else "")
                    for source in sources[:MAX_ROWS]
                ],
            )
        )
        self._add_row_after(steps, "No release learned this row: the split at hand does not train on it.")
        return "row", f"Row {self.name}", f"{len(steps)} steps of the last build hold it."

    def _add_row_after(self, steps: list[RowStep], otherwise: str) -> None:
        for step in steps[:MAX_ROWS]:
            what = f"kept as {step.id}" if step.what == "kept" else f"rejected: {step.what.replace('_', ' ')}"
            target = link("/data/rows/{}", step.id) if step.what == "kept" else reject_link(step.stage, step.what)
            self.after.append(
                ExplanationStep(
                    "stage",
                    f"{step.stage}: {what}",
                    step.detail,
                    link=target,
                    facts=[ExplanationFact("file", step.file), ExplanationFact("source", step.source)],
                )
            )
        if len(steps) > MAX_ROWS:
            self.unknown.append(f"{len(steps) - MAX_ROWS} more steps are not listed here.")
        learners: list[str] = self.problems.attempt(
            "releases", lambda: lineage_trace.list_learning_releases(self.store, self.layout, steps), []
        )
        newest: dict[str, list[InferenceRecord]] = self.problems.attempt(
            "inference log", lambda: find_newest(self.context, learners), {}
        )
        self.after += [describe_learner(name, newest.get(name, [])) for name in learners]
        if not learners:
            self.unknown.append(otherwise)
