"""The verb release, over a store in a temporary folder."""

import json

import pytest

from tunectl.cli.main import main
from tunectl.registry.release_manifest import BuildFacts, Lineage, RecordedVerdict
from tunectl.registry.release_store import ReleaseRegistry


@pytest.fixture
def store(tmp_path):
    made = ReleaseRegistry(tmp_path / "store")
    for name, passed in (("a", True), ("b", True), ("c", False)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "MODEL_CARD.md").write_text(name)
        verdict = {"package": RecordedVerdict(passed, "export_differs", "too far off")}
        made.add(
            folder,
            BuildFacts(
                "demo",
                "openvino",
                "merged",
                {"bleu": 50.0},
                verdict,
                Lineage("base", "rev", {}, {}, {}, {"data": None}),
            ),
        )
    return made


def call(store, *words, capsys=None):
    code = main(["release", words[0], "--store", str(store.root), *words[1:]])
    return (code, *capsys.readouterr()) if capsys else code


def test_a_release_is_promoted_swapped_and_taken_back(store, capsys):
    one, two, _ = store.ids()
    assert call(store, "promote", one, "--why", "first") == 0
    assert call(store, "promote", two[:15], "--why", "second", "--by", "me") == 0
    assert call(store, "rollback", "--why", "worse") == 0
    capsys.readouterr()
    code, out, _ = call(store, "log", "--json", capsys=capsys)
    assert [(row["what"], row.get("why", "")) for row in json.loads(out)[3:]] == [
        ("promote", "first"), ("promote", "second"), ("rollback", "worse"),
    ]  # fmt: skip
    code, out, _ = call(store, "list", "--json", capsys=capsys)
    assert code == 0
    assert {row["release"]: row["role"] for row in json.loads(out)}[one] == "champion"
    assert "champion" in call(store, "list", capsys=capsys)[1]


def test_a_refused_release_ends_with_exit_3(store, capsys):
    refused = store.ids()[2]
    code, _, err = call(store, "promote", refused, "--why", "x", capsys=capsys)
    assert code == 3
    assert "was refused: package: too far off" in err
    assert call(store, "promote", refused, "--why", "x", "--force") == 0


def test_damage_ends_with_exit_5(store, capsys):
    assert call(store, "verify") == 0
    (store.folder(store.ids()[0]) / "MODEL_CARD.md").write_text("other")
    code, out, _ = call(store, "verify", "--json", capsys=capsys)
    assert code == 5
    assert sum(map(bool, json.loads(out.partition("{")[1] + out.partition("{")[2]).values())) == 1


def test_one_damaged_manifest_hides_no_other_and_stands_in_nobodys_way(store, capsys):
    one, two, three = store.ids()
    assert call(store, "promote", one, "--why", "first") == 0
    assert call(store, "promote", two, "--why", "second") == 0
    (store.folder(three) / "manifest.json").write_text('{"id": ')
    assert call(store, "rollback", "--why", "worse") == 0
    assert store.champion().release == one
    capsys.readouterr()
    _, out, _ = call(store, "list", "--json", capsys=capsys)
    rows = {row["release"]: row for row in json.loads(out)}
    assert set(rows) == {one, two, three}
    assert "manifest.json cannot be read" in rows[three]["damaged"]
    assert f"{three} is damaged: " in call(store, "list", capsys=capsys)[1]
    code, out, _ = call(store, "verify", capsys=capsys)
    assert code == 5
    assert "manifest.json cannot be read" in out


def test_show_and_diff(store, capsys):
    one, two, _ = store.ids()
    _, out, _ = call(store, "show", one, "--json", capsys=capsys)
    assert json.loads(out)["metrics"] == {"bleu": 50.0}
    for words in (("show", one), ("diff", one, two), ("diff", one, one), ("log",), ("verify",)):
        assert call(store, *words) == 0
    _, out, _ = call(store, "diff", one, two, "--json", capsys=capsys)
    out = out[out.rindex('{\n  "from"') :]
    assert json.loads(out)["files"] == {"MODEL_CARD.md": "changed"}


def test_an_empty_store_says_what_to_do(tmp_path, capsys):
    store = ReleaseRegistry(tmp_path / "none")
    assert "no releases yet; make one: tunectl repro" in call(store, "list", capsys=capsys)[1]
    code, _, err = call(store, "show", capsys=capsys)
    assert code == 2
    assert "champion: " in err
    assert "has none" in err


def test_a_package_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(ReleaseRegistry(tmp_path / "store"), "add", capsys=capsys)
    assert code == 5
    assert "run: tunectl repro --to package" in err
