"""The page of settings: the schema's fields with their prose, and the values that conf/ gives them. See ``generate_reference``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from tunectl.config.loading import type_descriptions as types_
from tunectl.config.loading.json_schema_export import field_docs
from tunectl.config.schema.root import TunectlConfig

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
LONGEST_TYPE = 200
LONGEST_VALUE = 60
"""Characters of a value in a table; a longer one is in its YAML file."""
UNSET = object()
"""The value of a setting that no file sets."""
Row = tuple[str, ...]


def render_settings() -> str:
    """Return one section a group of conf/, one table a choice, one row a setting."""
    text = (
        "# Settings\n\n"
        "The settings of `conf/`, by section. The column *value* is what the named file of `conf/` sets; change it there, in a\n"
        "file of your own, or with `tunectl repro SECTION.KEY=VALUE`. `tunectl check` prints the value of your project and\n"
        "the line that set it. `[]` means: of each entry of a list; `<name>` stands for a name that you choose.\n"
    )
    for name, info in TunectlConfig.model_fields.items():
        shape = types_.of_field(info)
        text += f"\n## {name}\n\n"
        docs = field_docs(TunectlConfig).get(name, "")
        if not (CONF / name).is_dir():
            value = load_yaml(CONF / "config.yaml").get(name, UNSET)
            text += render_settings_table([leaf_row(name, shape, value, docs)])
            continue
        options = list_options(name)
        text += f"Options of `conf/{name}/`: {', '.join(f'`{option}`' for option in options)}.\n"
        for title, rows in dict(iter_tables(name, name, shape, None)).items():
            text += f"\n{title}\n\n" + render_settings_table(rows)
    return text


def render_settings_table(rows: Sequence[Row]) -> str:
    """Return the table of one section class; the column of values is left out where no file sets one."""
    head = ("setting", "allowed", "value", "meaning")
    if any(row[2] for row in rows):
        return render_table(head, rows)
    return render_table(head[:2] + head[3:], [row[:2] + row[3:] for row in rows])


def iter_tables(group: str, key: str, shape: types_.TypeInfo, value: Any) -> Iterator[tuple[str, list[Row]]]:
    """Yield title and rows of each table of a section: one for a plain section, one a member of a tagged union."""
    members = types_.union_members(shape)
    for model in dict.fromkeys(members.values()):
        tags = [tag for tag, member in members.items() if member is model]
        origin, result = find_values(group, key, shape.discriminator or "", tags, value)
        title = f"**`{key}`** with `{shape.discriminator}: {' | '.join(tags)}`{origin}"
        yield from iter_model_tables(group, key, model, result, title)
    if not members:
        for kind in shape.kinds:
            plain = types_.section(kind)
            if plain is not None:
                origin, result = find_values(group, key, "", [], value)
                yield from iter_model_tables(group, key, plain, result, f"**`{key}`**{origin}")


def iter_model_tables(
    group: str, key: str, model: type[BaseModel], value: Any, title: str
) -> Iterator[tuple[str, list[Row]]]:
    """Yield the table of one section class, then those of the unions and lists of sections below it."""
    rows: list[Row] = []
    later: list[tuple[str, types_.TypeInfo, Any]] = []
    collect_rows(key, model, value, rows, later)
    yield title, rows
    for below, shape, values in later:
        yield from iter_tables(group, below, shape, values)


def collect_rows(
    key: str, model: type[BaseModel], value: Any, rows: list[Row], later: list[tuple[str, types_.TypeInfo, Any]]
) -> None:
    """Fill ``rows`` with the settings of ``model``; what needs a table of its own goes to ``later``."""
    docs = field_docs(model)
    for name, info in model.model_fields.items():
        shape, below = types_.of_field(info), f"{key}.{name}"
        inner = value.get(name, UNSET) if isinstance(value, Mapping) else UNSET
        kind = shape.kinds[0]
        nested = types_.section(kind) if len(shape.kinds) == 1 else None
        if nested is not None:
            if shape.nullable or name in docs:
                rows.append(
                    (f"`{below}`", "a section" + (", or null" if shape.nullable else ""), "", docs.get(name, ""))
                )
            collect_rows(below, nested, inner, rows, later)
            continue
        entry = find_entry_shape(kind)
        if types_.union_members(shape):
            later.append((below, shape, inner))
        elif entry is not None:
            mark = ".<name>" if get_origin(kind) is dict else "[]"
            later.append((below + mark, entry, None))
        rows.append(leaf_row(below, shape, inner, docs.get(name, "")))


def find_entry_shape(kind: Any) -> types_.TypeInfo | None:
    """Return the shape of the entries of a list or mapping of sections; None for any other kind."""
    arguments = [item for item in get_args(kind) if item is not ...]
    if get_origin(kind) not in {list, tuple, dict} or not arguments:
        return None
    shape = types_.inspect_type(arguments[-1])
    holds_sections = types_.union_members(shape) or any(types_.section(item) for item in shape.kinds)
    return shape if holds_sections else None


def leaf_row(key: str, shape: types_.TypeInfo, value: Any, docs: str) -> Row:
    """Return the row of a setting that is no section."""
    allowed = re.sub(r"matches (\S+?)(,? |,?$)", r"matches `\1`\2", types_.describe_type(shape))
    if len(allowed) > LONGEST_TYPE:
        allowed = "a list of sections, see below"
    return f"`{key}`", allowed, "" if value is UNSET else f"`{format_value(value)}`", strip_roles(docs)


def format_value(value: Any) -> str:
    """Return a value as YAML would have it in one line; a long one becomes three dots."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("\n...\n").strip()
    return text if len(text) <= LONGEST_VALUE else "..."


