"""``tunectl demo``: every screen of the recorded project in process, and acts on its copy. tests/e2e starts the command."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import socket
import subprocess
import sys
import tarfile
import tomllib
import types
from datetime import timedelta
from pathlib import Path

import pytest
from console_projects import NOW, ROOT, Console, PageFacts, crawl, digest_project
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import demo
from tunectl.console import recorded_project
from tunectl.console.read_context import ReadContext
from tunectl.console.recorded_project import RecordedRegistry, Recording
from tunectl.console.screen_table import SCREENS
from tunectl.console.screens.explain import read_explain
from tunectl.core import distribution
from tunectl.core.errors import InfrastructureError, MissingExtraError
from tunectl.preferences import annotation_store
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore, TriggerOutcome
from tunectl.services import console_service

MAX_BYTES = 4_000_000
MAX_OF_A_KIND = 6
"""Pages of one screen that are opened: there are a thousand rows."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[ProjectPaths, Recording]:
    return recorded_project.unpack(tmp_path_factory.mktemp("demo"), ROOT / "conf")


@pytest.fixture
def copy(tmp_path: Path) -> tuple[ProjectPaths, Recording]:
    return recorded_project.unpack(tmp_path, ROOT / "conf")


def test_the_record_is_small_and_names_no_machine() -> None:
    assert recorded_project.ARCHIVE.stat().st_size <= MAX_BYTES
    with tarfile.open(recorded_project.ARCHIVE) as archive:
        names = archive.getnames()
        assert names == sorted(names)
        assert not [name for name in names if name.endswith((".safetensors", ".bin", "token", "keys.json"))]
        for entry in archive:
            assert (entry.mtime, entry.uid, entry.uname) == (0, 0, ""), entry.name
            text = archive.extractfile(entry).read()
            assert not re.search(rb"/(tmp|home|root|work)/", text), entry.name


def test_every_screen_of_the_record_has_something_to_show(unpacked: tuple[ProjectPaths, Recording]) -> None:
    layout, recording = unpacked
    console, seen, wrong = Console(layout, recording=recording), set(), {}
    before = digest_project(layout.root)
    for path, reply in crawl(console, name_screen, MAX_OF_A_KIND):
        if reply.status_code != 200:
            wrong[path] = reply.status_code
        elif reply.headers["content-type"].startswith("text/html"):
            facts = PageFacts(reply.text)
            seen |= {screen.path for screen in SCREENS if matches(screen.path, path)}
            if facts.errors or facts.headings != 1 or "Some of this could not be read" in reply.text:
                wrong[path] = facts.errors or "problems"
            assert "The bundled example, recorded until" in reply.text, path
    assert wrong == {}
    assert seen == {screen.path for screen in SCREENS} - {"/sweeps/{sweep}", "/jobs"}, (
        "the example has no sweep and no job"
    )
    assert digest_project(layout.root) == before, "looking changes nothing"


def test_the_report_of_a_retrain_draws_the_curve_of_its_canary(unpacked: tuple[ProjectPaths, Recording]) -> None:
    layout, recording = unpacked
    console = Console(layout, recording=recording)
    pages = [console.client.get(f"/retrain/{run.id}").text for run in RunStore(layout.retrain).runs()]
    assert sum('aria-label="Difference of the outcomes, challenger minus champion"' in page for page in pages) >= 1


def test_an_answer_is_followed_to_the_raw_rows_and_to_the_retrain_that_froze_it(
    unpacked: tuple[ProjectPaths, Recording],
) -> None:
    layout, _ = unpacked
    context = ReadContext(layout, NOW)
    run = RunStore(layout.retrain).runs()[0]
    retrain = read_explain(context, {"id": run.id})
    assert [step.kind for step in retrain.behind] == ["retrain", "drift", "rows"]
    answers = [fact.value for fact in retrain.behind[-1].facts]
    assert len(answers) == 10
    answer = read_explain(context, {"id": answers[0]})
    assert (answer.kind, answer.problems) == ("answer", {})
    assert {"answer", "release", "gate", "decision", "settings", "rows"} == {step.kind for step in answer.behind}
    links = [step.link for step in answer.after if step.kind == "retrain"]
    learned, _poor, _harmful, *later = RunStore(layout.retrain).runs()  # the two bad ones learned from nobody
    assert links == [f"/explain?id={one.id}" for one in (learned, *later)]
    (raw,) = {step.facts[0].link for step in answer.behind if step.kind == "rows"}
    assert Console(layout).client.get(raw).status_code == 200
    row = read_explain(context, {"id": "examples/local_lens/data/campaigns.jsonl:1"})
    (release,) = [step for step in row.after if step.kind == "release"]
    assert [fact.link.startswith("/explain?id=chatcmpl-") for fact in release.facts] == [True, True, True, False]
    rejected = read_explain(context, {"id": "examples/local_lens/data/campaigns.jsonl:31"}).after[-1]
    assert rejected.link == "/data/rows?stage=curate&part=rejects&reason=truncated"


def matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/?]+", pattern), path.partition("?")[0]) is not None


def name_screen(address: str) -> str:
    """The pattern of the screen at an address."""
    return next((screen.path for screen in SCREENS if matches(screen.path, address)), address.partition("?")[0])


def test_the_recorded_project_has_data_on_every_screen(unpacked: tuple[ProjectPaths, Recording]) -> None:
    layout, recording = unpacked
    console = Console(layout, recording=recording)
    home = console.client.get("/home.json").json()
    assert {node["state"] for node in home["stages"]} == {"up to date", "switched off"}
    assert "Tuned is better" in home["verdict"]
    assert home["next"] is None
    assert home["status"]["traffic"]["requests"] > 100
    assert home["status"]["drift"]["verdict"] == "ok"
    assert "drift" in {window["verdict"] for window in console.client.get("/drift.json").json()["windows"]}
    assert len(console.client.get("/runs.json").json()["rows"]) >= 2
    assert console.client.get("/play.json").json()["card"]["answers"]
    retrain = console.client.get("/retrain.json").json()
    assert {row["state"] for row in retrain["runs"]} >= {"awaiting_approval", "promoted", "rejected", "withdrawn"}
    assert len(console.client.get("/decisions.json").json()["waiting"]) == 1
    reigns = console.client.get("/releases.json").json()["reigns"]
    assert [reign["author"] for reign in reigns] == ["tunectl retrain controller", "make run"]


def test_people_and_keys_are_there_and_say_that_they_are_synthetic(unpacked: tuple[ProjectPaths, Recording]) -> None:
    layout, recording = unpacked
    console = Console(layout, recording=recording)
    people = console.client.get("/people.json").json()
    assert people["problems"] == {}
    assert [one["name"] for one in people["found"]["people"]] == [
        "Ana (synthetic)",
        "Ben (synthetic)",
        "Cleo (synthetic)",
    ]
    assert all(one["with_self"] and one["with_others"] for one in people["found"]["people"])
    assert 0 < people["judged"] <= people["questions"]
    assert people["skipped"] == 3
    assert "The people on this page are synthetic" in console.client.get("/people").text
    keys = console.client.get("/settings/keys.json").json()["keys"]
    assert len(keys) > 2
    assert all(key["name"].startswith("synthetic-") for key in keys)
    assert sum(bool(key["refused"]) for key in keys) == 1
    assert "Nobody has their secrets" in console.client.get("/settings/keys").text


def test_the_synthetic_people_are_the_same_in_every_demo(
    unpacked: tuple[ProjectPaths, Recording], copy: tuple[ProjectPaths, Recording]
) -> None:
    for name in (annotation_store.TASKS, annotation_store.ANNOTATIONS):
        one, other = (layout.root / "judgments" / name for layout in (unpacked[0], copy[0]))
        assert one.read_bytes() == other.read_bytes()


def test_the_clock_goes_on_from_the_recording(unpacked: tuple[ProjectPaths, Recording]) -> None:
    _, recording = unpacked
    assert timedelta(0) <= recorded_project.choose_clock(recording)() - recording.ended_at < timedelta(seconds=30)


def test_acts_change_the_copy(copy: tuple[ProjectPaths, Recording]) -> None:
    layout, recording = copy
    console, store = Console(layout, recording=recording), ReleaseRegistry(layout.releases)
    before = store.champion()
    other = next(name for name in store.ids() if name != before.release and not store.manifest(name).refusals)
    shown = console.client.get(f"/releases/{other}/promote")
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', shown.text))
    reply = console.post(f"/releases/{other}/promote", **fields, reason="to look")
    assert reply.status_code == 303, reply.text
    assert store.champion().release == other
    page = console.client.get("/rollback")
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    assert console.post("/rollback", **fields, reason="and back").status_code == 303
    assert store.champion().release == before.release


