"""`tunectl serve keys` through the command line."""

import json
from pathlib import Path

import pytest

from tunectl.cli.main import main


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNECTL_KEYS", str(tmp_path / "keys.json"))
    return tmp_path / "keys.json"


def test_add_list_revoke(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "keys", "add", "shop", "--scope", "chat", "--per-minute", "60"]) == 0
    secret = capsys.readouterr().out.split()[0]
    assert secret.startswith("tk-")
    assert secret not in path.read_text()
    assert main(["serve", "keys", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["scopes"], entry["per_minute"], len(entry["sha256"])) == ("shop", ["chat"], 60, 12)
    assert main(["serve", "keys", "revoke", "shop"]) == 0
    assert json.loads(path.read_text()) == {"keys": [], "version": 2}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["keys", "add"], "tunectl serve keys add: say one of keys add NAME, keys revoke NAME, keys list"),
        (["keys", "add", "a", "--scope", "all"], "--scope all: there are chat, feedback, scrape, admin"),
        (["keys", "add", "A b"], "a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit"),
        (["keys", "add", "a", "--per-minute", "0"], "--per-minute is 1 or more"),
        (["keys", "revoke", "a"], "no key a; there are: none"),
    ],
)
def test_mistakes(path: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == 2
    assert text in capsys.readouterr().err
    assert not path.exists()
