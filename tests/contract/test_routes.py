"""Every route of every service, against the one table: without a key, with each scope, across sites, under another name."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from serving_process import settings

from tunectl.access import api_keys, guard
from tunectl.access.api_keys import KeyStore
from tunectl.access.routes import ARENA_SCOPES, CONTENT_TYPES, ROUTES, TOKEN_SCOPES, RouteRule
from tunectl.access.scopes import SCOPES
from tunectl.access.security_headers import SECURITY_HEADERS
from tunectl.annotation import annotate_app, arena_app
from tunectl.annotation.annotate_app import AnnotateAppConfig
from tunectl.annotation.arena_app import ArenaAppConfig
from tunectl.config.schema.serve import ServeSettings
from tunectl.monitoring.http_api import MonitorApi, PageProviders
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import signed_links, state_machine
from tunectl.retraining.approval_pages import ApprovalPages
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.signed_links import ApprovalToken
from tunectl.retraining.state_machine import Transition, Trigger
from tunectl.retraining.webhook_api import RetrainApi, RetrainSecrets
from tunectl.serving.admission_control import AdmissionController, CapacityLimits
from tunectl.serving.app import HEALTH, Server
from tunectl.serving.model_manager import ModelManager
from tunectl.serving.serving_metrics import ServingMetrics

ID = "0123456789abcdef"
TOKEN = "t" * 40
ASKED = datetime(2026, 5, 1, tzinfo=UTC)
WAITS = state_machine.apply_transition(
    state_machine.new_run("a" * 64, 1, Trigger("alert", "alert-1", ASKED, "the world changed"), ASKED, {}),
    Transition("awaiting_approval", ASKED, "asked", {"question": "retrain", "nonce": "n1", "until": "2100-01-01"}),
)
"""A retrain that waits for a person, and the last part of the link of its question."""
LINK = signed_links.sign(ApprovalToken(WAITS.id, "retrain", 4_102_444_800, "n1"), b"s" * 64)
REFUSALS = {401, 403, 405, 415, 421}
"""Of the guard. What it lets through ends with another status."""


@dataclass
class Service:
    """One service that is asked."""

    ask: Callable[..., tuple[int, dict[str, str]]]
    """Method, path, headers and body of a request; status and headers of the answer."""
    keys: dict[str, str] = field(default_factory=dict)
    """Secrets by scope."""
    keyless: bool = False


def ask_asgi(
    application: Any, heard: list[Any] | None = None, *, meanwhile: Callable[[], None] = lambda: None
) -> Callable[..., tuple[int, dict[str, str]]]:
    """``heard``: gets everything that is sent; ``meanwhile`` is called before the last part of a body arrives."""

    def ask(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, dict[str, str]]:
        sent: list[Any] = [] if heard is None else heard
        given = {"host": "localhost", "content-length": str(len(body)), **headers}

        left = [
            {"type": "http.request", "body": body[9:], "more_body": False},
            {"type": "http.request", "body": body[:9], "more_body": True},
        ]

        async def receive() -> Any:
            if len(left) == 1:
                meanwhile()
            return left.pop() if left else await asyncio.Event().wait()

        async def send(event: Any) -> None:
            sent.append(event)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "client": None,
            "server": None,
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        asyncio.run(application(scope, receive, send))
        return sent[0]["status"], {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}

    return ask


def ask_port(port: int) -> Callable[..., tuple[int, dict[str, str]]]:
    def ask(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body or None, {"host": "localhost", **headers})
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply.status, {name.lower(): value for name, value in reply.headers.items()}

    return ask


def write_keys(path: Path) -> dict[str, str]:
    """One key a scope."""
    secrets = {}
    for scope in SCOPES:
        secrets[scope], entry = api_keys.create_key(scope, [scope], None, datetime.now(UTC))
        api_keys.add(path, entry)
    return secrets


def open_server(folder: Path) -> tuple[Server, dict[str, str]]:
    secrets = write_keys(folder / "keys.json")
    key_store = KeyStore(folder / "keys.json", 1.0)
    key_store.load()
    model_manager = ModelManager(
        ReleaseRegistry(folder / "store"), None, bundled=None, base=False, standby_seconds=0, changed=lambda: None
    )
    given = ServeSettings.model_validate(settings(), strict=True)
    admission = AdmissionController(CapacityLimits(1, 1, 1000))
    server = Server(given, model_manager, key_store, admission, ServingMetrics(), None)
    server.mounts["/arena"] = arena_app.application(
        server, ArenaAppConfig("shop", (), folder, None, lambda key: key_store.find(key, *ARENA_SCOPES))
    )
    return server, secrets


def open_monitor(folder: Path, address: str) -> MonitorApi:
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports" / f"{ID}.html").write_text("a report")
    pages = PageProviders(lambda: b"one 1\n", lambda: "all", lambda name: "one", lambda: b"[]", folder / "reports")
    return MonitorApi(address, 0, folder / "keys.json", pages)


def open_retrain(folder: Path, address: str) -> RetrainApi:
    book = RunStore(folder / "book")
    book.save(WAITS)
    pages = ApprovalPages(book, SimpleNamespace(all=list), "shop", b"s" * 64, lambda: "")
    return RetrainApi(
        book,
        pages,
        lambda: b"",
        secrets=RetrainSecrets(TOKEN, KeyStore(folder / "keys.json", 1.0), None),
        alert_names=(),
        nudge=lambda: None,
        address=address,
        port=0,
    )


def open_annotate(path: Path | None) -> Any:
    empty = SimpleNamespace(
        get_current_task=lambda who: None, progress=lambda who: SimpleNamespace(answered=0, remaining=0)
    )
    hosts = None if path else guard.list_hosts("localhost")
    keys = KeyStore(path, 1.0) if path else None
    return annotate_app.application(empty, AnnotateAppConfig("shop", (), keys, hosts, lambda: None))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """Each service as others reach it, and as this machine alone does: ``monitor/local``."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("server", "monitor", "local")}
    server, secrets = open_server(folders["server"])
    seen = write_keys(folders["monitor"] / "keys.json")
    opened: dict[str, Any] = {
        "monitor": open_monitor(folders["monitor"], "127.0.0.1"),
        "monitor/local": open_monitor(folders["local"], "127.0.0.1"),
        "retrain": open_retrain(folders["monitor"], "0.0.0.0"),
        "retrain/local": open_retrain(folders["local"], "127.0.0.1"),
    }
    for one in opened.values():
        one.open()
    yield {
        "server": Service(ask_asgi(server), secrets),
        "monitor": Service(ask_port(opened["monitor"].port), seen),
        "monitor/local": Service(ask_port(opened["monitor/local"].port), keyless=True),
        "retrain": Service(ask_port(opened["retrain"].port), seen),
        "retrain/local": Service(
            ask_port(opened["retrain/local"].port), dict.fromkeys(TOKEN_SCOPES, TOKEN), keyless=True
        ),
        "annotate": Service(ask_asgi(open_annotate(folders["monitor"] / "keys.json")), seen),
        "annotate/local": Service(ask_asgi(open_annotate(None)), {}, keyless=True),
    }
    for one in opened.values():
        one.close()


