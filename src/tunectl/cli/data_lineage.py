"""Trace an answer or a release back to its data, or a row forward to the releases trained on it.

tunectl data lineage chatcmpl-...     an answer: its release, the artifacts and raw rows behind it, and what was trained on it
tunectl data lineage RELEASE          the same of a release (the beginning of its name, or champion)
tunectl data lineage ROW              forward: a row (its id, or a part of its source, as FILE or FILE:NUMBER) through every stage, and
                                      the releases that learned it
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import SPLIT_NAMES
from tunectl.backends.storage import open_inference_log
from tunectl.core.errors import DataError

if TYPE_CHECKING:
    from tunectl.registry.release_store import ReleaseRegistry

MAX_ROWS_SHOWN = 20
"""Most rows that are printed."""
COLUMNS = ("stage", "file", "what", "id", "source")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data lineage`` to ``parser``."""
    parser.add_argument("id", help="id of an answer (chatcmpl-..., or its beginning), a release, or a row")
    parser.add_argument("--store", type=Path, metavar="DIR", help="folder of the registry (.tunectl/releases)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Find the answer, release or row with the id, and print its lineage; return the exit code.

    Raises  DataError where nothing has that id.
    """
    from msgspec import to_builtins

    from tunectl.pipeline import lineage_trace
    from tunectl.registry.release_store import ReleaseRegistry

    layout = ProjectPaths()
    store = ReleaseRegistry(args.store or layout.releases)
    inference = _inference(layout, args.id) if "-" in args.id else None
    release = inference["release"] if inference else _release(store, args.id)
    name = inference.pop("id") if inference else args.id
    result: dict[str, Any] = {"id": name}
    if inference is not None:
        result["answer"] = inference
    if release is not None and release in store.ids():  # the base model answers too, and releases of other stores
        result.update(_trace_release(store, layout, release))
    if inference is not None or release is None:  # users may have turned an answer into a training example
        steps = list(lineage_trace.trace_row(layout, name))
        result["forward"] = to_builtins(steps)
        result["learned_by"] = lineage_trace.list_learning_releases(store, layout, steps)
    if release is None and not result["forward"]:
        raise DataError(
            f"{args.id}: there is no answer, release or row with this id",
            hint="these list ids: tunectl log show, tunectl release list, tunectl data show",
        )
    return _print(args, result)


def _inference(layout: ProjectPaths, name: str) -> dict[str, Any] | None:
    from tunectl.config.loading import checks

    root = checks.load_project_config(layout).root
    with open_inference_log.open_if_exists(root.inference_log, layout) as log:
        inference = open_inference_log.inference(log, name) if log is not None else None
    if inference is None:
        return None
    return {
        "id": inference.id,
        "at": inference.accepted_at.isoformat(),
        "variant": inference.variant,
        "release": inference.release,
        "template": inference.template_hash,
    }


def _release(store: ReleaseRegistry, name: str) -> str | None:
    pointer = store.champion()
    if name in {"champion", "previous"}:
        return getattr(pointer, "release" if name == "champion" else name, None)
    result = [item for item in store.ids() if len(name) >= 4 and item.startswith(name)]
    return result[0] if len(result) == 1 else None


def _trace_release(store: ReleaseRegistry, layout: ProjectPaths, release: str) -> dict[str, Any]:
    """Return what a release is made of: its retrain, stages, sources, and the raw rows where the present artifacts are its own."""
    from msgspec import to_builtins

    from tunectl.pipeline import lineage_trace
    from tunectl.retraining.run_store import RunStore

    manifest = store.manifest(release)
    retrain = next(
        (run for run in RunStore(layout.retrain).runs() if run.facts("evaluating").get("release") == release), None
    )
    result: dict[str, Any] = {
        "release": {
            "id": manifest.id,
            "created_at": manifest.created_at,
            "parent": manifest.parent,
            "git": manifest.git,
        },
        "lineage": to_builtins(manifest.lineage) if manifest.lineage else None,
    }
    if retrain is not None:
        snapshot = retrain.facts("proposed").get("snapshot")
        result["retrain"] = {"id": retrain.id, "why": retrain.trigger.message, "snapshot": snapshot}
    if not lineage_trace.is_split_of_release(layout, manifest):
        commit = (manifest.git or "").removesuffix("-dirty") or "its commit"
        result["rows"] = {
            "at_hand": False,
            "hint": f"its data is in the cache of DVC: git checkout {commit}; dvc checkout",
        }
    else:
        result["rows"] = {
            "at_hand": True,
            "sources": lineage_trace.count_rows_by_file(layout),
            "raw": lineage_trace.list_raw_rows(layout),
        }
    return result


def _print(args: argparse.Namespace, result: dict[str, Any]) -> int:
    from tunectl.backends.system import terminal

    if args.json:
        terminal.print_json(result)
        return 0
    rows = [
        (part, name, str(value))
        for part in ("answer", "release", "retrain")
        for name, value in (result.get(part) or {}).items()
        if not isinstance(value, dict)
    ]
    lineage = result.get("lineage") or {}
    rows += [("base", lineage["base"], lineage["revision"][:16])] if lineage else []
    for part in ("sources", "stages", "configs", "code"):
        rows += [(part, name, str(value or "none")[:16]) for name, value in (lineage.get(part) or {}).items()]
    if rows:
        terminal.table("", ("part", "name", "value"), rows)
    raw = result.get("rows")
    if raw is not None and not raw["at_hand"]:
        terminal.print_line(raw["hint"])
    elif raw is not None:
        terminal.table(
            f"{len(raw['raw'])} raw rows were trained on (--json names each)",
            ("file", *SPLIT_NAMES),
            [(file, *(counts.get(name, 0) for name in SPLIT_NAMES)) for file, counts in raw["sources"].items()],
        )
    steps = result.get("forward") or []
    if steps:
        terminal.table("", COLUMNS, [tuple(step[name] for name in COLUMNS) for step in steps[:MAX_ROWS_SHOWN]])
        if len(steps) > MAX_ROWS_SHOWN:
            terminal.print_line(f"and {len(steps) - MAX_ROWS_SHOWN} more; --json prints all")
        terminal.print_line(_explain_outcome(steps, result["learned_by"]))
    return 0


def _explain_outcome(steps: Sequence[dict[str, Any]], releases: Sequence[str]) -> str:
    if not any((step["stage"], step["file"]) == ("split", "train.jsonl") for step in steps):
        return "learned by no release: the split at hand does not train on it"
    return f"learned by releases: {', '.join(release[:12] for release in releases) or 'none of this split yet'}"
