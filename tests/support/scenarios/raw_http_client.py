"""A client over a plain socket: knows when each part came, can leave in the middle, and sends what no library would."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Reply:
    """One answer; times are seconds from the moment of asking."""

    status: int = 0
    """0: there was none."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    headed: float = 0.0
    first: float = 0.0
    """When the first part of the body came."""
    done: float = 0.0
    whole: bool = False
    """Whether it came to its proper end."""

    @property
    def error(self) -> dict[str, Any]:
        """The inside of OpenAI's error object; empty for anything else."""
        try:
            found = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) and set(found) == {"message", "type", "param", "code"} else {}

    @property
    def events(self) -> list[str]:
        """The data of a stream's events."""
        parts = self.body.decode().split("\n\n")
        return [part.removeprefix("data: ") for part in parts if part.startswith("data: ")]

    @property
    def streamed(self) -> bool:
        """Whether a stream ended as it should."""
        return self.whole and self.body.endswith(b"data: [DONE]\n\n")


def request(path: str, key: str | None, body: Any = None, *, method: str = "", headers: str = "") -> bytes:
    """The bytes of a request; ``body`` is JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None:
        lines += [f"Content-Length: {len(data)}"]
        lines += [] if "content-type" in headers.lower() else ["Content-Type: application/json"]
    return "\r\n".join([*lines, *filter(None, [headers]), "", ""]).encode("latin-1") + data


class Line:
    """A connection with one request on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, since: float) -> None:
        self._reader, self._writer, self._since = reader, writer, since
        self.reply = Reply()
        self._left: int | None = None

    @classmethod
    async def open(cls, port: int, data: bytes, *, receive: int = 0) -> Line:
        """Connect and send; ``receive`` bounds the client's own buffer, in bytes."""
        since = time.monotonic()
        plain = socket.socket()
        plain.setblocking(False)
        if receive:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        try:
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        except OSError:
            plain.close()
            raise
        reader, writer = await asyncio.open_connection(sock=plain, limit=receive or 2**20)
        line = cls(reader, writer, since)
        writer.write(data)
        with suppress(ConnectionError):
            await writer.drain()
        return line

    async def head(self) -> Reply:
        """Read the status and the headers."""
        data = await self._reader.readuntil(b"\r\n\r\n")
        first, *rest = data.decode("latin-1").split("\r\n")
        self.reply.status = int(first.split(" ")[1])
        self.reply.headers = {
            k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in rest if line)
        }
        self.reply.headed = time.monotonic() - self._since
        length = self.reply.headers.get("content-length")
        self._left = None if length is None else int(length)
        return self.reply

    async def part(self) -> bytes:
        """The next part of the body; empty at its end."""
        if self._left is not None:
            part = await self._reader.read(min(self._left, 65536)) if self._left else b""
            self._left -= len(part)
            self.reply.whole = not self._left
        elif (size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)) == 0:
            await self._reader.readuntil(b"\r\n")
            part, self.reply.whole = b"", True
        else:
            part = (await self._reader.readexactly(size + 2))[:-2]
        if part and not self.reply.body:
            self.reply.first = time.monotonic() - self._since
        self.reply.body += part
        return part

    async def rest(self) -> Reply:
        """Everything up to the end, or to where it breaks off."""
        with suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            if not self.reply.status:
                await self.head()
            while await self.part():
                pass
        self.reply.done = time.monotonic() - self._since
        self.leave()
        return self.reply

    def leave(self) -> None:
        """Go away without a word."""
        self._writer.transport.abort()


async def ask(port: int, path: str, key: str | None, body: Any = None, *, seconds: float = 120, **how: Any) -> Reply:
    """One request and its answer, whole or broken off; status 0 where there was no connection or no answer in time."""
    return await send(port, request(path, key, body, **how), seconds=seconds)


async def send(port: int, data: bytes, *, seconds: float = 30) -> Reply:
    """The answer to whatever bytes."""
    try:
        async with asyncio.timeout(seconds):
            line = await Line.open(port, data)
            return await line.rest()
    except (OSError, TimeoutError):
        return Reply()
