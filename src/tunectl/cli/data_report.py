"""``tunectl data report``: one self-contained HTML page about the data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline.stages import STAGES

if TYPE_CHECKING:
    from tunectl.data.learning_curve import Curve


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data report`` to ``parser``."""
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FILE", help="where the page goes (artifacts/data_report.html)"
    )
    parser.add_argument(
        "--learning-curve",
        action="store_true",
        help="train on 10, 25, 50 and 100 %% of train to see whether more data would help; takes about twice as long as sft",
    )
    parser.add_argument(
        "--worth",
        type=float,
        default=0.02,
        metavar="NATS",
        help="fall of the validation loss, in nats a token, that is worth doubling the data (0.02)",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON instead of writing a page")


def run(args: argparse.Namespace) -> int:
    """Write the data report as one HTML page, with a learning curve if asked for; return the exit code."""
    from msgspec import to_builtins

    from tunectl.artifacts import atomic_io
    from tunectl.backends.system import terminal
    from tunectl.data.data_report import gather, list_findings
    from tunectl.evaluation.few_shot import format_reasons

    layout = ProjectPaths()
    facts = gather({stage.name: layout.artifact(stage.name) for stage in STAGES})
    curve = _curve(layout, args.worth) if args.learning_curve else None
    if args.json:
        terminal.print_json({"notes": list_findings(facts), "facts": to_builtins(facts), "curve": to_builtins(curve)})
        return 0
    from tunectl.backends.reports.data import render

    out: Path = args.out or layout.artifacts / "data_report.html"
    atomic_io.write_text(out, render(_project(layout), facts, curve=curve))
    for _, sentence in list_findings(facts):
        terminal.print_line(sentence)
    if curve is not None:
        terminal.print_line(curve.conclusion)
        if curve.left_out:
            terminal.print_line(f"validation examples left out: {format_reasons(curve.left_out)}")
    terminal.print_line(f"report: {out}")
    return 0


def _curve(layout: ProjectPaths, worth: float) -> Curve:
    from tunectl.pipeline.learning_curve_runner import measure_learning_curve

    with lock.file_lock(layout.stage_lock, "learning curve"):
        curve: Curve = measure_learning_curve(layout, worth=worth)
    return curve


def _project(layout: ProjectPaths) -> str:
    from tunectl.artifacts import atomic_io
    from tunectl.pipeline.resolved_config import ResolvedStageConfig

    path = layout.config("evaluate")
    named = atomic_io.read_json(path, ResolvedStageConfig).settings.get("project") if path.is_file() else None
    return str(named or layout.root.resolve().name)
