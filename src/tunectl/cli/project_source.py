"""``tunectl init --from``: examine a user's data, declare it as the source of the new project, and print what was found."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, NamedTuple

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import project_template
from tunectl.config.schema.ingest import DataSource
from tunectl.config.schema.root import TunectlConfig
from tunectl.core.errors import DataError, UsageError
from tunectl.pipeline.source_preview import SourcePreview

MAX_COPY_BYTES: Final = 1_000_000_000
"""Largest size of data that is copied into the project; larger data is read where it is."""
HUB_ID: Final = re.compile(r"^[\w.-]+/[\w.-]+$")
SCHEMAS: Final = "schema"
MAX_REJECTED_SHARE: Final = 0.2
"""Share of the rows that a new project lets ingest reject."""
FIRST_LOOK_ANSWERS: Final = 180
"""Training answers of a first training: minutes on two cores."""
TRAIN_SHARE: Final = 0.7
FEW_ANSWERS: Final = 100
"""Number of answers below which a verdict is seldom more than "not enough evidence"."""
_PLAIN: Final = re.compile(r"^(?!(?i:true|false|null|yes|no|on|off|y|n)$)[A-Za-z][\w./-]*(?!\n)$")
"""Texts that YAML reads as text without quotes."""
_PINS: Final = (
    (re.compile(r"ingest\.sources\.[\w-]+\.columns\.prompt=\[([^\][]*)\]"), r"--prompt \1"),
    (re.compile(r"ingest\.sources\.[\w-]+\.columns\.answer="), "--answer "),
    (re.compile(r"ingest\.sources\.[\w-]+\.columns\.text=\[([^\][]*)\]"), "--text COLUMN"),
    (re.compile(r"set ingest\.sources\.[\w-]+\.encoding="), "add --encoding "),
    (re.compile(r", or take the source out( of ingest\.sources)?"), ""),
)
"""Messages of ingest that name a setting, and the option of init that sets it."""


class NewSource(NamedTuple):
    """Source of data of a new project: its name, settings, a preview of its rows, and lines of text about it."""

    name: str
    declared: DataSource
    preview: SourcePreview
    lines: list[str]
    """What was found, as text."""


def add_source(project: Path, target: Path, args: argparse.Namespace) -> NewSource:
    """Examine ``args.source``, copy it, and declare it as the source of the unfinished ``project``; return what was found.

    ``target`` is where the project will be.
    Raises  UsageError for what is neither a file nor the name of a data set; DataError for data that cannot be read;
            InfrastructureError for a Hub that cannot be reached.
    """
    from tunectl.config.loading import json_schema_export

    layout = ProjectPaths(project)
    origin = Path(args.source).expanduser()
    is_local = origin.exists()
    if not is_local and not HUB_ID.match(args.source):
        raise UsageError(
            f"{args.source}: there is no such file or folder", hint="give a file, a folder, or a data set as OWNER/NAME"
        )
    if is_local and not (origin.is_file() or origin.is_dir()):
        raise UsageError(f"{args.source}: this is a pipe or a device", hint="write the data into a file first")
    if is_local and "${" in origin.name:
        raise UsageError(f"{args.source}: ${{ in a name is a reference to a setting", hint="rename the file or folder")
    name = re.sub(r"[^a-z0-9_-]+", "-", (origin.name.partition(".")[0] if is_local else origin.name).lower()).strip(
        "-_"
    )
    name = name or "data"
    settings = _describe_origin(origin, project, target) if is_local else _describe_hub(args.source)
    settings |= _describe_columns(args)
    if args.encoding:
        settings["encoding"] = _check_encoding(args.encoding, is_local=is_local)
    _write(layout, name, settings, args.source)
    location = {"path": str(origin.resolve())} if is_local else {}
    preview = _preview(layout, name, location, args.source)
    if preview.main_languages != ["en"]:
        project_template.replace_line(
            layout.conf / "curate" / "default.yaml",
            r"^  allowed: \[en\] ",
            f"  allowed: [{', '.join(preview.main_languages)}] ",
        )
    _write(layout, name, settings | _pin(preview, settings), args.source, _list_notes(preview))
    list(json_schema_export.write_folder(layout, project / SCHEMAS))
    _bind_schemas(project)
    lines = _describe(args.source, preview)
    if is_local and settings["path"].startswith("data/") and (outside_links := _list_links_out(origin.resolve())):
        lines.append(f"links that lead out of it, which are not copied: {', '.join(outside_links)}")
    return NewSource(name, _load(layout).ingest.sources[name], preview, lines)


def _preview(layout: ProjectPaths, name: str, location: dict[str, str], origin: str) -> SourcePreview:
    from tunectl.pipeline.source_preview import preview_source

    root = _load(layout)
    scratch = layout.root / ".look"
    scratch.mkdir()
    try:
        return preview_source(root, name, root.ingest.sources[name].model_copy(update=location), scratch)  # type: ignore[arg-type]
    except DataError as error:
        raise DataError(_shorten(error.message, name, origin), hint=_offer_options(error.hint)) from error
    finally:
        shutil.rmtree(scratch)


def next_lines(source: NewSource, folder: str) -> list[str]:
    """Return lines of text for the end of ``tunectl init``: the next command for ``folder``, and a warning of few answers."""
    preview = source.preview
    cd_prefix = "" if folder == "." else f"cd {shlex.quote(folder)} && "
    if not preview.examples:
        return [
            "these are documents: a model learns to answer from inputs with answers, and there are none yet",
            f"next: {cd_prefix}tunectl repro --to split    reads and curates them; then add a table of inputs and answers to data/",
        ]
    lines = []
    if preview.answers < FEW_ANSWERS:
        lines.append(f"{preview.answers} answers are few: the verdict will likely be that there is not enough evidence")
    overrides = f"experiment=first sft.epochs={_choose_epochs(preview)}"
    return [*lines, f"next: {cd_prefix}tunectl up {overrides}    a first verdict, in minutes"]


def _choose_epochs(source_preview: SourcePreview) -> float:
    """Return the epochs that show ``FIRST_LOOK_ANSWERS`` answers, at most two."""
    train = max(1.0, source_preview.answers * TRAIN_SHARE)
    return min(2.0, max(0.01, round(FIRST_LOOK_ANSWERS / train, 2)))


def _load(layout: ProjectPaths) -> TunectlConfig:
    from tunectl.config.loading import checks

    return checks.load_config(layout).root


def _describe_origin(origin: Path, project: Path, target: Path) -> dict[str, Any]:
    """Return the source settings of a file or folder, which is copied below data/ unless it is in the project or too large."""
    origin_path = origin.resolve()
    if origin_path.is_relative_to(target):
        return {"method": "files", "path": origin_path.relative_to(target).as_posix()}
    files = [item for item in origin_path.rglob("*") if item.is_file()] if origin_path.is_dir() else [origin_path]
    if sum(item.stat().st_size for item in files) > MAX_COPY_BYTES:
        return {"method": "files", "path": str(origin_path)}
    copy = project / "data" / origin_path.name
    if origin_path.is_dir():
        outside_links = set(_list_links_out(origin_path))

        def ignore(folder: str, names: list[str]) -> list[str]:
            inside = Path(folder).relative_to(origin_path)
            return [
                name
                for name in names
                if name.startswith(".")
                or (inside / name).as_posix() in outside_links
                or _is_special(Path(folder) / name)
            ]

        shutil.copytree(origin_path, copy, symlinks=True, ignore=ignore)
    else:
        shutil.copyfile(origin_path, copy)
    return {"method": "files", "path": f"data/{origin_path.name}"}


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a socket or a device, which is neither read nor copied."""
    return not (path.is_symlink() or path.is_dir() or path.is_file())


