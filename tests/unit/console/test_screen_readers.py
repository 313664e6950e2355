"""Readers of screens: five kinds of projects, and every file of a built one broken in turn. Nothing raises; problems say what."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from console_projects import Console, build
from console_records import (
    HOSTILE,
    NOW,
    add_evaluation,
    add_settings,
    add_sweep,
    build_project,
)
from msgspec.structs import replace

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.console.explanation_steps import describe_settings
from tunectl.console.read_context import ReadCache, ReadContext
from tunectl.console.screens import (
    answers,
    compare,
    drift,
    explain,
    live,
    people,
    results,
    retrain,
    run_curve,
    runs,
    settings,
    sweeps,
)
from tunectl.core.errors import UsageError
from tunectl.pipeline import run_ledger
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import state_machine
from tunectl.retraining.run_store import RunStore

READERS: dict[str, tuple[Callable[[ReadContext, Mapping[str, str]], Any], dict[str, str]]] = {
    "results": (results.read_results, {}),
    "report": (results.read_report, {"report": "evaluate"}),
    "answers": (answers.read_answers, {}),
    "live": (live.read_live, {}),
    "drift": (drift.read_drift, {}),
    "retrain": (retrain.read_retrain, {}),
    "decisions": (retrain.read_decisions, {}),
    "runs": (runs.read_runs, {}),
    "compare": (compare.read_compare, {}),
    "sweeps": (sweeps.read_sweeps, {}),
    "people": (people.read_people, {}),
    "settings": (settings.read_settings, {}),
    "keys": (settings.read_keys, {}),
    "explain": (explain.read_explain, {"id": "champion"}),
}


CACHE = ReadCache()
"""Of all tests: the settings of a project are composed once."""


def look(root: Path, name: str, **query: str) -> Any:
    read, usual = {**READERS, "sweep": (sweeps.read_sweep, {})}[name]
    shown = read(ReadContext(ProjectPaths(root), NOW, cache=CACHE), {**usual, **query})
    assert msgspec.json.decode(msgspec.json.encode(shown), type=type(shown)) == shown
    return shown


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_project(tmp_path_factory.mktemp("built")).root


@pytest.mark.parametrize("name", READERS)
def test_an_empty_folder_is_shown(tmp_path: Path, name: str) -> None:
    shown = look(tmp_path, name)
    assert set(shown.problems) <= {"settings", "inference log"}
    assert all("conf/config.yaml does not exist" in words for words in shown.problems.values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", READERS)
def test_a_project_after_init_has_no_problems(tmp_path: Path, name: str) -> None:
    add_settings(tmp_path)
    assert look(tmp_path, name).problems == {}


@pytest.mark.parametrize("name", READERS)
def test_a_half_built_project_has_no_problems(tmp_path: Path, name: str) -> None:
    add_settings(tmp_path)
    add_evaluation(tmp_path)
    (tmp_path / "artifacts" / "evaluate" / "manifest.json").unlink()
    assert look(tmp_path, name).problems == {}


@pytest.mark.parametrize("name", READERS)
def test_a_built_project_has_no_problems(built: Path, name: str) -> None:
    assert look(built, name).problems == {}


def list_broken_files(root: Path) -> list[str]:
    """Every file that a reader may read, by its path in the project; of the settings one that all are composed of."""
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return [name for name in found if not name.startswith("conf/") or name == "conf/config.yaml"]


def test_every_file_broken_in_turn_is_a_problem_and_never_an_error(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(built, root)
    named = 0
    for file in list_broken_files(built):
        path = root / file
        whole = path.read_bytes()
        for content in (b"\x00\xff{", b""):
            path.write_bytes(content)
            for name in READERS:
                named += bool(look(root, name).problems)
        path.write_bytes(whole)
        if "inference_log" in file:  # a broken database leaves files of its journal
            shutil.rmtree(path.parent)
            shutil.copytree(built / Path(file).parent, path.parent)
    assert named > 40


def test_results_show_scores_with_intervals_in_the_order_of_the_tables(built: Path) -> None:
    shown = look(built, "results")
    assert (shown.tone, shown.summary) == ("good", "Tuned is better: +12.0 BLEU.")
    assert [column.title for column in shown.columns] == ["BLEU"]
    assert shown.systems[1].scores["bleu"].low == 19.0
    assert [(link.name, link.exists) for link in shown.reports][:2] == [("evaluate", True), ("reward", False)]


def test_a_report_that_does_not_exist_names_its_command(built: Path) -> None:
    shown = look(built, "report", report="agreement")
    assert (shown.html, shown.command) == ("", "tunectl data agreement")
    with pytest.raises(LookupError):
        look(built, "report", report="../secret")


def test_answers_are_shown_side_by_side_and_paged(built: Path) -> None:
    shown = look(built, "answers", at="40")
    assert (shown.total, shown.matching, shown.at, len(shown.cards)) == (45, 45, 40, 5)
    assert list(shown.systems.values()) == ["Base", "Tuned"]
    assert [answer.system for answer in shown.cards[0].answers] == ["base", "tuned"]
    assert shown.against == ["tuned", "base"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"slice": "area:north"}, 22),
        ({"q": "SHOP 44"}, 1),
        ({"q": "E-000000000000002C"}, 1),
        ({"kind": "worst"}, 1),
        ({"slice": "area:nowhere"}, 0),
        ({"check": "absent"}, 0),
        ({"sort": "gain"}, 45),
        ({"at": "-5"}, 45),
        ({"at": "9" * 50}, 45),
    ],
)
def test_filters_of_answers(built: Path, query: dict[str, str], count: int) -> None:
    assert look(built, "answers", **query).matching == count


def test_answers_sorted_by_gain_begin_with_the_largest(built: Path) -> None:
    cards = look(built, "answers", sort="gain").cards
    gains = [card.answers[1].similarity - card.answers[0].similarity for card in cards]
    assert gains == sorted(gains, reverse=True)


def test_live_is_newest_first_with_feedback_and_figures_by_variant(built: Path) -> None:
    shown = look(built, "live")
    assert (shown.inferences, len(shown.rows), shown.scanned) == (40, 30, 40)
    assert shown.per_minute == 2 / 5, "the newest request, and the one of five minutes before"
    assert shown.rows[0].id == "chatcmpl-0000"
    assert shown.rows[0].question == HOSTILE
    assert [figures.variant for figures in shown.variants] == ["challenger", "champion"]
    champion = shown.variants[1]
    assert champion.liked_low < champion.liked < champion.liked_high


def test_older_pages_of_live_go_on_where_the_last_one_ended(built: Path) -> None:
    first = look(built, "live")
    second = look(built, "live", before=first.older)
    assert [row.id for row in second.rows] == [f"chatcmpl-{number:04}" for number in range(30, 40)]
    assert second.older is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"variant": "challenger"}, 8),
        ({"feedback": "good", "variant": "champion"}, 10),
        ({"feedback": "none"}, 20),
        ({"refused": "1"}, 5),
        ({"q": "ALERT(1)"}, 1),
        ({"since": "1h"}, 13),
        ({"since": "nonsense"}, 30),
    ],
)
def test_filters_of_live(built: Path, query: dict[str, str], expected: int) -> None:
    assert len(look(built, "live", **query).rows) == expected


def test_a_time_that_cannot_be_read_is_a_problem(built: Path) -> None:
    assert list(look(built, "live", before="yesterday").problems) == ["before"]


def test_one_inference_is_found_by_the_beginning_of_its_id(built: Path) -> None:
    context = ReadContext(ProjectPaths(built), NOW, cache=CACHE)
    shown = live.read_inference(context, {"inference": "chatcmpl-0003"})
    assert shown.row is not None
    assert (shown.answer, shown.row.feedback[0].opinion) == ("Ad 3", "bad")
    assert [turn.role for turn in shown.messages] == ["user"]
    with pytest.raises(LookupError):
        live.read_inference(context, {"inference": "nobody"})


def test_drift_names_the_reference_and_shows_the_newest_first(built: Path) -> None:
    shown = look(built, "drift")
    assert [window.id[0] for window in shown.windows] == ["c", "b", "a"]
    assert shown.reference == ["a" * 16]
    one = drift.read_drift_window(ReadContext(ProjectPaths(built), NOW, cache=CACHE), {"window": "c" * 16})
    assert (one.before, one.after, one.is_reference) == ("b" * 16, "", False)
    assert one.window is not None
    assert one.window.signals["prompt_text"].shifted
    with pytest.raises(LookupError):
        drift.read_drift_window(ReadContext(ProjectPaths(built), NOW, cache=CACHE), {"window": "f"})


def test_the_retrain_that_waits_says_its_deadline_and_what_happens_without_an_answer(built: Path) -> None:
    shown = look(built, "retrain")
    assert [run.state for run in shown.runs] == ["awaiting_approval", "promoted"]
    assert [(state.state, state.status) for state in shown.path][:3] == [
        ("proposed", "done"),
        ("awaiting_approval", "now"),
        ("data_gate", "next"),
    ]
    (waiting,) = shown.waiting
    assert (waiting.yes, waiting.nonce, waiting.why) == ("Retrain", "n-1", HOSTILE)
    assert "dismissed" in waiting.if_nobody
    assert [(row.reason, row.detail) for row in shown.suppressed] == [("cooldown", "rests until tomorrow")]
    assert [row.message for row in shown.pending] == ["try again"]


def test_a_question_past_its_time_waits_no_more(built: Path) -> None:
    later = ReadContext(ProjectPaths(built), NOW.replace(year=2027), cache=CACHE)
    assert retrain.read_decisions(later, {}).waiting == []


def test_decisions_of_people_are_listed(built: Path) -> None:
    (row,) = look(built, "decisions").decided
    assert (row.question, row.approved, row.author) == ("promote", True, "ben")


@pytest.mark.parametrize(
    ("went", "ahead"),
    [
        (("proposed", "awaiting_approval"), ("data_gate", "training", "evaluating", "staged", "canary", "promoted")),
        (("proposed", "data_gate", "training", "evaluating", "staged"), ("canary", "promoted")),
        (("proposed", "data_gate", "training", "evaluating", "staged", "awaiting_approval"), ("promoted",)),
        (
            ("proposed", "awaiting_approval", "data_gate", "training", "evaluating", "staged", "awaiting_approval"),
            ("promoted",),
        ),
        (("proposed", "data_gate", "insufficient"), ()),
    ],
)
def test_the_way_of_a_retrain_is_in_the_order_in_which_it_went(built: Path, went: tuple, ahead: tuple) -> None:
    run = RunStore(ProjectPaths(built).retrain).runs()[0]
    walked = replace(run, steps=[replace(run.steps[0], state=state) for state in went])
    shown = retrain.list_path(walked, canary=True)
    assert [item.state for item in shown] == [*went, *ahead]
    last = "now" if ahead else "done"
    assert [item.status for item in shown] == [*["done"] * (len(went) - 1), last, *["next"] * len(ahead)]
    without = [item.state for item in retrain.list_path(walked, canary=False)]
    assert without == [state for state in (*went, *ahead) if state != "canary"]
    assert not ahead or ahead[0] in state_machine.NEXT[went[-1]]


def test_the_report_of_a_retrain_has_its_sections(built: Path) -> None:
    run = RunStore(ProjectPaths(built).retrain).runs()[0]
    shown = retrain.read_retrain_run(ReadContext(ProjectPaths(built), NOW, cache=CACHE), {"run": run.id})
    assert [section.name for section in shown.sections][:2] == ["why", "data"]
    assert [state.state for state in shown.path] == [step.state for step in run.steps], "nobody was asked"
    with pytest.raises(LookupError):
        retrain.read_retrain_run(ReadContext(ProjectPaths(built), NOW, cache=CACHE), {"run": "none"})


def test_settings_say_where_a_value_was_set_what_is_allowed_and_what_it_means(built: Path) -> None:
    shown = look(built, "settings", q="sft.lora_rank")
    row = next(row for row in shown.rows if row.key == "sft.lora_rank")
    assert row.origin.startswith("conf/sft/")
    assert row.allowed.startswith("a whole number")
    assert row.meaning
    assert look(built, "settings", section="serve").matching > 10
    assert look(built, "settings", changed="1").matching == 0


def test_almost_every_setting_has_its_meaning(built: Path) -> None:
    context = ReadContext(ProjectPaths(built), NOW, cache=CACHE)
    total = settings.read_settings(context, {}).total
    rows = [row for at in range(0, total, 100) for row in settings.read_settings(context, {"at": str(at)}).rows]
    without = [row.key for row in rows if not row.meaning]
    assert len(rows) == total
    assert len(without) < 0.05 * total, without


def test_keys_are_shown_without_the_keys(built: Path) -> None:
    shown = look(built, "keys")
    assert [(key.name, key.scopes) for key in shown.keys] == [("app", ["chat"]), ("root", ["admin"])]
    assert b"tk-" not in msgspec.json.encode(shown)


def test_an_answer_is_explained_back_to_the_raw_files(built: Path) -> None:
    shown = look(built, "explain", id="chatcmpl-0003")
    assert shown.kind == "answer"
    assert [step.kind for step in shown.behind] == ["answer", "release", "gate", "decision", "settings", "rows"]
    assert shown.behind[-1].facts[0].name == "data/ads.jsonl"
    assert [step.kind for step in shown.after] == ["feedback"]
    assert any("Nothing was learned" in words for words in shown.unknown)


def test_a_row_is_explained_forward_to_the_releases_that_learned_it(built: Path) -> None:
    shown = look(built, "explain", id="e-3")
    assert shown.kind == "row"
    assert shown.behind[0].facts[0].value == "data/ads.jsonl:4"
    store = ReleaseRegistry(ProjectPaths(built).releases)
    learned = [step for step in shown.after if step.kind == "release"]
    assert [step.title for step in learned] == [f"Release {name} learned it" for name in store.ids()]


def test_a_rejected_row_says_why_and_that_nothing_learned_it(built: Path) -> None:
    shown = look(built, "explain", id="data/ads.jsonl:6")
    assert [step.title for step in shown.after] == ["curate: rejected: exact duplicate"]
    assert shown.unknown == ["No release learned this row: the split at hand does not train on it."]


def test_a_release_and_a_retrain_are_explained(built: Path) -> None:
    release = look(built, "explain", id="champion")
    assert (release.kind, release.after[-1].kind) == ("release", "answer")
    run = RunStore(ProjectPaths(built).retrain).runs()[0]
    shown = look(built, "explain", id=run.id)
    assert shown.kind == "retrain"
    assert [step.kind for step in shown.behind] == ["retrain", "drift", "rows", "decision"]
    assert shown.after[0].title.startswith("It built release ")


def test_gates_settings_and_decisions_lead_to_their_own_release(built: Path) -> None:
    store = ReleaseRegistry(ProjectPaths(built).releases)
    release = store.manifest(store.champion().release)
    links = {step.kind: step.link for step in look(built, "explain", id="champion").behind}
    assert (links["gate"], links["decision"], links["settings"]) == (f"/releases/{release.id}",) * 3
    name = run_ledger.list_runs(ProjectPaths(built))[0]
    run = replace(run_ledger.read_summaries(ProjectPaths(built), [name])[0][0], release=release.id)
    step = describe_settings(release, release.lineage, [run])
    assert step.link == step.facts[0].link == f"/runs/compare?new={name}"


def test_an_id_that_nothing_has_is_said_plainly(built: Path) -> None:
    shown = look(built, "explain", id="nobody-knows")
    assert (shown.kind, shown.behind, shown.after) == ("nothing", [], [])
    assert "No answer, release, retrain or row is called nobody-knows" in shown.unknown[0]


def test_looking_changes_nothing(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(built, root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in READERS:
        look(root, name)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_run_names_what_differs_from_the_one_before(built: Path) -> None:
    shown = look(built, "runs")
    assert shown.total == 3
    first = shown.rows[0]
    assert [(item.what, item.old, item.new) for item in first.changes] == [("sft.lora_rank", "32", "48")]
    assert (first.metric, first.score.value, first.passed, first.executed) == ("BLEU", 22.0, True, ["sft", "evaluate"])
    assert shown.rows[2].changes == []


def test_a_run_says_on_what_it_was_trained_and_where_it_is_tracked(built: Path, tmp_path: Path) -> None:
    first, second, third = look(built, "runs").rows
    assert {stage: (launch.ranks, launch.nodes) for stage, launch in first.launches.items()} == {"sft": (4, 2)}
    assert first.tracked == {"mlflow": "https://mlflow.example/#/experiments/1/runs/a"}
    assert (second.launches, bool(second.build), second.tracked) == ({}, True, {})  # it waits to be sent
    assert (third.build, third.tracked) == ("", {})
    shutil.copytree(built, tmp_path / "copy")
    (note,) = (tmp_path / "copy" / ".tunectl" / "track" / "sent").iterdir()
    note.write_text('{"mlflow": "javascript:alert(1)"}')
    assert look(tmp_path / "copy", "runs").rows[0].tracked == {"mlflow": ""}


def test_two_runs_are_compared_in_what_differs(built: Path) -> None:
    shown = look(built, "compare")
    assert [item.what for item in shown.settings] == ["sft.lora_rank"]
    assert (shown.same_settings, shown.stages, shown.same_test_set) == (2, ["sft", "evaluate"], True)
    bleu, checks = shown.metrics
    assert (bleu.difference, bleu.tone, bleu.paired) == (6.0, "good", False)  # no scores of inputs were kept of it
    assert 0 < bleu.low < 6 < bleu.high
    assert (checks.difference, checks.tone, checks.paired) == (50.0, "good", True)
    assert 0 < checks.low < 50 < checks.high < 100  # drawn apart, it would reach from -10 to 128
    assert (shown.different, shown.asked, shown.system) == (6, 6, "tuned")
    pair = next(item for item in shown.answers if item.id == "e-1")
    assert [word.text for word in pair.new if word.differs] == ["0"]
    assert [word.text for word in pair.old if word.differs] == ["1"]


def test_a_run_beyond_the_newest_can_be_chosen_too(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "CHOICES", 1)
    shown = look(built, "compare")
    assert [row.id for row in shown.choices] == [shown.new.id, shown.old.id]


@pytest.mark.parametrize(("sort", "first"), [("gain", (0.0, 100.0)), ("loss", (100.0, 100.0))])
def test_a_difference_leads_to_its_inputs(built: Path, sort: str, first: tuple[float, float]) -> None:
    shown = look(built, "compare", system="tuned", metric="checks", sort=sort)
    assert (shown.answers[0].old_score, shown.answers[0].new_score) == first
    assert len(shown.answers) == 6


def test_scores_of_inputs_that_cannot_be_read_leave_the_rest(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    for path in (tmp_path / "copy" / ".dvc" / "cache").rglob("*"):
        if path.is_file() and b"statistics" in path.read_bytes():
            path.write_bytes(b"{")
    shown = look(tmp_path / "copy", "compare")
    assert list(shown.problems) == ["scores of inputs"]
    assert len(shown.answers) == 6
    assert [item.paired for item in shown.metrics] == [False, False]


def test_answers_that_left_the_cache_are_said_to_be_gone(built: Path) -> None:
    newest, _, oldest = [row.id for row in look(built, "runs").rows]
    shown = look(built, "compare", old=oldest, new=newest)
    assert shown.answers == []
    assert "no longer in the cache of DVC" in shown.answers_reason
    with pytest.raises(LookupError):
        look(built, "compare", old="../keys")


def test_curves_of_two_runs_share_their_steps(built: Path) -> None:
    newest, before, _ = [row.id for row in look(built, "runs").rows]
    context = ReadContext(ProjectPaths(built), NOW, cache=CACHE)
    query = {"old": before, "new": newest, "stage": "sft", "figure": "train_loss"}
    shown = run_curve.read_run_curve(context, query)
    assert shown.x.values == [1.0, 2.0, 3.0]
    assert [one.values for one in shown.series] == [[3.0, None, 3.0], [3.0, 2.0, None]]
    with pytest.raises(LookupError):
        run_curve.read_run_curve(context, {**query, "figure": "absent"})


def test_people_are_shown_with_their_judgments(built: Path) -> None:
    shown = look(built, "people")
    assert (shown.questions, shown.judgments, shown.skipped, shown.is_open) == (3, 3, 1, False)
    assert shown.found is not None
    assert [(person.name, person.judgments) for person in shown.found.people] == [("ann", 2), ("ben", 1)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a sweep of 60 trials that has ended."""
    root = add_settings(tmp_path_factory.mktemp("swept")).root
    add_sweep(root, 60)
    return root


