"""Sign-in: a link that is printed at the start and works once, or a key of the keys file.

The link carries its token after ``#``, which appears in no log and no Referer; the page sends it by POST, and it works once, within ten
minutes. Whoever can read the project's files finds a further link in ``.tunectl/console/sign_in_link``, which is replaced when used.

Sessions outlive a console that is killed (``session_file``); those of one that is stopped end with it.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import KeyStore, hash_key
from tunectl.access.scopes import SCOPES
from tunectl.artifacts.paths import ProjectPaths
from tunectl.console.session_file import SavedSessions
from tunectl.core import user
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.console import ConsoleConfig

LINK_SECONDS: Final = 600.0
KEY_SECONDS: Final = 1.0
"""Seconds between checks of the keys file: removing a key ends its sessions as fast."""
ALL_SCOPES: Final = frozenset[str](SCOPES) - {"chat", "feedback", "scrape", "acts_for"}
"""Scopes that open something here; the others are the server's."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in person, with the scopes of their key; a sign-in link gives all scopes."""

    name: str
    """Name under which acts are recorded."""
    scopes: frozenset[str]


class SignIn:
    """Creates and checks sign-in links, checks keys, and holds the sessions that were opened with them."""

    def __init__(self, link_file: Path, keys: KeyStore | None, clock: Callable[[], float] = monotonic) -> None:
        """``keys`` None: only links open the console."""
        self._link_file, self._keys, self._clock = link_file, keys, clock
        self._lock = threading.Lock()
        self._tokens: dict[str, float] = {}
        """Time of expiry by token."""
        self._file_token = ""
        self._sessions = SavedSessions(lambda digest: self._identify(digest) is not None)
        """Sessions by cookie; their value is the hash of the key, empty for a link. What a key opens is read at every request."""
        self.address = ""
        """Base address of the console; set once its port is known."""

    def create_link(self) -> str:
        """Return the address of a new sign-in link that works once, within ten minutes."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._tokens[token] = self._clock() + LINK_SECONDS
        return f"{self.address}/enter#{token}"

    def write_link_file(self) -> None:
        """Write a new sign-in link to the link file, which only the owner of the project can read."""
        with self._lock:
            self._file_token = secrets.token_urlsafe(32)
        self._link_file.parent.mkdir(parents=True, exist_ok=True)
        self._link_file.unlink(missing_ok=True)
        handle = os.open(self._link_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(f"{self.address}/enter#{self._file_token}\n")

    def save_sessions(self, port: int) -> None:
        """Go on with the sessions that a killed console on this port left, and keep those of this one in a file.

        A cookie is of one port, so consoles of one project on several ports do not share a file.
        """
        self._sessions.open_file(self._link_file.with_name(f"sessions_{port}.json"))

    def end(self) -> None:
        """Delete the link file and the file of sessions; called when the console is stopped."""
        self._link_file.unlink(missing_ok=True)
        self._sessions.close_file()

    def open_by_link(self, token: str) -> str | None:
        """Open a session for a link's token; return the value of its cookie, or None where ``token`` is not valid."""
        return self._sessions.create("", "") if self._use_token(token) else None

    def open_session(self, secret: str) -> str | None:
        """Open a session for a link's token or a key; return the value of its cookie, or None where ``secret`` is not valid."""
        cookie = self.open_by_link(secret)
        if cookie is not None:
            return cookie
        digest = hash_key(secret) if secret else ""
        return self._sessions.create(digest, digest) if digest and self._identify(digest) else None

    def _use_token(self, secret: str) -> bool:
        with self._lock:
            now = self._clock()
            self._tokens = {token: end for token, end in self._tokens.items() if end > now}
            for token in self._tokens:
                if hmac.compare_digest(token.encode(), secret.encode()):
                    del self._tokens[token]
                    return True
            if not self._file_token or not hmac.compare_digest(self._file_token.encode(), secret.encode()):
                return False
        self.write_link_file()
        return True

    def _identify(self, digest: str) -> Visitor | None:
        """Return the visitor of a session by the hash of its key: that of a link may do all, that of a key what the key may do now."""
        if not digest:
            return Visitor(user.current_user(), ALL_SCOPES)
        if self._keys is None:
            return None
        try:
            key = self._keys.key_by_hash(digest, None, monotonic())
        except ApiError:
            return None
        scopes = ALL_SCOPES if "admin" in key.scopes else ALL_SCOPES & frozenset(map(str, key.scopes))
        return Visitor(key.name, scopes) if scopes else None

    def find(self, cookie: str) -> Visitor | None:
        """Return the visitor of a session cookie; None where the session has ended or is unknown."""
        digest = self._sessions.find(cookie) if cookie else None
        return None if digest is None else self._identify(digest)

    def close_session(self, cookie: str) -> None:
        """End the session of a cookie."""
        self._sessions.remove(cookie)


def locate_link_file(layout: ProjectPaths) -> Path:
    """Return the path of the file with a sign-in link for a further browser."""
    return layout.state_dir / "console" / "sign_in_link"


def open_keys(settings: ConsoleConfig, layout: ProjectPaths) -> KeyStore | None:
    """Return the store of keys that open the console; None where it listens on loopback and has no keys file.

    Raises  UsageError where others can reach it and no key opens it.
    """
    if settings.keys_file is None:
        return None
    path = layout.root / settings.keys_file
    if not path.is_file():
        if not settings.loopback:
            raise UsageError(
                f"console.host = {settings.host}, which others reach, and {path} does not exist",
                hint="make a key first: tunectl serve keys add NAME --scope look",
            )
        return None
    keys = KeyStore(path, KEY_SECONDS)
    keys.load()
    return keys
