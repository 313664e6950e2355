"""The measurements of bench_serve: one window, shared beginnings, and memory over many requests."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from serve_baselines import Running
from serve_envs import UnavailableError

HERE = Path(__file__).parent
TURNS = 8
"""Requests with a shared and with an own beginning, in turn."""
FACTS = "Order {number}, placed in week {week}, was packed by line {line} and left from gate {gate} on time. "


def bodies(running: Running, count: int, name: str) -> list[dict[str, Any]]:
    """Requests of one system; the same questions for the same ``name``."""
    asked = running.place.material.asks(count, name)
    if not running.peer.ready:
        return [
            {"prompt": ids, "max_tokens": length}
            for ids, length in zip(_ids(running, asked), _lengths(asked), strict=True)
        ]
    return [body(running, [{"role": "user", "content": text}], most) for text, most in asked]


def body(running: Running, messages: list[dict[str, str]], maximum: int) -> dict[str, Any]:
    """One streamed, greedy chat."""
    names = {"transformers": str(running.place.material.endless)}
    given = {"model": names.get(running.peer.environment, "benchmark"), "messages": messages, "max_tokens": maximum}
    return {**given, "stream": True, "temperature": 0.0, **running.peer.extra}


def _lengths(asked: list[tuple[str, int]]) -> list[int]:
    return [most for _, most in asked]


def _ids(running: Running, asked: list[tuple[str, int]]) -> list[list[int]]:
    """Prompts as our server would render them."""
    from tunectl.artifacts.records import Message
    from tunectl.serving.loaded_release import verify_release

    _, prompts = verify_release(running.place.material.releases[running.place.release])
    return [prompts.chat([Message("user", text)]) for text, _ in asked]


def driven(
    running: Running, asked: list[dict[str, Any]], *, clients: int, warm: float, seconds: float
) -> dict[str, Any]:
    """Let a client process drive a system; what it saw.

    Raises  UnavailableError when nothing was answered.
    """
    plan = {
        "transport": "http" if running.peer.ready else "pipe",
        "host": "127.0.0.1",
        "port": running.place.port,
        "path": "/v1/chat/completions",
        "key": running.place.key,
        "clients": clients,
        "warm": warm,
        "seconds": seconds,
        "bodies": asked,
    }
    words = [str(client_python(running)), str(HERE / "serve_client.py")]
    done = subprocess.run(words, input=json.dumps(plan), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"the client failed: {done.stderr[-300:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not result["tokens_per_second"] and result["failed"]:
        raise UnavailableError(result["failed"][0])
    return result


def client_python(running: Running) -> Path:
    """The client runs in our serving environment, whoever it drives."""
    from serve_envs import made

    return made("tunectl", running.place.folder.parents[1]) / "bin/python"


def prefixes(running: Running) -> dict[str, Any]:
    """Milliseconds to the first token behind a system prompt that is known already, and behind one that is new."""
    shared, own = [], []
    running.resume()
    first_token(running, system(0), "How many orders were there?")
    for turn in range(1, TURNS + 1):
        shared.append(first_token(running, system(0), f"Which gate had order {turn}?"))
        own.append(first_token(running, system(turn), f"Which gate had order {turn}?"))
    running.pause()
    known, fresh = statistics.median(shared), statistics.median(own)
    return {
        "system_prompt_letters": len(system(0)),
        "first_token_ms_known": round(known, 1),
        "first_token_ms_new": round(fresh, 1),
        "new_over_known": round(fresh / known, 1),
    }


def system(number: int) -> str:
    """A long system prompt that no other number's begins like."""
    rows = [FACTS.format(number=number * 1000 + row, week=row % 52, line=row % 7, gate=row % 11) for row in range(30)]
    return f"Store {number}. You answer questions about orders. " + "".join(rows)


def first_token(running: Running, text: str, question: str) -> float:
    """Milliseconds to the first token of one request alone."""
    messages = [{"role": "system", "content": text}, {"role": "user", "content": question}]
    result = driven(running, [body(running, messages, 2)], clients=1, warm=0, seconds=60)
    value: float = result["first"]["p50"]
    return value


def memory(running: Running, requests: int) -> dict[str, Any]:
    """Megabytes of our server while it answers many short requests, every tenth of the way."""
    running.resume()
    tenth, told = requests // 10, []
    start = time.monotonic()
    for part in range(10):
        asked = [{**each, "max_tokens": 4} for each in bodies(running, tenth, f"memory/{part}")]
        result = driven(running, asked, clients=32, warm=0, seconds=600)
        told.append(round(running.memory(), 1))
        print(
            f"{(part + 1) * tenth:6} requests, {told[-1]:7.1f} MB, {time.monotonic() - start:5.0f} s {result['failed'] or ''}",
            flush=True,
        )
    return {
        "requests": 10 * tenth,
        "megabytes": told,
        "growth_after_the_first_tenth": round(told[-1] / told[0] - 1, 4),
        "seconds": round(time.monotonic() - start),
    }
