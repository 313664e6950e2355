"""Personal data in everything that can be sent: afterwards it is nowhere (fault 13)."""

from __future__ import annotations

import base64
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from serving_process import Server

from scenarios.fault_result import FaultResult
from scenarios.load_patterns import CHAT, chat
from scenarios.raw_http_client import Reply, ask, request, send


def canary(chance: random.Random) -> dict[str, str]:
    """One made-up person, in kinds that no honest text of this test holds; no finder knows the nick, which only names who asks."""
    number = "".join(str(chance.randrange(10)) for _ in range(8))
    name = f"zq{chance.getrandbits(40):x}"
    return {
        "email": f"{name}@canary-{number}.example.com",
        "card": _luhn(f"4539{chance.randrange(10**11):011d}"),
        "iban": _iban(f"{chance.randrange(10**18):018d}"),
        "ip": f"203.0.113.{chance.randrange(1, 255)}",
        "phone": f"+1 415 555 {chance.randrange(100, 200):04d}",
        "url": f"https://{name}:pw{number}@db.example.org/x",
        "nick": f"nq{chance.getrandbits(64):x}",
    }


def _luhn(digits: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 - place % 2)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


def _iban(account: str) -> str:
    return f"DE{98 - int(account + '131400') % 97:02d}{account}"


