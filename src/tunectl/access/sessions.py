"""Sessions of people on pages: random tokens in cookies, tied to the key that opened them. A store has only the hash of each token.

A session ends after ``MAX_AGE_SECONDS``, when its key no longer opens the page, and when its key has more than
``MAX_PER_KEY`` of them: the oldest goes, of that key and of no other.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
MAX_AGE_SECONDS: Final = 12 * 3600
MAX_PER_KEY: Final = 20
MAX_SESSIONS: Final = 1000
HOST_PREFIX: Final = "__Host-"
"""Prefix of cookies that browsers accept over HTTPS only, and for this host only."""


@dataclass(slots=True)
class SessionEntry(Generic[T]):
    """One session: the key that opened it, its begin in monotonic seconds, and its value."""

    owner: str
    began: float
    value: T


class SessionStore(Generic[T]):
    """Sessions of the people on one page: a value and a key by a random token."""

    def __init__(self, verify: Callable[[str], bool]) -> None:
        """``verify`` returns whether a key is still accepted."""
        self._verify = verify
        self._entries: OrderedDict[str, SessionEntry[T]] = OrderedDict()
        """Sessions by the hash of their token, the least recently used first."""

    def create(self, key: str, value: T) -> str:
        """Create a session with ``value``, tied to ``key``, and return its token."""
        own = [name for name, entry in self._entries.items() if entry.owner == key]
        for name in own[: max(0, len(own) - MAX_PER_KEY + 1)]:
            del self._entries[name]
        token = secrets.token_urlsafe(32)
        self._entries[_hash_token(token)] = SessionEntry(key, monotonic(), value)
        if len(self._entries) > MAX_SESSIONS:
            self._entries.popitem(last=False)
        self._note_change()
        return token

    def find(self, token: str) -> T | None:
        """Return the value of the session ``token``; None where it has ended or is unknown."""
        name = _hash_token(token)
        entry = self._entries.get(name)
        if entry is None:
            return None
        if monotonic() - entry.began > MAX_AGE_SECONDS or not self._verify(entry.owner):
            del self._entries[name]
            self._note_change()
            return None
        self._entries.move_to_end(name)
        return entry.value

    def remove(self, token: str) -> None:
        """End the session ``token``."""
        if self._entries.pop(_hash_token(token), None) is not None:
            self._note_change()

    def _note_change(self) -> None:
        """Do nothing; a store that keeps its sessions in a file writes it here."""


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def is_https(scheme: str, headers: Mapping[str, str]) -> bool:
    """Return whether a browser reached the page over HTTPS: by the connection, by the headers of a proxy, or by the form's own origin.

    A client that forges one of these headers only makes its own cookie stricter.
    """
    proxy_scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (scheme, proxy_scheme) or headers.get("origin", "").startswith("https://")


def set_cookie(response: Any, name: str, value: str, *, https: bool, max_age: int = MAX_AGE_SECONDS) -> None:
    """Set a cookie (HttpOnly, SameSite=Strict) on a response; over HTTPS it is Secure and its name has the prefix ``__Host-``. ``max_age``: seconds."""
    response.set_cookie(
        HOST_PREFIX + name if https else name,
        value,
        max_age=max_age,
        httponly=True,
        samesite="strict",
        path="/",
        secure=https,
    )


def read_cookie(cookies: Mapping[str, str], name: str, *, https: bool) -> str:
    """Return the value of a cookie that ``set_cookie`` set; empty without one.

    Over HTTPS only the ``__Host-`` cookie is read: another host of the same domain could set one without that prefix (session fixation).
    """
    return cookies.get(HOST_PREFIX + name) or ("" if https else cookies.get(name, ""))


def delete_cookie(response: Any, name: str) -> None:
    """Delete a cookie that ``set_cookie`` set, with and without the prefix ``__Host-``."""
    for full in (HOST_PREFIX + name, name):
        response.delete_cookie(full, path="/", secure=full != name, httponly=True, samesite="strict")
