"""Who gets in, and what a hostile request gets: always a 4xx in OpenAI's shape, never a trace."""

from __future__ import annotations

import json
import random

import pytest
from serving_process import Server

ROUTES = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/feedback",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/",
    "/docs.json",
    "/schema.json",
    "/made/up",
]


def fault(body: bytes) -> dict:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in error["message"]
    return error


def test_without_a_key_only_health_answers(server: Server) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert server.call(path, key=None)[0] == 200
    for path in ROUTES:
        for raw in (None, b"{}"):
            status, headers, body = server.call(path, key=None, raw=raw)
            assert status == 401, path
            assert "www-authenticate" in headers
            fault(body)


def test_scopes(server: Server) -> None:
    assert server.call("/metrics")[0] == 403
    assert server.call("/v1/models", key=server.keys["scrape"])[0] == 403
    assert server.call("/v1/feedback", {}, key=server.keys["chat"])[0] == 403
    assert server.call("/metrics", key=server.keys["admin"])[0] == 200
    assert server.call("/docs", key=server.keys["scrape"])[0] == 200
    document = json.loads(server.call("/openapi.json")[2])
    assert set(document["paths"]) >= {"/v1/chat/completions", "/v1/feedback", "/readyz"}


@pytest.mark.parametrize(
    ("raw", "kind", "status"),
    [
        (b"\x80\x04\x95", "application/vnd.bentoml+pickle", 415),
        (b"[" * 200_000, "application/json", 400),
        (b'{"model": "shop", "messages": [{"role": "user", "content": "\xff\xfe"}]}', "application/json", 400),
        (b"x" * 1_000_001, "application/json", 413),
        (b"", "application/json", 400),
        (b'{"model": "shop", "messages": [{"role": "user", "content": "\\ud800"}]}', "application/json", 400),
        (
            b'{"model": "shop", "messages": [{"role": "user", "content": "hi"}], "metadata": {"session": "\\u0000"}, "max_tokens": 1}',
            "application/json",
            200,
        ),
    ],
)
def test_hostile_bodies(server: Server, raw: bytes, kind: str, status: int) -> None:
    found, _, body = server.call("/v1/chat/completions", raw=raw, headers={"Content-Type": kind})
    assert found == status, body[:300]
    if status != 200:
        fault(body)


def test_wrong_methods_and_paths(server: Server) -> None:
    assert server.call("/v1/chat/completions")[0] == 405
    assert server.call("/v1/models", {})[0] == 405
    assert server.call("/v1/models/nothing")[0] == 404


def test_made_up_paths_and_models_add_nothing_to_the_metrics(server: Server) -> None:
    before = set(server.metrics())
    for _ in range(50):
        name = f"{random.getrandbits(40):x}"
        assert server.call(f"/{name}")[0] == 404
        assert server.call("/v1/completions", {"model": name, "prompt": "a"})[0] == 404
    assert set(server.metrics()) == before


def test_cors_is_off(server: Server) -> None:
    _, headers, _ = server.call("/v1/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in headers


def test_a_key_over_its_rate_limit_gets_retry_after(server: Server) -> None:
    slow = server.key("hurried", ["chat"], per_minute=1)
    import time

    time.sleep(1.2)  # the file of keys is looked at once a second
    assert server.call("/v1/models", key=slow)[0] == 200
    status, headers, body = server.call("/v1/models", key=slow)
    assert status == 429
    assert 1 <= int(headers["retry-after"]) <= 60
    assert fault(body)["code"] == "rate_limit"