WALKS = [
    pytest.param(f"{rule.service}{place}", rule, id=f"{rule.service}{place} {rule.method} {rule.path}")
    for rule in ROUTES
    for place in ("", "/local")
    if not (place and rule.service == "server")
]
PARTS = {"{id}": ID, "{token}": LINK, "{model:path}": "made/up", "{path:path}": "page.js"}


def fill_path(rule: RouteRule) -> str:
    path = rule.path
    for part, value in PARTS.items():
        path = path.replace(part, value)
    return path


def build_headers(rule: RouteRule, secret: str | None = None, **headers: str) -> dict[str, str]:
    """Of a request that the page or the program of the service itself would send."""
    given = {"authorization": f"Bearer {secret}"} if secret else {}
    if rule.body is not None:
        given["content-type"] = CONTENT_TYPES[rule.body]
    if rule.method == "POST":
        given["origin"] = "http://localhost"
    return {**given, **headers}


def find_secret(service: Service, rule: RouteRule) -> str | None:
    return service.keys.get("admin", service.keys.get(rule.opened_by)) if needs_key(rule) else None


def needs_key(rule: RouteRule) -> bool:
    return rule.opened_by in (*SCOPES, "any key")


@pytest.mark.parametrize(("name", "rule"), WALKS)
def test_without_a_key(services: dict[str, Service], name: str, rule: RouteRule) -> None:
    service = services[name]
    status, headers = service.ask(rule.method, fill_path(rule), build_headers(rule), b"{}" if rule.body else b"")
    if needs_key(rule):
        assert (status == 401) is not (service.keyless and rule.keyless)
        assert ("Basic" in headers.get("www-authenticate", "")) is (status == 401 and rule.method == "GET")
    elif rule.opened_by == "session":
        assert status == (303 if rule.path.endswith("/leave") else 401)
    elif rule.opened_by == "typed key":
        assert status in {401, 422}
    else:
        assert status not in REFUSALS
    missing = {name.lower() for name in SECURITY_HEADERS} - set(headers)
    assert not missing
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("name", "rule"), [walk for walk in WALKS if walk.values[0] in ("server", "monitor", "retrain")]
)
def test_with_each_scope(services: dict[str, Service], name: str, rule: RouteRule) -> None:
    service = services[name]
    if not needs_key(rule):
        return
    for scope, secret in service.keys.items():
        status, _ = service.ask(rule.method, fill_path(rule), build_headers(rule, secret), b"{}" if rule.body else b"")
        allowed = rule.opened_by == "any key" or scope in (rule.opened_by, "admin")
        assert (status not in REFUSALS) is allowed, (scope, status)
        assert allowed or status == 403
        password = base64.b64encode(f"me:{secret}".encode()).decode()
        basic = build_headers(rule, authorization=f"Basic {password}")
        status, _ = service.ask(rule.method, fill_path(rule), basic, b"{}" if rule.body else b"")
        assert status == (401 if rule.method == "POST" else status)
        assert (status not in REFUSALS) is (allowed and rule.method == "GET")


