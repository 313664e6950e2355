"""Made-up paths, models and users: none of them may leave a trace in the metrics (fault 7)."""

from __future__ import annotations

import random
import time
from urllib.parse import quote

from serving_process import Server

from scenarios.fault_result import FaultResult
from scenarios.process_inspection import faults_in
from scenarios.raw_http_client import ask

GROWTH, SCRAPE = 300, 0.100
"""Lines of the exposition; seconds of a scrape."""
WORDS = (
    "wp-admin",
    "..%2f..%2fetc%2fpasswd",
    "v1",
    "v2",
    "graphql",
    ".env",
    "arena2",
    "metrics2",
    "%F0%9F%A6%80",
    "%00",
)


async def made_up(server: Server, *, paths: int, models: int) -> FaultResult:
    """``paths`` random paths, with and without a key, and ``models`` random model names."""
    found = FaultResult(
        7, f"{paths} random paths, {models} random models", "/metrics grows by < 300 lines, scraped in < 100 ms"
    )
    chance, log = random.Random(11), server.log.stat().st_size
    before = (await ask(server.port, "/metrics", server.keys["scrape"])).body.count(b"\n")
    key = server.keys["chat"]
    for turn in range(paths):
        path = "/" + "/".join([chance.choice(WORDS), f"{chance.getrandbits(60):x}"][: chance.choice((1, 2))] or ["x"])
        path = f"{path}-{chance.getrandbits(40):x}?{chance.getrandbits(20):x}=1"
        method = chance.choice(("GET", "POST", "DELETE", "BREW"))
        reply = await ask(server.port, path, key if turn % 2 else None, method=method)
        found.require(400 <= reply.status < 500, f"{method} {path} got {reply.status}")
    for _ in range(models):
        name = f"model-{chance.getrandbits(80):x}"
        body = {"model": name, "prompt": "a", "user": name, "max_tokens": 1}
        reply = await ask(server.port, "/v1/completions", key, body)
        found.require(reply.status == 404, f"model {name} got {reply.status}")
        reply = await ask(server.port, f"/v1/models/{quote(name)}", key)
        found.require(reply.status == 404, f"/v1/models/{name} got {reply.status}")
    start = time.monotonic()
    text = (await ask(server.port, "/metrics", server.keys["scrape"])).body
    found.require_at_most("scrape_s", time.monotonic() - start, SCRAPE)
    growth = text.count(b"\n") - before
    found.figures |= {"lines": text.count(b"\n"), "lines_more": growth, "bytes": len(text)}
    found.require(growth < GROWTH, f"/metrics grew by {growth} lines")
    found.figures["log_bytes"] = server.log.stat().st_size - log
    for line in faults_in(server, log):
        found.require(False, line)
    return found
