"""Who may see what the monitor says, over real HTTP."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from half_uploads import hold_half_uploads, measure_health

from tunectl.access import api_keys
from tunectl.core.errors import InfrastructureError
from tunectl.monitoring.http_api import MonitorApi, PageProviders

ID = "0123456789abcdef"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[MonitorApi]:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / f"{ID}.html").write_text("a report")
    (tmp_path / "secret.html").write_text("a secret")
    pages = PageProviders(
        metrics=lambda: b"one 1\n",
        listing=lambda: "all windows",
        window=lambda name: "a window" if name == ID else None,
        data=lambda: b"[]",
        reports=tmp_path / "reports",
    )
    made = MonitorApi("127.0.0.1", 0, tmp_path / "keys.json", pages)
    made.open()
    yield made
    made.close()


def get(door: MonitorApi, path: str, authorization: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": authorization} if authorization else {}
    try:
        asked = urllib.request.Request(f"http://127.0.0.1:{door.port}{path}", headers=headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_on_loopback_without_keys_everything_is_open(door: MonitorApi) -> None:
    assert get(door, "/healthz") == (200, "ok\n")
    assert get(door, "/metrics") == (200, "one 1\n")
    assert get(door, "/") == (200, "all windows")
    assert get(door, "/reports") == (200, "all windows")
    assert get(door, f"/windows/{ID}") == (200, "a window")
    assert get(door, f"/reports/{ID}.html") == (200, "a report")
    assert get(door, "/windows.json?x=1") == (200, "[]")


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/windows/../secret", "/reports/..%2fsecret.html", "/reports/../secret.html", f"/windows/{'f' * 16}"],
)
def test_there_is_nothing_else(door: MonitorApi, path: str) -> None:
    assert get(door, path)[0] == 404


def test_with_keys_each_page_wants_its_own(door: MonitorApi, tmp_path: Path) -> None:
    secrets = {}
    for scope in ("scrape", "look", "chat"):
        secrets[scope], entry = api_keys.create_key(scope, [scope], None, datetime.now(UTC))
        api_keys.add(tmp_path / "keys.json", entry)
    assert get(door, "/healthz")[0] == 200
    assert get(door, "/metrics")[0] == 401
    assert get(door, "/metrics", f"Bearer {secrets['scrape']}")[0] == 200
    assert get(door, "/metrics", f"Bearer {secrets['chat']}")[0] == 403
    assert get(door, "/", f"Bearer {secrets['scrape']}")[0] == 403
    password = base64.b64encode(f"me:{secrets['look']}".encode()).decode()
    assert get(door, "/", f"Basic {password}")[0] == 200
    assert get(door, "/", "Basic !!!")[0] == 401
    assert get(door, "/", "Basic \xe9")[0] == 401


def test_elsewhere_than_on_loopback_a_key_is_always_asked_for(tmp_path: Path) -> None:
    pages = PageProviders(lambda: b"", lambda: "", lambda _name: None, lambda: b"", tmp_path)
    made = MonitorApi("0.0.0.0", 0, tmp_path / "none.json", pages)
    made.open()
    assert get(made, "/metrics")[0] == 401
    assert get(made, "/healthz")[0] == 200
    made.close()


def test_a_port_in_use_is_named(door: MonitorApi, tmp_path: Path) -> None:
    pages = PageProviders(lambda: b"", lambda: "", lambda _name: None, lambda: b"", tmp_path)
    with pytest.raises(InfrastructureError) as caught:
        MonitorApi("127.0.0.1", door.port, tmp_path / "keys.json", pages)
    assert (
        caught.value.message
        == f"monitor.port = {door.port}: 127.0.0.1:{door.port} cannot be used: Address already in use"
    )
    assert caught.value.hint.endswith(f"tunectl monitor monitor.port={door.port + 1}")


def test_health_is_told_beside_half_uploads(door: MonitorApi) -> None:
    with hold_half_uploads(door.port, "/windows.json"):
        assert measure_health(door.port) < 1
