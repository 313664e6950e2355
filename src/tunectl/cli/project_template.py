"""Files of a new project, and the atomic move of the project to its folder."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.distribution import format_reinstall_command
from tunectl.core.errors import InfrastructureError, TunectlError, UsageError

PARTS = ("conf", "dvc.yaml", "bentofile.yaml", "bento.dockerfile.j2", "monitoring")
"""Parts that are copied where they exist."""
DATA = "data"
KEPT = frozenset({".git", ".dvc", DATA, "README.md"})
"""Never replaced in a folder that has them; what is copied for an existing data/ is added to it."""
BACKUP = ".before-init"
"""Folder to which ``--force`` moves existing files."""
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]*$")
PACKAGE = Path(__file__).resolve().parents[1]
TEXTS = Path(__file__).resolve().parent / "project"
COMMENTS = 31
"""Column of the comments in conf/config.yaml."""
_OWN_TESTS = "experiment/smoke.yaml"
_OF_EXAMPLES = "experiment/small.yaml"
"""Experiment that needs the preferences of the example."""
_USUAL = {"sft": "lora", "preferences": "none", "reward": "none", "align": "none"}
"""Options of a new project that are not called default; there are no preferences to train on yet."""


def find_template_dir() -> Path:
    """Return the folder with the template files: inside an installed wheel, or in the checkout of this code.

    Raises  InfrastructureError where neither is there.
    """
    bundled, checkout = PACKAGE / "_project", PACKAGE.parents[1]
    for folder in (bundled, checkout):
        if (folder / "conf" / "config.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise InfrastructureError(
        f"{bundled} is missing, so this installation cannot make projects", hint=format_reinstall_command()
    )


def list_examples() -> list[str]:
    """Return the names of the bundled examples, sorted; each is a folder of the template's ``examples/``."""
    return sorted(item.name for item in (find_template_dir() / "examples").glob("*") if item.is_dir())


def project_name(folder: Path, requested: str | None) -> str:
    """Return ``requested`` as the project's name, or else a valid name made from the folder's.

    Raises  UsageError for a name that the configuration would refuse.
    """
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.name.lower()).strip("-_") if requested is None else requested
    if not NAME.match(name):
        raise UsageError(
            f"{name or folder} cannot be the name of a project: lower-case letters, digits, _ and - are allowed",
            hint="give one: --name my-project",
        )
    return name


def render_project(folder: Path, name: str, example: str | None) -> None:
    """Write all files of a new project called ``name``, with the files of ``example`` if given, into the empty ``folder``."""
    origin = find_template_dir()
    for part in PARTS:
        _copy(origin / part, folder / part)
    if example is not None:
        _copy(origin / "examples" / example, folder / "examples" / example)
    _settle_conf(folder / "conf", name, example)
    (folder / "data").mkdir()
    (folder / "data" / ".gitkeep").touch()
    for text in ("gitignore", "dvcignore"):
        shutil.copyfile(TEXTS / text, folder / f".{text}")
    (folder / "README.md").write_text(_readme(name, example), encoding="utf-8")


def _copy(origin: Path, target: Path) -> None:
    if origin.is_dir():
        shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    elif origin.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, target)


def _settle_conf(conf: Path, name: str, example: str | None) -> None:
    """Set the project's name; remove what belongs to other examples, to recorded overrides and to our own tests."""
    from tunectl.config.loading import override_file

    (conf / _OWN_TESTS).unlink(missing_ok=True)
    (conf / "overrides.yaml").unlink(missing_ok=True)
    override_file.save_overrides(ProjectPaths(conf.parent), [])
    recipe = conf / "config.yaml"
    text = _replace_line(recipe.read_text(encoding="utf-8"), r"^project: *\S+ *", f"project: {name}".ljust(COMMENTS))
    text = text.replace(f" | {Path(_OWN_TESTS).stem}", "")
    if example is None:
        (conf / _OF_EXAMPLES).unlink(missing_ok=True)
        text = text.replace(f" | {Path(_OF_EXAMPLES).stem}", "")
        for other in list_examples():
            for option in conf.glob(f"*/{other}.yaml"):
                option.unlink()
            listed = rf"^  - ingest: {other} *(# .*) \| {other}(.*)$"
            text = _replace_line(text, listed, "  - ingest: project".ljust(COMMENTS) + r"\1 | project\2")
            text = re.sub(rf"(?m)^  - (\w+): {other} *", _start, text)
            text = text.replace(f" | {other}", "")
            text = text.replace(f"; {other} names its own", "")
        shutil.copyfile(TEXTS / "ingest.yaml", conf / "ingest" / "project.yaml")
    recipe.write_text(text, encoding="utf-8")


