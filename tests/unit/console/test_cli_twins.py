"""One struct behind a page, its twin in JSON, and the command line's --json.

Some commands print a part of a page, or what a page only shows the beginning of; these have a shape of their own, for a reason:

- ``data show``, ``data rejects``: records as their files have them, whole, of one file or of all stages; a page has the beginnings of 50 rows.
- ``log show``: requests and feedback as the log has them, whole; a page has the beginnings of 30, and figures of the variants.
- ``check``: the composed tree, which can be read as a configuration, with overrides that nobody recorded; a page has 100 of its values.
- ``data lineage`` of an answer or a release: everything behind it with digests; its page is that of ``explain``, which has the same twin.
- ``serve keys audit``: the last use of each key, which no page shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from console_projects import NOW, Console, build
from console_records import add_sweep

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
    "serve keys list": "/settings/keys.json",
}
"""Command to the twin of the page that shows the same."""
PARTS: dict[str, tuple[str, dict[str, str]]] = {
    "sweep show demo": ("/sweeps/demo.json", {"": "summary"}),
    "data agreement": ("/people.json", {name: f"found.{name}" for name in ("judgments", "people", "shared", "left", "longer")}),
    "data lineage briefs.jsonl:1": ("/data/rows/e-0000000000000000.json", {"forward": "steps"}),
}  # fmt: skip
"""Command to a twin that has the same records at another place: place in the command's JSON to place in the twin.

A page also shows how a sweep went and leaves Krippendorff's alpha out, which takes seconds.
"""
CLOCKS = ("status", "data_counts", "release_show", "retrain_status", "explain", "submit_status", "serve_keys")


class StoppedClock(datetime):
    """The time at which the console of the tests looks."""

    @classmethod
    def now(cls, tz=None):
        return NOW


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build(tmp_path_factory.mktemp("twins") / "shop").root
    add_sweep(root)
    return root


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


def find_place(shown: Any, place: str) -> Any:
    return reduce(lambda part, name: part[name], filter(None, place.split(".")), shown)


@pytest.mark.parametrize("command", PARTS)
def test_a_part_of_a_page_has_the_records_of_its_command(
    project: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    address, places = PARTS[command]
    twin = Console(ProjectPaths()).client.get(address).json()
    capsys.readouterr()
    assert main([*command.split(), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for own, other in places.items():
        assert find_place(twin, other), "an empty part holds nothing"
        assert find_place(printed, own) == find_place(twin, other)


def test_no_command_needs_what_the_console_alone_needs(project: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('starlette', 'uvicorn', 'jinja2')))\n"
        "from tunectl.cli.main import main\n"
        f"for command in {[*COMMANDS, *PARTS]!r}:\n"
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
