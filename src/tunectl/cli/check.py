"""Compose conf/, report every mistake at once, and show where each value comes from.

tunectl check                          the recorded overrides included
tunectl check sft.lora_rank=32 --json  with further overrides; nothing is recorded
tunectl check --schema                 JSON Schema of the whole configuration on the screen
tunectl check --schema schema          one file per group below schema/, and editors bound to them
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tunectl.artifacts.paths import ProjectPaths

PRINT = "-"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl check`` to ``parser``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="applied on top of the recorded overrides, not recorded"
    )
    parser.add_argument("--ignore-overrides", action="store_true", help="ignore the recorded overrides")
    parser.add_argument(
        "--schema",
        nargs="?",
        const=PRINT,
        metavar="FILE|DIR",
        help="write JSON Schema: to the screen, a file or a folder",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check the configuration, and print the settings or the JSON Schema; missing packages are a note, not an error. Return the exit code.

    Raises  ConfigError with every mistake at once (exit 2).
    """
    layout = ProjectPaths()
    if args.schema is not None:
        return _schema(layout, args.schema)
    from tunectl.config.loading import checks, override_file

    recorded = [] if args.ignore_overrides else override_file.load_overrides(layout)
    checked = checks.load_config(layout, override_file.merge_overrides(recorded, args.overrides))
    _print(checked, as_json=args.json)
    return 0


def _print(checked: Any, *, as_json: bool) -> None:
    from tunectl.backends.system import terminal
    from tunectl.config.loading.provenance import iter_leaves, to_dotted_key
    from tunectl.core.optional import describe_missing, find_missing
    from tunectl.pipeline.required_extras import list_build_packages

    missing = find_missing(list_build_packages(checked.root))

    composition = checked.composition
    result = [(path, value, str(composition.origins.find(path) or "")) for path, value in iter_leaves(composition.tree)]
    if as_json:
        origins = {to_dotted_key(path): origin for path, _, origin in result}
        terminal.print_json(
            {
                "choices": composition.choices,
                "settings": composition.tree,
                "origins": origins,
                "missing_packages": [item._asdict() for item in missing],
            }
        )
        return
    files = ", ".join(f"{group}={option}" for group, option in sorted(composition.choices.items()))
    terminal.table("", ("setting", "value", "set by"), _rows(result), caption=files)
    if missing:
        terminal.print_line(str(describe_missing(missing)))


def _rows(result: list[tuple[Any, Any, str]]) -> list[tuple[str, str, str]]:
    """Return one row per value, indented below its sections."""
    import json

    rows: list[tuple[str, str, str]] = []
    above: tuple[Any, ...] = ()
    for path, value, origin in result:
        new_depths = [depth for depth in range(len(path) - 1) if path[: depth + 1] != above[: depth + 1]]
        rows += [(f"{'  ' * depth}{path[depth]}", "", "") for depth in new_depths]
        above = path
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append((f"{'  ' * (len(path) - 1)}{path[-1]}", text, origin))
    return rows


def _schema(layout: ProjectPaths, target: str) -> int:
    from tunectl.backends.system import terminal
    from tunectl.config.loading import json_schema_export

    if target == PRINT:
        terminal.print_json(json_schema_export.root_schema())
    elif target.endswith(".json"):
        json_schema_export.write_file(Path(target))
        terminal.print_line(f"wrote {target}")
    else:
        for line in json_schema_export.write_folder(layout, Path(target)):
            terminal.print_line(line)
    return 0
