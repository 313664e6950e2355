"""What is shown leads on: numbers to their rows, ids to their explanations, filters out again; commands can be copied."""

from __future__ import annotations

import os
import re
import shlex
from html import unescape
from pathlib import Path

import msgspec
import pytest
from console_projects import NOW, Console, PageFacts, build
from msgspec.structs import replace

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.row_counts import REJECTS
from tunectl.console.acts import build as build_act
from tunectl.console.read_context import ReadContext
from tunectl.console.screens import live
from tunectl.console.screens.stage import read_stage
from tunectl.core.progress_journal import JournalStart, JournalStep
from tunectl.evaluation import results
from tunectl.evaluation.results import Score, SlicePart, WinRate
from tunectl.pipeline import run_ledger
from tunectl.registry.release_store import ReleaseRegistry

HOSTILE_ID = "e-1; rm -rf ~"


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Console:
    layout = build(tmp_path_factory.mktemp("links") / "shop")
    path = layout.artifact("evaluate") / results.NAME
    part = SlicePart("area", "north", 22, False, {"base": Score(1.0, 0, 2, 9), "tuned": Score(2.0, 1, 3, 9)}, None)
    found = replace(results.load(path), win_rates=[WinRate("reward", 9, rate=0.7, low=0.6, high=0.8)], slices=[part])
    atomic_io.write_json(path, found)
    atomic_io.write_json(layout.config("sft"), {"settings": {"sft": {"lora_rank": 16}}, "sources": {}})
    champion = ReleaseRegistry(layout.releases).champion()
    newest = run_ledger.list_runs(layout)[0]
    record = run_ledger.read_run(layout, newest)
    atomic_io.write_bytes(
        layout.runs / f"{newest}.json", msgspec.json.encode(replace(record, release=champion.release))
    )
    return Console(layout)


def read_links(console: Console, path: str) -> list[str]:
    reply = console.client.get(path)
    assert reply.status_code == 200, reply.text
    return PageFacts(reply.text).links


def get_champion(console: Console) -> str:
    return ReleaseRegistry(console.layout.releases).champion().release


def test_numbers_lead_to_their_rows(console: Console) -> None:
    champion = get_champion(console)
    newest, _, oldest = run_ledger.list_runs(console.layout)
    assert any(f"old={oldest}&" in link for link in read_links(console, "/runs") if link.endswith("#answers"))
    assert f"/runs/compare?new={newest}#answers" in read_links(console, f"/releases/{champion}")
    assert f"/releases/{ReleaseRegistry(console.layout.releases).ids()[-1]}" in read_links(console, "/drift")
    shown = read_links(console, "/results")
    assert "/results/answers?system=aligned&sort=loss" in shown
    assert "/results/answers?slice=area%3Anorth&system=tuned" in shown
    assert "/results/answers?slice=area%3Anorth" in shown
    assert "/data/rows?stage=split&file=train.jsonl" in read_links(console, "/build/sft")


def test_a_setting_of_a_stage_leads_to_its_meaning(console: Console) -> None:
    assert "/settings?q=sft.lora_rank" in read_links(console, "/build/sft")
    assert console.client.get("/settings.json?q=sft.lora_rank").json()["matching"] >= 1


def test_a_rejected_row_leads_to_its_explanation(console: Console) -> None:
    links = read_links(console, "/data/rows?stage=curate&part=rejects")
    assert "/explain?id=briefs.jsonl%3A900" in links
    assert console.client.get("/explain.json?id=briefs.jsonl%3A900").json()["kind"] == "row"
    assert (console.layout.artifact("curate") / REJECTS).is_file()
    assert "/explain?id=e-0000000000000007" in read_links(console, "/data/rows/e-0000000000000007")


def test_the_run_that_built_a_release_is_compared_with_the_one_before(console: Console) -> None:
    newest, middle, oldest = run_ledger.list_runs(console.layout)
    for new, old in ((newest, middle), (middle, oldest)):
        found = console.client.get(f"/runs/compare.json?new={new}").json()
        assert (found["new"]["id"], found["old"]["id"]) == (new, old)


