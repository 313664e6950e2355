"""The retraining loop: ``make loop``, or ``python examples/local_lens/run_loop_demo.py`` after ``make run``. About 25 minutes on two cores.

A service, a monitor and a retrain controller as users start them, Prometheus and Alertmanager where they are installed, and people who ask
for ads. The requests change; the loop notices, rebuilds, proves, tries and promotes; then two challengers come that were made to be
bad. Everything is told as it happens, and ends with a timeline of measured times. Exit code 1 where a promise did not hold.
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
from loop_demo.console_log import Narrator  # noqa: E402
from loop_demo.processes import NotReadyError  # noqa: E402
from loop_demo.scenario import Commission, Scene, Town  # noqa: E402
from synthetic_data import distribution_shift  # noqa: E402

from tunectl.backends.system import terminal  # noqa: E402
from tunectl.core import logging_setup  # noqa: E402
from tunectl.core.errors import TunectlError  # noqa: E402


def main() -> int:
    """Set the stage, perform, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout in which `make run` was run")
    parser.add_argument(
        "--by-hand", action="store_true", help="deliver the webhook by hand though Prometheus is installed"
    )
    args = parser.parse_args()
    logging_setup.configure_logging(level="warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended, too
    root, console = args.root.resolve(), terminal.console()
    began, folder = datetime.now(UTC), root / ".tunectl" / "loop"
    narrator = Narrator(console, len(chapters.CHAPTERS) + 1)
    try:
        scene = _scene(root, folder, narrator)
        result = runner.perform(scene, narrator, began=began, observers=not args.by_hand)
    except TunectlError as error:
        console.print(str(error), style="red", markup=False)
        return error.exit_code
    except NotReadyError as error:
        console.print(f"a program does not start: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped by hand before the story began", style="red")
        return 130
    paths = runner.write(result, folder, scene.project / runner.STORIES)
    timeline_text.show(result, console)
    console.print()
    for path in paths:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    return 0 if result.kept else 1


def _scene(root: Path, folder: Path, narrator: Narrator) -> Scene:
    narrator.chapter(
        "The stage is set",
        "A project of its own out of what `make run` built, with small settings, and two challengers\nthat are bad on purpose: built now, so that they are there when their time comes.",
    )
    project = folder / "project"
    store = setup.project(root, project)
    champion = store.champion()
    assert champion is not None
    narrator.say(f"{project}: the champion is {champion.release[:6]}", "work")

    def say(text: str) -> None:
        narrator.say(text, "work")

    poor = setup.poor(project, store, folder / "prebuilt", say)
    harmful = setup.harmful(project, store, folder / "prebuilt", say)
    town = Town(distribution_shift.generate_everyday, distribution_shift.generate_changed, _liking)
    return Scene(project=project, town=town, poor=poor, harmful=harmful)


def _liking(commission: Commission, answer: str) -> float:
    assert isinstance(commission, distribution_shift.Commission)
    return simulated_users.liking(commission.must, commission.endings, answer)


if __name__ == "__main__":
    sys.exit(main())
