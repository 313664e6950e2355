"""Digest of the code that a stage uses, so that a changed function reruns its stages and no others.

The import graph is read from the sources without importing anything: imports anywhere in a module, and texts such as
``"tunectl.backends.trainers.sft_trainer:Trainer"`` in tables. Docstrings, comments and layout are ignored.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.core.distribution import format_reinstall_command
from tunectl.core.errors import InfrastructureError, TunectlError

PACKAGE = "tunectl"
TABLES = frozenset({"tunectl.pipeline.stages"})
"""Packages whose ``__init__`` lists every stage; it does not affect the results of a stage, and is left out of the digests."""
_DOTTED = re.compile(rf"^{PACKAGE}(\.\w+)+(:\w+)?$")
_SKIPPED = frozenset({"lineno", "col_offset", "end_lineno", "end_col_offset", "ctx", "type_comment", "kind"})


class Module(msgspec.Struct, frozen=True):
    """Digest of one source file, and the modules and strings that it names; cached while size and time of change are unchanged."""

    stamp: tuple[int, int]
    """Size in bytes and time of change in nanoseconds, to know whether to read it again."""
    meaning: str
    """SHA-256 of its syntax tree."""
    imports: list[str]
    """Dotted names that it imports or contains as text; some are names inside a module."""
    texts: list[str]
    """Short texts in it, which may be names of data files of its package."""


@dataclass(frozen=True, slots=True)
class PackageSources:
    """The installed package: files by dotted module name, and its other files."""

    root: Path
    modules: dict[str, Path]


def find_package_sources() -> PackageSources:
    """Return the sources of the package that is running, from a checkout or an installed wheel.

    Raises  InfrastructureError where it is not a folder of Python sources.
    """
    spec = find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    root = Path(folders[0]) if folders else Path()
    if not (root / "__init__.py").is_file():
        raise InfrastructureError(
            f"the sources of {PACKAGE} are not in a folder, so tunectl cannot detect changed code",
            hint=f"install it as files, not in a zip: {format_reinstall_command()}",
        )
    return PackageSources(root, {_name(root, file): file for file in root.rglob("*.py")})


def stage_code_digests(
    stages: dict[str, list[str]], cache: Path | None = None, sources: PackageSources | None = None
) -> dict[str, str]:
    """Return the digest of the code of each stage; ``stages`` maps its name to the modules it starts from.

    ``cache``: file that keeps the digest and imports of each source file between runs; safe to delete.
    Raises  TunectlError for an unknown module.
    """
    sources = sources or find_package_sources()
    modules = _read_all(sources, cache)
    return {stage: _digest(sources, modules, transitive_imports(modules, starts)) for stage, starts in stages.items()}


def transitive_imports(modules: dict[str, Module], starts: Iterable[str]) -> set[str]:
    """Return the names of all modules that ``starts`` import, directly or through others; parent packages included."""
    todo, result = list(starts), set[str]()
    for start in todo:
        if start not in modules:
            raise TunectlError(f"{start} is not a module of {PACKAGE}", hint="a bug of tunectl: please report it")
    while todo:
        name = todo.pop()
        if name in result or name in TABLES:
            continue
        result.add(name)
        todo += [parent for parent in _parents(name) if parent in modules]
        todo += [hit for mentioned in modules[name].imports if (hit := _module_of(mentioned, modules))]
    return result


def _read_all(sources: PackageSources, cache: Path | None) -> dict[str, Module]:
    modules: dict[str, Module] = {}
    if cache is not None and cache.is_file():
        try:
            modules = msgspec.json.decode(cache.read_bytes(), type=dict[str, Module])
        except atomic_io.NOT_JSON:
            modules = {}  # an older tunectl wrote it
    read_file: Callable[[str, Path, tuple[int, int]], Module] = _read if cache is None else _read_once
    result: dict[str, Module] = {}
    for name, file in sources.modules.items():
        stat = file.stat()
        stamp = (stat.st_size, stat.st_mtime_ns)
        old = modules.get(str(file))
        result[name] = old if old is not None and old.stamp == stamp else read_file(name, file, stamp)
    if cache is not None:
        parsed = {str(sources.modules[name]): module for name, module in result.items()}
        if parsed != modules:
            atomic_io.write_bytes(cache, msgspec.json.encode(parsed))
    return result


def _read(name: str, file: Path, stamp: tuple[int, int]) -> Module:
    tree = _parse(file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    _strip(tree)
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    imports = set(_imports(tree.body, package)) | {text.partition(":")[0] for text in texts if _DOTTED.match(text)}
    meaning = hashlib.sha256("".join(_serialize_tree(tree)).encode()).hexdigest()
    return Module(stamp, meaning, sorted(imports), sorted(filter(_may_name_a_file, texts)))


_read_once = lru_cache(maxsize=4096)(_read)
"""Cached for a process that works in several projects: reading the whole package takes seconds, and is the same for each."""


def _parse(file: Path) -> ast.Module:
    """Return the syntax tree of a source file.

    Raises  InfrastructureError when it cannot be read as Python: not UTF-8, or cut off.
    """
    source = file.read_bytes()
    try:
        try:
            return ast.parse(source, str(file))
        except SystemError:  # CPython 3.11, now and then, where garbage is collected meanwhile: the source is fine
            return ast.parse(source, str(file))
    except (SyntaxError, ValueError) as error:  # what is not UTF-8 is a SyntaxError too
        location = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise InfrastructureError(
            f"{file}{location} is not valid Python, so tunectl cannot detect changed code: {reason}",
            hint=f"repair the file, or run: {format_reinstall_command()}",
        ) from error


def _may_name_a_file(text: str) -> bool:
    """Return whether a text is short, on one line, and without lone surrogates, which no cache in UTF-8 can hold."""
    return len(text) <= 80 and "\n" not in text and text.isprintable()


def _strip(tree: ast.Module) -> None:
    """Remove docstrings, also those under the fields of a class: texts that stand alone."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [item for item in body if not _is_prose(item)]  # type: ignore[attr-defined]


