"""Screen Home: what needs a person, the last verdict, the champion, the build as a strip, and the last day."""

from __future__ import annotations

from msgspec import Struct, field

from tunectl.console.build_state import StageNode, list_nodes
from tunectl.console.read_context import ProblemList, ReadContext
from tunectl.status import collect, status_text
from tunectl.status.status_report import StatusReport


class NextStep(Struct, frozen=True):
    """The recommended next action, and its command."""

    text: str
    command: str
    link: str = ""


class HomeScreen(Struct, frozen=True):
    """Content of the screen Home: build, last verdict, status of the services, and the next step."""

    project: str
    verdict: str | None
    """Verdict of the last evaluation; None before the first."""
    passed: bool | None
    stages: list[StageNode]
    status: StatusReport | None
    loop: list[tuple[str, str]]
    """Rows of ``tunectl status``: part and text."""
    next: NextStep | None
    problems: dict[str, str] = field(default_factory=dict)


def read_home(context: ReadContext, query: object) -> HomeScreen:  # noqa: ARG001 - every reader is called alike
    """Return the state of the stages, the last verdict, the status of the services and the recommended next step."""
    problems = ProblemList()
    stages = list_nodes(context, problems)
    settings = problems.attempt("settings", context.load_settings, None)
    status = (
        problems.attempt("loop", lambda: collect.collect_status(context.layout, settings, context.now), None)
        if settings is not None
        else None
    )
    evaluated = next((node for node in stages if node.stage == "evaluate"), None)
    return HomeScreen(
        settings.project if settings else context.layout.root.resolve().name,
        evaluated.verdict if evaluated else None,
        evaluated.passed if evaluated else None,
        stages,
        status,
        list(status_text.format_rows(status, context.now)) if status else [],
        _choose_next(stages, status, problems),
        {**problems.problems, **(status.troubles if status else {})},
    )


def _choose_next(stages: list[StageNode], status: StatusReport | None, problems: ProblemList) -> NextStep | None:
    states = {node.state for node in stages}
    failed = next((node.stage for node in stages if node.state == "failed"), None)
    stale = sum(node.state in {"stale", "not built"} for node in stages)
    if problems.problems.keys() & {"settings", "stages"}:
        step = NextStep("The settings have mistakes. This names each, with file and line.", "tunectl check")
    elif failed is not None:
        step = NextStep(f"The stage {failed} failed.", "tunectl repro", f"/build/{failed}")
    elif states <= {"not built", "switched off"}:
        text = "Nothing is built yet. This builds everything."
        step = NextStep(text, "tunectl repro", "/build")
    elif stale and "running" not in states:
        text = f"{stale} of {len(stages)} stages are out of date. This rebuilds what changed."
        step = NextStep(text, "tunectl repro", "/build")
    elif status is not None and status.champion is None and status.releases:
        step = NextStep("No release is the champion that servers load.", "tunectl release promote ID", "/releases")
    else:
        return None
    return step
