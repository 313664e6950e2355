"""HTTPS by the server itself: files, words, and the header that browsers keep."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tunectl.access.guard import ServiceGuard
from tunectl.access.guard_middleware import GuardMiddleware
from tunectl.config.schema.serve import TlsConfig
from tunectl.core.errors import UsageError
from tunectl.serving.http_io import RequestContext
from tunectl.serving.server_settings import build_tls_arguments


class Settings:
    """The part of the section serve that is looked at."""

    def __init__(self, tls: TlsConfig | None) -> None:
        self.tls = tls


def make_certificate(folder: Path, name: str = "") -> None:
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]
    out = ["-keyout", str(folder / f"{name}key.pem"), "-out", str(folder / f"{name}cert.pem")]
    subprocess.run(["openssl", *words, *out], check=True, capture_output=True)


def test_the_words_for_the_server(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    tls = TlsConfig(certificate_file="cert.pem", private_key_file="key.pem")
    assert build_tls_arguments(Settings(tls), tmp_path) == [  # type: ignore[arg-type]
        "--ssl-certfile",
        str(tmp_path / "cert.pem"),
        "--ssl-keyfile",
        str(tmp_path / "key.pem"),
    ]
    assert build_tls_arguments(Settings(None), tmp_path) == []  # type: ignore[arg-type]


def test_files_that_are_no_certificate_and_its_key(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    make_certificate(tmp_path, "other")
    (tmp_path / "text.pem").write_text("no certificate")
    for certificate, key in (("absent.pem", "key.pem"), ("text.pem", "key.pem"), ("cert.pem", "otherkey.pem")):
        tls = TlsConfig(certificate_file=certificate, private_key_file=key)
        with pytest.raises(UsageError) as caught:
            build_tls_arguments(Settings(tls), tmp_path)  # type: ignore[arg-type]
        assert f"serve.tls: {tmp_path / certificate} and {tmp_path / key} cannot be used" in caught.value.message


def build_scope(scheme: str, headers: dict[str, str]) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in {"host": "h", **headers}.items()]
    return {"type": "http", "method": "GET", "path": "/", "scheme": scheme, "headers": pairs}


CASES = [("https", {}, True), ("http", {}, False), ("http", {"x-forwarded-proto": "https"}, True)]


@pytest.mark.parametrize(("scheme", "headers", "found"), CASES)
def test_over_https_browsers_are_told_to_stay_there(scheme: str, headers: dict[str, str], found: bool) -> None:
    expected = [(b"strict-transport-security", b"max-age=31536000")] if found else []
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def answer(_scope: Any, _receive: Any, reply: Any) -> None:
        await reply({"type": "http.response.start", "status": 200, "headers": []})

    async def ask() -> None:
        guarded = GuardMiddleware(answer, ServiceGuard("annotate", lambda *_: None, lambda: None, "nothing"))
        await guarded(build_scope(scheme, headers), receive, send)
        await RequestContext(build_scope(scheme, headers), receive, send).reply(200, b"ok")

    asyncio.run(ask())
    starts = [event for event in sent if event["type"] == "http.response.start"]
    assert len(starts) == 2
    for event in starts:
        assert [pair for pair in event["headers"] if pair[0] == b"strict-transport-security"] == expected