def _is_prose(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(body: Iterable[ast.AST], package: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imports(node.orelse, package)  # never imported when the program runs
        else:
            yield from _imports(ast.iter_child_nodes(node), package)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _serialize_tree(node: object) -> Iterator[str]:
    """Yield a syntax tree as text, equal in every Python version: without positions and without empty fields."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            if field not in _SKIPPED and value is not None and value != []:
                yield f" {field}="
                yield from _serialize_tree(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _serialize_tree(item)
        yield "]"
    else:
        yield repr(node)


def _digest(sources: PackageSources, modules: dict[str, Module], names: set[str]) -> str:
    total = hashlib.sha256()
    for name in sorted(names):
        total.update(f"{name}\0{modules[name].meaning}\n".encode())
    for file in _data_files(sources, modules, names):
        total.update(f"{file.relative_to(sources.root).as_posix()}\0{atomic_io.sha256_path(file)}\n".encode())
    return total.hexdigest()


def _data_files(sources: PackageSources, modules: dict[str, Module], names: set[str]) -> list[Path]:
    """Return files beside the used modules, or in folders beside them, that those modules name: templates, word lists."""
    files: set[Path] = set()
    for name in names:
        folder = sources.modules[name].parent
        texts = {part for text in modules[name].texts for part in re.split(r"[/\\]", text)}
        for file in _other_files(folder):
            if file.name in texts or (file.parent != folder and file.relative_to(folder).parts[0] in texts):
                files.add(file)
    return sorted(files)


def _other_files(folder: Path) -> Iterator[Path]:
    for item in folder.iterdir():
        if item.is_dir():
            if item.name != "__pycache__" and not (item / "__init__.py").is_file():
                yield from (file for file in item.rglob("*") if file.is_file() and file.suffix not in {".py", ".pyc"})
        elif item.suffix not in {".py", ".pyc", ".typed"}:
            yield item


def _name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join([PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _module_of(mentioned: str, modules: dict[str, Module]) -> str | None:
    """Return the module that a dotted name is; None for a name inside a module, which is listed with its module."""
    return mentioned if mentioned in modules else None