@pytest.mark.parametrize(("name", "rule"), WALKS)
def test_across_sites(services: dict[str, Service], name: str, rule: RouteRule) -> None:
    service = services[name]
    secret, body = find_secret(service, rule), b"{}" if rule.body else b""
    own, _ = service.ask(rule.method, fill_path(rule), build_headers(rule, secret), body)
    for foreign in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
        {"origin": "http://localhost:8080", "sec-fetch-site": "same-site"},
    ):
        status, _ = service.ask(rule.method, fill_path(rule), build_headers(rule, secret, **foreign), body)
        assert status == (403 if rule.method == "POST" else own), foreign
    if rule.opened_by in ("session", "typed key") and rule.method == "POST":
        quiet = {key: value for key, value in build_headers(rule).items() if key != "origin"}
        assert service.ask(rule.method, fill_path(rule), quiet, body)[0] == 403
    if rule.body:
        for kind in ("text/plain", "multipart/form-data; boundary=x", ""):
            sent = build_headers(rule, secret, **{"content-type": kind})
            assert service.ask(rule.method, fill_path(rule), sent, body)[0] == 415, kind


@pytest.mark.parametrize(("name", "rule"), WALKS)
def test_under_another_name_and_behind_a_proxy(services: dict[str, Service], name: str, rule: RouteRule) -> None:
    service = services[name]
    body = b"{}" if rule.body else b""
    own, _ = service.ask(rule.method, fill_path(rule), build_headers(rule), body)
    guarded = service.keyless and rule.keyless
    evil = build_headers(rule, host="evil.example:8080")
    if "origin" in evil:
        evil["origin"] = "http://evil.example:8080"  # a page under that name, which leads here
    assert service.ask(rule.method, fill_path(rule), evil, body)[0] == (421 if guarded else own)
    for header in ("x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-proto"):
        sent = build_headers(rule, **{header: "10.0.0.1"})
        assert service.ask(rule.method, fill_path(rule), sent, body)[0] == (401 if guarded else own), header