def find_values(group: str, key: str, discriminator: str, tags: Sequence[str], value: Any) -> tuple[str, Any]:
    """Return where the values of one choice come from, in words, and the values."""
    if key == f"{group}.sources.<name>":
        path = CONF / group / "source" / f"{tags[0] if tags else 'files'}.yaml"
        return (f", values of `{path.relative_to(ROOT)}`", load_yaml(path)) if path.is_file() else ("", None)
    if key != group:
        matches = isinstance(value, Mapping) and (not tags or value.get(discriminator) in tags)
        return "", value if matches else None
    for option in sorted(list_options(group), key=lambda name: rank_option(group, name, tags)):
        values = load_option(group, option)
        if not tags or values.get(discriminator) in tags:
            return f", values of `conf/{group}/{option}.yaml`", values
    return "", None


def rank_option(group: str, option: str, tags: Sequence[str]) -> tuple[bool, bool, bool, bool, str]:
    """Return the place of an option: the default first, then one called as its method, one that starts from no other."""
    picked = [item.get(group) for item in load_yaml(CONF / "config.yaml")["defaults"] if isinstance(item, dict)]
    starts = "defaults" in load_yaml(CONF / group / f"{option}.yaml")
    return option != "default", option not in tags, starts, option not in picked, option


def list_options(group: str) -> list[str]:
    """Names of the files of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def load_option(group: str, option: str) -> dict[str, Any]:
    """Return the values of one file of a group, over those of the files of the group that it starts from."""
    own = load_yaml(CONF / group / f"{option}.yaml")
    values: dict[str, Any] = {}
    for start in own.pop("defaults", []):
        if start != "_self_" and "@" not in start:
            merge_into(values, load_option(group, start))
    merge_into(values, own)
    return values


def merge_into(values: dict[str, Any], newer: Mapping[str, Any]) -> None:
    """Lay ``newer`` over ``values``, section by section."""
    for key, value in newer.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            merge_into(values[key], value)
        else:
            values[key] = value


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, dict) else {}


def render_table(head: Row, rows: Sequence[Row]) -> str:
    """Return a Markdown table; cells are plain text or code."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def strip_roles(text: str | None) -> str:
    """Return a docstring as one line of Markdown: double backquotes become single ones."""
    return " ".join((text or "").split()).replace("``", "`")
