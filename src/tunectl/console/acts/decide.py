"""Answer a question of the retrain controller: retrain or not, promote or not."""

from __future__ import annotations

from collections.abc import Mapping

from tunectl.console.act_page import REASON, ActButton, ActPage, check_unchanged
from tunectl.console.acts.act_errors import ConflictError, require_reason
from tunectl.console.read_context import NotFoundError, ReadContext
from tunectl.console.screens.retrain import PendingDecision, list_waiting
from tunectl.core.errors import UsageError
from tunectl.retraining import approvals
from tunectl.retraining.run_store import ApprovalDecision, RunStore


def _find_question(context: ReadContext, form: Mapping[str, str]) -> PendingDecision:
    store = RunStore(context.layout.retrain)
    runs, name = store.runs(), form.get("run", "")
    for one in list_waiting(store, runs, context.now):
        if one.run == name:
            return one
    if all(run.id != name for run in runs):
        raise NotFoundError(name)
    raise ConflictError(
        "this approval is not open: it was decided, or its time is over",
        hint="the page Decisions lists those that are open",
    )


def read(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the confirmation page of an approval that a retrain waits for: what approving and rejecting mean.

    Raises  ConflictError where the approval was decided, or its time is over; NotFoundError where no such run exists.
    """
    one = _find_question(context, form)
    yes = (
        "Yes: a new model is trained from this data. It is compared with the champion before anybody gets it."
        if one.question == "retrain"
        else "Yes: the new release becomes the champion, and every server of this registry loads it. It can be rolled back."
    )
    return ActPage(
        one.title,
        [one.why, yes, f"No: the champion stays. {one.if_nobody}"],
        facts=[*one.facts, ("until", f"{one.until:%Y-%m-%d %H:%M} UTC")],
        fields=[REASON],
        state={"question": one.question, "nonce": one.nonce},
        scope="decide",
        buttons=[ActButton("yes", one.yes), ActButton("no", one.no, "danger")],
        back="/decisions",
    )


def perform(context: ReadContext, form: Mapping[str, str]) -> str:
    """Record the approval or rejection under the visitor's name, for the retrain controller; return the path to go to.

    Raises  ConflictError where somebody has decided meanwhile; NotFoundError where no such run exists; ApiError (403) where ``retrain.approval.people`` names others;
            UsageError without a reason, or for an answer that is neither yes nor no.
    """
    one = _find_question(context, form)
    check_unchanged(form, {"question": one.question, "nonce": one.nonce})
    approvals.check_person(context.visitor, context.load_settings().retrain.approval.people)
    if form.get("answer") not in ("yes", "no"):
        raise UsageError(
            f"answer = {form.get('answer', '')[:40]!r}: must be yes or no",
            hint="open the page again, and press one of its buttons",
        )
    reason = require_reason(form)
    decision = ApprovalDecision(form["answer"] == "yes", context.now, context.visitor, one.nonce, reason)
    if not RunStore(context.layout.retrain).record_decision(one.run, one.question, decision):
        raise ConflictError(
            "somebody has decided meanwhile; your answer does not count",
            hint="the page Decisions shows what was decided",
        )
    return f"/retrain/{one.run}"
