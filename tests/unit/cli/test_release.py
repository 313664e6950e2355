"""The verb release, over a store in a temporary folder."""

import json
import os
import pwd
import subprocess
import sys

import pytest
from conf_copy import copy_conf

from tunectl.backends.vcs import project_repo
from tunectl.cli.main import main
from tunectl.registry.release_manifest import BuildFacts, Lineage, RecordedVerdict
from tunectl.registry.release_store import ReleaseRegistry

ACCOUNT = pwd.getpwuid(os.getuid()).pw_name


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
    assert call(store, "promote", one, "-m", "first") == 0
    assert call(store, "promote", two[:15], "-m", "second") == 0
    assert call(store, "rollback", "-m", "worse") == 0
    capsys.readouterr()
    code, out, _ = call(store, "log", "--json", capsys=capsys)
    assert [(row["action"], row.get("message", "")) for row in json.loads(out)[3:]] == [
        ("promote", "first"), ("promote", "second"), ("rollback", "worse"),
    ]  # fmt: skip
    code, out, _ = call(store, "list", "--json", capsys=capsys)
    assert code == 0
    assert {row["id"]: row["role"] for row in json.loads(out)["releases"]}[one] == "champion"
    assert "champion" in call(store, "list", capsys=capsys)[1]


def test_nobody_types_who_did_it(store, monkeypatch, capsys):
    monkeypatch.setenv("LOGNAME", "the-boss")
    monkeypatch.setenv("USER", "the-boss")
    one, two, _ = store.ids()
    for words in (
        ("promote", one),
        ("rollback",),
        ("sync", "memory://x"),
        ("add",),
        ("canary", "start", two, "--no-test"),
    ):
        with pytest.raises(SystemExit) as error:
            call(store, *words, "--author", "the-boss")
        assert error.value.code == 2
        assert "unrecognized arguments: --author the-boss" in capsys.readouterr().err
    assert [call(store, "promote", name) for name in (one, two)] == [0, 0]
    assert call(store, "rollback") == 0
    assert [entry.author for entry in store.log() if entry.action != "add"] == [ACCOUNT] * 3


def test_a_refused_release_ends_with_exit_3(store, capsys):
    refused = store.ids()[2]
    code, _, err = call(store, "promote", refused, "-m", "x", capsys=capsys)
    assert code == 3
    assert "was refused: package: too far off" in err
    assert call(store, "promote", refused, "-m", "x", "--force") == 0


@pytest.fixture
def in_project(tmp_path, monkeypatch):
    """The working directory of a project that has nothing but a configuration."""
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_a_canary_without_a_test_lasts_until_a_person_stops_it(store, in_project, capsys):
    one, two, refused = store.ids()
    call(store, "promote", one, "-m", "first")
    assert call(store, "canary", "start", two[:15], "--no-test", "--share", "0.1", "-m", "a look") == 0
    assert (store.canary().release, store.canary().share, store.canary().author, store.canary().message) == (
        two,
        0.1,
        ACCOUNT,
        "a look",
    )
    capsys.readouterr()
    code, out, _ = call(store, "canary", "stop", "-m", "enough", "--json", capsys=capsys)
    assert (code, json.loads(out)["release"], store.canary()) == (0, two, None)
    assert (store.log()[-1].author, store.log()[-1].message) == (ACCOUNT, "enough")
    code, _, err = call(store, "canary", "stop", capsys=capsys)
    assert code == 2
    assert "there is no challenger to stop\n  start one: tunectl release canary start ID --no-test --share 0.1" in err
    assert call(store, "canary", "start", two, "--no-test") == 0
    assert store.canary().share == 0, "only requests that name it"
    assert call(store, "canary", "start", refused, "--no-test") == 3
    assert call(store, "canary", "start", refused, "--no-test", "--force") == 0


def test_a_canary_with_a_test_tells_who_stopped_it_and_why(store, in_project, capsys):
    one, two, _ = store.ids()
    call(store, "promote", one, "-m", "first")
    assert call(store, "canary", "start", two, "-m", "reads better") == 0
    code, _, err = call(store, "canary", "start", two, "--force", capsys=capsys)
    assert code == 2
    assert (
        "--force: a canary test needs a release that its gate accepted\n  leave out --force, or start it without a test: --no-test"
        in err
    )
    assert call(store, "canary", "stop", "-m", "wrong template") == 0
    assert store.log()[-1].author == ACCOUNT
    assert store.log()[-1].message.endswith(" ended: running; wrong template")
    code, _, err = call(store, "canary", "start", capsys=capsys)
    assert (code, "tunectl release canary start ID" in err) == (2, True)


def test_damage_ends_with_exit_5(store, capsys):
    assert call(store, "verify") == 0
    (store.folder(store.ids()[0]) / "MODEL_CARD.md").write_text("other")
    code, out, _ = call(store, "verify", "--json", capsys=capsys)
    assert code == 5
    assert sum(map(bool, json.loads(out.partition("{")[1] + out.partition("{")[2]).values())) == 1


def test_one_damaged_manifest_hides_no_other_and_stands_in_nobodys_way(store, capsys):
    one, two, three = store.ids()
    assert call(store, "promote", one, "-m", "first") == 0
    assert call(store, "promote", two, "-m", "second") == 0
    (store.folder(three) / "manifest.json").write_text('{"id": ')
    assert call(store, "rollback", "-m", "worse") == 0
    assert store.champion().release == one
    capsys.readouterr()
    _, out, _ = call(store, "list", "--json", capsys=capsys)
    rows = {row["id"]: row for row in json.loads(out)["releases"]}
    assert set(rows) == {one, two, three}
    assert "manifest.json is not the expected JSON" in rows[three]["damaged"]
    assert f"{three} is damaged: " in call(store, "list", capsys=capsys)[1]
    code, out, _ = call(store, "verify", capsys=capsys)
    assert code == 5
    assert "manifest.json is not the expected JSON" in out


def test_show_and_diff(store, capsys):
    one, two, _ = store.ids()
    _, out, _ = call(store, "show", one, "--json", capsys=capsys)
    assert json.loads(out)["manifest"]["metrics"] == {"bleu": 50.0}
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
    assert "has no champion release" in err


def test_a_package_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(ReleaseRegistry(tmp_path / "store"), "add", capsys=capsys)
    assert code == 5
    assert "run: tunectl repro --to package" in err


def test_with_json_nothing_else_is_on_stdout(store, tmp_path, monkeypatch, capsys):
    for words in (
        ["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"],
        ["commit", "-q", "--allow-empty", "-m", "one"],
    ):  # fmt: skip
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tagged"
    folder.mkdir()
    (folder / "MODEL_CARD.md").write_text("tagged")
    facts = BuildFacts("demo", "openvino", "merged", {}, {}, Lineage("base", "rev", {}, {}, {}, {}))
    release = store.add(folder, facts, git=project_repo.head_commit(tmp_path)).id
    code, out, _ = call(store, "promote", release, "--tag", "--json", capsys=capsys)
    assert code == 0
    pointer = json.loads(out)
    assert (pointer["release"], sorted(pointer["tags"])) == (release, ["demo#champion#1", "demo@v0.0.1"])
    assert json.loads(call(store, "tag", "--json", capsys=capsys)[1]) == {"tags": []}
    assert "git tags: as before; share them with: git push --tags" in call(store, "tag", release, capsys=capsys)[1]
    assert "gto" not in sys.modules  # its import configures the logging of the whole process anew
