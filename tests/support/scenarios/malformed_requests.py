"""Every route without a key, and bodies that nobody should send: always a 4xx, never a trace (fault 10)."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator

from serving_process import Server

from scenarios.fault_result import FaultResult
from scenarios.load_patterns import CHAT, chat
from scenarios.process_inspection import faults_in
from scenarios.raw_http_client import Reply, ask, request, send

OPEN = ("/healthz", "/livez", "/readyz")
PAGE = "/arena"
POSTS = (CHAT, "/v1/completions", "/v1/feedback")
KEYS = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer tk-wrong",
    "Basic !!",
    "Basic \xe9\xe9",
    "Basic OnRr",
    "Bearer \xff" * 99,
    "Digest x",
    "Bearer a b",
)
LARGE = 100_000_000
"""Bytes."""


def new_result(count: int) -> FaultResult:
    return FaultResult(
        10, f"every route without and with a key; {count} hostile bodies", "4xx in OpenAI's shape, no trace, no 500"
    )


def bodies() -> Iterator[tuple[str, bytes, str]]:
    """What it is, the bytes, the content type."""
    hi = b'{"model": "shop", "messages": [{"role": "user", "content": %s}], "prompt": "a", "inference_id": "a", "kind": %s}'
    yield "a pickle", b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", "application/vnd.bentoml+pickle"
    yield "nothing", b"", "application/json"
    yield "deep arrays", b"[" * 100_000 + b"]" * 100_000, "application/json"
    yield "deep objects", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "application/json"
    yield (
        "deep metadata",
        b'{"model":"shop","prompt":"a","metadata":' + b'{"a":' * 100 + b"1" + b"}" * 101,
        "application/json",
    )
    yield "no UTF-8", hi % (b'"\xff\xfe"', b'"\xc3\x28"'), "application/json"
    yield (
        "no UTF-8 in a field that nobody knows",
        b'{"model": "shop", "prompt": "a", "nobody": "\xff"}',
        "application/json",
    )
    yield (
        "a number in a field that nobody knows",
        b'{"model": "shop", "prompt": "a", "nobody": 1e999}',
        "application/json",
    )
    yield "half a surrogate", hi % (b'"\\ud800"', b'"\\udfff"'), "application/json"
    yield "UTF-16", json.dumps({"model": "shop", "prompt": "a"}).encode("utf-16"), "application/json"
    yield "broken off", hi[:40], "application/json"
    yield "two values", b'{"model": "shop"} {"model": "shop"}', "application/json"
    yield "NaN", b'{"model": "shop", "prompt": "a", "temperature": NaN, "inference_id": NaN}', "application/json"
    yield (
        "a huge exponent",
        b'{"model": "shop", "prompt": "a", "temperature": 1e999, "value": 1e999}',
        "application/json",
    )
    yield (
        "a huge number",
        b'{"model": "shop", "prompt": "a", "seed": 1%s, "inference_id": 1}' % (b"0" * 4000),
        "application/json",
    )
    yield "a form", b"model=shop&prompt=a", "application/x-www-form-urlencoded"
    yield "a list", b'[{"model": "shop"}]', "application/json"
    yield "null", b"null", "application/json"
    yield "XML", b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><x>&y;</x>", "text/xml"
    yield "too large", b"x" * 1_100_000, "application/json"
    yield "a prototype", b'{"__proto__": {"model": "shop"}, "constructor": {}, "model": "shop"}', "application/json"


RAW = {
    "no path": b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "CONNECT": b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nConnection: close\r\n\r\n",
    "absolute": b"GET http://a.example/v1/models HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n",
    "no protocol": b"GET /v1/models\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "large headers": b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + b"X-A: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"X-A: a\r\n" * 5000 + b"\r\n",
    "a NUL in a header": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-A: a\x00b\r\nConnection: close\r\n\r\n",
    "two lengths": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
    "length and chunks": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    "a broken chunk": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nZZ\r\n",
    "a negative length": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\nConnection: close\r\n\r\n",
    "traversal": b"GET /arena/assets/..%2f..%2f..%2fetc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a broken cookie": b"GET /arena HTTP/1.1\r\nHost: a\r\nCookie: tunectl_arena=\xff; ;=;\r\nConnection: close\r\n\r\n",
}
"""Requests that are no requests. Whatever is wrong with the protocol itself is refused before our server sees it."""


async def doors(server: Server, found: FaultResult) -> None:
    """Every route of the server's own document, and some that it does not have, with every way to have no key."""
    document = json.loads((await ask(server.port, "/openapi.json", server.keys["chat"])).body)
    known = [(path, [*ways]) for path, ways in document["paths"].items()]
    for path, ways in [*known, *((path, ["get", "post"]) for path in ("/", "/made/up", "/docs.json", "/schema.json"))]:
        free = path in OPEN or path.split("/")[1] == PAGE[1:]
        for way in ways:
            for value in KEYS:
                head = f"Authorization: {value}" if value else ""
                body = b"{}" if way == "post" else None
                reply = await ask(server.port, path, None, body, method=way.upper(), headers=head)
                good = reply.status < 500 if free else reply.status == 401 and bool(reply.error)
                found.require(
                    good or (path == "/readyz" and reply.status == 503),
                    f"{way} {path} with {value[:20]!r}: {reply.status} {reply.body[:80]!r}",
                )
                found.figures["doors"] = found.figures.get("doors", 0) + 1
    for scope in ("feedback", "scrape", "chat"):
        for path in (*POSTS, "/metrics", "/v1/models"):
            needs = {"/v1/feedback": "feedback", "/metrics": "scrape"}.get(path, "chat")
            reply = await ask(server.port, path, server.keys[scope], {} if path in POSTS else None)
            found.require((reply.status == 403) == (scope != needs), f"{path} with scope {scope}: {reply.status}")


