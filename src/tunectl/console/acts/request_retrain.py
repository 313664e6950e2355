"""Ask the controller for a retrain with the newest traffic and feedback."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tunectl.artifacts import lock
from tunectl.console.act_page import REASON, ActButton, ActField, ActPage, check_unchanged
from tunectl.console.acts.act_errors import ConflictError, require_reason
from tunectl.console.read_context import ReadContext
from tunectl.core.errors import UsageError
from tunectl.retraining import manual_trigger
from tunectl.retraining.run_store import LOCK, RunStore

FORCE = ActField(
    "ignore_limits", "Start although the rest or the weekly budget says no", "checkbox", help="The controller keeps both to spare people and the machine."
)  # fmt: skip


def read(context: ReadContext, form: Mapping[str, str]) -> ActPage:  # noqa: ARG001 - every act is read alike
    """Return the confirmation page of requesting a retrain: who handles the request, and what follows."""
    running = lock.is_locked(context.layout.retrain / LOCK)
    notice = (
        "The retrain controller takes it up within a minute."
        if running
        else "No retrain controller runs here; the request is kept and taken up when one starts."
    )
    return ActPage(
        "Ask for a retrain",
        [
            "A model is trained from what is committed now and the newest feedback, then compared with the champion.",
            notice,
            "Nobody gets the new model before the gate and, where it is declared, the canary have passed.",
        ],
        facts=[
            (f"asked {one.at:%Y-%m-%d %H:%M} UTC, and waits", f"{one.message} ({one.author or one.kind})")
            for one in RunStore(context.layout.retrain).list_pending_triggers()
        ],
        fields=[REASON, FORCE],
        state={"triggers": _digest_triggers(context)},
        scope="operate",
        buttons=[ActButton("yes", "Ask for it")],
        back="/retrain",
        command='tunectl retrain request -m "why"',
    )


def perform(context: ReadContext, form: Mapping[str, str]) -> str:
    """Write a retrain request with the visitor's name to the retrain controller's inbox; return the path to go to.

    Raises  ConflictError where a retrain was asked for meanwhile, also by the same button; UsageError without a reason.
    """
    reason, triggers = require_reason(form), _digest_triggers(context)
    check_unchanged(form, {"triggers": triggers})
    try:
        manual_trigger.request_retrain(
            context.layout,
            reason,
            ignore_limits=form.get("ignore_limits") == "on",
            author=context.visitor,
            name=f"person-{triggers}",  # of two at once, one makes the file
        )
    except UsageError as error:
        raise ConflictError(error.message, hint=error.hint) from error
    return "/retrain"


def _digest_triggers(context: ReadContext) -> str:
    """Return a digest of the ids of all triggers so far; it changes with each new trigger."""
    store = RunStore(context.layout.retrain)
    names = {one.trigger.id for one in store.list_outcomes()} | {one.id for one in store.list_pending_triggers()}
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