def test_the_services_have_no_other_routes(tmp_path: Path, services: dict[str, Service]) -> None:
    server, _ = open_server(tmp_path)
    named = {rule.path for rule in ROUTES if rule.service == "server" and not rule.path.startswith("/arena")}
    assert named == {*server.routes, *HEALTH}
    for service, application in (("server", server.mounts["/arena"]), ("annotate", open_annotate(None))):
        found = set()
        for route in application.application.routes:
            if hasattr(route, "methods"):
                found |= {(method, route.path) for method in route.methods - {"HEAD"}}
            else:
                found.add(("GET", f"{route.path}/{{path:path}}"))
        start = "/arena" if service == "server" else ""
        assert found == {
            (rule.method, rule.path) for rule in ROUTES if rule.service == service and rule.path.startswith(start)
        }
    for name in ("monitor", "retrain"):
        secret = services[name].keys["admin"]
        assert services[name].ask("GET", "/made/up", {"authorization": f"Bearer {secret}"})[0] == 404
        assert services[name].ask("GET", "/made/up", {})[0] == 401


FORM = {"content-type": CONTENT_TYPES["form"], "sec-fetch-site": "same-origin"}


def enter(ask: Any, key: str, **headers: str) -> tuple[int, str]:
    """Status of a sign-in, and the cookie."""
    sent = urlencode({"name": "Ada", "key": key}).encode()
    status, given = ask("POST", "/arena/enter", {**FORM, **headers}, sent)
    return status, given.get("set-cookie", "")


def test_a_session_of_the_arena_opens_its_forms(tmp_path: Path) -> None:
    server, secrets = open_server(tmp_path)
    ask, form = ask_asgi(server), FORM
    status, given = enter(ask, secrets["admin"])
    assert status == 303
    assert "Secure" not in given
    cookie = {"cookie": given.partition(";")[0]}
    assert ask("POST", "/arena/new", {**form, **cookie})[0] == 200
    assert ask("POST", "/arena/new", {**form, **cookie, "sec-fetch-site": "cross-site"})[0] == 403
    assert ask("POST", "/arena/leave", {**form, **cookie})[0] == 303


def test_the_token_of_programs_opens_what_they_need_and_nothing_else(services: dict[str, Service]) -> None:
    opened = set()
    for rule in ROUTES:
        if rule.service == "retrain" and needs_key(rule):
            status, _ = services["retrain"].ask(rule.method, fill_path(rule), build_headers(rule, TOKEN), b"{}")
            opened |= {rule.opened_by} - ({rule.opened_by} if status in REFUSALS else set())
    assert opened == set(TOKEN_SCOPES)


@pytest.mark.parametrize("scope", SCOPES)
def test_who_comes_in_with_a_typed_key(tmp_path: Path, scope: str) -> None:
    secrets = write_keys(tmp_path / "keys.json")
    ask = ask_asgi(open_annotate(tmp_path / "keys.json"))
    status, given = ask("POST", "/enter", FORM, urlencode({"key": secrets[scope], "name": "Ada"}).encode())
    assert (status, "set-cookie" in given) == ((303, True) if scope in ("annotate", "admin") else (401, False))


def test_a_revoked_key_loses_its_session_of_annotate(tmp_path: Path) -> None:
    secret, entry = api_keys.create_key("ada", ["annotate"], None, datetime.now(UTC))
    api_keys.add(tmp_path / "keys.json", entry)
    people: list[str] = []
    empty = SimpleNamespace(
        get_current_task=people.append, progress=lambda who: SimpleNamespace(answered=0, remaining=0, undo=False)
    )
    keys = KeyStore(tmp_path / "keys.json", 0.0)
    ask = ask_asgi(annotate_app.application(empty, AnnotateAppConfig("shop", (), keys, None, lambda: None)))
    _, given = ask("POST", "/enter", FORM, urlencode({"key": secret, "name": "Grace"}).encode())
    cookie = {"cookie": given["set-cookie"].partition(";")[0]}
    assert ask("GET", "/question", cookie)[0] == 200
    assert people == ["ada"]  # the name of the key, whatever was typed
    assert ask("GET", "/question", {"cookie": "tunectl_annotator=ada"})[0] == 401
    api_keys.remove(tmp_path / "keys.json", "ada")
    assert ask("GET", "/question", cookie)[0] == 401