def _list_links_out(folder: Path) -> list[str]:
    """Return the links below ``folder`` that lead out of it, or out of a copy: foreign data may link to any file of this machine."""
    if not folder.is_dir():
        return []
    links = [item for item in folder.rglob("*") if item.is_symlink()]
    return sorted(
        link.relative_to(folder).as_posix()
        for link in links
        if os.path.isabs(link.readlink()) or not Path(os.path.realpath(link)).is_relative_to(folder)  # noqa: PTH117
    )


def _describe_hub(name: str) -> dict[str, Any]:
    from tunectl.backends.storage import hub_download

    return {"method": "hub", "id": name, "revision": hub_download.find_dataset_commit(name)}


def _describe_columns(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the columns that the options of the command name."""
    if args.text and (args.prompt or args.answer):
        raise UsageError(
            "--text is about documents, --prompt and --answer about examples", hint="leave one of them out"
        )
    if args.text:
        return {"holds": "documents", "columns": {"text": args.text}}
    if bool(args.prompt) != bool(args.answer):
        raise UsageError("--prompt and --answer go together", hint="name both columns, or neither")
    return {"holds": "examples", "columns": {"prompt": args.prompt, "answer": args.answer}} if args.prompt else {}


def _check_encoding(name: str, *, is_local: bool) -> str:
    if not is_local:
        raise UsageError("--encoding is of files; a data set of the Hub is always UTF-8", hint="leave it out")
    try:
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise UsageError(f"--encoding {name}: there is no such encoding", hint="for example cp1252, utf-16") from error


def _pin(source_preview: SourcePreview, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were detected if all files are of one kind; else every run detects the kind of each file."""
    pinned: dict[str, Any] = {}
    if len(source_preview.read_as) == 1 and settings["method"] == "files":
        (one,) = source_preview.read_as
        pinned = {"holds": one.holds, "type": one.type, **({} if "columns" in settings else {"format": one.format})}
    # A name with ${ would be a reference in YAML, and ??? a value that is missing.
    names = [column for column in source_preview.fields if "${" not in column and column != "???"]
    fields: dict[str, str] = {}
    for column in names:
        name = re.sub(r"\W+", "_", column.lower()).strip("_") or column
        others = (f"{name}_{number}" for number in count(2))
        fields[next(free for free in chain([name], others) if free not in fields)] = column
    return pinned | ({"fields": fields} if fields else {})


def _list_notes(source_preview: SourcePreview) -> list[str]:
    """Return what the settings do not say: how files of several kinds are read, and what nothing reads."""
    notes = [f"Read as: {_list_kinds(source_preview)}"]
    if source_preview.unused:
        notes.append(f"Columns that nothing reads: {', '.join(source_preview.unused)}")
    return ["".join(sign if sign.isprintable() else "?" for sign in " ".join(note.split())) for note in notes]


def _write(layout: ProjectPaths, name: str, settings: dict[str, Any], origin: str, notes: Sequence[str] = ()) -> None:
    base = {"files": "files", "hub": "hub"}[settings["method"]]
    lines = [
        f"# yaml-language-server: $schema=../../{SCHEMAS}/ingest.schema.json",
        f"# Written by tunectl init --from {' '.join(origin.split())}: what was seen there. Change what is wrong;",
        f"# conf/ingest/source/{base}.yaml lists every setting of a source with its meaning.",
        *(f"# {note}" for note in notes),
        "defaults:",
        f"  - source/{base}@sources.{name}",
        "  - _self_",
        "sources:",
        f"  {name}:",
        *(f"    {key}: {_format(value)}" for key, value in settings.items() if key != "method"),
        f"max_rejected_share: {MAX_REJECTED_SHARE:g}   # share of all rows rejected above which the stage fails",
    ]
    (layout.conf / "ingest" / "project.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _format(value: Any) -> str:
    """Return a value in YAML's flow style; quoted where it could mean something else."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_format(key)}: {_format(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_format(item) for item in value) + "]"
    if _PLAIN.match(value):
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in text)


def _bind_schemas(project: Path) -> None:
    """Let the editor look for the schemas inside the project: they were named where it was built."""
    path = project / ".vscode" / "settings.json"
    path.write_text(path.read_text(encoding="utf-8").replace(f"{project.as_posix()}/", ""), encoding="utf-8")


def _shorten(message: str, name: str, origin: str) -> str:
    """Return an error of ingest, without the setting that the user has not written, and with the data named once."""
    text = message.replace(f"ingest.sources.{name}.path = ", "").replace("; the limit is 100%", "")
    first, end, rest = text.partition("\n")
    path = str(Path(origin).expanduser().resolve())
    first = first.replace(f"ingest.sources.{name}: ", "" if path in first else f"{origin}: ")
    return first + end + rest


def _offer_options(hint: str) -> str:
    for pattern, option in _PINS:
        hint = pattern.sub(option, hint)
    return hint


def _describe(origin: str, source_preview: SourcePreview) -> list[str]:
    """Return lines of text about the data that was found."""
    rejected = sum(source_preview.rejected.values())
    cut = ", looked at the first of them" if source_preview.cut else ""
    lines = [
        f"{origin}: {_list_kinds(source_preview)}",
        f"rows: {source_preview.rows}{cut}, {source_preview.kept} kept, {rejected} rejected{_count(source_preview.rejected)}",
        f"records: {source_preview.examples} examples with {source_preview.answers} answers, {source_preview.documents} documents",
    ]
    if rejected > MAX_REJECTED_SHARE * source_preview.rows:
        lines.append(
            f"more than {MAX_REJECTED_SHARE:.0%} of the rows are rejected, so a build stops at ingest: mend the data, or raise "
            "max_rejected_share in conf/ingest/project.yaml"
        )
    if source_preview.fields or source_preview.unused:
        lines.append(
            f"columns: {', '.join(source_preview.fields) or 'none'} kept for slices; not read: {', '.join(source_preview.unused) or 'none'}"
        )
    near = (
        ", which are left out; near ones are not searched for (near in conf/curate/default.yaml)"
        if source_preview.near_duplicates is None
        else f" and {source_preview.near_duplicates} near, which are left out"
    )
    lines += [
        f"languages{_of(source_preview)}: {_list(source_preview.languages)}",
        f"duplicates{_of(source_preview)}: {source_preview.exact_duplicates} exact{near}",
        f"personal data{_of(source_preview)}: {_list(source_preview.personal)}{'; it is masked' if source_preview.personal else ''}",
    ]
    if source_preview.turned_away:
        lines.append(f"curation leaves out{_of(source_preview)}: {_list(source_preview.turned_away)}")
    return lines


def _list_kinds(source_preview: SourcePreview) -> str:
    return "; ".join(f"{item.files} {item.type} as {item.format} ({item.why})" for item in source_preview.read_as)


def _of(source_preview: SourcePreview) -> str:
    return (
        f" of {source_preview.curated} records"
        if source_preview.curated < source_preview.examples + source_preview.documents
        else ""
    )


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def _count(counts: dict[str, int]) -> str:
    return f" ({_list(counts)})" if counts else ""
