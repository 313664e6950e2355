"""Convert a LLaMA-Factory or Axolotl file into an experiment, and list settings without a counterpart.

tunectl import llama-factory llama3_lora_sft.yaml            print conf/experiment/llama3_lora_sft.yaml
tunectl import axolotl lora-1b.yml --write                   write it
tunectl import axolotl lora-1b.yml --overrides               print key=value words for tunectl repro
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

TOOLS = ("llama-factory", "axolotl")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl import`` to ``parser``."""
    parser.add_argument("tool", choices=TOOLS, help="the tool that the file is for")
    parser.add_argument("file", type=Path, metavar="FILE", help="the other tool's YAML")
    parser.add_argument("--name", help="name of the experiment; without it, the file's name")
    parser.add_argument("--write", action="store_true", help="write conf/experiment/NAME.yaml")
    parser.add_argument("--force", action="store_true", help="replace an experiment of that name")
    parser.add_argument("--overrides", action="store_true", help="print key=value words instead of a file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Convert a LLaMA-Factory or Axolotl file to an experiment, and print or write it; return the exit code.

    Raises  UsageError for a file that cannot be read, and for an experiment that exists already.
    """
    from tunectl.backends.system import terminal
    from tunectl.config.loading import foreign_yaml

    draft = _translate(args.tool, args.file)
    name = re.sub(r"[^a-z0-9_]+", "_", (args.name or args.file.stem).lower()).strip("_") or "imported"
    body = foreign_yaml.to_experiment_yaml(draft, args.file.name, name)
    path = ProjectPaths().conf / "experiment" / f"{name}.yaml"
    if args.write:
        if path.exists() and not args.force:
            raise UsageError(f"{path} exists already", hint="choose another with --name, or replace it with --force")
        atomic_io.write_text(path, body)
    if args.json:
        _print_json(draft, body, name)
        return 0
    if args.overrides:
        overrides = " ".join(_quote_for_shell(override) for override in foreign_yaml.to_overrides(draft))
        sys.stdout.write(terminal.strip_control(overrides) + "\n")
    else:
        sys.stdout.write(f"wrote {path}\n" if args.write else body)
    _print_dropped(draft)
    return 0


def _translate(tool: str, file: Path) -> Any:
    from tunectl.config.loading import foreign_import, foreign_yaml

    try:
        settings = foreign_yaml.load_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{file}: cannot be read: {reason}", hint="check the path and the file") from error
    if tool == "axolotl":
        return foreign_import.import_axolotl(settings)
    return foreign_import.import_llama_factory(settings, _data_sets(file, str(settings.get("dataset_dir") or "data")))


def _data_sets(file: Path, folder: str) -> dict[str, Any]:
    """Return LLaMA-Factory's dataset_info.json, searched beside the file and above it; empty where there is none."""
    for base in (Path(), *file.absolute().parents):
        path = base / folder / "dataset_info.json"
        if path.is_file():
            try:
                result = msgspec.json.decode(path.read_bytes())
            except atomic_io.NOT_JSON as error:
                raise UsageError(
                    f"{path}: is not JSON: {error}", hint="correct that file: an editor marks the place"
                ) from error
            return result if isinstance(result, dict) else {}
    return {}


def _quote_for_shell(override: str) -> str:
    from shlex import quote

    return quote(override)


def _print_json(draft: Any, body: str, name: str) -> None:
    from tunectl.backends.system import terminal
    from tunectl.config.loading import foreign_yaml

    dropped = [
        {"key": item.key, "value": item.value, "matters": item.matters, "reason": item.reason} for item in draft.dropped
    ]
    result = {
        "experiment": name,
        "yaml": body,
        "overrides": foreign_yaml.to_overrides(draft),
        "no_counterpart": dropped,
    }
    terminal.print_json(result)


def _print_dropped(draft: Any) -> None:
    """Print the settings without a counterpart on stderr, so that stdout holds the experiment only."""
    from tunectl.backends.system import terminal

    if not draft.dropped:
        sys.stderr.write("every setting has a counterpart\n")
        return
    sys.stderr.write("\nwithout counterpart:\n")
    width = max(len(item.key) for item in draft.dropped)
    for matters in sorted({item.matters for item in draft.dropped}):
        sys.stderr.write(f"  {matters}\n")
        for item in (item for item in draft.dropped if item.matters == matters):
            sys.stderr.write(f"    {terminal.strip_control(f'{item.key:<{width}}  {item.reason}')}\n")
