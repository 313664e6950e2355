"""The digest of the code behind a stage: what changes it, and what does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tunectl.config import code
from tunectl.core.errors import EnvironmentFailure, TunectlError
from tunectl.stages import STAGES

FILES = {
    "__init__.py": '"""The package."""\n',
    "core/__init__.py": "",
    "core/log.py": "def get() -> int:\n    return 1\n",
    "backends/__init__.py": "",
    "backends/fast.py": "SPEED = 3\n",
    "backends/named.py": "NAME = 1\n",
    "stages/__init__.py": 'TABLE = ("tunectl.stages.one", "tunectl.stages.two")\n',
    "stages/one.py": (
        '"""One."""\nfrom __future__ import annotations\n\nfrom tunectl.core import log\nWORDS = "words.txt"\n\n'
        'def run() -> int:\n    """Late."""\n    from ..backends import fast\n    return fast.SPEED + log.get()  # sum\n'
    ),
    "stages/two.py": 'ENTRY = "tunectl.backends.named:NAME"\n',
    "stages/words.txt": "a\n",
    "cli/__init__.py": "",
    "cli/main.py": "import tunectl.stages.one\n",
}


@pytest.fixture
def sources(tmp_path: Path) -> code.Sources:
    for name, text in FILES.items():
        path = tmp_path / "tunectl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return _sources(tmp_path)


def _sources(tmp_path: Path) -> code.Sources:
    root = tmp_path / "tunectl"
    modules = {}
    for file in root.rglob("*.py"):
        parts = ("tunectl", *file.relative_to(root).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return code.Sources(root, modules)


STARTS = {"one": ["tunectl.stages.one"], "two": ["tunectl.stages.two"]}


def _after(sources: code.Sources, name: str, text: str) -> set[str]:
    """Stages whose digest changes when a file becomes ``text``."""
    before = code.digests(STARTS, sources=sources)
    (sources.root / name).write_text(text)
    after = code.digests(STARTS, sources=sources)
    return {stage for stage in STARTS if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("stages/one.py", "fast.SPEED + log.get()", "fast.SPEED - log.get()", {"one"}),
        ("stages/one.py", "# sum", "# a sum", set()),
        ("stages/one.py", '"""Late."""', '"""Imported late."""', set()),
        ("stages/one.py", "\n\ndef", "\n\n\n\ndef", set()),
        ("core/log.py", "return 1", "return 2", {"one"}),
        ("backends/fast.py", "SPEED = 3", "SPEED = 4", {"one"}),
        ("backends/named.py", "NAME = 1", "NAME = 2", {"two"}),
        ("cli/main.py", "one", "two", set()),
        ("stages/__init__.py", "TABLE = ", "LIST = ", set()),
        ("__init__.py", "package", "thing", set()),
        ("__init__.py", '"""The package."""', "VERSION = 2", {"one", "two"}),
        ("stages/words.txt", "a", "b", {"one"}),
    ],
)
def test_a_change_touches_the_stages_that_reach_it(
    sources: code.Sources, name: str, old: str, new: str, changed: set[str]
) -> None:
    assert _after(sources, name, FILES[name].replace(old, new)) == changed


def test_prose_under_fields_and_imports_for_types_do_not_count(sources: code.Sources) -> None:
    text = 'class A:\n    x: int\n    """Prose."""\n'
    (sources.root / "stages/two.py").write_text(text)
    assert _after(sources, "stages/two.py", text.replace("Prose", "Words")) == set()
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tunectl.backends import fast\n"
    (sources.root / "stages/two.py").write_text(typed)
    assert _after(sources, "backends/fast.py", "SPEED = 9\n") == {"one"}


def test_what_was_read_is_remembered_until_a_file_changes(sources: code.Sources, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "code.json"
    first = code.digests(STARTS, cache, sources)
    written = cache.stat().st_mtime_ns
    assert code.digests(STARTS, cache, sources) == first
    assert cache.stat().st_mtime_ns == written
    (sources.root / "backends/fast.py").write_text("SPEED = 10\n")
    assert code.digests(STARTS, cache, sources)["one"] != first["one"]
    cache.write_text("{broken")
    assert code.digests(STARTS, cache, sources)["two"] == first["two"]


def test_a_lone_surrogate_in_a_text_is_like_any_other_text(sources: code.Sources, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "code.json"
    assert _after(sources, "backends/fast.py", 'SPEED = 3\nBROKEN = "\\ud800"\n') == {"one"}
    first = code.digests(STARTS, cache, sources)
    assert code.digests(STARTS, cache, sources) == first
    assert _after(sources, "backends/fast.py", 'SPEED = 3\nBROKEN = "\\ud801"\n') == {"one"}


@pytest.mark.parametrize(
    ("written", "place", "reason"),
    [
        (b'SPEED = "\xff"\n', ", line 1", "(unicode error) 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"SPEED = 3\nHALF = (\n", ", line 2", "'(' was never closed"),
        (b"SPEED = 3\0\n", "", "source code string cannot contain null bytes"),
    ],
)
def test_a_source_that_is_no_python_is_named(sources: code.Sources, written: bytes, place: str, reason: str) -> None:
    broken = sources.root / "backends/fast.py"
    broken.write_bytes(written)
    with pytest.raises(EnvironmentFailure) as caught:
        code.digests(STARTS, sources=sources)
    assert caught.value.message.startswith(
        f"{broken}{place} is no Python source, so stages cannot be told apart by code: {reason}"
    )
    assert caught.value.hint == "mend the file, or install tunectl again"


def test_an_unknown_start_is_our_bug(sources: code.Sources) -> None:
    with pytest.raises(TunectlError, match=r"^tunectl\.stages\.none is not a module of tunectl$"):
        code.digests({"x": ["tunectl.stages.none"]}, sources=sources)


def test_no_stage_reaches_another_stage_or_the_command_line() -> None:
    modules = code._read_all(code.installed(), None)
    for stage in STAGES:
        if stage.module not in modules:
            continue
        found = code.reached(modules, [stage.module, stage.settings.partition(":")[0]])
        others = {other.module for other in STAGES if other is not stage}
        assert found & others == set(), stage.name
        assert not [name for name in found if name.startswith("tunectl.cli")], stage.name
        assert "tunectl.config.root" not in found, stage.name


def test_the_installed_package_is_read_quickly_once_it_is_cached(tmp_path: Path) -> None:
    starts = {"split": ["tunectl.stages.split", "tunectl.config.split"]}
    cache = tmp_path / "code.json"
    code.digests(starts, cache)
    taken = []
    for _ in range(3):
        started = time.process_time()
        code.digests(starts, cache)
        taken.append(time.process_time() - started)
    assert min(taken) < 0.25  # 0.02 s on a quiet machine


def test_a_parser_that_stumbles_once_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "module.py"
    file.write_text("NAME = 1\n")
    parse, asked = code.ast.parse, []

    def stumbling(*words: object) -> object:
        asked.append(words)
        if len(asked) == 1:
            raise SystemError("AST constructor recursion depth mismatch (before=138, after=158)")
        return parse(*words)

    monkeypatch.setattr(code.ast, "parse", stumbling)
    assert len(code._parse(file).body) == 1
    assert len(asked) == 2
