"""Read a YAML file of LLaMA-Factory or Axolotl, and write the converted settings as overrides or as an experiment file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from tunectl.config.loading.foreign_keys import NONE, ImportedConfig
from tunectl.core.errors import UsageError

LONGEST = 100_000
"""Most characters of a file with its aliases written out; such files have a few thousand."""
INTEGER = "tag:yaml.org,2002:int"
MAX_INTEGER_CHARACTERS = 100


def load_yaml(text: str, name: str) -> dict[str, Any]:
    """Return the YAML text of the other tool's file ``name`` as a mapping.

    Raises  UsageError where it is not YAML, not a mapping or too long, naming the file.
    """
    import yaml

    if len(text) > LONGEST:
        raise UsageError(
            f"{name}: {len(text)} characters; a file of settings has at most {LONGEST}",
            hint="leave out what is not a setting",
        )
    try:
        # Python's own loader needs a second for brackets nested a thousand deep, and more than two for others of this length.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        node = loader.get_single_node()
        if node is not None and _count_characters(node, {}) > LONGEST:
            raise UsageError(
                f"{name}: with its aliases written out it is longer than {LONGEST} characters",
                hint="write it without aliases",
            )
        result = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # What is missing at the end is reported for the line after the last one.
        location = f"{name}:{min(mark.line + 1, len(text.splitlines()))}" if mark is not None else name
        problem = getattr(error, "problem", None) or str(error)
        if "nesting depth" in problem:  # libyaml's limit is 1,000 levels
            _refuse_nesting(location, error)
        raise UsageError(f"{location}: not YAML: {problem}", hint="correct that line of the file") from error
    except RecursionError as error:
        _refuse_nesting(name, error)
    except (ValueError, OverflowError) as error:  # a date that does not exist, a number of thousands of digits
        raise UsageError(
            f"{name}: a value cannot be read: {error}", hint="correct that date or number, or write it in quotes"
        ) from error
    if not isinstance(result, dict) or not result:
        raise UsageError(
            f"{name}: must be a mapping of settings, such as learning_rate: 1.0e-4",
            hint="give the configuration file of a training, not a data file",
        )
    return {str(key): value for key, value in result.items()}


def _refuse_nesting(location: str, error: Exception) -> NoReturn:
    raise UsageError(
        f"{location}: nested too deeply to read", hint="flatten it, or leave out what is not a setting"
    ) from error


def _count_characters(node: Any, counts: dict[int, float]) -> float:
    """Return the characters of a YAML node with every alias written out, each node visited once; infinite where it contains itself.

    Raises  ValueError for a whole number that is too long to be a setting: one in hexadecimal digits has no other limit.
    """
    if id(node) in counts:
        return counts[id(node)]
    counts[id(node)] = math.inf  # met again before it is done: a circle
    if isinstance(node.value, str):
        if node.tag == INTEGER and len(node.value) > MAX_INTEGER_CHARACTERS:
            raise ValueError(f"a whole number of {len(node.value)} characters")
        size: float = 1 + len(node.value)
    else:
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        size = 1 + sum(_count_characters(part, counts) for part in parts)
    counts[id(node)] = size
    return size


def to_overrides(draft: ImportedConfig) -> list[str]:
    """Return the imported settings as arguments for ``tunectl repro``; sources are left out, because they need a file."""
    overrides = [f"{group}={option}" for group, option in sorted(draft.groups.items()) if group != "ingest"]
    plain = {name: value for name, value in draft.values.items() if not name.startswith("ingest.") and value != "???"}
    return overrides + [f"{name}={_format_override_value(value)}" for name, value in plain.items()]


def to_experiment_yaml(draft: ImportedConfig, origin: str, name: str) -> str:
    """Return the imported settings as the text of ``conf/experiment/<name>.yaml``; ``origin``: the file that they were converted from."""
    needed = "".join(f" {key}=..." for key, value in draft.values.items() if value == "???")
    lines = [
        "# @package _global_",
        _comment(f"From {origin}:"),
        f"#   tunectl repro experiment={name}{needed}",
        "defaults:",
    ]
    lines += [f"  - /ingest/source/{kind}@ingest.sources.{source}" for source, kind in draft.sources.items()]
    lines += [f"  - override /{group}: {option}" for group, option in sorted(draft.groups.items())]  # must be last
    if lines[-1] == "defaults:":
        lines.pop()
    lines += _tree_lines(draft)
    for item in draft.dropped:
        if item.matters != NONE:
            lines.append(
                _comment(f"Without counterpart: {item.key}: {_format_override_value(item.value)} - {item.reason}")
            )
    return "\n".join(lines) + "\n"


def _tree_lines(draft: ImportedConfig) -> list[str]:
    """Return nested YAML of the dotted settings, notes as comments: above a value that must be given, else beside it."""
    tree: dict[str, Any] = {}
    for name in draft.values:
        branch = tree
        *above, last = name.split(".")
        for part in above:
            branch = branch.setdefault(part, {})
        branch[last] = name
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
            yield f"{pad}{_comment(note)}"
        yield f"{pad}{key}: {_yaml(value)}{f'  {_comment(note)}' if note and value != '???' else ''}"


def _comment(text: str) -> str:
    """Return a one-line comment: a line break in a foreign text would end the comment, and what follows would be a setting."""
    return "# " + "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))


def _yaml(value: Any) -> str:
    """Return one value in YAML's flow style, on one line."""
    if value == "???":
        return "???"
    import yaml

    class OneLine(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
        """Quotes and escapes texts that are not printable; YAML's other styles break them into lines."""

    def escape(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')

    OneLine.add_representer(str, escape)
    text: str = yaml.dump(value, Dumper=OneLine, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _format_override_value(value: Any) -> str:
    """Return one value for the command line, in Hydra's grammar."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(_format_override_value(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {_format_override_value(item)}" for key, item in value.items()) + "}"
    return str(value)
