"""Start a build in the background, and stop the one that runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from msgspec import structs

from tunectl.artifacts.lock import LockTimeoutError
from tunectl.backends.reports.render import raise_first
from tunectl.console.act_page import REASON, ActButton, ActField, ActPage, check_unchanged
from tunectl.console.acts import build_settings
from tunectl.console.acts.act_errors import ConflictError, require_reason
from tunectl.console.build_state import find_running_stage, sum_last_seconds
from tunectl.console.read_context import ProblemList, ReadContext
from tunectl.console.screens import plan
from tunectl.pipeline import background_build
from tunectl.pipeline.background_build import BuildStop

WAIT = "wait until it ends, or stop it: on the page Build, or by Ctrl-C where it was started"


def show_start(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the confirmation page of a build: which stages would run and why, with the settings that were typed so far."""
    reason = plan.find_obstacle(context)
    if reason:
        return ActPage("Start a build", [reason], back="/build", scope="operate")
    settings = form.get("settings", "") if "operate" in context.scopes else ""
    overrides = build_settings.parse_settings(settings)
    build_settings.check_protected(context.layout, overrides)
    problems = ProblemList()
    planned = plan.plan_build(context, overrides, plan.list_stages(context, overrides), problems)
    duration = sum_last_seconds([(stage.stage, stage.last_seconds) for stage in planned.pending]).text
    consequences = [
        f"{len(planned.pending)} of {planned.total} stages would run; each stage after them runs where what it reads changes."
        if planned.pending
        else "Every stage is up to date, so a build would only look.",
        "Settings that you type are recorded in conf/overrides.yaml, and hold for later builds, too.",
        *([f"{raise_first(duration)}."] if duration else []),
        *planned.totals,
        *(f"Tokens, memory and minutes cannot be told: {problem}." for problem in problems.problems.values()),
        f"The speed of this machine was not measured for that: {_join_command('tunectl estimate', overrides)} times a layer of the model first.",
        "It goes on when you close this page or the console. Nothing goes live by it, except a first release.",
    ]
    return ActPage(
        "Start a build",
        consequences,
        facts=[(stage.stage, stage.text) for stage in planned.stages],
        fields=[
            structs.replace(REASON, value=form.get("reason", "")),
            ActField("settings", "Settings for it", value=settings, help="key=value, with spaces between several; may be empty."),
        ],
        state={"pending": _list_pending(context)},
        buttons=[ActButton("start", "Start the build"), ActButton("preview", "Show what would run", "", checked=False)],
        back="/build",
        command=_join_command("tunectl repro", overrides),
        scope="operate",
    )  # fmt: skip


def start(context: ReadContext, form: Mapping[str, str]) -> str | ActPage:
    """Start a build in the background and return the path to go to; for ``answer=preview`` return the page with the typed settings applied.

    Raises  ConfigError naming every mistake of the settings; MissingExtraError; ConflictError where a build runs or the project
            changed; UsageError without a reason.
    """
    from tunectl.config.loading import checks
    from tunectl.core.optional import require_all
    from tunectl.pipeline.required_extras import list_build_packages

    overrides = build_settings.parse_settings(form.get("settings", ""))
    if form.get("answer") == "preview":
        return show_start(context, form)
    build_settings.check_protected(context.layout, overrides)
    reason = require_reason(form)
    require_all(list_build_packages(checks.load_project_config(context.layout, overrides).root, ()))
    refusal = plan.find_obstacle(context)
    if refusal:
        raise ConflictError(
            refusal, hint=WAIT if context.recording is None else "build in a project of your own: tunectl init"
        )
    check_unchanged(form, {"pending": _list_pending(context)})
    try:
        background_build.start_build(context.layout, overrides, author=context.visitor, reason=reason)
    except LockTimeoutError as error:
        raise ConflictError(plan.RUNNING, hint=WAIT) from error
    return "/build"


def show_stop(context: ReadContext, form: Mapping[str, str]) -> ActPage:  # noqa: ARG001 - every act is read alike
    """Return the confirmation page of stopping the running build: the stage that runs, and what is kept of it."""
    process, stage = background_build.find_build(context.layout), find_running_stage(context)
    if process is None:
        consequence = (
            f"The stage {stage} was started by dvc repro or tunectl run: press Ctrl-C there."
            if stage
            else "No build runs."
        )
        return ActPage("Stop the build", [consequence], back="/build", scope="operate")
    request = background_build.read_request(context.layout, process)
    facts = [("stage", stage or "between two stages"), ("process", str(process))]
    facts += [("started by", request.author), ("why", request.reason)] if request else [("started", "in a terminal")]
    return ActPage(
        "Stop the build",
        [
            "It is interrupted as by Ctrl-C. Finished stages are kept. Runs shows who stopped it, and why.",
            "The next build goes on: a training from its last checkpoint, another stage from its beginning.",
        ],
        facts=facts,
        fields=[REASON],
        state={"process": str(process)},
        buttons=[ActButton("stop", "Stop the build", "danger")],
        back="/build",
        scope="operate",
    )


def stop(context: ReadContext, form: Mapping[str, str]) -> str:
    """Interrupt the build that the confirmation page showed; return the path to go to.

    Raises  ConflictError where that one has ended; UsageError without a reason; InfrastructureError where it runs elsewhere.
    """
    reason = require_reason(form)
    process = background_build.find_build(context.layout)
    check_unchanged(form, {"process": str(process or "")})
    if process is not None:
        background_build.stop_build(context.layout, BuildStop(process, context.visitor, reason))
    return "/build"


def _join_command(verb: str, overrides: Sequence[str]) -> str:
    return " ".join([verb, *map(shlex.quote, overrides)])


def _list_pending(context: ReadContext) -> str:
    """Return the stages that a build without further settings would run: the state that the form carries."""
    return " ".join(stage.stage for stage in context.list_stages() if stage.state in {"stale", "not built"})
