"""Check the configuration, then rebuild whatever changed.

    tunectl repro                        replay the recorded overrides
    tunectl repro sft.rank=32            record an override, and rebuild with it
    tunectl repro experiment=e2e data.path=trainset.csv
    tunectl repro --fresh                forget all recorded overrides

Ends with the comparison table and the path of the report; with exit code 3 where a gate said no.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from tunectl.artifacts import io, lock
from tunectl.artifacts.layout import Layout
from tunectl.core.errors import EnvironmentFailure, GateError
from tunectl.stages import STAGES, find


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="recorded in conf/overrides.yaml and replayed by later runs"
    )
    parser.add_argument(
        "--to",
        metavar="STAGE",
        action="append",
        default=[],
        help="rebuild this stage and what it needs; may be repeated",
    )
    parser.add_argument("--fresh", action="store_true", help="forget the recorded overrides first")
    parser.add_argument("--force", action="store_true", help="rerun though nothing changed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Check, record, rebuild, summarise.

    Raises  ConfigError before anything is recorded; GateError when a verdict is no.
    """
    layout = Layout()
    for name in args.to:
        find(name)
    with lock.held(layout.repro_lock, "tunectl repro"):
        _configure(layout, args.overrides, fresh=args.fresh)
        started = time.monotonic()
        code = _rebuild(layout, args.to, force=args.force)
        if code:
            return code
        _summarise(layout, time.monotonic() - started, as_json=args.json)
    return 0


def _configure(layout: Layout, words: list[str], *, fresh: bool) -> None:
    from tunectl.config import check, overrides

    wanted = overrides.merge([] if fresh else overrides.replay(layout), words)
    check.load(layout, wanted)
    overrides.write(layout, wanted)


def _rebuild(layout: Layout, targets: list[str], *, force: bool) -> int:
    """Run DVC; returns 0, or the exit code of the stage that failed (it has said why already)."""
    from tunectl.backends import dvc_repo

    layout.failure.unlink(missing_ok=True)
    code = dvc_repo.repro(layout.root, targets, force=force)
    if not code:
        return 0
    if layout.failure.is_file():
        failed: dict[str, Any] = io.read_json(layout.failure)
        return int(failed["exit_code"])
    if code in {130, -2}:
        raise KeyboardInterrupt
    raise EnvironmentFailure(
        "dvc repro failed; its own words are above", hint="what was finished is kept; run again to go on"
    )


def _summarise(layout: Layout, seconds: float, *, as_json: bool) -> None:
    """Print the comparison of the last evaluation, and refuse on a verdict of no."""
    from tunectl.backends import terminal

    verdicts = {stage.name: found for stage in STAGES if (found := verdict(layout, stage.name))}
    folder = layout.artifact("evaluate")
    results = folder / "results.json"
    if as_json:
        scores = io.read_json(results) if results.is_file() else None
        terminal.print_json({"seconds": round(seconds, 1), "verdicts": verdicts, "results": scores})
    elif results.is_file():
        from tunectl.evaluation import summary

        columns, rows = summary.summary_rows(summary.load(results))
        terminal.table("test split", columns, rows)
    for name, found in verdicts.items():
        if found["passed"] and not as_json:
            terminal.say(f"{name}: {found['reason']}")
    if results.is_file() and not as_json:
        terminal.say(f"report: {folder / 'report.html'}    ({seconds:.0f} s)")
    _release(layout, as_json=as_json)
    _refuse(layout, {name: found for name, found in verdicts.items() if not found["passed"]})


def _release(layout: Layout, *, as_json: bool) -> None:
    """Put what was packaged into the store; say how to serve it where no gate said no. The first release becomes champion."""
    from tunectl.backends import terminal
    from tunectl.cli.release_change import added
    from tunectl.release.store import Store

    store = Store(layout.releases)
    made = added(layout, store, by="tunectl repro", why="")
    if made is None:
        return
    if store.champion() is None and not made.refusals:
        store.promote(made.id, by="tunectl repro", why="the first release")
    if as_json:
        return
    terminal.say(f"release: {made.id} ({made.bytes / 1e6:.0f} MB), in {store.root}")
    bento = layout.artifact("package") / "bento"
    if bento.is_dir():
        terminal.say(
            f"serve it: tunectl serve, or: bentoml serve {bento.resolve()}"
        )  # BentoML takes no relative folder
    pointer = store.champion()
    if pointer is not None and pointer.release != made.id and not made.refusals:
        terminal.say(f"champion is {pointer.release}; swap with: tunectl release promote {made.id[:6]} --why TEXT")


def _refuse(layout: Layout, refused: dict[str, dict[str, Any]]) -> None:
    """Every no with its reason, and what would help where a stage knows it."""
    if not refused:
        return
    helps = [f"what would help: {line}" for found in refused.values() for line in found.get("helps", [])]
    where = " and ".join(str(layout.artifact(name)) for name in refused)
    raise GateError(
        "\n".join(f"{name}: {found['reason']}" for name, found in refused.items()),
        hint="\n  ".join([*helps, f"the evidence is in {where}"]),
    )


def verdict(layout: Layout, stage: str) -> dict[str, Any] | None:
    """The verdict that a stage left, or None where it leaves none."""
    path = layout.artifact(stage) / "verdict.json"
    return io.read_json(path) if path.is_file() else None
