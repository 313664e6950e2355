"""Acts: each shows what will happen and changes nothing by that; each does what its verb does, under the visitor's name, once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import console_records
import pytest
from console_projects import NOW, Console, PageFacts, build, digest_project, read_form

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.backends.storage import inference_log_sql
from tunectl.console.act_table import ACTS
from tunectl.console.acts import request_retrain, set_reference
from tunectl.console.console_sessions import Visitor
from tunectl.inference_log import erasure_ledger
from tunectl.monitoring import window as windows
from tunectl.pipeline import run_ledger
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import ApprovalDecision, RunStore, TriggerOutcome

EXAMPLES = {
    "record": f"{console_records.NOW:%Y%m%dT%H%M%SZ}-00000000",
    "run": f"{'b' * 12}-1",
    "window": "c" * 16,
    "inference": "chatcmpl-0000",
    "key": "app",
}
PLAIN_ACTS = [act for act in ACTS if act.template == "act.html"]
URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
OWN = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}


def fill(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: EXAMPLES[found[1]], path)


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(build(tmp_path / "shop"))


def test_every_act_shows_a_valid_page_and_changes_nothing_by_that(console: Console, tmp_path: Path) -> None:
    store = ReleaseRegistry(console.layout.releases)
    release = store.ids()[0]
    store.start_canary(release, share=0.1, author="ada", message="try")  # so that there is one to stop
    before = digest_project(tmp_path / "shop")
    for act in ACTS:
        page = console.client.get(fill(act.path.replace("{release}", release)))
        assert page.status_code == 200, (act.path, page.text[-500:])
        facts = PageFacts(page.text)
        assert (facts.errors, facts.headings) == ([], 1), act.path
        assert "data-live" not in page.text, act.path  # a refresh would take away what somebody types
    assert digest_project(tmp_path / "shop") == before


def test_an_act_needs_its_scope_a_session_and_a_page_of_ours(tmp_path: Path) -> None:
    layout = build(tmp_path / "shop")
    path = tmp_path / "keys.json"
    secret, entry = api_keys.create_key("looker", ["look"], None, NOW)
    api_keys.add(path, entry)
    keys = KeyStore(path, 0.0)
    keys.load()
    console = Console(layout, keys=keys)
    looker = console.stranger()
    assert looker.post("/enter", data={"secret": secret}, headers=OWN).status_code == 303
    for act in PLAIN_ACTS:
        address = fill(act.path)
        page = looker.get(address)
        assert page.status_code in (200, 404), act.path
        assert "<button name=" not in page.text, act.path
        assert looker.post(address, data={"answer": "yes", "reason": "x"}, headers=OWN).status_code == 403, act.path
        assert console.stranger().get(address).status_code == 303, act.path
        assert console.stranger().post(address, data={"answer": "yes"}, headers=OWN).status_code == 401, act.path
        foreign = console.client.post(address, data={"answer": "yes"}, headers={"Origin": "https://evil.invalid"})
        assert foreign.status_code == 403, act.path
        assert console.client.post(address, data={"answer": "yes"}).status_code == 403, act.path


def test_a_decision_is_recorded_once_under_the_visitors_name(console: Console) -> None:
    path = fill("/decisions/{run}")
    form = read_form(console, path)
    assert console.post(path, **{**form, "answer": "yes"}).status_code == 422  # without a reason
    answer = console.post(path, **{**form, "answer": "yes", "reason": "the shops are new"})
    assert (answer.status_code, answer.headers["location"]) == (303, fill("/retrain/{run}"))
    decision = RunStore(console.layout.retrain).get_decision(EXAMPLES["run"], "retrain")
    assert decision is not None
    assert (decision.approved, decision.nonce, decision.message) == (True, "n-1", "the shops are new")
    assert decision.author == console.sign_in.find(next(iter(console.client.cookies.values()))).name
    assert console.post(path, **{**form, "answer": "no", "reason": "x"}).status_code == 409
    assert "the shops are new" in console.client.get("/decisions").text


def test_a_decision_about_another_question_does_not_count(console: Console) -> None:
    path = fill("/decisions/{run}")
    form = read_form(console, path)
    assert console.post(path, **{**form, "nonce": "n-9", "answer": "yes"}).status_code == 409
    assert console.post(path, **{**form, "answer": "perhaps"}).status_code == 422
    assert RunStore(console.layout.retrain).get_decision(EXAMPLES["run"], "retrain") is None


def test_whoever_is_quicker_decides(console: Console) -> None:
    path = fill("/decisions/{run}")
    form = read_form(console, path)
    other = ApprovalDecision(approved=False, at=NOW, author="ben", nonce="n-1")
    assert RunStore(console.layout.retrain).record_decision(EXAMPLES["run"], "retrain", other)
    refused = console.post(path, **{**form, "answer": "yes"})
    assert refused.status_code == 409
    assert "decided" in refused.text
    assert RunStore(console.layout.retrain).get_decision(EXAMPLES["run"], "retrain") == other
    opened = console.client.get(path)
    assert (opened.status_code, "this approval is not open" in opened.text) == (409, True)
    assert console.client.get("/decisions/no-such-run").status_code == 404


def test_only_the_people_of_the_settings_decide(console: Console) -> None:
    path = fill("/decisions/{run}")
    form = read_form(console, path)
    settings = console.layout.conf / "retrain" / "default.yaml"
    settings.write_text(settings.read_text().replace("  people: null", "  people: [alice]"))
    refused = console.post(path, **{**form, "answer": "yes"})
    assert (refused.status_code, "retrain.approval.people names alice" in refused.text) == (403, True)
    assert RunStore(console.layout.retrain).get_decision(EXAMPLES["run"], "retrain") is None


def test_a_note_on_a_run_stands_in_its_record_with_the_visitors_name(console: Console) -> None:
    path = fill("/runs/{record}/note")
    assert path in console.client.get("/runs").text
    form = read_form(console, path)
    note = "the large rank <b>was</b> too slow"
    assert console.post(path, **form, answer="yes", note=f" {note}\n").headers["location"] == "/runs"
    row = next(row for row in console.client.get("/runs.json").json()["rows"] if row["id"] == EXAMPLES["record"])
    assert (row["note"], row["note_author"]) == (
        note,
        console.sign_in.find(next(iter(console.client.cookies.values()))).name,
    )
    page = console.client.get("/runs").text
    assert "the large rank &lt;b&gt;was&lt;/b&gt; too slow" in page
    assert console.post(path, **form, answer="yes", note="another").status_code == 409, "the note has changed since"
    changed = read_form(console, path)
    assert console.post(path, **changed, answer="yes", note="x" * 501).status_code == 422
    assert console.post(path, **changed, answer="yes", note="").status_code == 303
    record = run_ledger.read_run(console.layout, EXAMPLES["record"])
    assert (record.note, record.note_author, record.primary) == ("", "", "bleu")
    assert console.client.get("/runs/no-such-run/note").status_code == 404


def test_a_request_for_a_retrain_carries_name_and_reason(console: Console) -> None:
    form = read_form(console, "/retrain/request")
    assert console.post("/retrain/request", **form, reason="  ").status_code == 422
    assert console.post("/retrain/request", **form, reason="new\nshops", ignore_limits="on").status_code == 303
    trigger = RunStore(console.layout.retrain).list_pending_triggers()[-1]
    assert (trigger.kind, trigger.message, trigger.ignore_limits) == ("person", "new shops", True)
    assert trigger.author == console.sign_in.find(next(iter(console.client.cookies.values()))).name


def test_a_button_that_is_pressed_twice_asks_for_one_retrain(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(console.layout.retrain)
    for pending in store.list_pending_triggers():
        store.resolve_trigger(TriggerOutcome(pending, NOW, None, "cooldown"))
    form, before = read_form(console, "/retrain/request"), len(store.list_pending_triggers())
    assert console.post("/retrain/request", **form, reason="new shops").status_code == 303
    assert console.post("/retrain/request", **form, reason="new shops").status_code == 409
    monkeypatch.setattr(request_retrain, "check_unchanged", lambda *_: None)  # two at once: both have looked already
    monkeypatch.setattr(request_retrain, "_digest_triggers", lambda _: form["triggers"])
    assert console.post("/retrain/request", **form, reason="new shops").status_code == 409
    assert len(store.list_pending_triggers()) == before + 1
    again = console.client.get("/retrain/request").text
    assert "new shops" in again  # whoever asks next sees what waits


def test_a_person_asks_once_for_a_retrain_that_is_pending(console: Console) -> None:
    store = RunStore(console.layout.retrain)
    pending = store.list_pending_triggers()

    def ask(**more: str) -> Any:
        return console.post("/retrain/request", **read_form(console, "/retrain/request"), reason="me too", **more)

    assert [one.author for one in pending] == ["ann"]  # somebody else
    assert ask().status_code == 303
    visitor = next(one.author for one in store.list_pending_triggers() if one.message == "me too")
    for _ in range(3):
        refused = ask()
        assert refused.status_code == 409
        assert f"the same is pending: {visitor} asked for it at" in refused.text
    assert ask(ignore_limits="on").status_code == 303
    assert [ask(**more).status_code for more in ({}, {"ignore_limits": "on"})] == [409, 409]
    assert len(store.list_pending_triggers()) == len(pending) + 2


def test_a_reference_is_set_with_its_author_and_only_against_the_one_that_was_shown(console: Console) -> None:
    path = fill("/drift/{window}/set-reference")
    form = read_form(console, path)
    assert form == {"reference": "a" * 16}
    assert console.post(path, reference="f" * 16, reason="x").status_code == 409
    assert console.post(path, **{**form, "reason": "a normal day"}).status_code == 303
    with inference_log_sql.open_log(URL, console.layout.root) as log:
        bodies = [event.body for event in log.events(kind=windows.REFERENCE_SET)]
    assert windows.find_accepted_windows(bodies) == ["c" * 16]
    assert bodies[-1]["message"] == "a normal day"


def test_of_two_who_set_the_reference_at_once_one_is_refused(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fill("/drift/{window}/set-reference")
    form, settings = read_form(console, path), console.app.context(Visitor("ann", frozenset())).load_settings()
    with inference_log_sql.open_log(URL, console.layout.root) as log:
        shown = set_reference._find_window(log, {"window": "c" * 16})
        before = len(log.events(kind=windows.REFERENCE_SET))
    monkeypatch.setattr(set_reference, "_find_window", lambda *_: shown)  # both have looked already
    assert shown[0].rows >= settings.monitor.window.min_rows
    assert [console.post(path, **{**form, "reason": "a normal day"}).status_code for _ in range(2)] == [303, 409]
    with inference_log_sql.open_log(URL, console.layout.root) as log:
        assert len(log.events(kind=windows.REFERENCE_SET)) == before + 1


def test_a_person_is_erased_with_all_their_requests(console: Console) -> None:
    path = fill("/live/{inference}/erase")
    form = read_form(console, path)
    assert console.post(path, **{**form, "reason": ""}).status_code == 422
    assert console.post(path, person=f"{3:032x}", reason="asked").status_code == 409
    done = console.post(path, **{**form, "reason": "asked by letter"})
    assert done.status_code == 200
    assert "6 requests" in done.text
    with inference_log_sql.open_log(URL, console.layout.root) as log:
        assert list(log.inferences(user_hash=f"{0:032x}")) == []
        assert log.inference("chatcmpl-0001") is not None
    ledger = console.layout.root / ".tunectl" / "inference_log" / erasure_ledger.LEDGER
    assert [one.hash for one in erasure_ledger.read(ledger)] == [f"{0:032x}"]  # a restored backup erases it again


def test_a_new_key_is_shown_once_and_works(console: Console) -> None:
    path = console.layout.root / ".tunectl" / "keys.json"
    assert console.post("/settings/keys/add", name="till").status_code == 422
    assert console.post("/settings/keys/add", name="No Name", scope_chat="on").status_code == 422
    assert console.post("/settings/keys/add", name="till", scope_chat="on", days="x").status_code == 422
    assert console.post("/settings/keys/add", name="till", scope_chat="on").status_code == 422  # without a reason
    page = console.post("/settings/keys/add", name="till", scope_chat="on", days="30", reason="a new till")
    assert page.status_code == 200
    (secret,) = set(re.findall(r"tk-[\w-]{20,}", page.text))
    entry = next(key for key in api_keys.read(path) if key.name == "till")
    assert (entry.sha256, entry.scopes) == (api_keys.hash_key(secret), ["chat"])
    assert secret not in console.client.get("/settings/keys").text
    assert console.post("/settings/keys/add", name="till", scope_chat="on", reason="another").status_code == 409


def test_keys_are_shown_and_changed_in_the_file_that_the_server_reads(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is removed in another file than that of TUNECTL_KEYS would go on to open the server."""
    own, read = console.layout.root / ".tunectl" / "keys.json", tmp_path / "of-the-host.json"
    read.write_bytes(own.read_bytes())
    before = own.read_bytes()
    monkeypatch.setenv(api_keys.KEYS_ENV, str(read))
    assert str(read) in console.client.get("/settings/keys").text
    form = {**read_form(console, "/settings/keys/app/remove"), "reason": "leaked"}
    assert console.post("/settings/keys/app/remove", **form).status_code == 303
    assert ([key.name for key in api_keys.read(read)], own.read_bytes()) == (["root"], before)


def test_a_key_is_disabled_enabled_and_removed_and_an_old_page_does_nothing(
    console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = console.layout.root / ".tunectl" / "keys.json"
    form = read_form(console, "/settings/keys/app/disable")
    assert console.post("/settings/keys/app/disable", **form).status_code == 422  # without a reason
    form["reason"] = "lost"
    assert console.post("/settings/keys/app/disable", **form).status_code == 303
    assert [key.enabled for key in api_keys.read(path)] == [False, True]
    assert console.post("/settings/keys/app/disable", **form).status_code == 409
    for verb, reason in (("enable", "found"), ("remove", "not needed")):
        form = read_form(console, f"/settings/keys/app/{verb}")
        assert console.post(f"/settings/keys/app/{verb}", **form, reason=reason).status_code == 303
    who = console.sign_in.find(next(iter(console.client.cookies.values()))).name
    logged = [record.getMessage() for record in caplog.records if "the key" in record.getMessage()]
    assert logged == [
        f"{who} {did}"
        for did in ("disabled the key app: lost", "enabled the key app: found", "removed the key app: not needed")
    ]
    assert [key.name for key in api_keys.read(path)] == ["root"]
    assert console.client.get("/settings/keys/app/remove").status_code == 404
