"""`tunectl serve keys` through the command line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tunectl.access import api_keys
from tunectl.cli import serve_keys
from tunectl.cli.main import main


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNECTL_KEYS", str(tmp_path / "keys.json"))
    return tmp_path / "keys.json"


def test_add_list_disable_remove(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "keys", "add", "shop", "--scope", "chat", "--per-minute", "60"]) == 0
    secret = capsys.readouterr().out.split()[0]
    assert secret.startswith("tk-")
    assert secret not in path.read_text()
    assert main(["serve", "keys", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["keys"]
    assert (entry["name"], entry["scopes"], entry["per_minute"], len(entry["fingerprint"])) == (
        "shop",
        ["chat"],
        60,
        12,
    )
    for verb, state in (("disable", False), ("enable", True)):
        assert main(["serve", "keys", verb, "shop"]) == 0
        assert json.loads(path.read_text())["keys"][0].get("enabled", True) is state
    assert main(["serve", "keys", "remove", "shop"]) == 0
    assert json.loads(path.read_text())["keys"] == []


def test_a_key_has_limits_and_an_end(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--max-concurrency", "4", "--tokens-per-minute", "9000", "--days", "30", "--json"]
    assert main(["serve", "keys", "add", "shop", *words]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["max_concurrency"], shown["tokens_per_minute"], shown["per_minute"]) == (4, 9000, None)
    assert 29 <= (datetime.fromisoformat(shown["expires_at"]) - datetime.now(UTC)).days <= 30
    assert main(["serve", "keys", "list"]) == 0
    assert "9000" in capsys.readouterr().out


def test_what_there_is_to_say_about_a_key() -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=200)
    plain = api_keys.create_key("a", ["chat"], None, old, expires_at=now + timedelta(days=1))[1]
    assert serve_keys.find_remarks(plain, now) == []
    assert serve_keys.find_remarks(plain, None) == ["not used for 90 days"]
    boss = api_keys.create_key("b", ["admin"], None, old, enabled=False)[1]
    assert serve_keys.find_remarks(boss, None) == ["is disabled", "may do everything, without limits", "never expires"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["keys", "add"],
            "tunectl serve keys add: say one of keys add|disable|enable|remove NAME, keys list, keys audit",
        ),
        (
            ["keys", "add", "a", "--scope", "all"],
            "--scope all: no such scope; allowed are chat, feedback, scrape, look, annotate, operate, decide, acts_for, admin",
        ),
        (["keys", "add", "A b"], "a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit"),
        (["keys", "add", "a", "--per-minute", "0"], "limits are 1 or more"),
        (["keys", "remove", "a"], "no key a; there are: none"),
    ],
)
def test_mistakes(path: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == 2
    assert text in capsys.readouterr().err
    assert not path.exists()
