"""Every screen on every kind of project: it opens, it is valid, its twin decodes, strangers' markup is text, and looking changes nothing."""

from __future__ import annotations

import io
import json
import platform
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from console_projects import (
    DECIDED,
    MARKUP,
    NOW,
    Console,
    PageFacts,
    build,
    crawl,
    digest_project,
    initialize,
    list_paths,
)
from console_records import URL, add_evaluation, add_retrains, add_sweep, write_run
from msgspec.structs import replace
from play_server import READINESS, declare, run_play_server

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Feedback, truncate
from tunectl.backends.reports.render import format_seconds
from tunectl.backends.storage import inference_log_sql
from tunectl.cli.main import main
from tunectl.console import html_pages
from tunectl.console.act_table import ACTS
from tunectl.console.console_sessions import Visitor
from tunectl.console.read_context import ReadContext
from tunectl.console.screen_table import SCREENS, Screen, json_path
from tunectl.console.screens import settings
from tunectl.evaluation import results
from tunectl.evaluation.alignment_facts import AlignmentCause
from tunectl.evaluation.results import AlignedVerdict
from tunectl.preferences import annotation_store
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore, TriggerOutcome
from tunectl.retraining.state_machine import Trigger

EXAMPLES = {
    "stage": "curate",
    "id": "e-0000000000000000",
    "figure": "train_loss",
    "report": "evaluate",
    "inference": "chatcmpl-0000",
    "window": "c" * 16,
    "sweep": "demo",
    "run": f"{'b' * 12}-1",
}
"""Values of the variable parts of paths."""
KINDS = ("empty", "initialized", "part", "built")


def make_project(kind: str, folder: Path) -> ProjectPaths:
    if kind == "empty":
        folder.mkdir()
        return ProjectPaths(folder)
    if kind == "initialized":
        return initialize(folder)
    layout = build(folder)
    if kind == "part":
        for stage in ("curate", "split", "evaluate"):
            shutil.rmtree(layout.artifact(stage))
        shutil.rmtree(layout.releases)
    return layout


@pytest.fixture(scope="module", params=KINDS)
def console(request, tmp_path_factory) -> Console:
    return Console(make_project(request.param, tmp_path_factory.mktemp("console") / request.param))


def fill(path: str, release: str = "0123456789abcdef") -> str:
    for name, value in {**EXAMPLES, "release": release}.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def test_an_answer_without_log_probabilities_says_that_none_were_computed(console: Console) -> None:
    path = next(screen.path for screen in SCREENS if "{inference}" in screen.path)
    text = console.client.get(fill(path)).text
    has_log = (console.layout.root / ".tunectl/inference_log").exists()
    assert ("<dt>mean log-probability of a token</dt><dd>not computed" in text) == has_log


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.path)
def test_a_screen_opens_and_is_valid(console: Console, screen: Screen) -> None:
    reply = console.client.get(fill(screen.path))
    if reply.status_code == 404:  # what it would show is not in this project
        assert "{" in screen.path
    else:
        assert reply.status_code == 200, reply.text[-800:]
    facts = PageFacts(reply.text)
    assert facts.errors == []
    assert facts.headings == 1
    assert facts.title.endswith("shop")
    assert len(facts.title) > 6


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.path)
def test_the_twin_of_a_screen_is_its_struct(console: Console, screen: Screen) -> None:
    reply = console.client.get(json_path(fill(screen.path)))
    query = {**EXAMPLES, "release": "0123456789abcdef"}
    try:
        expected = screen.read(
            ReadContext(
                console.layout, NOW, frozenset(console.sign_in.find(next(iter(console.client.cookies.values()))).scopes)
            ),
            query,
        )
    except LookupError:
        assert reply.status_code == 404
        return
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert msgspec.json.decode(reply.content, type=type(expected)) is not None
    assert reply.json().keys() == msgspec.to_builtins(expected).keys()


