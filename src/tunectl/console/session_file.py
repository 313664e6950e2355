"""Sessions that outlive a killed console: a file with the hash of each token and of its key, and when the session ends.

The file has the mode 0600 and appears whole or not at all. With its content alone nobody can sign in: a cookie is the token, not its hash.
Every session is checked against the keys of now before it is used, so a key that was revoked in between opens nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time

from msgspec import Struct

from tunectl.access.sessions import MAX_AGE_SECONDS, SessionEntry, SessionStore
from tunectl.artifacts import atomic_io, private_files
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError


class SavedSession(Struct, frozen=True):
    """One session in the file; it has neither token nor key."""

    token_sha256: str
    key_sha256: str
    """Hash of the key that opened it; empty for a link."""
    expires_at: float
    """Seconds since 1970."""


class SavedSessions(SessionStore[str]):
    """Sessions whose value is the hash of their key; from ``open_file`` on they are kept in a file."""

    def __init__(self, verify: Callable[[str], bool]) -> None:
        """``verify`` returns whether the key with a hash is still accepted; the hash is empty for a link."""
        super().__init__(verify)
        self._path: Path | None = None

    def open_file(self, path: Path) -> None:
        """Take over the valid sessions of ``path``, and keep all of them there; what cannot be read is replaced."""
        for row in _read(path):
            left = row.expires_at - time()
            if 0 < left <= MAX_AGE_SECONDS and self._verify(row.key_sha256):
                began = monotonic() - (MAX_AGE_SECONDS - left)
                self._entries[row.token_sha256] = SessionEntry(row.key_sha256, began, row.key_sha256)
        self._path = path
        self._note_change()

    def close_file(self) -> None:
        """Delete the file; the sessions end with this process."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._path = None

    def _note_change(self) -> None:
        if self._path is None:
            return
        ends = time() - monotonic() + MAX_AGE_SECONDS
        rows = [SavedSession(name, entry.owner, ends + entry.began) for name, entry in self._entries.items()]
        try:
            atomic_io.write_json(self._path, rows, private_files.FILE)
        except (TunectlError, OSError) as error:  # a full disk keeps nobody out, and brings no ended session back
            self._path.unlink(missing_ok=True)
            logging_setup.get_logger(__name__).warning("sessions will not outlive this console: %s", error)


def _read(path: Path) -> list[SavedSession]:
    """Return the sessions of a file; none where others could have written it, or it cannot be read."""
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            return []
        rows: list[SavedSession] = atomic_io.read_json(path, list[SavedSession])
    except (TunectlError, OSError):
        return []
    return rows