def _start(match: re.Match[str]) -> str:
    """Return the line for a new project, with the usual option."""
    return f"  - {match[1]}: {_USUAL.get(match[1], 'default')}".ljust(COMMENTS)


def _replace_line(text: str, pattern: str, value: str) -> str:
    changed, count = re.subn(f"(?m){pattern}", value, text)
    if count != 1:
        raise TunectlError(
            f"bug: a file of conf/ that init copies has {count} lines like {pattern!r}, not one",
            hint="please report it",
        )
    return changed


def replace_line(path: Path, pattern: str, value: str) -> None:
    """Replace with ``value`` the only match of the regular expression ``pattern`` in the file ``path``.

    Raises  TunectlError where there is none, or several.
    """
    text = path.read_text(encoding="utf-8")
    path.write_text(_replace_line(text, pattern, value), encoding="utf-8")


def _readme(name: str, example: str | None) -> str:
    if example is None:
        story = "Put raw files below `data/` (pages, PDF, tables, JSON lines, all mixed); `conf/ingest/project.yaml` says how they are read."
    else:
        story = f"It starts from the example `{example}`: its raw files are in `examples/{example}/data/`, its settings are the files called `{example}.yaml`."
    return (TEXTS / "README.md").read_text(encoding="utf-8").replace("PROJECT", name).replace("STORY", story)


@contextmanager
def move_atomically(folder: Path, target: Path) -> Iterator[Path | None]:
    """Move the content of ``folder`` to ``target`` while the block runs; undone if the block raises.

    What was there under the same names goes to the folder that is yielded (None where nothing was in the way).
    """
    existed = target.is_dir()
    target.mkdir(parents=True, exist_ok=True)
    backup = _find_free_folder(target / BACKUP)
    moves: list[Path] = []
    backups: list[Path] = []
    try:
        for entry, target_path in list(_list_moves(folder, target)):
            if target_path.exists():
                backup.mkdir(exist_ok=True)
                target_path.rename(backup / entry.name)
                backups.append(target_path)
            entry.rename(target_path)
            moves.append(target_path)
        yield backup if backups else None
    except BaseException:
        for target_path in moves:
            _remove(target_path)
        for target_path in backups:
            (backup / target_path.name).rename(target_path)
        if backups:
            backup.rmdir()
        if not existed:
            shutil.rmtree(target, ignore_errors=True)
        raise


def _list_moves(folder: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each new entry below ``folder``, and its path below ``target``.

    Raises  UsageError for a name that an existing data/ has already.
    """
    for entry in sorted(folder.iterdir()):
        target_path = target / entry.name
        if not (target_path.exists() and entry.name in KEPT):
            yield entry, target_path
        elif entry.name == DATA:
            for item in sorted(entry.iterdir()):
                if item.name == ".gitkeep":
                    continue
                if not target_path.is_dir() or (target_path / item.name).exists():
                    raise UsageError(
                        f"{target_path / item.name} cannot be written: something is there already",
                        hint="rename what --from names, or move away what is there",
                    )
                yield item, target_path / item.name


def _find_free_folder(folder: Path) -> Path:
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def scratch_project(target: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of ``target``, removed afterwards.

    Raises  InfrastructureError where the folder cannot be created.
    """
    parent_folder = target if target.is_dir() else next(parent for parent in target.parents if parent.is_dir())
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".tunectl-init-", dir=parent_folder))
    except OSError as error:
        raise InfrastructureError(
            f"cannot write in {parent_folder}: {error.strerror}", hint="choose another folder, or fix its permissions"
        ) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
