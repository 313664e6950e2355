"""The nginx of docs/guides/tls.md, and that of docs/guides/serve.md, in front of real services: certificates, headers, cookies, keys."""

from __future__ import annotations

import http.client
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from serving_process import free_port, make_certificate

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.annotation import annotate_app
from tunectl.annotation.annotate_app import AnnotateAppConfig
from tunectl.backends.web import bounded_http
from tunectl.monitoring.http_api import MonitorApi, PageProviders

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "tls.md"
HSTS = "max-age=31536000"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def start_nginx(folder: Path, text: str) -> subprocess.Popen[bytes]:
    """Start nginx with the blocks of a guide."""
    folders = "".join(
        f"  {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    frame = f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n  access_log off;\n{folders}"
    (folder / "nginx.conf").write_text(f"{frame}{text}}}\n")
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
    return subprocess.Popen([nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"])


class Front:
    """nginx in front of one service."""

    def __init__(self, folder: Path, upstream: int) -> None:
        folder.mkdir()
        make_certificate(folder)
        self.port, self.plain, self._folder = free_port(), free_port(), folder
        block = re.search(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        assert block is not None
        text = block[1].replace("/etc/ssl/tunectl", str(folder)).replace("127.0.0.1:3000", f"127.0.0.1:{upstream}")
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.plain};")
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;")
        self._process = start_nginx(folder, text)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                self.ask("GET", "/healthz")
            except OSError:
                time.sleep(0.1)
            else:
                return
        self.close()
        raise AssertionError((folder / "error.log").read_text())

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
        trusted = ssl.create_default_context(cafile=str(self._folder / "cert.pem"))
        connection = http.client.HTTPSConnection("localhost", self.port, context=trusted, timeout=20)
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, {name.lower(): value for name, value in reply.headers.items()}, content

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    found = {}
    for scope in ("look", "annotate", "chat"):
        found[scope], entry = api_keys.create_key(scope, [scope], None, datetime.now(UTC))
        api_keys.add(tmp_path / "keys.json", entry)
    return found


@pytest.fixture
def monitor(tmp_path: Path, keys: dict[str, str]) -> Iterator[Front]:
    pages = PageProviders(lambda: b"", lambda: "windows", lambda name: None, lambda: b"[]", tmp_path)
    door = MonitorApi("127.0.0.1", 0, tmp_path / "keys.json", pages)
    door.open()
    front = Front(tmp_path / "nginx", door.port)
    yield front
    front.close()
    door.close()


def test_a_page_behind_nginx_needs_a_key_and_says_hsts(monitor: Front, keys: dict[str, str]) -> None:
    status, headers, _ = monitor.ask("GET", "/")
    assert (status, headers["strict-transport-security"]) == (401, HSTS)
    status, headers, content = monitor.ask("GET", "/", Authorization=f"Bearer {keys['look']}")
    assert (status, content, headers["strict-transport-security"]) == (200, b"windows", HSTS)
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert monitor.ask("GET", "/", Authorization=f"Bearer {keys['chat']}")[0] == 403
    plain = http.client.HTTPConnection("127.0.0.1", monitor.plain, timeout=20)
    plain.request("GET", "/", headers={"Host": "localhost"})
    reply = plain.getresponse()
    assert (reply.status, reply.headers["location"]) == (301, "https://localhost/")
    plain.close()


def test_without_keys_a_service_on_this_machine_answers_to_no_proxy(tmp_path: Path) -> None:
    pages = PageProviders(lambda: b"", lambda: "windows", lambda name: None, lambda: b"[]", tmp_path)
    door = MonitorApi("127.0.0.1", 0, tmp_path / "keys.json", pages)
    door.open()
    front = Front(tmp_path / "nginx", door.port)
    assert front.ask("GET", "/")[0] == 401
    front.close()
    door.close()


def test_cookies_behind_nginx_are_of_this_host_and_https_alone(tmp_path: Path, keys: dict[str, str]) -> None:
    empty = SimpleNamespace(
        get_current_task=lambda who: None, progress=lambda who: SimpleNamespace(answered=0, remaining=0, undo=False)
    )
    setup = AnnotateAppConfig("shop", (), KeyStore(tmp_path / "keys.json", 1.0), None, lambda: None)
    listening = bounded_http.listen("127.0.0.1", 0)
    server = bounded_http.build_server(annotate_app.application(empty, setup))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    front = Front(tmp_path / "nginx", listening.getsockname()[1])
    try:
        origin, body = f"https://localhost:{front.port}", urlencode({"key": keys["annotate"], "name": "Ada"})
        status, headers, _ = front.ask("POST", "/enter", body, Origin=origin, **FORM)
        cookie = headers["set-cookie"]
        assert status == 303
        assert cookie.startswith("__Host-tunectl_annotator=")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert front.ask("GET", "/question", Cookie=cookie.partition(";")[0])[0] == 200
        assert front.ask("POST", "/enter", body, Origin="https://evil.example", **FORM)[0] == 403
    finally:
        front.close()
        server.should_exit = True
        thread.join(20)
        listening.close()


class Upstream:
    """A server of the standard library that says its name."""

    def __init__(self, name: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_servers_behind_one_address_share_requests_and_one_that_is_gone_is_left_out(tmp_path: Path) -> None:
    """The nginx of docs/guides/serve.md."""
    block = re.search(r"```nginx\n(.*?)```", GUIDE.with_name("serve.md").read_text(), re.DOTALL)
    assert block is not None
    first, second, port = Upstream("first"), Upstream("second"), free_port()
    text = (
        block[1].replace("127.0.0.1:3000", f"127.0.0.1:{first.port}").replace("listen 8080", f"listen 127.0.0.1:{port}")
    )
    process = start_nginx(tmp_path, text.replace("127.0.0.1:3001", f"127.0.0.1:{second.port}"))

    def ask() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=20) as reply:
            return reply.read().decode()

    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                ask()
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "error.log").read_text()
                time.sleep(0.1)
            else:
                break
        assert {ask() for _ in range(8)} == {"first", "second"}
        first.close()
        assert [ask() for _ in range(6)] == ["second"] * 6
    finally:
        process.terminate()
        process.wait(20)
        second.close()
