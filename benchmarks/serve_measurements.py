"""The measurements of bench_serve: one window, shared beginnings, and memory over many requests."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from serve_baselines import RunningSystem
from serve_envs import UnavailableError, install

HERE = Path(__file__).parent
TURNS = 8
"""Requests with a shared and with an own beginning, in turn."""
SHORTEST, LONGEST, LONG_PROMPT = 16, 256, 2000
"""Tokens of an answer of the open part, uniform on a logarithmic scale, and of its long prompts."""
GRACE = 30.0
"""Seconds after the last arrival in which answers may still end."""
FACTS = "Order {number}, placed in week {week}, was packed by line {line} and left from gate {gate} on time. "


def bodies(running: RunningSystem, count: int, name: str) -> list[dict[str, Any]]:
    """Requests of one system; the same questions for the same ``name``."""
    texts = running.setup.fixtures.make_prompts(count, name)
    if not running.peer.ready:
        return [{"prompt": prompt_ids(running, text), "max_tokens": length} for text, length in texts]
    return [body(running, [{"role": "user", "content": text}], most) for text, most in texts]


def body(running: RunningSystem, messages: list[dict[str, str]], maximum: int) -> dict[str, Any]:
    """One streamed, greedy chat."""
    names = {"transformers": str(running.setup.fixtures.endless)}
    request = {"model": names.get(running.peer.environment, "benchmark"), "messages": messages, "max_tokens": maximum}
    return {**request, "stream": True, "temperature": 0.0, **running.peer.extra}


def prompt_ids(running: RunningSystem, text: str) -> list[int]:
    """A prompt as our server would render it."""
    from tunectl.artifacts.records import Message

    return list(_renderer(running.setup.fixtures.releases[running.setup.release]).chat([Message("user", text)]))


def _count_prompt(running: RunningSystem, request: dict[str, Any]) -> int:
    """Tokens of a prompt, for systems that do not say: the model has one tokenizer, wherever it runs."""
    if "prompt" in request:
        return len(request["prompt"])
    from tunectl.artifacts.records import Message

    renderer = _renderer(next(iter(running.setup.fixtures.releases.values())))
    return len(renderer.chat([Message(each["role"], each["content"]) for each in request["messages"]]))


@lru_cache(maxsize=4)
def _renderer(release: Path) -> Any:
    from tunectl.serving.loaded_release import verify_release

    return verify_release(release)[1]


def open_bodies(running: RunningSystem, count: int, name: str) -> list[dict[str, Any]]:
    """Requests of the open part: sampled answers of mixed lengths, every tenth prompt long; the same for the same ``name``."""
    draw = random.Random(name)
    texts = running.setup.fixtures.make_prompts(count, name)
    prompts = [long_prompt(running, draw) if number % 10 == 9 else text for number, (text, _) in enumerate(texts)]
    result = []
    for text in prompts:
        most = round(math.exp(draw.uniform(math.log(SHORTEST), math.log(LONGEST))))
        sampling = {"temperature": 0.8, "top_p": 0.95, "seed": draw.randrange(2**31)}
        if running.peer.environment == "vllm":  # its CPU build dies of a seed whose prompt is read in several steps
            del sampling["seed"]
        if running.peer.ready:
            result.append({**body(running, [{"role": "user", "content": text}], most), **sampling})
        else:
            result.append({"prompt": prompt_ids(running, text), "max_tokens": most, **sampling})
    return result


def long_prompt(running: RunningSystem, draw: random.Random) -> str:
    """A text of about ``LONG_PROMPT`` tokens that no other one begins like."""
    rows = [f"List {draw.randrange(10**9)}. "]
    tokens = next(iter(running.setup.fixtures.releases.values()))
    each = len(_renderer(tokens).tokenizer.ids(FACTS.format(number=1000, week=10, line=3, gate=4)))
    rows += [
        FACTS.format(number=draw.randrange(10**4), week=row % 52, line=row % 7, gate=row % 11)
        for row in range(LONG_PROMPT // each)
    ]
    return "".join([*rows, "Which order left last?"])


def open_driven(running: RunningSystem, rate: float, seconds: float, limit: float, name: str) -> dict[str, Any]:
    """Let requests arrive at random (Poisson) at ``rate`` a second; the same times for the same ``name``.

    Raises  UnavailableError when nothing was answered.
    """
    draw, at, arrivals = random.Random(f"arrivals/{name}"), 0.0, []
    while (at := at + draw.expovariate(rate)) < seconds:
        arrivals.append(round(at, 4))
    arrivals = arrivals or [0.1]
    plan = {"arrivals": arrivals, "limit": limit, "grace": GRACE}
    measured = _ask_client(running, {**plan, "bodies": open_bodies(running, len(arrivals), name)})
    if not measured["finished"] and measured["failed"]:
        raise UnavailableError(measured["failed"][0])
    return measured


def burst(running: RunningSystem, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """Send requests all at once; what the client saw."""
    plan = {"arrivals": [0.0] * len(bodies), "limit": 600.0, "grace": 600.0, "bodies": bodies}
    measured = _ask_client(running, plan)
    if measured["failed"]:
        raise UnavailableError(measured["failed"][0])
    return measured


def drive(
    running: RunningSystem,
    bodies: list[dict[str, Any]],
    *,
    clients: int,
    warm: float,
    seconds: float,
    requests: int = 0,
    longest: float = 600.0,
) -> dict[str, Any]:
    """Let a client process drive a system for ``seconds``, and on until ``requests`` have had a token; what it saw.

    Raises  UnavailableError when nothing was answered.
    """
    plan = {"clients": clients, "warm": warm, "seconds": seconds, "requests": requests, "longest": longest}
    result = _ask_client(running, {**plan, "bodies": bodies})
    if not result["tokens_per_second"] and result["failed"]:
        raise UnavailableError(result["failed"][0])
    return result


def _ask_client(running: RunningSystem, plan: dict[str, Any]) -> dict[str, Any]:
    address = {
        "transport": "http" if running.peer.ready else "pipe",
        "host": "127.0.0.1",
        "port": running.setup.port,
        "path": "/v1/chat/completions",
        "key": running.setup.key,
    }
    sizes = [_count_prompt(running, each) for each in plan["bodies"]]
    words = [str(client_python(running)), str(HERE / "serve_client.py")]
    process = subprocess.run(
        words,
        input=json.dumps({**address, **plan, "prompt_tokens": sizes}),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise UnavailableError(f"the client failed: {process.stderr[-300:]}")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def client_python(running: RunningSystem) -> Path:
    """The client runs in our serving environment, whoever it drives."""
    if running.setup.fixtures.quick:
        return Path(sys.executable)
    return install("tunectl", running.setup.folder.parents[1]) / "bin/python"


def prefixes(running: RunningSystem) -> dict[str, Any]:
    """Milliseconds to the first token behind a system prompt that is known already, and behind one that is new."""
    shared, own = [], []
    running.resume()
    first_token(running, system(0), "How many orders were there?")
    for turn in range(1, TURNS + 1):
        shared.append(first_token(running, system(0), f"Which gate had order {turn}?"))
        own.append(first_token(running, system(turn), f"Which gate had order {turn}?"))
    running.pause()
    warm, cold = statistics.median(shared), statistics.median(own)
    return {
        "system_prompt_letters": len(system(0)),
        "first_token_ms_known": round(warm, 1),
        "first_token_ms_new": round(cold, 1),
        "new_over_known": round(cold / warm, 1),
    }


def system(number: int) -> str:
    """A long system prompt that no other number's begins like."""
    rows = [FACTS.format(number=number * 1000 + row, week=row % 52, line=row % 7, gate=row % 11) for row in range(30)]
    return f"Store {number}. You answer questions about orders. " + "".join(rows)


def first_token(running: RunningSystem, text: str, question: str) -> float:
    """Milliseconds to the first token of one request alone."""
    messages = [{"role": "system", "content": text}, {"role": "user", "content": question}]
    result = drive(running, [body(running, messages, 2)], clients=1, warm=0, seconds=60)
    value: float = result["first"]["p50"]
    return value


def memory(running: RunningSystem, requests: int) -> dict[str, Any]:
    """Megabytes of our server while it answers many short requests, every tenth of the way."""
    running.resume()
    tenth, megabytes = requests // 10, []
    start = time.monotonic()
    for part in range(10):
        payloads = [{**each, "max_tokens": 4} for each in bodies(running, tenth, f"memory/{part}")]
        result = drive(running, payloads, clients=32, warm=0, seconds=600)
        megabytes.append(round(running.memory(), 1))
        print(
            f"{(part + 1) * tenth:6} requests, {megabytes[-1]:7.1f} MB, {time.monotonic() - start:5.0f} s {result['failed'] or ''}",
            flush=True,
        )
    return {
        "requests": 10 * tenth,
        "megabytes": megabytes,
        "growth_after_the_first_tenth": round(megabytes[-1] / megabytes[0] - 1, 4),
        "seconds": round(time.monotonic() - start),
    }
