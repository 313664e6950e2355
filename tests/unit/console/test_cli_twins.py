"""One struct behind a page, its twin in JSON, and the command line's --json."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path

import pytest
from console_projects import NOW, Console, build

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.system import terminal
from tunectl.cli.main import main
from tunectl.registry.release_store import ReleaseRegistry

WINDOW = "c" * 16
COMMANDS = {
    "status": "/home.json",
    "data counts": "/data.json",
    "release list": "/releases.json",
    "release show champion": "/releases/{champion}.json",
    "monitor list -n 100": "/drift.json",
    "monitor list -n 1": "/drift.json?number=1",
    f"monitor show {WINDOW}": f"/drift/{WINDOW}.json",
    "retrain status -n 100": "/retrain.json",
    "explain champion": "/explain.json?id=champion",
    "submit status sft-0000000a": "/jobs.json?job=sft-0000000a",
}
"""Command to the twin of the page that shows the same."""
CLOCKS = ("status", "data_counts", "release_show", "retrain_status", "explain", "submit_status")


class StoppedClock(datetime):
    """The time at which the console of the tests looks."""

    @classmethod
    def now(cls, tz=None):
        return NOW


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("twins") / "shop").root


@pytest.mark.parametrize("command", COMMANDS)
def test_json_of_a_command_is_the_twin_of_its_page(
    project: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    for name in CLOCKS:
        monkeypatch.setattr(import_module(f"tunectl.cli.{name}"), "datetime", StoppedClock)
    champion = ReleaseRegistry(ProjectPaths().releases).champion()
    reply = Console(ProjectPaths()).client.get(COMMANDS[command].format(champion=champion.release))
    assert reply.status_code == 200, reply.text
    capsys.readouterr()
    main([*command.split(), "--json"])
    shown = terminal.replace_control_codes(json.dumps(reply.json(), ensure_ascii=False))  # a terminal would obey them
    assert json.loads(capsys.readouterr().out) == json.loads(shown)


def test_no_command_needs_what_the_console_alone_needs(project: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('starlette', 'uvicorn', 'jinja2')))\n"
        "from tunectl.cli.main import main\n"
        f"for command in {list(COMMANDS)!r}:\n"
        "    assert main([*command.split(), '--json']) in (0, 3), command\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_counts_that_do_not_hold_together_are_named_on_the_page(project: Path) -> None:
    console = Console(ProjectPaths(project))
    found = console.client.get("/data.json").json()
    assert found["lost"] == []
    assert any("sft: 50 rows in, but split wrote" in words for words in found["wrong"])
    assert "sft: 50 rows in, but split wrote" in console.client.get("/data").text