def perform(console: Console, path: str, **fields: str) -> str:
    """Open the page of an act, send its form, and return what is shown then."""
    page = console.client.get(path)
    assert page.status_code == 200, page.text
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    reply = console.post(path, **hidden, answer="yes", reason="to look", **fields)
    assert reply.status_code in {200, 303}, reply.text
    return reply.text or console.client.get(reply.headers["location"]).text


def test_every_other_act_works_on_the_copy(copy: tuple[ProjectPaths, Recording]) -> None:
    layout, recording = copy
    console, store = Console(layout, recording=recording), ReleaseRegistry(layout.releases)
    champion = store.champion().release
    other = next(name for name in store.ids() if name != champion and not store.manifest(name).refusals)
    perform(console, f"/releases/{other}/canary", share="10")
    assert store.canary().release == other
    perform(console, "/canary/stop")
    assert store.canary() is None

    runs = RunStore(layout.retrain)
    for recorded in runs.list_pending_triggers():  # of the same person, where root looks at the demo
        runs.resolve_trigger(TriggerOutcome(recorded, recording.ended_at, None, "cooldown"))
    perform(console, "/retrain/request")
    assert [one.message for one in runs.list_pending_triggers()] == ["to look"]

    drift = console.client.get("/drift.json").json()
    window = next(one["id"] for one in drift["windows"] if one["rows"] >= drift["min_rows"])
    perform(console, f"/drift/{window}/set-reference")
    assert console.client.get("/drift.json").json()["reference"] == [window]

    (row, *_) = console.client.get("/live.json").json()["rows"]
    assert "are erased" in perform(console, f"/live/{row['id']}/erase")
    assert console.client.get(f"/live/{row['id']}.json").json()["erased_at"] is not None

    assert "tk-" in perform(console, "/settings/keys/add", name="app", scope_chat="on")
    for act, enabled in (("disable", False), ("enable", True)):
        perform(console, f"/settings/keys/app/{act}")
        keys = console.client.get("/settings/keys.json").json()["keys"]
        assert [key["enabled"] for key in keys if key["name"] == "app"] == [enabled]
    perform(console, "/settings/keys/app/remove")
    assert "app" not in [key["name"] for key in console.client.get("/settings/keys.json").json()["keys"]]


def test_the_demo_works_with_what_its_extra_installs_and_nothing_else(copy: tuple[ProjectPaths, Recording]) -> None:
    code = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[2])))  # an import of one of them fails
from pathlib import Path
from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import demo
from tunectl.console import html_pages, read_context, recorded_project, screen_table
from tunectl.services import console_service
import starlette.applications, starlette.staticfiles, uvicorn
demo._require_extra()
layout = ProjectPaths(Path(sys.argv[1]))
recording = recorded_project.read_recording(layout)
context = read_context.ReadContext(layout, recording.ended_at, recording=recording)
for screen in screen_table.SCREENS:
    html_pages._environment().get_template(screen.template)
    if "{" not in screen.path:
        found = screen.read(context, {"id": "champion"})
        assert not getattr(found, "problems", {}), (screen.path, found.problems)
"""
    allowed = list_installed_by("console")
    homes = importlib.metadata.packages_distributions()
    blocked = [name for name, owners in homes.items() if not {canonicalize_name(one) for one in owners} & allowed]
    assert {"torch", "mlflow"} & set(blocked)
    command = [sys.executable, "-c", code, str(copy[0].root), json.dumps(blocked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def list_installed_by(extra: str) -> set[str]:
    """Distributions that the core and an extra install, with what they need themselves; and this one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own, extras = canonicalize_name(project["name"]), project["optional-dependencies"]
    waiting = [Requirement(text) for text in (*project["dependencies"], *extras[extra])]
    found: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        name, wanted = canonicalize_name(one.name), frozenset(one.extras)
        if (name, wanted) in found:
            continue
        found.add((name, wanted))
        if name == own:
            waiting += [Requirement(text) for part in wanted for text in extras[part]]
            continue
        needed = [Requirement(text) for text in importlib.metadata.requires(one.name) or ()]
        waiting += [
            item
            for item in needed
            if item.marker is None or any(item.marker.evaluate({"extra": part}) for part in ("", *wanted))
        ]
    return {name for name, _ in found} | {own}


