"""Check the configuration, then rebuild every stage that changed.

    tunectl repro                        replay the recorded overrides
    tunectl repro sft.lora_rank=32       record an override, and rebuild with it
    tunectl repro experiment=e2e data.path=trainset.csv
    tunectl repro --reset-overrides      forget all recorded overrides, and rebuild

Ends with the comparison table and the path of the report; with exit code 3 where a gate failed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core import logging_setup
from tunectl.core.errors import GateError, InfrastructureError, TunectlError
from tunectl.core.optional import require_all
from tunectl.pipeline import build_tracking, first_look, run_ledger
from tunectl.pipeline.stage_status import stage_verdict
from tunectl.pipeline.stages import STAGES, find

EXAMPLES = 3
"""Number of test inputs that are printed with their answers: the first ones, not the best ones."""
STDERR = 2
"""File descriptor: with ``--json``, only the result is on stdout."""

if TYPE_CHECKING:
    from pathlib import Path

    from tunectl.config.schema.root import TunectlConfig
    from tunectl.registry.release_store import ReleaseRegistry


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl repro`` to ``parser``."""
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
    parser.add_argument("--reset-overrides", action="store_true", help="forget the recorded overrides first")
    parser.add_argument("--force", action="store_true", help="run again although nothing changed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON; all other output goes to stderr")
    parser.add_argument(
        "--unattended", action="store_true", help="do not register the packaged release; the caller does"
    )


def run(args: argparse.Namespace) -> int:
    """Check the configuration, record the overrides, rebuild what changed, and print the result; return the exit code.

    Raises  ConfigError, MissingExtraError with everything that the recipe needs, and ArtifactError for a damaged dvc.lock, before
            anything is recorded; GateError when a gate has failed.
    """
    from tunectl.backends.vcs import dvc_lock

    layout = ProjectPaths()
    for name in args.to:
        find(name)
    with lock.file_lock(layout.repro_lock, "tunectl repro"):
        dvc_lock.read_lock_file(layout.root)  # a damaged one ends every command of DVC
        root = _configure(layout, args.overrides, reset=args.reset_overrides, targets=args.to)
        with run_ledger.record_run(layout, root.project, targets=args.to, unattended=args.unattended) as end:
            end.exit_code = _build(layout, root, args, end)
    return end.exit_code


def _build(layout: ProjectPaths, root: TunectlConfig, args: argparse.Namespace, end: run_ledger.RunEnd) -> int:
    started, code = time.monotonic(), 0
    try:
        code = _rebuild(layout, args.to, force=args.force, as_json=args.json)
        seconds = time.monotonic() - started
        if not code:
            _summarize(layout, seconds, targets=args.to, as_json=args.json, unattended=args.unattended, end=end)
    except BaseException as error:
        code = run_ledger.find_exit_code(error)
        raise
    finally:
        end.build = build_tracking.record_build(layout, root, time.monotonic() - started, code)
    return code


def _configure(layout: ProjectPaths, new_overrides: list[str], *, reset: bool, targets: Sequence[str]) -> TunectlConfig:
    from tunectl.config.loading import checks, override_file
    from tunectl.pipeline.required_extras import list_build_packages

    overrides = override_file.merge_overrides([] if reset else override_file.load_overrides(layout), new_overrides)
    root = checks.load_config(layout, overrides).root
    require_all(list_build_packages(root, targets))
    override_file.save_overrides(layout, overrides)
    return root


def _rebuild(layout: ProjectPaths, targets: list[str], *, force: bool, as_json: bool) -> int:
    """Run DVC, with ``as_json`` all its output on stderr; returns 0, or the exit code of the stage that failed (it has said why already)."""
    from tunectl.backends.vcs import dvc_repo

    layout.failure.unlink(missing_ok=True)
    layout.executed.unlink(missing_ok=True)
    code = dvc_repo.repro(layout.root, targets, force=force, stdout=STDERR if as_json else None)
    if not code:
        return 0
    if layout.failure.is_file():
        failed: dict[str, Any] = atomic_io.read_json(layout.failure)
        return int(failed["exit_code"])
    if code in {130, -2}:
        raise KeyboardInterrupt
    raise InfrastructureError(
        "dvc repro failed; its output is above", hint="finished stages are kept; run the same command again to resume"
    )


def _summarize(
    layout: ProjectPaths,
    seconds: float,
    *,
    targets: Sequence[str] = (),
    as_json: bool,
    unattended: bool = False,
    end: run_ledger.RunEnd | None = None,
) -> None:
    """Print the comparison and the verdicts of what was rebuilt, and raise where a gate has failed.

    Stages after the last of ``targets`` are of an earlier run, and left out.
    """
    from tunectl.backends.system import terminal

    names = [stage.name for stage in STAGES]
    rebuilt = names[: 1 + max(map(names.index, targets))] if targets else names
    verdicts = {name: verdict for name in rebuilt if (verdict := stage_verdict(layout, name))}
    folder = layout.artifact("evaluate")
    path = folder / "results.json" if "evaluate" in rebuilt and (folder / "results.json").is_file() else None
    remaining = names[len(rebuilt) :]
    if not as_json:
        if path:
            _print_comparison(folder)
        for name, verdict in verdicts.items():
            if verdict["passed"]:
                terminal.print_line(f"{name}: {verdict['reason']}")
        if path:
            _print_causes(path)
            terminal.print_line(f"report: {folder / 'report.html'}    ({seconds:.0f} s)")
        _print_next(layout, remaining, evaluated=path is not None)
    release = None if remaining or unattended else _release(layout, as_json=as_json)
    if end is not None:
        end.release = release
    if as_json:
        scores = atomic_io.read_json(path) if path else None
        terminal.print_json({"seconds": round(seconds, 1), "verdicts": verdicts, "results": scores, "release": release})
    _refuse(layout, {name: verdict for name, verdict in verdicts.items() if not verdict["passed"]})