def test_a_sweep_is_shown_with_its_best_trials_first(swept: Path) -> None:
    listed = look(swept, "sweeps")
    assert [(row.name, row.running) for row in listed.rows] == [("demo", 0)]
    assert listed.rows[0].counts == "60 of 60 trials: 60 complete"
    assert listed.rows[0].result.startswith("best: trial ")
    shown = look(swept, "sweep", sweep="demo")
    assert shown.summary.best == [int(shown.rows[0][0].partition(" ")[0])]
    assert (len(shown.rows), shown.at) == (50, 0)
    assert len(look(swept, "sweep", sweep="demo", at="50").rows) == 10
    assert set(shown.summary.importance) == {"sft.learning_rate", "sft.lora_rank"}
    tried, best = shown.series
    assert best.values == [min(tried.values[: place + 1]) for place in range(60)]
    with pytest.raises(LookupError):
        look(swept, "sweep", sweep="another")


def test_a_storage_that_is_no_database_is_a_problem(tmp_path: Path) -> None:
    root = add_settings(tmp_path).root
    (root / ".tunectl" / "sweeps").mkdir(parents=True)
    (root / ".tunectl" / "sweeps" / "sweeps.sqlite").write_bytes(b"nothing" * 999)
    assert "cannot be read" in look(root, "sweeps").problems["sweeps"]
    assert "cannot be read" in look(root, "sweep", sweep="demo").problems["sweep"]


def test_a_kept_error_does_not_grow_by_being_raised_again() -> None:
    cache, error = ReadCache(), UsageError("wrong", hint="correct it")

    def fail() -> None:
        raise error

    depths = set()
    for _ in range(5):
        with pytest.raises(UsageError) as caught:
            cache.get("settings", 1, fail)
        depths.add(len(list(traceback.walk_tb(caught.value.__traceback__))))
    assert len(depths) == 1


def test_passwords_in_settings_are_hidden_from_whoever_may_look(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))
    override_file.save_overrides(console.layout, [Override.from_cli("sweep.storage=postgresql://me:hunter2@host/s")])
    for address in ("/settings.json?q=sweep.storage", "/settings.json?changed=1", "/settings?q=sweep.storage"):
        shown = console.client.get(address).text
        assert "hunter2" not in shown
        assert "postgresql://***@host/s" in shown
    assert console.client.get("/settings.json?q=hunter2").json()["rows"] == []
