"""The retraining loop: ``make loop``, or ``python examples/local_lens/run_loop_demo.py`` after ``make run``. About 25 minutes on two cores.

Starts a service, a monitor and a retrain controller as users start them, Prometheus and Alertmanager if they are installed, and simulated
users that request ads. The requests change; the monitor detects the drift, the controller retrains, and the gate and a canary test
promote the new release. Then two bad challengers are proposed and must be stopped: the former champion, and one that
is bad on purpose. Progress is printed, and a timeline of measured times at the end. Exit code 1 if a check failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "monitoring")]

from loop_demo import chapters, runner, setup, simulated_users, timeline_text  # noqa: E402
from loop_demo.console_log import ConsoleLog  # noqa: E402
from loop_demo.processes import NotReadyError  # noqa: E402
from loop_demo.scenario import BadChallenger, DemoScenario, SyntheticTraffic, UserRequest  # noqa: E402
from synthetic_data import distribution_shift  # noqa: E402

from tunectl.backends.system import terminal  # noqa: E402
from tunectl.core import logging_setup  # noqa: E402
from tunectl.core.errors import TunectlError  # noqa: E402


def main() -> int:
    """Prepare the scenario, run the demo, print the timeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout in which `make run` was run")
    parser.add_argument(
        "--no-prometheus", action="store_true", help="send the webhook from this script even if Prometheus is installed"
    )
    args = parser.parse_args()
    logging_setup.configure_logging(level="warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that the started programs are stopped
    root, console = args.root.resolve(), terminal.console()
    began, folder = datetime.now(UTC), root / ".tunectl" / "loop"
    console_log = ConsoleLog(console, len(chapters.CHAPTERS) + 1)
    try:
        scenario = _prepare_scenario(root, folder, console_log)
        result = runner.run_demo(scenario, console_log, began=began, with_prometheus=not args.no_prometheus)
    except TunectlError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    except NotReadyError as error:
        console.print(f"a program did not start: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted before the first chapter", style="red")
        return 130
    paths = runner.write_timeline(result, folder, scenario.project / runner.RETRAINS_PAGE)
    timeline_text.print_timeline(result, console)
    console.print()
    for path in paths:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    return 0 if result.passed else 1


def _prepare_scenario(root: Path, folder: Path, console_log: ConsoleLog) -> DemoScenario:
    console_log.start_chapter(
        "Setup",
        "Creates a project from the build of `make run`, with small settings.",
    )
    project = folder / "project"
    registry = setup.create_project(root, project)
    champion = registry.champion()
    assert champion is not None
    console_log.print_line(f"{project}: the champion is {champion.release[:6]}", "active")
    poor = BadChallenger(champion.release, "the champion before the retrain, which does not know the new requests")
    traffic = SyntheticTraffic(
        distribution_shift.generate_baseline_requests, distribution_shift.generate_changed_requests, _score_answer
    )
    return DemoScenario(
        project=project,
        traffic=traffic,
        poor=poor,
        build_harmful=lambda: setup.build_harmful_challenger(project, registry),
    )


def _score_answer(request: UserRequest, answer: str) -> float:
    assert isinstance(request, distribution_shift.AdRequest)
    return simulated_users.score_ad(request.required_phrases, request.closing_phrases, answer)


if __name__ == "__main__":
    sys.exit(main())
