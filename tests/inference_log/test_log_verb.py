"""``tunectl log``: show, export, erase, prune, purge, and every mistake."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_errors import drop_more
from conf_copy import copy_conf
from inference_rows import finish, inference, thumb
from msgspec import to_builtins
from serving_process import settings

from tunectl.artifacts.lock import file_lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow, SegmentShift, Source
from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.cli.main import main
from tunectl.config.loading import checks
from tunectl.data.formats.production_logs import production_log
from tunectl.data.readers.row import RawRow
from tunectl.inference_log import export, pseudonyms, snapshot
from tunectl.inference_log.log_store import FinishedRequest, TimeWindow
from tunectl.inference_log.training_window import WINDOW_FORMAT, FeedbackWindow
from tunectl.retraining import state_machine
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.state_machine import Transition, Trigger

NOW = datetime.now(UTC)


@pytest.fixture
def project(url, tmp_path, monkeypatch):
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", url)
    live = checks.load_config(ProjectPaths(), []).root.inference_log
    ada = pseudonyms.pseudonymize("ada@example.org", pseudonyms.load_hash_key(live, tmp_path))
    with open_log(url, tmp_path) as store:
        for number in range(6):
            at = NOW - timedelta(days=10 * (5 - number))
            store.write([inference(number, accepted_at=at, user_hash=ada if number < 2 else "other")])
        for number in range(5):
            store.write([FinishedRequest(f"chatcmpl-{number:06}", finish(number))])
        store.write(
            [thumb(1), thumb(2, value="down"), thumb(3, kind="edit", value="So ist es besser."), thumb(3, id="late")]
        )
    return tmp_path


def ran(capsys, *words, code=0):
    assert main(["log", *words]) == code
    return capsys.readouterr().out


def rows(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_show(project, capsys):
    text = ran(capsys)
    assert text.startswith("6 inferences, 5 finished, 0 erased, 2 users; feedback: 1 edit, 3 thumb\n")
    lines = [line for line in text.splitlines() if "champion" in line]
    assert len(lines) == 6
    assert lines[0].split()[0] == "chatcmpl-000005"
    assert re.search(r"champion +01234567 +other +running +Frage 5", lines[0])
    assert re.search(r"12\+7 +stop +1\.00 +edit thumb +Frage 3 ✓ \ufffd +Antwort 3 🎈", lines[2])
    found = json.loads(ran(capsys, "show", "--json", "-n", "2", "--until", "35d"))
    assert [one["id"] for one in found["newest"]] == ["chatcmpl-000001", "chatcmpl-000000"]
    assert found["counts"]["inferences"] == 2
    one = json.loads(ran(capsys, "show", "--id", "chatcmpl-000003"))
    assert one["response"]["choices"][0]["message"]["content"] == "Antwort 3 🎈"
    assert (one["mean_logprob"], one["logprobs"]) == (-0.25, "computed")
    assert json.loads(ran(capsys, "--json"))["counts"]["inferences"] == 6
    assert json.loads(ran(capsys, "--json", "show", "-n", "1"))["newest"][0]["id"] == "chatcmpl-000005"
    assert [said["kind"] for said in one["feedback"]] == ["edit", "thumb"]


def test_the_beginning_of_an_id_will_do_where_it_is_the_only_one(project, url, capsys):
    with open_log(url, project) as store:
        for name in ("chatcmpl-a1%_b", "chatcmpl-a1xyb", "chatcmpl-a2"):
            store.write([inference(id=name)])
    assert json.loads(ran(capsys, "show", "--id", "chatcmpl-a2"))["id"] == "chatcmpl-a2"
    assert json.loads(ran(capsys, "show", "--id", "chatcmpl-a1%"))["id"] == "chatcmpl-a1%_b"
    assert failed(capsys, "show", "--id", "chatcmpl-a") == (
        2,
        "tunectl: 'chatcmpl-a' matches several ids: chatcmpl-a1%_b, chatcmpl-a1xyb, chatcmpl-a2\n  give more characters of the id\n",
    )
    assert ", ..." in failed(capsys, "show", "--id", "")[1]


def test_an_answer_without_logprobs_says_that_none_were_computed(project, url, capsys):
    with open_log(url, project) as store:
        store.write([inference(id="chatcmpl-plain")])
        store.write([FinishedRequest("chatcmpl-plain", finish(mean_logprob=None))])
        assert store.inference("chatcmpl-plain").mean_logprob is None
    one = json.loads(ran(capsys, "show", "--id", "chatcmpl-plain"))
    assert (one.get("mean_logprob"), one["logprobs"], one["completion_tokens"]) == (None, "not computed", 7)


def test_flywheel_export_is_read_by_our_own_ingest(project, capsys):
    assert ran(capsys, "export", "--shape", "flywheel").endswith("flywheel.jsonl: 5 rows; left out: 1 unfinished\n")
    found = rows(".tunectl/cache/inference_log/flywheel.jsonl")
    assert [sorted(row) for row in found] == [["client_id", "request", "response", "timestamp", "workload_id"]] * 5
    assert found[4]["timestamp"] == int((NOW - timedelta(days=10)).timestamp())
    assert (found[4]["workload_id"], found[4]["client_id"]) == ("local_lens", "other")
    parsed = production_log(RawRow(Source("log", 1), found[4]))
    assert [turn.content for turn in parsed.turns] == ["Frage 4 ✓ \x00", "Antwort 4 🎈"]


def test_chat_export(project, capsys):
    text = ran(capsys, "export", "--shape", "chat", "--out", "a.jsonl", "--since", "25d")
    assert text == (
        "a.jsonl: 2 rows; left out: 1 unfinished\n"
        "These answers are the model's own: before it is trained on them, export only what people approved (--approved).\n"
    )
    assert rows("a.jsonl")[0]["messages"][-1] == {"role": "assistant", "content": "Antwort 3 🎈"}
    found = json.loads(ran(capsys, "export", "--shape", "chat", "--approved", "--json"))
    assert found["left_out"] == {"unfinished": 1, "not_approved": 3}
    answers = [row["messages"][-1]["content"] for row in rows(found["file"])]
    assert answers == ["Antwort 1 🎈", "So ist es besser."]


def test_erase(project, capsys):
    text = ran(capsys, "erase", "--user", " Ada@example.org ")
    assert text.startswith(
        "Erased: 2 inferences, 1 feedback records. Their text is deleted, and no build uses them. What a model has learned"
    )
    assert json.loads(ran(capsys, "erase", "--hash", "other", "--json")) == {
        "erased": 4,
        "feedback": 3,
        "journal_busy": False,
    }
    assert json.loads(ran(capsys, "erase", "--key", "laptop", "--json")) == {
        "erased": 0,
        "feedback": 0,
        "journal_busy": False,
    }
    assert ran(capsys, "erase", "--user", "ada@example.org").startswith("Nothing was erased: the log has nothing under")
    assert ran(capsys, "export", "--shape", "flywheel").endswith("flywheel.jsonl: 0 rows\n")
    assert ran(capsys).startswith("6 inferences, 5 finished, 6 erased, 0 users")


def test_a_name_is_found_however_its_accents_are_written(project, url, capsys):
    live = checks.load_config(ProjectPaths(), []).root.inference_log
    key = pseudonyms.load_hash_key(live, project)
    with open_log(url, project) as store:
        for number, name in enumerate(("Jos\u00e9", "Jose\u0301"), 10):
            store.write([inference(number, accepted_at=NOW, user_hash=pseudonyms.pseudonymize(name, key))])
    erased = {"erased": 2, "feedback": 0, "journal_busy": False}
    assert json.loads(ran(capsys, "erase", "--user", "Jos\u00e9", "--json")) == erased


def test_a_bento_has_the_settings_of_its_server(project, capsys):
    shutil.rmtree("conf")
    Path("serve.json").write_text(json.dumps(settings()))
    assert json.loads(ran(capsys, "erase", "--user", "ada@example.org", "--json")) == {
        "erased": 2,
        "feedback": 1,
        "journal_busy": False,
    }


def test_nobody_is_looked_for_under_a_new_salt(project, capsys):
    (project / ".tunectl/inference_log/hash_key").unlink()
    code, told = failed(capsys, "erase", "--user", "ada@example.org")
    assert code == 5
    assert told == (
        "tunectl: .tunectl/inference_log/hash_key does not exist and TUNECTL_HASH_KEY is not set, so users cannot be looked up by name\n"
        "  set TUNECTL_HASH_KEY to the server's key, or run this on the machine with its file\n"
    )
    assert json.loads(ran(capsys, "erase", "--hash", "other", "--json"))["erased"] == 4


def test_nobody_is_looked_for_under_another_salt(project, url, capsys, monkeypatch):
    live = checks.load_config(ProjectPaths(), []).root.inference_log
    with open_log(url, project) as store:
        pseudonyms.register_hash_key(store, live, pseudonyms.load_hash_key(live, project))
    assert json.loads(ran(capsys, "erase", "--user", "ada@example.org", "--json"))["erased"] == 2
    monkeypatch.setenv("TUNECTL_HASH_KEY", "another one of 16")
    code, told = failed(capsys, "erase", "--user", "ada@example.org")
    assert code == 5
    assert told.startswith("tunectl: users in this inference log are hashed with another key than the one in")


def test_prune_and_purge(project, capsys):
    assert json.loads(ran(capsys, "prune", "--json"))["deleted"] == 0
    assert ran(capsys, "prune", "--days", "25").startswith("3 inferences from before ")
    ran(capsys, "export", "--shape", "chat")
    reports = Path(".tunectl/monitor/reports")
    reports.mkdir(parents=True)
    for name in (f"{'a' * 16}.html", "mine.html"):
        (reports / name).write_text("what somebody asked")
    told = ran(capsys, "purge")
    assert "are deleted. DVC's cache still has what earlier builds were made of" in told
    assert "dvc gc -w deletes all that this folder does not need. What a model has learned" in told
    assert [path.name for path in reports.iterdir()] == ["mine.html"], "a report shows texts"
    assert not Path(".tunectl/cache/inference_log").exists()
    assert ran(capsys).startswith("3 inferences")


def test_pruning_deletes_the_reports_that_show_old_rows(project, url, capsys):
    """Reports of windows that begin before, or were compared with such a one: both sides show texts."""
    reports = Path(".tunectl/monitor/reports")
    reports.mkdir(parents=True)
    with open_log(url, project) as store:
        for name, days, reference in (
            ("a", 40, "none"),
            ("b", 30, "none"),
            ("c", 9, f"{'b' * 16}+{'a' * 16}"),
            ("d", 8, "d"),
        ):
            since = NOW - timedelta(days=days)
            store.add_window(TimeWindow(name * 16, since, since + timedelta(1), since, {"reference": reference}))
            (reports / f"{name * 16}.html").write_text("what somebody asked")
    ran(capsys, "prune", "--days", "35")
    assert sorted(path.stem[0] for path in reports.iterdir()) == ["b", "d"]


def test_purge_deletes_what_the_gates_of_retrains_asked(project, capsys):
    gate = Path(".tunectl/retrain/gate/a-1")
    gate.mkdir(parents=True)
    (gate / "r.job.json").write_text("what people asked")
    ran(capsys, "purge")
    assert not gate.exists()


def test_what_was_frozen_goes_also_where_feedback_is_switched_off(project, url, capsys):
    folder = Path(".tunectl/inference_log/snapshots")
    with open_log(url, project) as store:
        for days in (45, 15):
            snapshot.freeze(store, folder, since=NOW - timedelta(days=days), until=NOW, at=NOW, window=None)
    WINDOW_FORMAT.write(Path("inference_log/window.json"), FeedbackWindow([]))
    Path("conf/overrides.yaml").write_text("[feedback=none]\n")
    ran(capsys, "erase", "--user", "ada@example.org")
    ran(capsys, "purge")
    assert not any(b"chatcmpl-000001" in path.read_bytes() for path in folder.glob("*/*.jsonl"))
    assert " and 1 snapshots " in ran(capsys, "prune", "--days", "25")


def test_purge_deletes_what_killed_processes_left_half_written(project, capsys):
    half = [
        Path(".tunectl/tmp/curate-x/records.jsonl"),
        Path(".tunectl/releases/tmp-golden/v1-x/items.jsonl"),
        Path(".tunectl/work/annotate-x/0.jsonl"),
    ]
    for path in half:
        path.parent.mkdir(parents=True)
        path.write_text("what people asked")
    with file_lock(ProjectPaths().stage_lock, "tunectl run curate"):
        told = ran(capsys, "purge")
    assert "annotate runs: .tunectl/tmp and .tunectl/work stay, and may have text that was deleted." in told
    assert [path.exists() for path in half] == [True, False, True]
    with file_lock(Path("judgments/.lock"), "tunectl annotate"):
        assert "annotate runs" in ran(capsys, "purge")
    assert [path.exists() for path in half] == [True, False, True]
    assert "annotate runs" not in ran(capsys, "purge")
    assert not any(path.exists() for path in half)
    Path(".tunectl/retrain/worktree").mkdir(parents=True)
    assert ".tunectl/retrain/worktree has what the last retrain was made of" in ran(capsys, "purge")


def test_purge_reaches_half_written_golden_sets_of_the_registry_that_is_configured(project, capsys, monkeypatch):
    monkeypatch.setenv("TUNECTL_REGISTRY", "elsewhere")
    half = [Path(folder, "tmp-golden/v1-x/items.jsonl") for folder in ("elsewhere", ".tunectl/releases")]
    whole = Path("elsewhere/golden/v1/items.jsonl")
    for path in (*half, whole):
        path.parent.mkdir(parents=True)
        path.write_text("what people asked")
    ran(capsys, "purge")
    assert [path.exists() for path in (*half, whole)] == [False, False, True]


def add_window(store, name, since, until, *, examined=None, reference="training"):
    segments = [SegmentShift("word:neurofibromatosis", 0.4, 0.0, ["chatcmpl-000001"])]
    window = DriftWindow(name * 16, since, until, 40, "drift", True, "b" * 16, reference, segments=segments)
    store.add_window(TimeWindow(window.id, since, until, examined or until, to_builtins(window)))


def windows_with_words(store):
    return [window.id[0] for window in store.windows() if "segments" in window.body]


def test_words_of_prompts_go_with_the_rows_that_they_came_from(project, url, capsys):
    """Ada wrote 50 and 40 days ago."""
    day = timedelta(days=1)
    with open_log(url, project) as store:
        add_window(store, "a", NOW - 60 * day, NOW - 55 * day)  # before her first row
        add_window(store, "b", NOW - 45 * day, NOW - 35 * day)
        add_window(store, "c", NOW - 30 * day, NOW - 20 * day)  # its reference may have her words
        ran(capsys, "erase", "--user", "ada@example.org")
        assert windows_with_words(store) == ["a"]
        assert [window.body["verdict"] for window in store.windows()] == ["drift"] * 3
        add_window(store, "d", NOW - 45 * day, NOW - 35 * day, examined=NOW + day)  # read her rows as they were erased
        add_window(store, "e", NOW - 20 * day, NOW - 10 * day, examined=NOW + day)
        add_window(store, "f", NOW - 20 * day, NOW - 10 * day, examined=NOW + day, reference="a" * 16)
        ran(capsys, "purge")
        assert windows_with_words(store) == ["a", "e", "f"]
        ran(capsys, "prune", "--days", "50")
        assert windows_with_words(store) == ["e"]
    files = (path.read_bytes() for path in project.rglob("*.sqlite*"))
    assert sum(content.count(b"neurofibromatosis") for content in files) == url.startswith("sqlite")


def test_erase_and_purge_say_that_a_reader_keeps_the_journal(project, url, capsys):
    if not url.startswith("sqlite"):
        return  # PostgreSQL has no journal of ours
    reader = sqlite3.connect(next(project.rglob("*.sqlite")))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM inferences").fetchall()
    assert json.loads(ran(capsys, "erase", "--user", "ada@example.org", "--json"))["journal_busy"] is True
    assert "A reader keeps the database's journal busy" in ran(capsys, "erase", "--user", "ada@example.org")
    reader.close()
    assert json.loads(ran(capsys, "purge", "--json")) == {"purged": True, "journal_busy": False}


def test_what_fruitless_retrains_froze_is_kept_no_longer_than_the_rest(project, url, capsys):
    """A snapshot of a rejected run goes with time; one that a build needs, or whose run goes on, stays."""
    folder, book = Path(".tunectl/inference_log/snapshots"), RunStore(Path(".tunectl/retrain"))
    with open_log(url, project) as store:
        names = [
            snapshot.freeze(store, folder, since=NOW - timedelta(days=days), until=NOW, at=NOW, window=None).id
            for days in (45, 35, 25)
        ]
    for name, ends in zip(names, (("data_gate", "insufficient"), ("data_gate",), ("dismissed",)), strict=True):
        run = state_machine.new_run(name * 4, 1, Trigger("person", name, NOW, "why"), NOW, {"snapshot": {"id": name}})
        for state in ends:
            run = state_machine.apply_transition(run, Transition(state, NOW))
        book.save(run)
    WINDOW_FORMAT.write(Path("inference_log/window.json"), FeedbackWindow([]))
    assert ran(capsys, "prune", "--days", "30").endswith(
        "are deleted, and 1 snapshots of retrains that were not promoted\n"
    )
    assert sorted(path.name for path in folder.iterdir() if path.name != "tmp") == sorted(names[1:])


def failed(capsys, *words):
    code = main(["log", *words])
    return code, drop_more(capsys.readouterr().err)


def test_mistakes(project, capsys, monkeypatch):
    assert failed(capsys, "show", "--id", "nothing") == (
        2,
        "tunectl: inference 'nothing' is not in the inference log\n  tunectl log show lists the newest\n",
    )
    assert failed(capsys, "show", "--since", "yesterday") == (
        2,
        "tunectl: yesterday: no such time\n  write 2026-03-01, 2026-03-01T12:00+01:00, 7d or 12h\n",
    )
    assert failed(capsys, "show", "--until", "0001-01-01T00:00+14:00")[0] == 2
    for days in ("0", "1000000000"):
        assert failed(capsys, "prune", "--days", days) == (
            2,
            f"tunectl: prune: the retention time must be 1 to 99999 days; it is {days}\n  set inference_log.retention_days, or give --days N\n",
        )
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", "sqlite:///nowhere.sqlite")
    assert failed(capsys) == (2, "tunectl: nowhere.sqlite: nothing was logged yet\n  serve the model: tunectl serve\n")
    assert not Path("nowhere.sqlite").exists()


def opinion(kind, value):
    return thumb(0, kind=kind, value=value)


def done(response):
    return inference(finished_at=NOW, response=response)


def test_what_is_approved():
    plain = done({"choices": [{"index": 0, "text": "alt"}]})
    for kind, value, good in [
        ("thumb", "up", True),
        ("thumb", "down", False),
        ("rating", 4, True),
        ("rating", 3, False),
        ("preference", {"other": "x", "choice": "both_good"}, True),
        ("preference", {"other": "x", "choice": "second"}, False),
        ("click", "more", False),
        ("thumb", None, False),
    ]:
        assert (export.with_accepted_answer(plain, [opinion(kind, value)]) is not None) is good, (kind, value)
    assert export.with_accepted_answer(plain, [opinion("thumb", "up"), opinion("thumb", "down")]) is None
    assert export.with_accepted_answer(plain, [opinion("thumb", "down"), opinion("thumb", "up")]) is not None
    other = thumb(0, value="up", annotator="other")
    assert export.with_accepted_answer(plain, [opinion("thumb", "down"), other]) is None
    mallory = {"key_hash": "m" * 32, "acts_for": False}
    own = thumb(1, value="up", annotator="mallory", **mallory)
    forged = thumb(2, value="up", annotator="other", **mallory)  # the name of whoever objected
    alice = thumb(3, value="down", annotator="other", key_hash="a" * 32, acts_for=False)
    assert export.with_accepted_answer(plain, [own, alice, forged]) is None
    edited = export.with_accepted_answer(
        plain, [opinion("thumb", "down"), opinion("edit", "eins"), opinion("edit", "zwei")]
    )
    assert edited.response == {"choices": [{"index": 0, "text": "zwei"}]}


def test_what_a_chat_row_needs():
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = [{"role": "user", "content": "x"}]
    calling = done({"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": calls}}]})
    row = export.to_openai_row(inference(request={"messages": asked, "tools": tools}, response=calling.response))
    assert row == {"messages": [*asked, {"role": "assistant", "content": None, "tool_calls": calls}], "tools": tools}
    assert export.to_openai_row(done({"choices": []})) is None
    assert export.to_openai_row(done({"choices": [{"message": {"content": ""}}]})) is None
    assert export.to_openai_row(inference(request={"prompt": "x"}, response={"choices": [{"text": "y"}]})) is None


def test_a_running_inference_that_ends_is_whole(store):
    store.write([inference()])
    assert store.write([FinishedRequest("chatcmpl-000000", finish())]) == ["new"]
