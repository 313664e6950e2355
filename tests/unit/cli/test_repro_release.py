"""How `tunectl repro` ends: what was packaged is in the store, and it says how to serve it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import repro
from tunectl.core.errors import GateError
from tunectl.registry.release_manifest import FACTS, RELEASE, BuildFacts, RecordedVerdict
from tunectl.registry.release_store import ReleaseRegistry


def packaged(root: Path, text: str, *, passed: bool = True, bento: bool = True) -> ProjectPaths:
    layout = ProjectPaths(root)
    folder = layout.artifact("package")
    atomic_io.write_text(folder / RELEASE / "contract.json", text)
    verdict = RecordedVerdict(passed, "export_is_the_model" if passed else "export_differs", "So.")
    atomic_io.write_json(folder / FACTS, BuildFacts("shop", "openvino", "merged", verdicts={"package": verdict}))
    atomic_io.write_json(folder / "verdict.json", verdict)
    if bento:
        atomic_io.write_text(folder / "bento" / "bento.yaml", "name: shop")
    return layout


def test_the_first_release_is_champion_and_the_way_to_serve_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = packaged(tmp_path, "one")
    repro._summarize(layout, 1.0, as_json=False)
    store = ReleaseRegistry(layout.releases)
    (one,) = store.ids()
    assert (store.champion().release, store.champion().message) == (one, "the first release")
    out = capsys.readouterr().out
    assert f"release: {one} (0 MB), in {layout.releases}\n" in out
    assert f"next: tunectl serve, or: bentoml serve {layout.artifact('package').resolve()}/bento\n" in out


def test_the_next_one_waits_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repro._summarize(packaged(tmp_path, "one"), 1.0, as_json=False)
    layout = packaged(tmp_path, "two")
    repro._summarize(layout, 1.0, as_json=False)
    store = ReleaseRegistry(layout.releases)
    one, two = store.ids()
    assert store.champion().release == one
    assert f"champion is {one}; swap with: tunectl release promote {two[:6]} -m TEXT\n" in capsys.readouterr().out
    repro._summarize(layout, 1.0, as_json=False)
    assert store.ids() == [one, two]  # the same content is the same release


def test_a_refused_release_is_kept_but_serves_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = packaged(tmp_path, "one", passed=False, bento=False)
    with pytest.raises(GateError, match="package: So"):
        repro._summarize(layout, 1.0, as_json=False)
    store = ReleaseRegistry(layout.releases)
    assert (len(store.ids()), store.champion()) == (1, None)
    assert "serve it" not in capsys.readouterr().out
