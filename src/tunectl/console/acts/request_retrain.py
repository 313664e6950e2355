"""Ask the controller for a retrain with the newest traffic and feedback."""

from __future__ import annotations

from collections.abc import Mapping

from tunectl.artifacts import lock
from tunectl.console.act_page import REASON, ActButton, ActField, ActPage
from tunectl.console.acts.act_errors import require_reason
from tunectl.console.read_context import ReadContext
from tunectl.retraining import manual_trigger
from tunectl.retraining.run_store import LOCK

FORCE = ActField(
    "ignore_limits", "Start although the rest or the weekly budget says no", "checkbox", help="The controller keeps both to spare people and the machine."
)  # fmt: skip


def read(context: ReadContext, form: Mapping[str, str]) -> ActPage:  # noqa: ARG001 - every act is read alike
    """Return who handles the request, and what follows from it."""
    running = lock.is_locked(context.layout.retrain / LOCK)
    taken = (
        "The retrain controller takes it up within a minute."
        if running
        else "No retrain controller runs here; the request is kept and taken up when one starts."
    )
    return ActPage(
        "Ask for a retrain",
        [
            "A model is trained from what is committed now and the newest feedback, then compared with the champion.",
            taken,
            "Nobody gets the new model before the gate and, where it is declared, the canary have passed.",
        ],
        fields=[REASON, FORCE],
        scope="operate",
        buttons=[ActButton("yes", "Ask for it")],
        back="/retrain",
        command='tunectl retrain request -m "why"',
    )


def perform(context: ReadContext, form: Mapping[str, str]) -> str:
    """Write the request into the controller's inbox, with the visitor's name."""
    manual_trigger.request_retrain(
        context.layout, require_reason(form), ignore_limits=form.get("ignore_limits") == "on", author=context.visitor
    )
    return "/retrain"
