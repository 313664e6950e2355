"""Reading the other tool's file, and writing ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tunectl.config.loading.foreign_draft import NONE, ImportedConfig, UnsupportedKey
from tunectl.core.errors import UsageError


def load_yaml(text: str, name: str) -> dict[str, Any]:
    """The other tool's YAML as a mapping.

    Raises  UsageError where it is not YAML or not a mapping, naming the file.
    """
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark is not None else name
        raise UsageError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{name}: must be a mapping of settings, such as learning_rate: 1.0e-4")
    return {str(key): value for key, value in found.items()}


def to_overrides(draft: ImportedConfig) -> list[str]:
    """The draft as words for ``tunectl repro``; sources are left out, because they need a file."""
    words = [f"{group}={option}" for group, option in sorted(draft.groups.items()) if group != "ingest"]
    plain = {name: value for name, value in draft.values.items() if not name.startswith("ingest.") and value != "???"}
    return words + [f"{name}={_word(value)}" for name, value in plain.items()]


def to_experiment_yaml(draft: ImportedConfig, origin: str, name: str) -> str:
    """The draft as the text of ``conf/experiment/<name>.yaml``."""
    needed = [f"{key}=<{draft.notes.get(key, 'value')}>" for key, value in draft.values.items() if value == "???"]
    lines = [
        "# @package _global_",
        f"# From {origin}:",
        f"#   tunectl repro experiment={name}{_more(needed)}",
        "defaults:",
    ]
    lines += [f"  - /ingest/source/{kind}@ingest.sources.{source}" for source, kind in draft.sources.items()]
    lines += [f"  - override /{group}: {option}" for group, option in sorted(draft.groups.items())]  # must be last
    if lines[-1] == "defaults:":
        lines.pop()
    lines += _tree_lines(draft)
    lines += [f"# Without counterpart: {item.key}: {_word(item.value)} - {item.reason}" for item in _weighty(draft)]
    return "\n".join(lines) + "\n"


def _more(needed: list[str]) -> str:
    return "".join(f" {word.partition('=')[0]}=..." for word in needed)


def _weighty(draft: ImportedConfig) -> list[UnsupportedKey]:
    return [item for item in draft.dropped if item.matters != NONE]


def _tree_lines(draft: ImportedConfig) -> list[str]:
    """Nested YAML of the dotted settings, notes as comments: above a value that must be given, else beside it."""
    tree: dict[str, Any] = {}
    for name in draft.values:
        here = tree
        *above, last = name.split(".")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = name
    return list(_render_tree(tree, draft, 0))


def _render_tree(tree: Mapping[str, Any], draft: ImportedConfig, depth: int) -> Iterable[str]:
    pad = "  " * depth
    for key, inner in tree.items():
        if isinstance(inner, dict):
            yield f"{pad}{key}:"
            yield from _render_tree(inner, draft, depth + 1)
            continue
        value, note = draft.values[inner], draft.notes.get(inner, "")
        if value == "???" and note:
            yield f"{pad}# {note}"
        yield f"{pad}{key}: {_yaml(value)}{f'  # {note}' if note and value != '???' else ''}"


def _yaml(value: Any) -> str:
    """One value in YAML's flow style, on one line."""
    if value == "???":
        return "???"
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    text = text.replace("\n...\n", "").strip()
    return f"{value!r}" if isinstance(value, float) and "e" in text and "." not in text else text


def _word(value: Any) -> str:
    """One value for the command line, in Hydra's grammar."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(_word(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {_word(item)}" for key, item in value.items()) + "}"
    return str(value)
