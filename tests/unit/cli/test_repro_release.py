"""How `tunectl repro` ends: what was packaged is in the store, and it says how to serve it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey, TrustStore
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import repro
from tunectl.core.errors import GateError
from tunectl.registry import release_statement
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


def test_without_the_keys_that_servers_trust_the_first_release_waits_for_somebody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trusted = tmp_path / "trusted.json"
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, str(trusted))
    layout, store = packaged(tmp_path, "one"), ReleaseRegistry(ProjectPaths(tmp_path).releases)
    repro._summarize(layout, 1.0, as_json=False)
    (release,) = store.ids()
    assert store.champion() is None
    assert f"release {release} is not promoted: serve.trusted_keys_file: {trusted} cannot be read" in caplog.text
    for name, role in (("ci", "release"), ("ops", "pointer")):
        key = signatures.generate_key(tmp_path / f"{name}.key")
        signatures.add_trusted_key(trusted, TrustedKey(name, role, key.public_key, datetime.now(UTC)))
    monkeypatch.setenv(signatures.RELEASE_KEY_ENV, str(tmp_path / "ci.key"))
    repro._summarize(layout, 1.0, as_json=False)
    assert store.champion() is None
    assert (
        f"release {release} is not promoted: servers follow only a champion pointer that a trusted key signed"
        in caplog.text
    )
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, str(tmp_path / "ops.key"))
    repro._summarize(layout, 1.0, as_json=False)
    assert release_statement.check_pointer(store.champion(), TrustStore(trusted)).reason == "signed by ops"


def test_what_somebody_promotes_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layout = packaged(tmp_path, "one")
    store, folder = ReleaseRegistry(layout.releases), tmp_path / "urgent"
    atomic_io.write_text(folder / "contract.json", "urgent")
    urgent = store.add(folder, BuildFacts("shop", "openvino", "merged")).id
    check = ReleaseRegistry.may_serve

    def promote_another(self: ReleaseRegistry, release: str, **options: bool) -> None:
        check(self, release, **options)  # hashes the whole release, which takes seconds
        if release != urgent and self.champion() is None:
            self.promote(urgent, author="ann", message="the other one leaks data")

    monkeypatch.setattr(ReleaseRegistry, "may_serve", promote_another)
    repro._summarize(layout, 1.0, as_json=False)
    assert store.champion().release == urgent
    assert "is not promoted: somebody else changed the champion: sequence 1, not 0" in caplog.text


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