async def hostile(server: Server, found: FaultResult, *, mutants: int, large: int = LARGE) -> None:
    """Every hostile body on every route that takes one, requests that are none, and ``mutants`` damaged good ones."""
    log = server.log.stat().st_size
    for path in POSTS:
        key = server.keys["admin"]
        for name, data, kind in bodies():
            reply = await ask(server.port, path, key, data, headers=f"Content-Type: {kind}")
            _refused(found, f"{name} at {path}", reply)
        reply = await ask(server.port, path, key, b" " * large)
        _refused(found, f"{large} bytes at {path}", reply, 413)
    _refused(found, "much without a key", await ask(server.port, CHAT, None, b" " * large), 401)
    for name, data in RAW.items():
        reply = await send(server.port, data)
        found.require(reply.status < 500, f"{name}: {reply.status} {reply.body[:80]!r}")
        found.require(b"root:" not in reply.body, f"{name}: a file of the system came out")
    for data in damaged(mutants):
        reply = await ask(server.port, CHAT, server.keys["chat"], data)
        found.require(reply.status == 200 or 400 <= reply.status < 500, f"{data[:200]!r}: {reply.status}")
        found.require(
            b"Traceback" not in reply.body and b".py" not in reply.body, f"{data[:200]!r}: {reply.body[:100]!r}"
        )
    found.require((await ask(server.port, "/readyz", None)).status == 200, "it is not ready any more")
    for line in faults_in(server, log):
        found.require(False, line)


def _refused(found: FaultResult, name: str, reply: Reply, status: int = 0) -> None:
    found.figures["bodies"] = found.figures.get("bodies", 0) + 1
    right = reply.status == status if status else 400 <= reply.status < 500
    found.require(right and bool(reply.error), f"{name}: {reply.status} {reply.body[:100]!r}")
    found.require(b"Traceback" not in reply.body and b".py" not in reply.body, f"{name}: {reply.body[:100]!r}")


def damaged(count: int) -> Iterator[bytes]:
    """Good requests in which some bytes were swapped, doubled, cut or replaced."""
    chance = random.Random(13)
    more = {
        "stop": ["a"],
        "n": 1,
        "logprobs": True,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "metadata": {"session": "s"},
    }
    for _ in range(count):
        data = bytearray(json.dumps(chat(1, stream=False, **dict(chance.sample([*more.items()], 2)))).encode())
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            way = chance.randrange(4)
            if way == 0:
                data[place] = chance.randrange(256)
            elif way == 1:
                del data[place : place + chance.randint(1, 9)]
            elif way == 2:
                data[place:place] = chance.choice(
                    (b"null", b"[", b"{}", b'"', b"-1", b"1e309", b"\\u0000", b"true", b"\xf0\x9f")
                )
            else:
                other = chance.randrange(len(data))
                data[place], data[other] = data[other], data[place]
        if data:
            yield bytes(data)


async def slow_bodies(server: Server, found: FaultResult, clients: int) -> None:
    """Many that begin a request and do not go on: others are answered all the same."""
    start = request(CHAT, server.keys["chat"], b" " * 500)[:-400]
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(clients)]
    for turn, (_, writer) in enumerate(held):
        writer.write(start if turn % 2 else start[:30])
    reply = await ask(server.port, CHAT, server.keys["chat"], chat(2), seconds=20)
    found.require(reply.streamed, f"beside {clients} half requests a whole one got {reply.status}")
    for _, writer in held:
        writer.transport.abort()