def test_who_may_chat_but_not_give_feedback_stays_outside(tmp_path: Path) -> None:
    server, secrets = open_server(tmp_path)
    ask = ask_asgi(server)
    assert [enter(ask, secrets[scope])[0] for scope in ("chat", "feedback", "scrape")] == [401, 401, 401]


def test_a_revoked_key_loses_its_session(tmp_path: Path) -> None:
    server, secrets = open_server(tmp_path)
    ask = ask_asgi(server)
    cookie = {"cookie": enter(ask, secrets["admin"])[1].partition(";")[0]}
    assert ask("POST", "/arena/new", {**FORM, **cookie})[0] == 200
    api_keys.remove(tmp_path / "keys.json", "admin")
    server.key_store.every = 0.0
    for path in ("/arena/new", "/arena/ask", "/arena/said"):
        assert ask("POST", path, {**FORM, **cookie})[0] == 401
    assert not (tmp_path / "judgments").exists()


def test_a_key_that_is_revoked_while_a_body_arrives_opens_nothing(tmp_path: Path) -> None:
    server, _ = open_server(tmp_path)
    server.key_store.every = 0.0
    ask = ask_asgi(server, meanwhile=lambda: api_keys.remove(tmp_path / "keys.json", "late"))
    for rule in (one for one in ROUTES if one.service == "server" and one.body == "json"):
        secret, entry = api_keys.create_key("late", [rule.opened_by], None, datetime.now(UTC))
        api_keys.add(tmp_path / "keys.json", entry)
        assert ask("POST", rule.path, build_headers(rule, secret), b'{"model": "shop"}')[0] == 401, rule.path


def test_an_alert_of_a_key_that_is_revoked_while_it_arrives_is_refused(tmp_path: Path) -> None:
    service, keys = open_retrain(tmp_path, "0.0.0.0"), tmp_path / "keys.json"
    secret, entry = api_keys.create_key("late", ["operate"], None, datetime.now(UTC))
    api_keys.add(keys, entry)
    service.open()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.putrequest("POST", "/webhook")
    for header in (
        ("Authorization", f"Bearer {secret}"),
        ("Content-Type", "application/json"),
        ("Content-Length", "2"),
    ):
        connection.putheader(*header)
    connection.endheaders(b"{")
    time.sleep(0.5)
    api_keys.remove(keys, "late")
    time.sleep(1.1)  # keys are looked at every second
    connection.send(b"}")
    assert connection.getresponse().status == 401
    connection.close()
    service.close()


def test_without_a_key_readyz_says_what_is_wrong_and_not_where(tmp_path: Path) -> None:
    server, secrets = open_server(tmp_path)
    server.model_manager.trouble["champion"] = (
        f"s3://bucket/shop: release x ('{tmp_path}/store/x/') is damaged: adapter/y was changed"
    )
    texts = []
    for headers in ({}, {"authorization": "Bearer made-up"}, {"authorization": f"Bearer {secrets['chat']}"}):
        heard: list[Any] = []
        ask_asgi(server, heard)("GET", "/readyz", headers)
        texts.append(json.loads(heard[-1]["body"])["problems"]["champion"])
    assert texts[0] == texts[1] == "shop: release x ('x') is damaged: adapter/y was changed"
    assert texts[2] == server.model_manager.trouble["champion"]


def test_over_https_cookies_are_for_https_and_this_host_alone(tmp_path: Path) -> None:
    server, secrets = open_server(tmp_path)
    ask = ask_asgi(server)
    for headers in ({"x-forwarded-proto": "https"}, {"origin": "https://shop.example", "host": "shop.example"}):
        status, given = enter(ask, secrets["admin"], **headers)
        assert status == 303
        assert given.startswith("__Host-tunectl_arena=")
        assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in given.split(";")}
        cookie = {"cookie": given.partition(";")[0]}
        assert ask("POST", "/arena/new", {**FORM, **cookie})[0] == 200


def test_wrong_keys_are_throttled_by_address(tmp_path: Path) -> None:
    server, secrets = open_server(tmp_path)
    ask = ask_asgi(server)
    found = [enter(ask, "tk-made-up")[0] for _ in range(12)]
    assert found == [401] * 10 + [429] * 2
    assert enter(ask, secrets["admin"])[0] == 429