def test_no_build_starts_in_it(copy: tuple[ProjectPaths, Recording]) -> None:
    console = Console(copy[0], recording=copy[1])
    assert "nothing can be built in it" in console.client.get("/build/start").text
    refused = console.post("/build/start", answer="start", reason="try", pending="")
    assert refused.status_code == 409
    assert not copy[0].build_log.exists()


def test_a_port_that_is_taken_names_the_option_of_the_demo(copy: tuple[ProjectPaths, Recording]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InfrastructureError) as error:
            console_service.run_recorded(port, *copy, started=lambda _link: None)
    assert error.value.message.startswith(f"--port {port}: 127.0.0.1:{port} cannot be used: ")
    assert error.value.hint.endswith(f"choose another port: tunectl demo --port {min(port + 1, 65535)}")


def test_a_decision_is_recorded_at_the_time_of_the_recording(copy: tuple[ProjectPaths, Recording]) -> None:
    layout, recording = copy
    console = Console(layout, recording=recording)
    waiting = console.client.get("/decisions.json").json()["waiting"][0]
    address = f"/decisions/{waiting['run']}"
    assert console.client.get(address).status_code == 200
    reply = console.post(address, question=waiting["question"], nonce=waiting["nonce"], answer="no", reason="no")
    assert reply.status_code == 303, reply.text
    decision = RunStore(layout.retrain).get_decision(waiting["run"], waiting["question"])
    assert decision is not None
    assert decision.approved is False
    assert decision.at == recording.ended_at
    assert console.client.get("/decisions.json").json()["waiting"] == []


def test_the_copy_is_open_to_its_owner_alone(copy: tuple[ProjectPaths, Recording]) -> None:
    log = copy[0].state_dir / "inference_log"
    files = [path for path in log.rglob("*") if path.is_file()]
    assert files
    assert [path for path in (log, *files) if path.stat().st_mode & 0o077] == []


def test_a_release_without_its_weights_is_whole_and_a_changed_one_is_not(copy: tuple[ProjectPaths, Recording]) -> None:
    layout, _ = copy
    store = RecordedRegistry(layout.releases)
    champion = store.champion().release
    assert any("is missing" in problem for problem in ReleaseRegistry(layout.releases).verify(champion))
    assert store.verify(champion) == []
    (store.folder(champion) / "MODEL_CARD.md").write_text("another")
    assert [problem.partition(" ")[0] for problem in store.verify(champion)] == ["MODEL_CARD.md"]


def test_without_the_extra_one_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACKAGES", ("no_such_package",))
    monkeypatch.setattr(distribution, "_find_origin", lambda: "/dist/tunectl_lm-1-py3-none-any.whl")
    with pytest.raises(MissingExtraError) as caught:
        demo.run(argparse.Namespace(port=0))
    assert str(caught.value) == (
        "tunectl demo needs the extra [console]: uvx --from '/dist/tunectl_lm-1-py3-none-any.whl[console]' tunectl demo"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "tunectl-lm"),
        ("{}", "tunectl-lm"),
        ('{"url": "https://index.example/tunectl_lm-1.whl", "archive_info": {}}', "tunectl-lm"),
        ('{"url": "file:///my%20dist/tunectl_lm-1.whl", "archive_info": {}}', "/my dist/tunectl_lm-1.whl"),
        ("not JSON", "tunectl-lm"),
    ],
)
def test_the_command_names_the_file_that_was_installed(
    monkeypatch: pytest.MonkeyPatch, text: str | None, expected: str
) -> None:
    installed = types.SimpleNamespace(read_text=lambda name: text)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: installed)
    assert distribution.format_tool_command("console", "demo") == f"uvx --from '{expected}[console]' tunectl demo"


def test_an_installation_without_the_record_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recorded_project, "ARCHIVE", tmp_path / "absent.tar.xz")
    (tmp_path / "copy").mkdir()
    with pytest.raises(InfrastructureError, match=r"absent\.tar\.xz is missing"):
        recorded_project.unpack(tmp_path / "copy", ROOT / "conf")
