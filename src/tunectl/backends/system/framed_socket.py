"""Messages between our processes over a socket: msgpack, after its length in four bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

_ENCODE = msgspec.msgpack.Encoder().encode


def encode_frame(message: Any) -> bytes:
    """Return ``message`` as msgpack after its length in four bytes."""
    body = _ENCODE(message)
    return struct.pack("<I", len(body)) + body


def read_frames(connection: socket.socket) -> Iterator[bytes]:
    """Yield the msgpack of each message until the other end closes the socket."""
    with connection.makefile("rb", buffering=1 << 16) as stream:
        while len(head := stream.read(4)) == 4:
            (size,) = struct.unpack("<I", head)
            body = stream.read(size)
            if len(body) < size:
                return
            yield body
