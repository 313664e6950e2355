"""The pages of the retrain controller: all retrains, one of them, and the approval page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from tunectl.backends.reports import render
from tunectl.canary.canary_store import CanaryStore
from tunectl.core.errors import UsageError
from tunectl.retraining import approvals, report, signed_links
from tunectl.retraining.run_store import ApprovalDecision, RunStore
from tunectl.retraining.signed_links import ApprovalToken
from tunectl.retraining.state_machine import RetrainRun

NEWEST = 200


class ApprovalPages:
    """Renders the controller's HTML pages from the run store, and stores the decisions that people make on them."""

    def __init__(
        self, store: RunStore, canaries: CanaryStore, project: str, secret: bytes, cost: Callable[[], str]
    ) -> None:
        """``cost`` describes the cost of a retrain."""
        self._store, self._canaries, self._project, self._secret, self._cost = store, canaries, project, secret, cost

    def index(self) -> str:
        """Return the HTML page of all retrains."""
        return runs_page(self._store, self._canaries, self._project, linked=True)

    def run(self, name: str) -> str | None:
        """Return the HTML page of the retrain with id ``name``; None where there is none."""
        run = next((item for item in self._store.runs() if item.id == name), None)
        if run is None:
            return None
        retrain_report = self._build_report(run)
        return render.render(
            "retrain.html",
            project=self._project,
            report=retrain_report,
            back=True,
            tiles=[(run.state, "state"), (retrain_report.began, "began"), (run.trigger.kind, "started by")],
            sections=[(section.name, section.title) for section in retrain_report.sections],
        )

    def _build_report(self, run: RetrainRun) -> report.RetrainReport:
        return report.build_report(run, next((item for item in self._canaries.all() if item.run == run.id), None))

    def check_link(self, token: str, now: datetime) -> ApprovalToken:
        """Verify an approval link and return its content: run, question and expiry time.

        Raises  UsageError for an invalid or expired link.
        """
        return signed_links.verify(token, self._secret, now)

    def decide(self, token: str, now: datetime, decision: ApprovalDecision | None = None, trouble: str = "") -> str:
        """Return the HTML page of an approval link; where ``decision`` is given, it is stored first. ``trouble``: an error to show.

        Raises  UsageError for an invalid or expired link, or for an approval that is not pending.
        """
        approval = self.check_link(token, now)
        run = next((item for item in self._store.runs() if item.id == approval.run), None)
        if run is None:
            raise UsageError(
                f"this link is for retrain {approval.run}, which does not exist here",
                hint="tunectl release log lists the retrains of a project",
            )
        outcome = self._record(run, approval, decision)
        retrain_report, (yes, no) = self._build_report(run), signed_links.BUTTONS[approval.question]
        return render.render(
            "decide.html",
            heading=f"{yes} {self._project}?",
            why=self._why(run, approval) or retrain_report.why,
            report=retrain_report,
            outcome=outcome,
            trouble=trouble,
            yes=yes,
            no=no,
            until=f"{datetime.fromtimestamp(approval.until, UTC):%Y-%m-%d %H:%M}",
            tiles=self._promotion(run) if approval.question == "promote" else self._retrain(run),
            sections=[(section.name, section.title) for section in retrain_report.sections],
        )

    def _record(self, run: RetrainRun, token: ApprovalToken, decision: ApprovalDecision | None) -> str:
        """Return the text about a decision: empty while the question is open."""
        if decision is not None:
            decision = replace(decision, nonce=token.nonce)
            if approvals.record(self._store, run, token.question, decision):
                return f"Thank you, {decision.author}: {'yes' if decision.approved else 'no'}."
        return approvals.find_obstacle(self._store, run, token.question, token.nonce)

    @staticmethod
    def _why(run: RetrainRun, token: ApprovalToken) -> str:
        """Return the evidence for a promotion; for a retrain the run has its own."""
        steps = [step for step in run.steps if step.facts.get("nonce") == token.nonce]
        return str(steps[-1].facts.get("message", "")) if steps else ""

    def _retrain(self, run: RetrainRun) -> list[tuple[str, str]]:
        frozen: dict[str, Any] = run.facts("proposed").get("snapshot", {})
        data: dict[str, Any] = run.facts("awaiting_approval").get("data", {})
        rows = [(str(data["examples"]), "rows to learn")] if "examples" in data else []
        return [
            (run.trigger.kind, "started by"),
            (str(frozen.get("inferences", 0)), "inferences with feedback"),
            *rows,
            (self._cost(), "cost"),
        ]

    @staticmethod
    def _promotion(run: RetrainRun) -> list[tuple[str, str]]:
        learned = run.facts("training")
        return [
            (str(run.facts("evaluating").get("release", "")), "new release"),
            (str(run.facts("proposed").get("champion", "")), "champion"),
            *([(str(learned["examples"]), "rows learned")] if "examples" in learned else []),
        ]


def runs_page(store: RunStore, canaries: CanaryStore, project: str, *, linked: bool) -> str:
    """Return the HTML page of all retrains; ``linked`` where each has a page of its own, else their steps are listed below."""
    runs, outcomes = store.runs()[::-1][:NEWEST], store.list_outcomes()
    active = next((run for run in runs if not run.ended), None)
    promoted = [run for run in runs if run.state == "promoted"]
    by_run = {item.run: item for item in canaries.all() if item.run}
    rows = [
        {
            "began": f"{r.steps[0].at:%Y-%m-%d %H:%M}",
            "id": r.id,
            "kind": r.trigger.kind,
            "state": r.state,
            "why": r.trigger.message,
        }
        for r in runs
    ]
    suppressed = [
        (f"{item.at:%Y-%m-%d %H:%M}", item.trigger.kind, item.reason, item.detail)
        for item in outcomes[::-1]
        if item.reason
    ][:NEWEST]
    reports = [] if linked else [report.build_report(run, by_run.get(run.id)) for run in runs]
    return render.render(
        "retrains.html",
        project=project,
        summary=f"{active.id} is {active.state}" if active else "nothing runs",
        tiles=[
            (str(len(runs)), "retrains"),
            (str(len(promoted)), "promoted"),
            (str(len(suppressed)), "started nothing"),
        ],
        runs=rows,
        linked=linked,
        suppressed=suppressed,
        reports=reports,
        sections=[
            ("runs", "Retrains"),
            ("suppressed", "What started nothing"),
            *((item.id, item.id) for item in reports),
        ],
    )
