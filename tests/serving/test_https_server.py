"""`tunectl serve` with `serve.tls`: a real server that speaks HTTPS alone, with the header and the cookies of HTTPS."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest
from serving_process import TypedServer, make_certificate

from tunectl.registry.release_store import ReleaseRegistry

HSTS = "max-age=31536000"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TLS = "serve.tls={certificate_file: cert.pem, private_key_file: key.pem}"


class HttpsServer(TypedServer):
    """A server of a project with a certificate of its own."""

    def __init__(self, folder: Path, store: ReleaseRegistry) -> None:
        folder.mkdir()
        make_certificate(folder)
        self.trusted = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        super().__init__(folder, store.root, TLS)

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.trusted, timeout=60)
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, {name.lower(): value for name, value in reply.headers.items()}, content

    def ready(self) -> tuple[bool, dict[str, object]]:
        try:
            status, _, content = self.ask("GET", "/readyz")
        except OSError:
            return False, {}
        return status == 200, json.loads(content)


@pytest.mark.timeout(500)
def test_a_server_with_a_certificate_accepts_only_https(store: ReleaseRegistry, tmp_path: Path) -> None:
    server = HttpsServer(tmp_path / "project", store)
    try:
        server.until_ready(400)
        told = server.log.read_text()
        assert f"https://127.0.0.1:{server.port}/docs" in told
        key = re.search(r"^key +(tk-\S+) ", told, re.MULTILINE)[1]
        for path in ("/healthz", "/readyz", "/arena", "/docs", "/v1/models", "/made/up"):
            status, headers, _ = server.ask("GET", path, Authorization=f"Bearer {key}")
            assert status == (404 if path == "/made/up" else 200), path
            assert headers["strict-transport-security"] == HSTS, path
        page = server.ask("GET", "/docs", Authorization=f"Bearer {key}")[2].decode()
        assert f'base_url="https://localhost:{server.port}/v1"' in page
        hi = json.dumps(
            {"model": "local_lens", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True}
        )
        sent = {"Authorization": f"Bearer {key}", "Content_Type": "application/json"}
        status, headers, content = server.ask("POST", "/v1/chat/completions", hi, **sent)
        assert (status, headers["strict-transport-security"], b"[DONE]" in content) == (200, HSTS, True)
        form = {**FORM, "Origin": f"https://localhost:{server.port}"}
        status, headers, _ = server.ask("POST", "/arena/enter", urlencode({"key": key, "name": "Ada"}), **form)
        cookie = headers["set-cookie"]
        assert (status, cookie.startswith("__Host-tunectl_arena=")) == (303, True)
        assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert server.ask("POST", "/arena/new", "", **form, Cookie=cookie.partition(";")[0])[0] == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            server.call("/healthz", key=None)  # plain HTTP
        stranger = http.client.HTTPSConnection("localhost", server.port, timeout=60)
        with pytest.raises(ssl.SSLError):
            stranger.request("GET", "/healthz")  # nobody vouches for this certificate
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"localhost:{server.port}", "-tls1_1"], input=b"", capture_output=True
        )
        assert done.returncode != 0, "an old version of TLS is spoken"
    finally:
        assert server.stop(seconds=90) == 0
