"""Let the models write questions for people in the background, and stop that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunectl.artifacts import lock
from tunectl.artifacts.lock import LockTimeoutError
from tunectl.console.act_page import REASON, ActButton, ActPage, check_unchanged
from tunectl.console.acts.act_errors import ConflictError, require_reason
from tunectl.console.read_context import ReadContext
from tunectl.core.logging_setup import get_logger
from tunectl.pipeline import background_build, background_prepare
from tunectl.preferences import annotation_store

TITLE, STOP_TITLE = "Prepare questions", "Stop preparing questions"
COMMAND = "tunectl annotate prepare"


def show_start(context: ReadContext, form: Mapping[str, str]) -> ActPage:  # noqa: ARG001 - every act is read alike
    """Return the confirmation page: which models would answer how many inputs, and what follows."""
    obstacle = _describe_obstacle(context)
    if obstacle:
        return ActPage(TITLE, [obstacle], back="/people", command=COMMAND, scope="operate")
    prepare = context.load_settings().annotate.prepare
    store = _find_store(context)
    return ActPage(
        TITLE,
        [
            "The models write two answers to each input; people choose the better one on the page for comparing answers.",
            "Until it ends that page cannot be opened. To have both at once: tunectl annotate --generate, in a terminal.",
            "It loads the models, so it takes minutes and their memory. It goes on when you close this page or the console.",
            "Questions that exist stay; inputs whose answers are alike or empty are left out.",
        ],
        facts=[
            ("inputs (annotate.prepare.inputs)", f"{prepare.inputs}, drawn from {prepare.part}"),
            ("answers by (annotate.prepare.systems)", " and ".join(prepare.systems)),
            ("questions so far", str(annotation_store.count_tasks(store))),
        ],
        fields=[REASON],
        state={"questions": str(annotation_store.count_tasks(store))},
        buttons=[ActButton("start", TITLE)],
        back="/people",
        command=COMMAND,
        scope="operate",
    )


def start(context: ReadContext, form: Mapping[str, str]) -> str:
    """Start the preparation in the background; return the path to go to.

    Raises  ConflictError where it cannot start, or there are other questions by now; MissingExtraError; UsageError without a reason.
    """
    from tunectl.core.optional import RequiredPackage, require_all
    from tunectl.pipeline.required_extras import MODEL

    reason = require_reason(form)
    obstacle = _describe_obstacle(context)
    if obstacle:
        raise ConflictError(obstacle)
    require_all(RequiredPackage(package, "train", "annotate prepare") for package in MODEL)
    store = _find_store(context)
    check_unchanged(form, {"questions": str(annotation_store.count_tasks(store))})
    try:
        background_prepare.start_prepare(context.layout, store, author=context.visitor, reason=reason)
    except LockTimeoutError as error:
        raise ConflictError(error.message, hint=error.hint) from error
    return "/people"


def show_stop(context: ReadContext, form: Mapping[str, str]) -> ActPage:  # noqa: ARG001 - every act is read alike
    """Return the confirmation page of stopping the preparation, and what is kept of it."""
    process = background_prepare.find_prepare(_find_store(context))
    if process is None:
        return ActPage(STOP_TITLE, ["No questions are being prepared."], back="/people", scope="operate")
    return ActPage(
        STOP_TITLE,
        [
            "It is interrupted as by Ctrl-C. Questions that were written stay.",
            "The next preparation goes on with the inputs that have no answers yet.",
        ],
        facts=[("process", str(process))],
        fields=[REASON],
        state={"process": str(process)},
        buttons=[ActButton("stop", STOP_TITLE, "danger")],
        back="/people",
        scope="operate",
    )


def stop(context: ReadContext, form: Mapping[str, str]) -> str:
    """Interrupt the preparation that the confirmation page showed; return the path to go to.

    Raises  ConflictError where that one has ended; UsageError without a reason; InfrastructureError where it runs elsewhere.
    """
    reason = require_reason(form)
    process = background_prepare.find_prepare(_find_store(context))
    check_unchanged(form, {"process": str(process or "")})
    if process is not None:
        get_logger(__name__).info("%s stops the preparation, process %s: %s", context.visitor, process, reason)
        background_build.interrupt(process, "prepare")
    return "/people"


def _find_store(context: ReadContext) -> Path:
    return context.layout.root / context.load_settings().annotate.store


def _describe_obstacle(context: ReadContext) -> str:
    """Return why no questions can be prepared now; empty where they can."""
    if context.recording is not None:
        return "This project was recorded without its weights, so no model can answer here."
    store, prepare = _find_store(context), context.load_settings().annotate.prepare
    if background_prepare.find_prepare(store) is not None:
        return "Questions are being prepared already."
    if lock.is_locked(store / annotation_store.LOCK):
        return "The page for comparing answers is open, and only one process may write questions: close it first."
    absent = [
        stage
        for stage in dict.fromkeys(("model", "split", *prepare.systems))
        if not (context.layout.artifact(stage) / "manifest.json").is_file()
    ]
    return f"Not built yet: {', '.join(absent)}. Start a build first." if absent else ""