def _print_next(layout: ProjectPaths, remaining: Sequence[str], *, evaluated: bool) -> None:
    """Print what this run left out, and what goes on from it."""
    from tunectl.backends.system import terminal

    if remaining:
        terminal.print_line(f"left as before: {', '.join(remaining)}; tunectl repro goes on with them")
    for line in first_look.next_lines(layout) if evaluated else ():
        terminal.print_line(line)


def _print_comparison(folder: Path) -> None:
    """Print the table of all systems, and the first test inputs with the answers before and after training."""
    from tunectl.backends.system import terminal
    from tunectl.evaluation import results, summary

    comparison = results.load(folder / results.NAME)
    columns, rows = summary.summary_rows(comparison)
    terminal.table(f"{comparison.split} split", columns, rows)
    answers = islice(atomic_io.read_rows(folder / results.ANSWERS, results.AnswerRow), EXAMPLES)
    for line in summary.example_lines(comparison, list(answers)):
        terminal.print_line(line)
    note = summary.size_note(comparison)
    if note:
        terminal.print_line(note)


def _print_causes(path: Path) -> None:
    """Print why the aligned model may not be better, and what to try."""
    from tunectl.backends.system import terminal
    from tunectl.evaluation import results, summary

    for line in summary.cause_lines(results.load(path)):
        terminal.print_line(line)


def _promote_first(layout: ProjectPaths, store: ReleaseRegistry, release: str) -> None:
    """Make the first release champion; without the keys that servers trust somebody who has them must do it."""
    from tunectl.pipeline.trusted_keys import open_trust

    problem: TunectlError | None = None
    try:
        store.trust = open_trust(layout)
    except TunectlError as error:  # the build is done, and its release is in the registry
        problem = error
    if problem is None:
        try:
            store.promote(release, author="tunectl repro", message="the first release", after=0)
        except GateError as error:
            problem = error
    if problem is not None:
        logging_setup.get_logger(__name__).warning("release %s is not promoted: %s", release, problem)
    _freeze(layout, store, release)


def _release(layout: ProjectPaths, *, as_json: bool) -> str | None:
    """Add the packaged release to the store; print how to serve it where no gate has failed. The first release becomes champion.

    Returns its name; None where nothing was packaged.
    """
    from tunectl.backends.system import terminal
    from tunectl.cli.release_update import add_packaged
    from tunectl.registry.release_store import ReleaseRegistry

    store = ReleaseRegistry(layout.releases)
    manifest = add_packaged(layout, store, author="tunectl repro", message="")
    if manifest is None:
        return None
    if store.champion() is None and not manifest.refusals:
        _promote_first(layout, store, manifest.id)
    if as_json:
        return manifest.id
    terminal.print_line(f"release: {manifest.id} ({manifest.bytes / 1e6:.0f} MB), in {store.root}")
    bento = layout.artifact("package") / "bento"
    if bento.is_dir():
        terminal.print_line(
            f"next: tunectl serve, or: bentoml serve {bento.resolve()}"
        )  # BentoML takes no relative folder
    pointer = store.champion()
    if pointer is not None and pointer.release != manifest.id and not manifest.refusals:
        terminal.print_line(
            f"champion is {pointer.release}; swap with: tunectl release promote {manifest.id[:6]} -m TEXT"
        )
    return manifest.id


def _freeze(layout: ProjectPaths, store: ReleaseRegistry, release: str) -> None:
    """Freeze the golden set for all later gates now, before there is any feedback."""
    from datetime import UTC, datetime

    from tunectl.artifacts.records import Example
    from tunectl.config.loading import checks
    from tunectl.retraining import golden_set

    test = layout.artifact("split") / "test.jsonl"
    if golden_set.newest(store.root) is not None or not test.is_file():
        return
    root = checks.load_project_config(layout).root
    rows = list(atomic_io.read_rows(test, Example))
    size = root.retrain.gate.golden_set_size
    golden_set.freeze(store.root, rows, size, seed=root.seed, at=datetime.now(UTC), source=f"test split of {release}")


def _refuse(layout: ProjectPaths, refused: dict[str, dict[str, Any]]) -> None:
    """Return every failed verdict with its reason, and what would help where a stage knows it."""
    if not refused:
        return
    helps = [f"what would help: {line}" for verdict in refused.values() for line in verdict.get("helps", [])]
    where = " and ".join(str(layout.artifact(name)) for name in refused)
    raise GateError(
        "\n".join(f"{name}: {verdict['reason']}" for name, verdict in refused.items()),
        hint="\n  ".join([*helps, f"the evidence is in {where}"]),
    )