def test_looking_changes_nothing_and_no_link_is_dead(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    before = digest_project(tmp_path / "shop")
    pages = dict(crawl(console))
    assert len(pages) > 10
    assert {path: reply.status_code for path, reply in pages.items() if reply.status_code != 200} == {}
    assert digest_project(tmp_path / "shop") == before
    assert [path for path, reply in pages.items() if "No row matches" in reply.text] == []


def test_a_release_of_another_registry_is_a_name_without_a_link(tmp_path: Path) -> None:
    layout, other = build(tmp_path / "shop"), "f" * 16
    with inference_log_sql.open_log(URL, layout.root) as log:
        log.write([replace(log.inference("chatcmpl-0001"), id="chatcmpl-elsewhere", release=other)])
        (*_, window) = log.windows()
        log.add_window(replace(window, id="d" * 16, body={**window.body, "id": "d" * 16, "release": other}))
    run, _ = add_retrains(layout.root, other)
    console = Console(layout)
    pages = ["/live/chatcmpl-elsewhere", "/explain?id=chatcmpl-elsewhere", "/drift", f"/drift/{'d' * 16}", "/retrain"]
    for page in pages:
        text = console.client.get(page).text
        assert other[:12] in text, page
        assert f"/releases/{other}" not in text, page
    assert "/releases/" not in console.client.get(f"/retrain/{run}").text
    assert console.client.get(f"/releases/{other}").status_code == 404


def test_what_strangers_wrote_is_text(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    seen = 0
    for path, reply in crawl(console):
        if not reply.headers["content-type"].startswith("text/html"):
            continue
        assert "<script>alert" not in reply.text, path
        assert "<img" not in reply.text, path
        assert "\u202e" not in reply.text, path
        seen += "&lt;script&gt;alert" in reply.text
    assert seen >= 3


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A project in which markup stands wherever a stranger can write: in requests, answers, edits, reasons and names."""
    layout = build(tmp_path_factory.mktemp("hostile") / "shop")
    with inference_log_sql.open_log(URL, layout.root) as log:
        one = log.inference("chatcmpl-0001")
        asked = {"messages": [{"role": role, "content": MARKUP} for role in ("system", "assistant", "user")]}
        told = {"choices": [{"message": {"role": "assistant", "content": MARKUP}}]}
        log.write([replace(one, id="chatcmpl-evil", request=asked, response=told), Feedback("f-evil", "chatcmpl-evil", "edit", MARKUP, NOW, MARKUP)])  # fmt: skip
    store = RunStore(layout.retrain)
    store.save(write_run("e", NOW, MARKUP))
    store.enqueue_trigger(Trigger("person", "person-2", NOW, MARKUP, MARKUP))
    store.resolve_trigger(
        TriggerOutcome(Trigger("alert", "alert-2", NOW, MARKUP), NOW, reason="cooldown", detail=MARKUP)
    )
    with run_play_server() as server:
        declare(layout, server)
        yield Console(layout)


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("/live?q=script", 2),  # question and answer
        ("/live/chatcmpl-evil", 5),  # three messages, the answer, an edit
        ("/play?replay=chatcmpl-evil", 3),  # the question to ask again, and what came before it
        ("/retrain", 4),  # reasons and names of triggers, of a run, and why one started nothing
        (f"/retrain/{'e' * 12}-1", 1),
    ],
)
def test_markup_of_strangers_is_text_in_traffic_play_and_reasons(hostile: Console, path: str, places: int) -> None:
    reply = hostile.client.get(path)
    assert reply.status_code == 200
    assert "<script>alert" not in reply.text
    assert "<img" not in reply.text
    assert reply.text.count("&lt;script&gt;alert") >= places


@pytest.mark.parametrize(
    "broken",
    [
        "dvc.lock",
        "dvc.yaml",
        "conf/config.yaml",
        "artifacts/curate/manifest.json",
        "artifacts/curate/row_counts.json",
        "artifacts/evaluate/verdict.json",
        "artifacts/metrics/sft.json",
        ".tunectl/failure.json",
        ".tunectl/releases/champion.json",
        ".tunectl/releases/events.jsonl",
    ],
)
def test_a_broken_file_is_reported_and_keeps_nothing_else_from_being_shown(tmp_path: Path, broken: str) -> None:
    layout = build(tmp_path / "shop")
    path = layout.root / broken
    path.write_text('{"half\n')
    console = Console(layout)
    told = []
    for screen in SCREENS:
        reply = console.client.get(fill(screen.path))
        assert reply.status_code in (200, 404), f"{screen.path}: {reply.text[-500:]}"
        told.append("could not be read" in reply.text or "have mistakes" in reply.text)
    assert any(told)


def test_home_says_what_is_next_on_an_empty_project(tmp_path: Path) -> None:
    console = Console(initialize(tmp_path / "shop"))
    found = console.client.get("/home.json").json()
    assert found["next"]["command"] in {"tunectl repro", "tunectl check"}
    assert truncate(MARKUP) not in found["project"]


def test_links_to_other_places_are_those_to_trackers_and_to_the_page_for_comparing() -> None:
    folder = html_pages.FOLDER / "templates"
    found = {path.name for path in folder.glob("*.html") if 'rel="external' in path.read_text()}
    assert found == {"runs.html", "people.html"}


def test_a_page_with_a_curve_brings_what_draws_it(console: Console) -> None:
    links = [
        link for link in PageFacts(console.client.get("/runs/compare").text).links if link.startswith("/runs/curve/")
    ]
    assert bool(links) == (console.layout.root.name in {"part", "built"})
    for link in links:
        reply = console.client.get(link)
        assert reply.status_code == 200
        at = [reply.text.find(f'<script src="/static/{name}') for name in ("uplot-", "console.js")]
        assert 0 < at[0] < at[1]


def test_each_score_leads_to_its_inputs(console: Console) -> None:
    text = console.client.get("/results").text
    links = [link for link in PageFacts(text).links if link.startswith("/results/answers?")]
    assert all(console.client.get(link).status_code == 200 for link in dict.fromkeys(links))
    if 'aria-label="Scores"' in text:
        assert any("system=tuned" in link for link in links)


def test_the_results_say_why_aligning_may_gain_nothing(tmp_path: Path) -> None:
    layout = initialize(tmp_path / "shop")
    add_evaluation(layout.root)
    path = layout.artifact("evaluate") / results.NAME
    found = results.load(path)
    cause = AlignmentCause("answers_cut", f"70 % of the answers were cut. {MARKUP}", "A larger limit.", 0.6)
    aligned = AlignedVerdict(True, "aligned_no_better", "Aligned is no better.", causes=[cause])
    atomic_io.write_json(path, replace(found, verdict=replace(found.verdict, aligned=aligned)))
    console = Console(layout)
    text = console.client.get("/results").text
    assert "Why aligning may gain nothing" in text
    assert "70 % of the answers were cut." in text
    assert "<strong>What to try:</strong> A larger limit." in text
    assert MARKUP not in text
    twin = console.client.get("/results.json").json()
    assert twin["verdict"]["aligned"]["causes"][0]["name"] == "answers_cut"


def test_where_no_canary_is_declared_none_lies_ahead_of_a_retrain(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    assert "canary" in [one["state"] for one in console.client.get("/retrain.json").json()["path"]]
    path = console.layout.conf / "retrain" / "default.yaml"
    path.write_text(re.sub(r"(?s)\ncanary:.*?\nresources:", "\ncanary: null\nresources:", path.read_text()))
    shown = console.client.get("/retrain.json").json()
    assert shown["problems"] == {}
    assert "canary" not in [one["state"] for one in shown["path"]]


def test_without_a_controller_no_retrain_is_said_to_run(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    page = console.client.get("/retrain").text
    assert "No retrain controller runs here" in page
    assert "Running now" not in page
    assert "Not finished" in page


def test_home_leads_on_to_what_it_tells(tmp_path: Path) -> None:
    page = Console(build(tmp_path / "shop")).client.get("/").text
    links = PageFacts(page).links
    assert {"/live", "/drift", "/retrain", f"/decisions/{'b' * 12}-1"} <= set(links)
    assert links.count("/retrain") >= 4, "in the navigation twice, with the rows, and with the request that waits"
    assert "1 request for a retrain waits, and no controller takes it up" in page
    assert "the champion stays" in page


def test_the_page_for_comparing_is_linked_while_it_is_open_with_its_progress(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    page = console.client.get("/people").text
    assert "2 of 3 questions have a judgment." in page
    assert 'href="http://127.0.0.1' not in page
    with annotation_store.open_store(console.layout.root / "judgments"):
        assert 'href="http://127.0.0.1' in console.client.get("/people").text


def test_whoever_opens_an_inference_stands_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    console = Console(build(tmp_path / "shop"))
    console.client.get("/live")
    console.client.get("/live/chatcmpl-0001")
    console.client.get("/play.json?replay=chatcmpl-0002")
    console.client.get("/explain.json?id=chatcmpl-0003")
    who = console.sign_in.find(next(iter(console.client.cookies.values()))).name
    opened = [record.getMessage() for record in caplog.records if "opened the inference" in record.getMessage()]
    assert opened == [f"{who} opened the inference chatcmpl-000{number}" for number in (1, 2, 3)]


def test_all_requests_of_a_person_are_listed_by_the_hash_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    console = Console(build(tmp_path / "shop"))
    person = f"{1:032x}"
    assert f'href="/live?person={person}"' in console.client.get("/live/chatcmpl-0001").text
    page, twin = (console.client.get(f"/live{end}?person={person}") for end in ("", ".json"))
    assert PageFacts(page.text).errors == []
    assert [row["id"] for row in twin.json()["rows"]] == [f"chatcmpl-{number:04}" for number in range(1, 40, 7)]
    assert "data-live" not in page.text, "each look is written down"
    assert f"tunectl log show --hash {person}" in page.text
    assert sum(f"listed the requests of the person {person[:16]}" in one.getMessage() for one in caplog.records) == 2
    monkeypatch.chdir(console.layout.root)
    assert main(["log", "show", "--hash", person, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["newest"]) == 6
    assert console.client.get(f"/live.json?person={'f' * 32}").json()["rows"] == []
    for name in ("alice", person[:8], person + "0", "%"):
        shown = console.client.get("/live.json", params={"person": name}).json()
        assert (shown["rows"], shown["query"]) == ([], {}), "a name is not repeated"
        assert "no hash of a person" in shown["problems"]["person"]


def test_settings_say_which_versions_run_here_and_how_much_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(initialize(tmp_path / "shop"))
    monkeypatch.setattr(settings.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3_000_000))
    shown = console.client.get("/settings.json").json()
    assert (
        shown["versions"].items() >= {"Python": platform.python_version(), "tunectl-lm": version("tunectl-lm")}.items()
    )
    assert (shown["disk_free"], "free some space" in shown["disk_advice"]) == (3_000_000, True)
    page = console.client.get("/settings").text
    assert f"<dt>Python</dt><dd>{platform.python_version()}</dd>" in page
    assert "3.0 MB" in page
    assert "free some space" in page


def test_a_window_leads_to_evidentlys_report_in_a_sandbox(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    path = fill("/drift/{window}/report")
    assert console.client.get(path).status_code == 404
    assert path not in console.client.get(fill("/drift/{window}")).text
    folder = console.layout.root / console.app.context(Visitor("ann", frozenset())).load_settings().monitor.reports
    folder.mkdir(parents=True)
    (folder / f"{EXAMPLES['window']}.html").write_text("<script>draw()</script>")
    assert console.client.get(fill("/drift/{window}.json")).json()["has_report"] is True
    assert path in console.client.get(fill("/drift/{window}")).text
    reply = console.client.get(path)
    assert (reply.status_code, reply.text) == (200, "<script>draw()</script>")
    assert reply.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none';")
    assert console.stranger().get(path).status_code == 303
    assert console.client.get("/drift/..%2Fwindow/report").status_code == 404


def test_releases_say_which_servers_answer(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    with run_play_server() as server:
        declare(console.layout, f"{server}, {server}/busy, http://127.0.0.1:1")
        shown = console.client.get("/releases.json").json()["servers"]
        page = console.client.get("/releases").text
    assert [one["state"] for one in shown] == ["ready", "not ready", "not reachable"]
    assert [one["current"] for one in shown] == [None, None, None]
    assert "not reachable" in page


def test_after_a_promotion_the_page_says_which_servers_have_switched(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    old = ReleaseRegistry(console.layout.releases).ids()[0]
    champion = ReleaseRegistry(console.layout.releases).champion().release
    with run_play_server() as server:
        declare(console.layout, f"{server}, http://127.0.0.1:1")
        assert f"which of these have switched: {server}" in console.client.get(f"/releases/{old}/promote").text
        for release, current in ((old, False), (champion, True)):
            READINESS["body"] = msgspec.json.encode(
                {
                    "ready": True,
                    "variants": {"champion": {"release": release, "agreement": 0.99}},
                    "problems": {} if current else {"champion": f"no memory {MARKUP}"},
                }
            )
            for address in (f"/releases/{champion}", "/releases"):
                page = console.client.get(address).text
                one, other = console.client.get(f"{address}.json").json()["servers"]
                assert (one["releases"], one["current"], one["proof"]) == ({"champion": release}, current, 0.99)
                assert (other["state"], other["current"]) == ("not reachable", None)
                assert ("data-again" in page, f"{int(current)} of 2 serve the champion" in page) == (not current, True)
                assert PageFacts(page).errors == []
        READINESS["body"] = b'{"variants": {"champion": 3}, "reason": []}'
        shown = console.client.get("/releases.json").json()["servers"][0]
        assert (shown["state"], shown["releases"], shown["current"]) == ("ready", {}, None)
        assert console.client.get(f"/releases/{old}.json").json()["servers"] == [], "of the champion alone"


def test_build_and_its_start_say_how_long_the_stages_took_the_last_time(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    shown = console.client.get("/build.json").json()
    took = {one["stage"]: one["seconds"] for one in shown["stages"] if one["stage"] in shown["stale"]}
    never = [stage for stage, seconds in took.items() if seconds is None]
    assert shown["duration"] == {"seconds": sum(filter(None, took.values())), "never_run": never}
    assert shown["duration"]["seconds"] > 99
    assert "align" in never
    together = format_seconds(shown["duration"]["seconds"])
    words = f"The last time these took {together} together, without {', '.join(never)}: never run here."
    assert words in console.client.get("/build").text
    assert words in console.client.get("/build/start").text
    assert "The last time" not in Console(initialize(tmp_path / "new")).client.get("/build").text


def test_the_browser_looks_at_every_screen_and_act(tmp_path: Path) -> None:
    """Tests that hold pages to WCAG go through these addresses; stopping a canary, which needs one, has a test of its own."""
    layout = build(tmp_path / "shop")
    add_sweep(layout.root)
    console, addresses = Console(layout), list_paths(layout.root)
    shown = {path for path in addresses if console.client.get(path).status_code == 200} | {DECIDED}
    assert set(addresses) - shown == {"/nothing"}
    missing = [
        page.path
        for page in (*SCREENS, *ACTS)
        if not any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", page.path), path.partition("?")[0]) for path in shown)
    ]
    assert missing == ["/runs/curve/{stage}/{figure}", "/canary/stop"], "a curve is part of its run's page"


def test_an_id_with_bytes_that_are_no_text_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build(tmp_path / "shop").root)
    errors = io.StringIO()  # a terminal's stream escapes such bytes; that of pytest does not
    monkeypatch.setattr("sys.stderr", errors)
    for words in (["log", "show", "--id"], ["explain"], ["data", "lineage"]):
        assert main([*words, "\udcff"]) == 2
    assert errors.getvalue().count("tunectl: ") == 3


def test_a_wrong_time_of_a_page_is_said_in_plain_words(tmp_path: Path) -> None:
    shown = Console(build(tmp_path / "shop")).client.get("/live.json?before=bad").json()
    assert shown["problems"] == {"before": "before is no time of a page, so the newest requests are shown"}
    assert len(shown["rows"]) == 30
