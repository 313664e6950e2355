"""The digest of the code behind a stage: what changes it, and what does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tunectl.core.errors import InfrastructureError, TunectlError
from tunectl.pipeline import code_digest
from tunectl.pipeline.stages import STAGES

FILES = {
    "__init__.py": '"""The package."""\n',
    "core/__init__.py": "",
    "pipeline/__init__.py": "",
    "core/logging_setup.py": "def get() -> int:\n    return 1\n",
    "backends/__init__.py": "",
    "backends/fast.py": "SPEED = 3\n",
    "backends/named.py": "NAME = 1\n",
    "pipeline/stages/__init__.py": 'TABLE = ("tunectl.pipeline.stages.one", "tunectl.pipeline.stages.two")\n',
    "pipeline/stages/one.py": (
        '"""One."""\nfrom __future__ import annotations\n\nfrom tunectl.core import logging_setup\nWORDS = "words.txt"\n\n'
        'def run() -> int:\n    """Late."""\n    from ...backends import fast\n    return fast.SPEED + logging_setup.get()  # sum\n'
    ),
    "pipeline/stages/two.py": 'ENTRY = "tunectl.backends.named:NAME"\n',
    "pipeline/stages/words.txt": "a\n",
    "cli/__init__.py": "",
    "cli/main.py": "import tunectl.pipeline.stages.one\n",
}


@pytest.fixture
def sources(tmp_path: Path) -> code_digest.PackageSources:
    for name, text in FILES.items():
        path = tmp_path / "tunectl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return _sources(tmp_path)


def _sources(tmp_path: Path) -> code_digest.PackageSources:
    root = tmp_path / "tunectl"
    modules = {}
    for file in root.rglob("*.py"):
        parts = ("tunectl", *file.relative_to(root).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return code_digest.PackageSources(root, modules)


STARTS = {"one": ["tunectl.pipeline.stages.one"], "two": ["tunectl.pipeline.stages.two"]}


def _after(sources: code_digest.PackageSources, name: str, text: str) -> set[str]:
    """Stages whose digest changes when a file becomes ``text``."""
    before = code_digest.stage_code_digests(STARTS, sources=sources)
    (sources.root / name).write_text(text)
    after = code_digest.stage_code_digests(STARTS, sources=sources)
    return {stage for stage in STARTS if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("pipeline/stages/one.py", "fast.SPEED + logging_setup.get()", "fast.SPEED - logging_setup.get()", {"one"}),
        ("pipeline/stages/one.py", "# sum", "# a sum", set()),
        ("pipeline/stages/one.py", '"""Late."""', '"""Imported late."""', set()),
        ("pipeline/stages/one.py", "\n\ndef", "\n\n\n\ndef", set()),
        ("core/logging_setup.py", "return 1", "return 2", {"one"}),
        ("backends/fast.py", "SPEED = 3", "SPEED = 4", {"one"}),
        ("backends/named.py", "NAME = 1", "NAME = 2", {"two"}),
        ("cli/main.py", "one", "two", set()),
        ("pipeline/stages/__init__.py", "TABLE = ", "LIST = ", set()),
        ("__init__.py", "package", "thing", set()),
        ("__init__.py", '"""The package."""', "VERSION = 2", {"one", "two"}),
        ("pipeline/stages/words.txt", "a", "b", {"one"}),
    ],
)
def test_a_change_touches_the_stages_that_reach_it(
    sources: code_digest.PackageSources, name: str, old: str, new: str, changed: set[str]
) -> None:
    assert _after(sources, name, FILES[name].replace(old, new)) == changed


def test_prose_under_fields_and_imports_for_types_do_not_count(sources: code_digest.PackageSources) -> None:
    text = 'class A:\n    x: int\n    """Prose."""\n'
    (sources.root / "pipeline/stages/two.py").write_text(text)
    assert _after(sources, "pipeline/stages/two.py", text.replace("Prose", "Words")) == set()
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tunectl.backends import fast\n"
    (sources.root / "pipeline/stages/two.py").write_text(typed)
    assert _after(sources, "backends/fast.py", "SPEED = 9\n") == {"one"}


def test_what_was_read_is_remembered_until_a_file_changes(sources: code_digest.PackageSources, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "code.json"
    first = code_digest.stage_code_digests(STARTS, cache, sources)
    written = cache.stat().st_mtime_ns
    assert code_digest.stage_code_digests(STARTS, cache, sources) == first
    assert cache.stat().st_mtime_ns == written
    (sources.root / "backends/fast.py").write_text("SPEED = 10\n")
    assert code_digest.stage_code_digests(STARTS, cache, sources)["one"] != first["one"]
    cache.write_text("{broken")
    assert code_digest.stage_code_digests(STARTS, cache, sources)["two"] == first["two"]


def test_a_process_that_works_in_two_projects_reads_each_file_once(
    sources: code_digest.PackageSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = code_digest.stage_code_digests(STARTS, tmp_path / "one.json", sources)
    read, parse = [], code_digest._parse
    monkeypatch.setattr(code_digest, "_parse", lambda file: (read.append(file.name), parse(file))[1])
    assert code_digest.stage_code_digests(STARTS, tmp_path / "two.json", sources) == first
    assert read == []
    (sources.root / "backends/fast.py").write_text("SPEED = 1000\n")
    assert code_digest.stage_code_digests(STARTS, tmp_path / "three.json", sources)["one"] != first["one"]
    assert read == ["fast.py"]


def test_a_lone_surrogate_in_a_text_is_like_any_other_text(sources: code_digest.PackageSources, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "code.json"
    assert _after(sources, "backends/fast.py", 'SPEED = 3\nBROKEN = "\\ud800"\n') == {"one"}
    first = code_digest.stage_code_digests(STARTS, cache, sources)
    assert code_digest.stage_code_digests(STARTS, cache, sources) == first
    assert _after(sources, "backends/fast.py", 'SPEED = 3\nBROKEN = "\\ud801"\n') == {"one"}


@pytest.mark.parametrize(
    ("written", "place", "reason"),
    [
        (b'SPEED = "\xff"\n', ", line 1", "(unicode error) 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"SPEED = 3\nHALF = (\n", ", line 2", "'(' was never closed"),
        (b"SPEED = 3\0\n", "", "source code string cannot contain null bytes"),
    ],
)
def test_a_source_that_is_no_python_is_named(
    sources: code_digest.PackageSources, written: bytes, place: str, reason: str
) -> None:
    broken = sources.root / "backends/fast.py"
    broken.write_bytes(written)
    with pytest.raises(InfrastructureError) as caught:
        code_digest.stage_code_digests(STARTS, sources=sources)
    assert caught.value.message.startswith(
        f"{broken}{place} is not valid Python, so tunectl cannot detect changed code: {reason}"
    )
    assert caught.value.hint == "repair the file, or run: pip install --force-reinstall tunectl-lm"


def test_an_unknown_start_is_our_bug(sources: code_digest.PackageSources) -> None:
    with pytest.raises(
        TunectlError,
        match=r"^tunectl\.pipeline\.stages\.none is not a module of tunectl\n  a bug of tunectl: please report it$",
    ):
        code_digest.stage_code_digests({"x": ["tunectl.pipeline.stages.none"]}, sources=sources)


def test_no_stage_reaches_another_stage_or_the_command_line() -> None:
    modules = code_digest._read_all(code_digest.find_package_sources(), None)
    for stage in STAGES:
        if stage.module not in modules:
            continue
        found = code_digest.transitive_imports(modules, [stage.module, stage.settings.partition(":")[0]])
        others = {other.module for other in STAGES if other is not stage}
        assert found & others == set(), stage.name
        assert not [name for name in found if name.startswith("tunectl.cli")], stage.name
        assert "tunectl.config.schema.root" not in found, stage.name
        reaches = "tunectl.packaging.model_card" in found
        assert reaches is (stage.name == "package"), "tests/e2e/test_pipeline_e2e.py edits it, and expects that"


def test_the_installed_package_is_read_quickly_once_it_is_cached(tmp_path: Path) -> None:
    starts = {"split": ["tunectl.pipeline.stages.split", "tunectl.config.schema.split"]}
    cache = tmp_path / "code.json"
    code_digest.stage_code_digests(starts, cache)
    taken = []
    for _ in range(3):
        code_digest._read_once.cache_clear()
        started = time.process_time()
        code_digest.stage_code_digests(starts, cache)
        taken.append(time.process_time() - started)
    assert min(taken) < 0.25  # 0.02 s on a quiet machine


def test_a_parser_that_fails_once_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "module.py"
    file.write_text("NAME = 1\n")
    parse, asked = code_digest.ast.parse, []

    def stumbling(*words: object) -> object:
        asked.append(words)
        if len(asked) == 1:
            raise SystemError("AST constructor recursion depth mismatch (before=138, after=158)")
        return parse(*words)

    monkeypatch.setattr(code_digest.ast, "parse", stumbling)
    assert len(code_digest._parse(file).body) == 1
    assert len(asked) == 2
