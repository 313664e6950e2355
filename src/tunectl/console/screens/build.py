"""Screen Build: the stages as a graph, each with its state and why, rows, seconds and verdict."""

from __future__ import annotations

from msgspec import Struct, field

from tunectl.artifacts import lock
from tunectl.backends.vcs import dvc_lock
from tunectl.console.build_state import LastDuration, StageNode, list_nodes, sum_last_seconds
from tunectl.console.read_context import ProblemList, ReadContext
from tunectl.console.screens.jobs import count_jobs
from tunectl.pipeline import background_build
from tunectl.pipeline.background_build import BuildRequest


class BuildScreen(Struct, frozen=True):
    """Content of the screen Build: all stages, which are stale, and the running build."""

    stages: list[StageNode]
    above: dict[str, list[str]]
    """The stages that each stage reads."""
    stale: list[str]
    """Stages that a build would run."""
    duration: LastDuration
    """How long these took the last time."""
    building: bool
    """Whether a build runs now."""
    request: BuildRequest | None = None
    """Who started the build from the console, and why."""
    log: str = ""
    """The last lines of a build that was started from the console."""
    jobs: dict[str, int] = field(default_factory=dict)
    """Number of jobs on a cluster by the state that was last recorded; empty where none was ever submitted."""
    problems: dict[str, str] = field(default_factory=dict)


def read_build(context: ReadContext, query: object) -> BuildScreen:  # noqa: ARG001 - every reader is called alike
    """Return the state of every stage and of the running build."""
    problems = ProblemList()
    stages = list_nodes(context, problems)
    pending = [node for node in stages if node.state in {"stale", "not built", "failed"}]
    process = background_build.find_build(context.layout)
    return BuildScreen(
        stages,
        problems.attempt("graph", lambda: dvc_lock.read_dependencies(context.layout.root), {}),
        [node.stage for node in pending],
        sum_last_seconds([(node.stage, node.seconds) for node in pending]),
        process is not None or lock.is_locked(context.layout.stage_lock),
        background_build.read_request(context.layout, process) if process else None,
        background_build.read_log_end(context.layout),
        count_jobs(context, problems),
        problems.problems,
    )
