"""Who gets in: links that work once, sessions, hosts, foreign pages, scopes, bodies."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from console_projects import Console, build, initialize
from half_uploads import FORM, hold_half_uploads, measure_health, serve
from msgspec import structs

from tunectl.access import api_keys, sessions
from tunectl.access.api_keys import KeyStore
from tunectl.console import console_app, console_sessions, session_file
from tunectl.console.console_guard import MAX_FORM_BYTES, check_target
from tunectl.console.console_sessions import SignIn
from tunectl.console.screen_table import SCREENS, json_path

OWN = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(initialize(tmp_path / "shop"))


def test_without_a_session_no_screen_opens(console: Console) -> None:
    stranger = console.stranger()
    for screen in SCREENS:
        page, twin = stranger.get(screen.path), stranger.get(json_path(screen.path))
        assert page.status_code == 303, screen.path
        assert page.headers["location"].startswith("/enter"), screen.path
        assert twin.status_code == 401, screen.path
    assert stranger.get("/events").status_code == 401
    assert stranger.get("/nothing").status_code == 401
    assert stranger.get("/enter").status_code == 200


def test_a_link_works_once(console: Console) -> None:
    link = console.sign_in.create_link()
    assert "#" in link
    assert link.count("/enter") == 1
    first, second = console.stranger(), console.stranger()
    assert first.post("/enter", data={"secret": link, "next": "/build"}, headers=OWN).headers["location"] == "/build"
    refused = second.post("/enter", data={"secret": link}, headers=OWN)
    assert refused.status_code == 401
    assert "works once" in refused.text
    assert second.get("/").status_code == 303


def test_behind_the_hash_a_link_opens_the_console_and_a_key_does_not(tmp_path: Path) -> None:
    """Another site could open the page with a key of its own: whoever acts then would do so under that name."""
    path = tmp_path / "keys.json"
    secret, entry = api_keys.create_key("mallory", ["admin"], None, datetime.now(UTC))
    api_keys.add(path, entry)
    keys = KeyStore(path, 0.0)
    keys.load()
    console = Console(build(tmp_path / "shop"), keys=keys)
    token = console.sign_in.create_link().partition("#")[2]
    assert console.stranger().post("/enter", data={"link": secret}, headers=OWN).status_code == 401
    assert console.stranger().post("/enter", data={"secret": secret}, headers=OWN).status_code == 303
    assert console.stranger().post("/enter", data={"link": token}, headers=OWN).status_code == 303


def test_a_link_ends_after_ten_minutes(tmp_path: Path) -> None:
    now = [100.0]
    sign_in = SignIn(tmp_path / "link", None, lambda: now[0])
    token = sign_in.create_link().partition("#")[2]
    now[0] += console_sessions.LINK_SECONDS
    assert sign_in.open_session(token) is None


def test_the_file_has_a_link_that_only_its_owner_reads_and_that_is_replaced_when_used(tmp_path: Path) -> None:
    sign_in = SignIn(tmp_path / "console" / "link", None)
    sign_in.write_link_file()
    first = (tmp_path / "console" / "link").read_text().strip().partition("#")[2]
    assert (tmp_path / "console" / "link").stat().st_mode & 0o777 == 0o600
    assert sign_in.open_session(first) is not None
    assert sign_in.open_session(first) is None
    assert (tmp_path / "console" / "link").read_text().strip().partition("#")[2] != first


def test_a_session_is_a_strict_cookie_of_its_own_and_ends_with_signing_out(console: Console) -> None:
    browser = console.stranger()
    browser.cookies.set("tunectl_console_default", "chosen-by-somebody-else")
    reply = browser.post("/enter", data={"secret": console.sign_in.create_link()}, headers=OWN)
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert "chosen-by-somebody-else" not in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    assert (
        browser.post(
            "/leave", data={}, headers={**OWN, "content-type": "application/x-www-form-urlencoded"}
        ).status_code
        == 303
    )
    assert console.sign_in.find(value) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://other.localhost"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
        ({**OWN, "content-type": "text/plain"}, 415),
        ({**OWN, "Host": "evil.example"}, 421),
        ({**OWN, "Host": ""}, 421),
    ],
)
def test_a_forged_form_is_refused(console: Console, headers: dict[str, str], status: int) -> None:
    sent = {"content-type": "application/x-www-form-urlencoded", **headers}
    assert console.client.post("/leave", content="a=b", headers=sent).status_code == status
    assert console.client.get("/").status_code == 200  # still signed in


def test_a_foreign_name_reads_nothing(console: Console) -> None:
    assert console.client.get("/", headers={"Host": "rebound.example"}).status_code == 421


def test_a_form_that_is_too_long_is_refused(console: Console) -> None:
    reply = console.client.post("/enter", data={"secret": "x" * (MAX_FORM_BYTES + 1)}, headers=OWN)
    assert reply.status_code == 413


@pytest.mark.parametrize("chunked", [False, True])
def test_a_form_of_10_mb_is_refused_with_a_reason_and_the_next_one_is_read(console: Console, chunked: bool) -> None:
    headers = {"Host": "localhost", "Content-Type": FORM, **OWN}
    parts = [b"secret=", *[b"x" * 1_000_000] * 10]
    with serve(console.application) as port, closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        body = iter(parts) if chunked else b"".join(parts)
        connection.request("POST", "/enter", body, headers, encode_chunked=chunked)
        reply = connection.getresponse()
        assert (reply.status, f"more than {MAX_FORM_BYTES} bytes" in reply.read().decode()) == (413, True)
        assert measure_health(port) < 1
    big = b"".join(parts)
    for path in ("/build/start", "/play/ask"):
        assert console.client.post(path, content=big, headers=headers).status_code == 413


def test_a_form_that_arrives_slowly_is_refused_with_a_reason(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_app, "FORM_SECONDS", 0.2)
    head = f"POST /enter HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Type: {FORM}\r\n"
    with serve(console.application) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(f"{head}Content-Length: 1000\r\n\r\na".encode())
        reply = HTTPResponse(line)
        reply.begin()
        assert (reply.status, "did not arrive within 0.2 s" in reply.read().decode()) == (408, True)


def test_health_is_told_beside_half_forms_and_who_leaves_is_no_error(
    console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(console.application) as port:
        with hold_half_uploads(port, "/enter"):
            assert measure_health(port) < 1
        assert measure_health(port) < 1
    assert "failed" not in caplog.text


def test_every_answer_has_the_headers(console: Console) -> None:
    for path in ("/", "/build", "/enter", "/home.json", "/nothing", "/static/style.css"):
        headers = console.client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("private, max-age=31536000, immutable" if "static" in path else "no-store")


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/enter", "", "/a\nb"])
def test_signing_in_leads_to_no_other_site(target: str) -> None:
    assert check_target(target) == "/"


def test_a_key_opens_what_its_scopes_say_and_ends_its_session_when_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secrets = {}
    for scope in ("admin", "chat"):
        secrets[scope], entry = api_keys.create_key(f"key-{scope}", [scope], None, datetime.now(UTC))
        api_keys.add(path, entry)
    keys = KeyStore(path, 0.0)
    keys.load()
    sign_in = SignIn(tmp_path / "link", keys)
    assert sign_in.open_session(secrets["chat"]) is None
    cookie = sign_in.open_session(secrets["admin"])
    assert cookie is not None
    assert sign_in.find(cookie).name == "key-admin"
    assert "operate" in sign_in.find(cookie).scopes
    api_keys.remove(path, "key-admin")
    assert sign_in.find(cookie) is None


def test_a_console_without_acts_shows_none(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"), acts=False)
    page = console.client.get("/").text
    assert page.count("<form") == 2, "signing out, and closing the list of keys"
    assert page.count('<form class="leave"') == page.count('<form method="dialog"') == 1


def test_a_session_may_do_what_its_key_may_do_now(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret, entry = api_keys.create_key("ann", ["look", "decide"], None, datetime.now(UTC))
    api_keys.add(path, entry)
    keys = KeyStore(path, 0.0)
    keys.load()
    sign_in = SignIn(tmp_path / "link", keys)
    cookie = sign_in.open_session(secret)
    assert sign_in.find(cookie).scopes == {"look", "decide"}
    api_keys.remove(path, "ann")
    api_keys.add(path, structs.replace(entry, scopes=["look"]))
    assert sign_in.find(cookie).scopes == {"look"}
    api_keys.remove(path, "ann")
    api_keys.add(path, structs.replace(entry, scopes=["chat"]))
    assert sign_in.find(cookie) is None


def make_keys(path: Path, *names: str) -> tuple[KeyStore, dict[str, str]]:
    """A store of keys that may look, and their secrets by name."""
    secrets = {}
    for name in names:
        secrets[name], entry = api_keys.create_key(name, ["look"], None, datetime.now(UTC))
        api_keys.add(path, entry)
    keys = KeyStore(path, 0.0)
    keys.load()
    return keys, secrets


def test_sessions_outlive_a_console_that_is_killed(tmp_path: Path) -> None:
    keys, secrets = make_keys(tmp_path / "keys.json", "ann", "bo")
    killed = SignIn(tmp_path / "link", keys)
    killed.save_sessions(8300)
    token = killed.create_link().partition("#")[2]
    cookies = {name: killed.open_session(secret) for name, secret in {**secrets, "link": token}.items()}
    left = cookies["left"] = killed.open_session(secrets["ann"])
    killed.close_session(left)
    file = tmp_path / "sessions_8300.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [secret for secret in (*cookies.values(), *secrets.values()) if secret in file.read_text()] == []
    api_keys.remove(tmp_path / "keys.json", "bo")
    again = SignIn(tmp_path / "link", keys)
    again.save_sessions(8300)
    found = {name: again.find(cookie) for name, cookie in cookies.items()}
    assert found["ann"].scopes == {"look"}
    assert "operate" in found["link"].scopes
    assert (found["bo"], found["left"]) == (None, None), "a revoked key, and who signed out"
    assert api_keys.hash_key(secrets["bo"]) not in file.read_text()
    again.end()
    assert not file.exists()
    stopped = SignIn(tmp_path / "link", keys)
    stopped.save_sessions(8300)
    assert stopped.find(cookies["ann"]) is None, "a console that is stopped ends its sessions"


@pytest.mark.parametrize("spoil", ["mode", "cut", "absent", "old", "future"])
def test_a_file_of_sessions_that_cannot_be_trusted_opens_nothing(
    tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SignIn(tmp_path / "link", None)
    first.save_sessions(8300)
    cookie = first.open_session(first.create_link().partition("#")[2])
    file = tmp_path / "sessions_8300.json"
    if spoil == "mode":
        file.chmod(0o644)
    elif spoil == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif spoil == "absent":
        file.unlink()
    else:
        moved = sessions.MAX_AGE_SECONDS if spoil == "old" else -60
        monkeypatch.setattr(session_file, "time", lambda: time.time() + moved)
    second = SignIn(tmp_path / "link", None)
    second.save_sessions(8300)
    assert second.find(cookie) is None
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_session_does_not_live_longer_by_being_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = SignIn(tmp_path / "link", None)
    first.save_sessions(8300)
    cookie = first.open_session(first.create_link().partition("#")[2])
    monkeypatch.setattr(session_file, "time", lambda: time.time() + sessions.MAX_AGE_SECONDS - 60)
    second = SignIn(tmp_path / "link", None)
    second.save_sessions(8300)
    assert second.find(cookie) is not None
    monkeypatch.setattr(sessions, "monotonic", lambda: time.monotonic() + 61)
    assert second.find(cookie) is None


def test_a_session_that_ended_while_the_disk_was_full_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SignIn(tmp_path / "link", None)
    first.save_sessions(8300)
    cookie = first.open_session(first.create_link().partition("#")[2])

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(session_file.atomic_io, "write_json", refuse)
        first.close_session(cookie)
    second = SignIn(tmp_path / "link", None)
    second.save_sessions(8300)
    assert second.find(cookie) is None
