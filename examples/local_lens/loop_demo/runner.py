"""Runs the demo: starts the programs, runs the chapters in order, stops the programs, and writes the timeline."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from loop_demo import chapters, timeline_html, timeline_png
from loop_demo.console_log import ConsoleLog
from loop_demo.context import DemoAbortedError, DemoContext, VariantPoller
from loop_demo.processes import NotReadyError, run_stack
from loop_demo.scenario import DemoScenario
from loop_demo.simulated_users import SimulatedUsers
from loop_demo.timeline import DemoCheck, Timeline
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.core.errors import TunectlError

RETRAINS_PAGE: Final = Path(".tunectl") / "loop" / "retrains.html"
"""In the project: the page with the history of each retrain, written by `tunectl release log --page`."""


def run_demo(
    scenario: DemoScenario, console_log: ConsoleLog, *, began: datetime, with_prometheus: bool = True
) -> Timeline:
    """Run every chapter. If one fails, the others are skipped, and a failed check says so."""
    layout = ProjectPaths(scenario.project)
    model = checks.load_project_config(layout).root.project
    with (
        run_stack(scenario, console_log.print_line, with_prometheus=with_prometheus) as stack,
        VariantPoller(stack.get_variants) as poller,
    ):
        users = SimulatedUsers(stack.ports["service"], stack.key, model, scenario.traffic, workers=scenario.workers)
        demo = DemoContext(scenario, stack, users, console_log, poller, began)
        _run_chapters(demo)
        result = chapters.build_timeline(demo, datetime.now(UTC))
        try:
            demo.run_command("release", "log", "--page", str((scenario.project / RETRAINS_PAGE).absolute()))
        except DemoAbortedError as error:
            console_log.print_line(f"the page of the retrains was not written: {error}", "bad")
    return result


def _run_chapters(demo: DemoContext) -> None:
    """Run every chapter. An error is a failed check; the timeline until then is still shown."""
    try:
        for chapter in chapters.CHAPTERS:
            chapter(demo)
    except KeyboardInterrupt:
        _record_abort(demo, "interrupted")
    except (DemoAbortedError, NotReadyError, TunectlError) as error:
        _record_abort(demo, str(error))
    except Exception as error:  # noqa: BLE001  a bug in the demo must not lose the timeline
        demo.console_log.print_line(traceback.format_exc(), "bad")
        _record_abort(demo, f"{type(error).__name__}: {error}")


def _record_abort(demo: DemoContext, reason: str) -> None:
    demo.console_log.print_line(f"the demo stopped: {reason}", "bad")
    first = (reason.splitlines() or [""])[0]
    demo.console_log.checks.append(DemoCheck("the demo runs to its end", passed=False, evidence=first))


def write_timeline(timeline: Timeline, folder: Path, retrains_page: Path) -> list[Path]:
    """Write the timeline as HTML, PNG and JSON, and copy the page of the retrains."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("timeline.html", "timeline.png", "timeline.json")]
    links: tuple[tuple[str, str], ...] = ()
    if retrains_page.is_file():
        (folder / "retrains.html").write_bytes(retrains_page.read_bytes())
        links = (("History of each retrain", "retrains.html"),)
    paths[0].write_text(timeline_html.render_page(timeline, links), encoding="utf-8")
    timeline_png.draw_png(timeline, paths[1])
    paths[2].write_bytes(msgspec.json.format(msgspec.json.encode(timeline), indent=1) + b"\n")
    return paths