async def canaries(server: Server, folder: Path, count: int) -> FaultResult:
    """Send ``count`` people's data in prompts, users, metadata, models, paths, headers, feedback and broken requests.

    ``folder`` is all that the server writes to. Looked for in every file of it, in the metrics, and in an export.
    """
    found = FaultResult(
        13,
        f"{count} people's data, some twenty ways each",
        "absent from logs, metrics, inference log and its export, and the arena's judgments",
    )
    chance, spelled = random.Random(3), list[str]()
    cookie = await _sign_in(server)  # once: the wrong keys below use up the tries of this address
    for _ in range(count):
        person = canary(chance)
        spelled += [
            person["email"],
            person["card"],
            person["iban"],
            person["phone"],
            person["url"].split("//")[1].split("@")[0],
            person["nick"],
        ]
        await _send(server, person)
        await _arena(server, person, cookie, found)
    metrics = (await ask(server.port, "/metrics", server.keys["scrape"])).body
    export = await _export(server)
    found.require(b"EMAIL" in export, "the export shows no placeholders: nothing was kept")
    judged = b"".join(file.read_bytes() for file in folder.glob("judgments/**/*") if file.is_file())
    found.require(b"[EMAIL_1]" in judged, "the arena's judgments show no placeholders: nothing was kept")
    places = {"metrics": metrics, "export": export}
    places |= {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    found.figures |= {"canaries": len(spelled), "places": len(places), "bytes": sum(map(len, places.values()))}
    for place, data in places.items():
        for text in spelled:
            shapes = (text, quote(text), base64.b64encode(text.encode()).decode().rstrip("="))
            hit = next((shape for shape in shapes if shape.encode() in data), None)
            found.require(hit is None, f"{place} holds {hit}")
    return found


async def _send(server: Server, person: dict[str, str]) -> None:
    key, everything, nick = server.keys["admin"], _everything(person), person["nick"]
    said: dict[str, Any] = {"messages": [{"role": "user", "content": f"Write to me: {everything}", "name": nick}]}
    reply = await ask(
        server.port,
        CHAT,
        key,
        chat(
            1,
            stream=False,
            **said,
            user=person["email"],
            metadata={"session": nick, "note": everything, person["email"]: "1"},
            safety_identifier=nick,
            prompt_cache_key=nick,
        ),
    )
    name = msgspec.json.decode(reply.body)["id"]
    made_up = {person["email"]: everything, "id": {"to": everything}, "object": [everything], "created": everything}
    await ask(server.port, CHAT, key, chat(1, stream=False, user=nick, **made_up))
    await ask(
        server.port, "/v1/completions", key, {"model": "shop", "prompt": [everything], "max_tokens": 1, "logprobs": 1}
    )
    await ask(
        server.port,
        "/v1/completions",
        key,
        {"model": "shop", "prompt": everything, "max_tokens": 1, "stop": [person["email"]]},
    )
    tools = [{"type": "function", "function": {"name": "f", "description": everything}}]
    await ask(server.port, CHAT, key, chat(1, tools=tools, stream=True))
    other = {"other": person["email"], "choice": "first"}
    opinions = (("edit", everything), ("click", person["email"]), ("thumb", everything), ("preference", other))
    for kind, value in (*opinions, (everything, 1)):
        body = {"inference_id": name, "kind": kind, "value": value, "annotator": person["email"]}
        await ask(server.port, "/v1/feedback", key, body)
    own = {"inference_id": name, "kind": "thumb", "value": "up", "annotator": nick, "id": person["email"]}
    await ask(server.port, "/v1/feedback", key, own)
    await ask(server.port, "/v1/feedback", key, {"inference_id": person["email"], "kind": "thumb", "value": "up"})
    await ask(server.port, CHAT, key, chat(1, model=person["email"]))
    await ask(server.port, f"/{quote(everything)}", None)
    await ask(server.port, f"/v1/models/{quote(person['email'])}?q={quote(everything)}", key)
    await ask(server.port, CHAT, person["email"], chat(1), headers=f"X-Forwarded-For: {person['email']}")
    await ask(server.port, CHAT, key, f'{{"model": "shop", "messages": "{everything}"'.encode())
    await ask(server.port, CHAT, key, chat(10**5, messages=[{"role": "robot", "content": everything}]))
    form = f"name={quote(person['email'])}&key={quote(everything)}&text={quote(everything)}".encode()
    for path in ("/arena/enter", "/arena/ask"):
        kind = "Content-Type: application/x-www-form-urlencoded"
        await ask(server.port, path, None, form, headers=f"{kind}\r\nOrigin: http://localhost")
    await send(server.port, f"GET /{person['email']} NONSENSE\r\n\r\n".encode())
    await send(server.port, request(CHAT, None, chat(1), headers=f"Authorization: Basic {person['email']}"))


def _everything(person: dict[str, str]) -> str:
    return ", ".join(value for kind, value in person.items() if kind != "nick")


async def _sign_in(server: Server) -> str:
    """Sign in to the arena; returns the cookie of the session."""
    form = urlencode({"name": "Ann", "key": server.keys["admin"]}).encode()
    return (await _post(server, "enter", form)).headers.get("set-cookie", "").split(";")[0]


async def _post(server: Server, path: str, form: bytes, cookie: str = "") -> Reply:
    headers = f"Content-Type: application/x-www-form-urlencoded\r\nOrigin: http://localhost\r\nCookie: {cookie}"
    return await ask(server.port, f"/arena/{path}", None, form, headers=headers)


async def _arena(server: Server, person: dict[str, str], cookie: str, found: FaultResult) -> None:
    """Begin a conversation, ask, choose, and write the better answer."""

    async def post(path: str, **fields: str) -> Reply:
        return await _post(server, path, urlencode(fields).encode(), cookie)

    await post("new")
    page = (await post("ask", text=f"I am {_everything(person)}")).body.decode()
    showing = re.search(r'name="showing" value="(\w+)"', page)
    found.require(showing is not None, f"the arena did not answer: {page[:200]}")
    if showing:
        chosen = await post("said", showing=showing[1], choice="left", edit=f"Dear {_everything(person)}")
        found.require(
            chosen.status == 200 and b"trouble" not in chosen.body, f"the arena did not keep it: {chosen.status}"
        )


async def _export(server: Server) -> bytes:
    """Everything that ``tunectl log export`` would hand on to a training set."""
    import asyncio

    code = (
        "import json,sys\nfrom pathlib import Path\nimport msgspec\nfrom tunectl.backends.storage import inference_log_sql\n"
        "with inference_log_sql.open_log(sys.argv[1], Path()) as store:\n"
        "    rows = list(store.inferences(erased=True))\n"
        "    said = store.feedback_of([one.id for one in rows])\n"
        "    sys.stdout.buffer.write(msgspec.json.encode([rows, said]))\n"
    )
    url = f"sqlite:///{server.folder}/.tunectl/inference_log/inference_log.sqlite"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, url], capture_output=True, check=True, cwd=server.folder
    )
    return done.stdout
