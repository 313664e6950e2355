"""The web door with a real socket: a thousand equal webhooks, twenty at once, wrong tokens and wrong bodies."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest
from half_uploads import hold_half_uploads, measure_health

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.core.errors import InfrastructureError
from tunectl.retraining import signed_links, state_machine
from tunectl.retraining.approval_pages import ApprovalPages
from tunectl.retraining.run_store import MAX_PENDING, RunStore, TriggerOutcome
from tunectl.retraining.signed_links import ApprovalToken
from tunectl.retraining.state_machine import Transition, Trigger
from tunectl.retraining.webhook_api import RetrainApi, RetrainSecrets

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TOKEN = "t" * 40


class Trials:
    def all(self):
        return []


class World:
    def __init__(self, folder: Path, people: tuple[str, ...] | None = None) -> None:
        self.store, self.nudged = RunStore(folder), 0
        pages = ApprovalPages(self.store, Trials(), "shop", b"s" * 64, lambda: "9 min")
        self.door = RetrainApi(
            self.store,
            pages,
            lambda: b"tunectl_retrain_in_progress 0\n",
            secrets=RetrainSecrets(TOKEN, KeyStore(folder / "keys.json", 0.0), people),
            alert_names=("TunectlDriftSustained",),
            nudge=self._nudge,
            address="127.0.0.1",
            port=0,
        )
        self.door.open()

    def _nudge(self) -> None:
        self.nudged += 1

    def ask(self, method="POST", path="/webhook", body=b"", token=TOKEN, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.door.port, timeout=60)
        sent = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        connection.request(method, path, body, {**sent, **headers})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, content, reply


@pytest.fixture
def world(tmp_path):
    found = World(tmp_path)
    yield found
    found.door.close()


def add_key(folder, name, *scopes):
    secret, entry = api_keys.create_key(name, scopes, None, NOW)
    api_keys.add(folder / "keys.json", entry)
    return secret


def ask_approval(world):
    """The path of the link of a question that waits, and its retrain."""
    trigger = Trigger("alert", "alert-1", NOW, "the world changed")
    facts = {"question": "retrain", "nonce": "n1", "until": "2100-01-01T00:00:00+00:00"}
    run = state_machine.apply_transition(
        state_machine.new_run("a" * 64, 1, trigger, NOW, {}), Transition("awaiting_approval", NOW, "asked", facts)
    )
    world.store.save(run)
    link = signed_links.address("http://h", ApprovalToken(run.id, "retrain", 4_102_444_800, "n1"), b"s" * 64)
    return link.removeprefix("http://h"), run.id


def decide(world, path, key, answer="yes", **headers):
    sent = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin", **headers}
    status, content, _ = world.ask("POST", path, urlencode({"answer": answer, "key": key}), None, **sent)
    return status, content.decode()


def test_a_link_leads_to_the_page_and_a_key_decides(world, tmp_path, caplog):
    caplog.set_level(0)
    path, run = ask_approval(world)
    look, ann = add_key(tmp_path, "spy", "look", "operate", "chat"), add_key(tmp_path, "ann", "decide")
    status, page, _ = world.ask("GET", path, token=None)
    assert (status, b"Your key, of scope decide" in page) == (200, True)
    for key, status, words in (
        ("", 401, "send a key"),
        ("tk-made-up", 401, "that key is not known here"),
        (look, 403, "the key spy has the scopes look, operate, chat; this needs decide: use a key that has it"),
        (TOKEN, 401, "that key is not known here"),
    ):
        found, page = decide(world, path, key)
        assert (found, words in page) == (status, True)
        assert world.store.get_decision(run, "retrain") is None
    status, page = decide(world, path, ann, **{"Sec-Fetch-Site": "cross-site"})
    assert (status, world.store.get_decision(run, "retrain")) == (403, None)
    status, page = decide(world, path, ann)
    assert (status, "Thank you, ann: yes." in page) == (200, True)
    assert world.store.get_decision(run, "retrain").author == "ann"
    assert "ann said yes" in decide(world, path, ann, "no")[1]
    assert world.store.get_decision(run, "retrain").approved
    assert path.rpartition("/")[2] not in caplog.text


def test_only_named_people_decide(tmp_path):
    world = World(tmp_path, people=("ann",))
    path, run = ask_approval(world)
    bob, boss, ann = (add_key(tmp_path, name, scope) for name, scope in PEOPLE)
    for key, name in ((bob, "bob"), (boss, "boss")):
        status, page = decide(world, path, key)
        assert (status, f"the key {name} may not approve: retrain.approval.people names ann" in page) == (403, True)
    assert world.store.get_decision(run, "retrain") is None
    assert decide(world, path, ann)[0] == 200
    world.door.close()


PEOPLE = (("bob", "decide"), ("boss", "admin"), ("ann", "decide"))


def test_wrong_keys_are_throttled_and_decide_nothing(world, tmp_path):
    path, run = ask_approval(world)
    ann = add_key(tmp_path, "ann", "decide")
    assert [decide(world, path, f"tk-{number}")[0] for number in range(12)] == [401] * 10 + [429] * 2
    assert decide(world, path, ann)[0] == 429
    assert world.store.get_decision(run, "retrain") is None


def payload(start="2026-04-30T10:00:00Z", status="firing", version="4"):
    alert = {"status": status, "labels": {"alertname": "TunectlDriftSustained"}, "startsAt": start, "fingerprint": "f"}
    return json.dumps({"version": version, "alerts": [alert]}).encode()


def test_the_same_webhook_again_and_again_is_one_trigger(world):
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: world.ask(body=payload()), range(100)))
    assert {status for status, _, _ in replies} == {200}
    assert sum(json.loads(content)["new"] for _, content, _ in replies) == 1
    assert len(world.store.list_pending_triggers()) == 1
    assert world.nudged == 1
    assert world.ask(body=payload(version="1"))[0] == 200
    assert len(world.store.list_pending_triggers()) == 1


def test_alerts_without_end_are_merged_into_those_that_are_pending(world, tmp_path):
    operate = add_key(tmp_path, "robot", "operate")
    alert = json.loads(payload())["alerts"][0]

    def send(number):
        alerts = [{**alert, "fingerprint": f"{number}-{n}"} for n in range(30)]
        return world.ask(body=json.dumps({"version": "4", "alerts": alerts}).encode(), token=operate)

    with ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(send, range(10)))
    bodies = [json.loads(content) for _, content, _ in replies]
    assert {status for status, _, _ in replies} == {200}
    assert sum(body["new"] for body in bodies) == len(list((tmp_path / "inbox").iterdir())) == MAX_PENDING
    assert sum(body["merged"] for body in bodies) == 10 * 20 - MAX_PENDING
    oldest = world.store.list_pending_triggers()[0]
    body = json.loads(send("late")[1])
    assert (body["status"], body["new"], body["merged"]) == ("merged", 0, 20)
    assert f"20 triggers of kind alert are pending, and 20 are allowed; the oldest is {oldest.id}" in body["detail"]
    assert world.store.enqueue_trigger(Trigger("schedule", "quarter", NOW, "the quarter is over"))
    assert world.store.enqueue_trigger(Trigger("person", "person-1", NOW, "new shops"))
    world.store.resolve_trigger(TriggerOutcome(oldest, NOW, None, "cooldown"))
    assert json.loads(send("later")[1])["new"] == 1


def test_a_key_of_scope_operate_sends_alerts_as_the_token_does(world, tmp_path):
    secrets = {}
    for scope in ("operate", "look"):
        secrets[scope], entry = api_keys.create_key(scope, [scope], None, NOW)
        api_keys.add(tmp_path / "keys.json", entry)
    assert world.ask(body=payload(), token=secrets["operate"])[0] == 200
    assert len(world.store.list_pending_triggers()) == 1
    status, content, _ = world.ask(body=payload(), token=secrets["look"])
    assert (status, content) == (403, b"the key look has the scopes look; this needs operate: use a key that has it\n")
    api_keys.remove(tmp_path / "keys.json", "operate")
    assert world.ask(body=payload("2026-04-30T12:00:00Z"), token=secrets["operate"])[0] == 401


def test_resolved_starts_nothing(world):
    status, content, _ = world.ask(body=payload(status="resolved"))
    assert (status, json.loads(content)["status"]) == (200, "nothing")
    assert world.store.list_pending_triggers() == []


def test_busy_is_503_for_what_is_new_and_200_for_what_is_known(world):
    world.ask(body=payload())
    trigger = world.store.list_pending_triggers()[0]
    run = state_machine.apply_transition(
        state_machine.new_run("a" * 64, 1, trigger, NOW, {}), Transition("data_gate", NOW)
    )
    world.store.save(run)
    assert world.ask(body=payload())[0] == 200
    status, _, reply = world.ask(body=payload("2026-04-30T11:00:00Z"))
    assert (status, reply.headers["Retry-After"]) == (503, "60")
    world.store.save(state_machine.apply_transition(run, Transition("insufficient", NOW)))
    assert world.ask(body=payload("2026-04-30T11:00:00Z"))[0] == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"body": b"{}", "token": None}, 401),
        ({"body": b"{}", "token": "wrong"}, 401),
        ({"body": b"{"}, 400),
        ({"body": payload(version="5")}, 400),
        ({"body": b" " * 1_000_001}, 413),
        ({"method": "GET"}, 405),
        ({"method": "POST", "path": "/metrics"}, 405),
        ({"method": "GET", "path": "/nothing"}, 404),
        ({"method": "GET", "path": "/runs/..%2f..%2fetc"}, 404),
        ({"method": "GET", "path": "/decide/x.y"}, 410),
        ({"method": "GET", "path": "/metrics", "token": None}, 200),
        ({"method": "GET", "path": "/healthz", "token": None}, 200),
        ({"method": "GET", "path": "/", "token": None}, 200),
    ],
)
def test_answers_to_odd_requests(world, given, status):
    assert world.ask(**given)[0] == status
    assert world.ask("GET", "/healthz")[0] == 200


def test_five_megabytes_are_not_read(world):
    connection = http.client.HTTPConnection("127.0.0.1", world.door.port, timeout=60)
    connection.putrequest("POST", "/webhook")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", "5000000")
    connection.putheader("Content-Type", "application/json")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def _raw(world, head: bytes, body: bytes = b"") -> bytes:
    """The first line of the answer to bytes that no library would send; nothing where there is none."""
    with socket.create_connection(("127.0.0.1", world.door.port), timeout=60) as line:
        line.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + body)
        line.shutdown(socket.SHUT_WR)
        answer = line.makefile("rb").readline()
    return answer.strip()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: \xb2\r\n", b"400"),  # a digit to Python, no number to anybody
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", b"400"),
        (b"Content-Length: -1\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n", b"401"),
        (b"Authorization: Basic \xe9\r\nContent-Length: 0\r\n", b"401"),
        (b"Authorization: Bearer \xe9\r\nContent-Length: 0\r\n", b"401"),
    ],
)
def test_headers_that_are_no_numbers_and_no_keys_are_answered(world, head, status, capfd):
    assert status in _raw(world, head)
    assert world.ask("GET", "/healthz")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_an_incomplete_body_is_no_trigger(world, capfd):
    whole = payload()
    head = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {len(whole) + 1}\r\n".encode()
    assert _raw(world, head, whole) == b""
    assert world.store.list_pending_triggers() == []
    assert "Traceback" not in capfd.readouterr().err


def test_a_disk_that_is_full_is_503(world, monkeypatch):
    def full(_trigger):
        raise InfrastructureError("no space left on device")

    monkeypatch.setattr(world.store, "enqueue_trigger", full)
    assert world.ask(body=payload())[0] == 503


def test_the_report_has_a_page(world):
    run = state_machine.new_run("a" * 64, 1, Trigger("person", "p", NOW, "new shops <b>"), NOW, {})
    world.store.save(run)
    status, content, _ = world.ask("GET", f"/runs/{run.id}")
    assert status == 200
    assert b"new shops &lt;b&gt;" in content
    assert run.id.encode() in world.ask("GET", "/")[1]


@pytest.mark.parametrize("valid", [True, False], ids=["of a link", "of no link"])
def test_health_is_told_beside_half_forms(world, valid):
    path = ask_approval(world)[0] if valid else "/decide/x"
    with hold_half_uploads(world.door.port, path):
        assert measure_health(world.door.port) < 1


def send_half_form(world, path, length):
    """Status of the answer to a form of which only one byte comes."""
    with socket.create_connection(("127.0.0.1", world.door.port), timeout=5) as line:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        line.sendall(f"{head}Content-Length: {length}\r\n\r\na".encode())
        reply = http.client.HTTPResponse(line)
        reply.begin()
        return reply.status


def test_a_link_is_checked_and_its_form_measured_before_it_is_read(world):
    path, _ = ask_approval(world)
    assert send_half_form(world, "/decide/x", 900_000) == 410
    assert send_half_form(world, "/decide/x", 900) == 410
    assert send_half_form(world, path, 10_001) == 413
    with pytest.raises(TimeoutError):
        send_half_form(world, path, 10_000)


def test_what_takes_no_body_reads_none(world):
    assert world.ask("GET", "/healthz", b"a" * 1000)[0] == 413
