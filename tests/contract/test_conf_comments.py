"""Every setting is explained where ``conf/`` declares it first, and the recipe lists all options of each group."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunectl.config.loading.type_descriptions import TypeInfo, inspect_type, of_field, section, union_members
from tunectl.config.schema.root import TunectlConfig

CONF = Path(__file__).parents[2] / "conf"
RECIPE = CONF / "config.yaml"
NESTED = {"ingest/source": "ingest.sources.any", "preferences/source": "preferences.sources.any"}
"""Files that other files take their values from, and where they land; the schema calls the names there ``*``."""
Path_ = tuple[str, ...]


def _chosen() -> dict[str, str | None]:
    """Group to the option that the recipe picks, in its order."""
    defaults = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["defaults"]
    return {group: option for item in defaults if isinstance(item, dict) for group, option in item.items()}


def _with_bases(folder: Path, name: str, done: list[str]) -> None:
    """Append ``name`` and the files of its folder that it starts from, bases first."""
    if name in done:
        return
    tree = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")) or {}
    for base in tree.get("defaults", ()) if isinstance(tree, dict) else ():
        if isinstance(base, str) and (folder / f"{base}.yaml").is_file():
            _with_bases(folder, base, done)
    done.append(name)


def _files_of(group: str, option: str | None) -> Iterator[Path]:
    """The files of a group in the order in which a reader meets them: default, the recipe's, then the others."""
    folder = CONF / group
    present = sorted(file.stem for file in folder.glob("*.yaml"))
    done: list[str] = []
    for name in [*(name for name in ("default", option) if name in present), *present]:
        _with_bases(folder, str(name), done)
    yield from (folder / f"{name}.yaml" for name in done)


def _all_files() -> Iterator[tuple[Path, Path_]]:
    """Every file of ``conf/`` in order, with the place of its keys in the configuration."""
    yield RECIPE, ()
    for nested, place in NESTED.items():
        for file in _files_of(nested, "files"):
            yield file, tuple(place.split("."))
    for group, option in _chosen().items():
        for file in _files_of(group, option):
            yield file, () if group == "experiment" else (group,)


def _inner(shape: TypeInfo, part: str) -> tuple[str, list[TypeInfo]]:
    """The name of ``part`` in the schema, ``*`` where people choose it, and what may be below it."""
    models = [model for model in map(section, shape.kinds) if model is not None]
    models += [model for model in union_members(shape).values() if model not in models]
    if models:
        return part, [of_field(model.model_fields[part]) for model in models if part in model.model_fields]
    values = [kind.__args__[1] for kind in shape.kinds if getattr(kind, "__origin__", None) is dict]
    return "*", [inspect_type(value) for value in values]


def _setting(path: Path_) -> Path_:
    """``path`` as the schema names it; a mapping from names to plain values is one setting."""
    shapes, named = [TypeInfo((TunectlConfig,), nullable=False, metadata=())], []
    for part in path:
        found = [_inner(shape, part) for shape in shapes]
        shapes = [inner for _, below in found for inner in below]
        name = next((name for name, below in found if below), part)
        if not shapes or (name == "*" and all(_is_plain(shape) for shape in shapes)):
            break
        named.append(name)
    return tuple(named)


def _is_plain(shape: TypeInfo) -> bool:
    return not union_members(shape) and not any(section(kind) for kind in shape.kinds)


def _keys(node: Any, path: Path_) -> Iterator[tuple[Path_, int, bool]]:
    """Dotted key, its line from 0, and whether it is a leaf."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        below = (*path, str(key.value))
        inner = isinstance(value, yaml.MappingNode) and bool(value.value)
        yield below, key.start_mark.line, not inner
        yield from _keys(value, below)


def _comment_lines(text: str) -> set[int]:
    """The lines, from 0, that end in a comment or are one."""
    ends: dict[int, int] = {}
    for token in yaml.scan(text):
        for line in range(token.start_mark.line, token.end_mark.line + 1):
            end = token.end_mark.column if line == token.end_mark.line else 10**6
            if end and not isinstance(token, yaml.BlockEndToken):
                ends[line] = max(ends.get(line, 0), end)
    rows = text.splitlines()
    return {number for number, row in enumerate(rows) if re.search(r"(^|\s)#\s*\S", row[ends.get(number, 0) :])}


def _silent(files: Iterator[tuple[Path, Path_]]) -> list[str]:
    """Leaf keys without a comment where they are declared first, as ``file:line: key``."""
    seen: set[Path_] = set()
    found = []
    for file, place in files:
        text = file.read_text(encoding="utf-8")
        rows, commented = text.splitlines(), _comment_lines(text)
        for path, line, leaf in _keys(yaml.compose(text), place):
            setting = _setting(path)
            if path[len(place)] == "defaults" or not setting or setting in seen:
                continue
            seen.add(setting)
            above = line - 1 in commented and rows[line - 1].lstrip().startswith("#")
            if leaf and line not in commented and not above:
                found.append(f"{file.parent.name}/{file.name}:{line + 1}: {'.'.join(path)}")
    return found


def test_every_setting_has_a_comment_where_it_is_declared_first() -> None:
    assert _silent(_all_files()) == []


def test_a_key_without_a_comment_is_found(tmp_path: Path) -> None:
    file = tmp_path / "cpu.yaml"
    file.write_text(
        "# The machine.\n\ndevice: cpu  # where\nthreads: null\n# of weights\ndtype: '# auto'\ngenerate_batch: 1\n"
    )
    assert _silent(iter([(file, ("hardware",))])) == [
        f"{tmp_path.name}/cpu.yaml:4: hardware.threads",
        f"{tmp_path.name}/cpu.yaml:7: hardware.generate_batch",
    ]


def test_names_that_people_choose_are_no_settings() -> None:
    assert _setting(("ingest", "sources", "web", "path")) == ("ingest", "sources", "*", "path")
    assert _setting(("split", "population", "price", "low")) == ("split", "population")
    assert _setting(("sft", "max_length")) == ("sft", "max_length")


@pytest.mark.parametrize("group", sorted(_chosen()))
def test_the_recipe_lists_every_option_of_a_group(group: str) -> None:
    row = next(row for row in RECIPE.read_text(encoding="utf-8").splitlines() if row.startswith(f"  - {group}: "))
    listed = row.partition("#")[2].rpartition(": ")[2].split(" | ")
    present = {file.stem for file in (CONF / group).glob("*.yaml")}
    assert len(listed) == len(set(listed))
    assert set(listed) - ({"null"} if group == "experiment" else set()) == present