@pytest.mark.parametrize("path", ["/explain?id={}", "/data/rows/{}"])
def test_a_command_holds_an_id_as_one_word(console: Console, path: str) -> None:
    file = console.layout.artifact("split") / "train.jsonl"
    rows = file.read_bytes()
    try:
        file.write_bytes(
            rows + b'{"id":%s,"source":{"file":"briefs.jsonl","row":1}}\n' % msgspec.json.encode(HOSTILE_ID)
        )
        text = console.client.get(path.format(HOSTILE_ID)).text
    finally:
        file.write_bytes(rows)
    command = unescape(re.search(r'In a terminal: <code class="command">(.*?)</code>', text)[1])
    assert shlex.split(command)[-1] == HOSTILE_ID


def test_every_command_with_a_name_in_it_quotes_it() -> None:
    folder = Path(live.__file__).parents[1] / "templates"
    wrong = [
        (path.name, call)
        for path in folder.glob("*.html")
        for call in re.findall(r"ui\.typed\((.*?)\) ?}}", path.read_text())
        if "~" in call and "| shell" not in call
    ]
    assert [name for name, _ in wrong] in ([], ["retrain_run.html"])


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("/results/answers?q=shop", 0),
        ("/results/answers?at=20", 0),
        ("/results/answers?system=tuned&q=shop&at=20", 1),
        ("/live?q=shop", 0),
        ("/live?before=2026-11-27T11:00:00", 0),
        ("/live?refused=1&q=shop", 1),
    ],
)
def test_text_and_place_are_no_filters(console: Console, path: str, count: int) -> None:
    text = console.client.get(path).text
    assert f"<summary>Filters{f' ({count} set)' if count else ''}</summary>" in text


@pytest.mark.parametrize("name", ["refused", "slow"])
def test_a_switch_of_live_traffic_says_that_it_is_on(console: Console, name: str) -> None:
    switch = re.compile(r'<a href="/live([^"]*)"( aria-current="true")?>(?:refused|slower)')
    off = switch.findall(console.client.get("/live").text)
    assert [current for _, current in off] == ["", ""]
    on = switch.findall(console.client.get(f"/live?{name}=1").text)
    assert sorted(bool(current) for _, current in on) == [False, True]
    assert [address for address, current in on if current] == [""]


def test_figures_by_variant_say_of_how_many_they_are(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "newest of the" not in console.client.get("/live").text
    monkeypatch.setattr(live, "MAX_SCAN", 10)
    assert "Of the 10 newest of the 40 requests, without erased ones." in console.client.get("/live").text


def test_the_list_of_typed_settings_has_a_way_out(console: Console) -> None:
    path = console.layout.conf / "overrides.yaml"
    path.write_text("- seed=5\n")
    try:
        assert "/settings?changed=1" in read_links(console, "/settings")
        text = console.client.get("/settings?changed=1").text
        assert '<a href="/settings">Show all settings</a>' in text
    finally:
        path.unlink()


def write_journal(layout: ProjectPaths, count: int) -> None:
    steps = [
        JournalStep(2.0 + at, "fine-tuning", float(at), float(count), {"loss": f"{9 / (1 + at):.3f}", "rate": "1e-4"})
        for at in range(count)
    ]
    path = layout.progress("sft")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [JournalStart(1.0, "sft", os.getpid(), "abc"), *steps]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def test_a_running_stage_draws_its_loss(console: Console) -> None:
    layout = console.layout
    context = ReadContext(layout, NOW)
    assert read_stage(context, {"stage": "sft"}).curve.startswith("run ")  # no journal yet: the ledger has one
    write_journal(layout, 450)
    with lock.file_lock(layout.stage_lock, "stage sft"):
        found = read_stage(context, {"stage": "sft"})
        text = console.client.get("/build/sft").text
    assert (found.curve, found.x.label, [one.label for one in found.series]) == (
        "fine-tuning, running",
        "step",
        ["loss"],
    )
    assert found.x.values[-1] == 449
    assert len(found.x.values) == len(found.series[0].values) == 150
    assert 'data-curve="/build/sft.json"' in text
    assert text.find("uplot-") < text.find("console.js")
    assert PageFacts(text).errors == []


def test_before_a_build_one_sees_what_it_may_cost(console: Console) -> None:
    page = build_act.show_start(ReadContext(console.layout, NOW, frozenset({"operate"})), {"settings": "sft.epochs=2"})
    assert any("tunectl estimate sft.epochs=2" in words for words in page.consequences)
