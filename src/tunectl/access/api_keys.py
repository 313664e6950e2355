"""API keys with scopes and limits. The file holds hashes only; it is read again whenever it changes.

A key is 32 random bytes, so its plain SHA-256 gives nothing away: there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, structs

from tunectl.access.api_errors import ApiError
from tunectl.access.scopes import KeyScope
from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.lock import folder_lock
from tunectl.artifacts.record_format import RecordFormat, rename_keys
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, InfrastructureError, TunectlError, UsageError

PREFIX: Final = "tk-"
KEYS_ENV: Final = "TUNECTL_KEYS"
MODE: Final = 0o640


class ApiKey(Struct, frozen=True):
    """Entry of one key in the keys file; it has the key's hash, not the key."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}(?!\n)$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]
    """SHA-256 of the key, hexadecimal."""
    scopes: list[KeyScope]
    """What the key may do; the scope admin may do everything."""
    per_minute: Annotated[int, Meta(ge=1)] | None
    """Requests per minute, in bursts of up to that many. Null: the default of ``serve.key_limits``."""
    created_at: datetime
    expires_at: datetime | None = None
    """From then on the key is refused. Null: it never expires."""
    enabled: bool = True
    """Whether the key is accepted now."""
    max_concurrency: Annotated[int, Meta(ge=1)] | None = None
    """Requests at once. Null: the default of ``serve.key_limits``."""
    tokens_per_minute: Annotated[int, Meta(ge=1)] | None = None
    """Tokens of prompts and answers per minute. Null: the default of ``serve.key_limits``."""

    def allows(self, scope: KeyScope) -> bool:
        """Return whether the key has ``scope``."""
        return scope in self.scopes or "admin" in self.scopes


class KeyLimits(Struct, frozen=True):
    """Default limits, for keys whose entry has none; None: no limit."""

    per_minute: int | None = None
    max_concurrency: int | None = None
    tokens_per_minute: int | None = None


def find_keys_file(root: Path, keys_file: str) -> Path:
    """Return the path of the keys file: the one that the environment variable TUNECTL_KEYS names, else ``keys_file`` below the project."""
    return root / (os.environ.get(KEYS_ENV) or keys_file)


class _File(Struct, frozen=True):
    keys: list[ApiKey]


def upgrade_keys(record: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a keys file of 0.1 with the key names of 0.2: ``made_at`` becomes ``created_at``."""
    if not isinstance(record.get("keys"), list):
        return record
    renamed = {"made_at": "created_at"}
    return {
        **record,
        "keys": [rename_keys(item, renamed) if isinstance(item, dict) else item for item in record["keys"]],
    }


KEYS_FILE: Final = RecordFormat("file of keys", (upgrade_keys,))


def hash_key(secret: str) -> str:
    """Return the SHA-256, in hexadecimal, under which the file stores a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    name: str, scopes: Sequence[KeyScope], per_minute: int | None, at: datetime, **more: Any
) -> tuple[str, ApiKey]:
    """Return (key, its entry), created ``at`` a time, with ``per_minute`` requests (None: default) and ``more`` fields. The key is stored nowhere."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, ApiKey(name, hash_key(secret), list(scopes), per_minute, at, **more)


def read(path: Path) -> list[ApiKey]:
    """Return the entries of a keys file, in order; none where there is no file.

    Raises  DataError when the file is not a keys file, or has a key name twice; InfrastructureError when it cannot be read.
    """
    try:
        keys = KEYS_FILE.decode(path.read_bytes(), _File, str(path)).keys
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InfrastructureError(
            f"{path} cannot be read: {error.strerror}", hint="the account that runs the server must be able to read it"
        ) from error
    except atomic_io.NOT_JSON as error:
        raise DataError(
            f"{path} is not a file of keys: {error}",
            hint="restore it, or delete it and make new keys: tunectl serve keys add NAME",
        ) from error
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} names the key {twice} twice", hint="open that file and delete one of the two entries")
    return keys


def write(path: Path, entries: Sequence[ApiKey]) -> None:
    """Write the entries of a keys file atomically; only the owner and the group can read it."""
    KEYS_FILE.write(path, _File(list(entries)), MODE)


def add(path: Path, entry: ApiKey) -> None:
    """Add an entry to the keys file.

    Raises  UsageError when the name is taken.
    """
    with folder_lock(path):
        keys = read(path)
        if any(key.name == entry.name for key in keys):
            raise UsageError(
                f"{path}: there is a key {entry.name} already",
                hint=f"choose another name, or: tunectl serve keys remove {entry.name}",
            )
        write(path, [*keys, entry])


def remove(path: Path, name: str) -> None:
    """Remove a key from the keys file; servers that read it refuse the key within a second.

    Raises  UsageError when there is no such key.
    """
    with folder_lock(path):
        write(path, [key for key in _read_with(path, name) if key.name != name])


def set_enabled(path: Path, name: str, *, enabled: bool) -> None:
    """Enable or disable a key in the keys file; servers see it within a second.

    Raises  UsageError when there is no such key.
    """
    with folder_lock(path):
        api_keys = _read_with(path, name)
        write(path, [structs.replace(key, enabled=enabled) if key.name == name else key for key in api_keys])


def _read_with(path: Path, name: str) -> list[ApiKey]:
    keys = read(path)
    if all(key.name != name for key in keys):
        names = ", ".join(key.name for key in keys) or "none"
        raise UsageError(f"{path}: no key {name}; there are: {names}", hint="list them: tunectl serve keys list")
    return keys


@dataclass(slots=True)
class TokenBucket:
    """Token bucket of one limit of a key; it holds at most ``size`` and gains ``size`` per minute."""

    size: int
    """Capacity, and how much is refilled per minute."""
    available: float
    at: float
    """When ``available`` was computed; monotonic seconds."""

    def measure_wait(self, now: float, count: float = 1.0) -> float:
        """Return the seconds from ``now`` (monotonic) until ``count`` are available; a count above ``size`` waits for a full bucket."""
        target = min(count, self.size)
        self.available = min(self.size, self.available + (now - self.at) * self.size / 60)
        self.at = now
        return 0.0 if self.available >= target else (target - self.available) * 60 / self.size

    def acquire(self, now: float, count: float = 1.0) -> float:
        """Take ``count`` at ``now`` (monotonic seconds) and return 0, or return the seconds to wait. More than ``size`` leaves the bucket below 0."""
        wait = self.measure_wait(now, count)
        if not wait:
            self.available -= count
        return wait


@dataclass(slots=True)
class KeyStore:
    """API keys of a running server, and how much of its rate limits each key has used. The keys file is read again when it changes.

    A changed file that is invalid is logged as an error, and the keys read before stay valid.
    """

    path: Path
    every: float
    """Seconds between checks of whether the file has changed."""
    limits: KeyLimits = field(default_factory=KeyLimits)
    """Limits of keys that name none themselves and do not have the scope admin."""
    _keys: dict[str, ApiKey] = field(default_factory=dict)
    _buckets: dict[tuple[str, str], TokenBucket] = field(default_factory=dict)
    _open: Counter[str] = field(default_factory=Counter)
    _stamp: tuple[int, int, int] | None = None
    _checked_at: float = float("-inf")

    def load(self) -> None:
        """Read the keys file when the server starts, and restrict its permissions. Raises  DataError where it is not a valid keys file."""
        private_files.restrict(self.path, MODE)
        self._stamp = _stamp(self.path)
        self._take(read(self.path))
        if not self._keys:
            logging_setup.get_logger(__name__).warning(
                "%s holds no keys, so every request is refused: tunectl serve keys add NAME", self.path
            )

    def key(self, secret: str | None, scope: KeyScope | None, now: float) -> ApiKey:
        """Authenticate the key ``secret`` and return its entry; ``scope`` None: any valid key.

        Reads a changed keys file again; ``now``: monotonic seconds.
        Raises  ApiError: 401 without a key or for an unknown one, 403 without the scope.
        """
        return self.key_by_hash(hash_key(secret) if secret else None, scope, now)

    def key_by_hash(self, digest: str | None, scope: KeyScope | None, now: float) -> ApiKey:
        """Do what ``key`` does, for the hash of a key, which a session keeps in place of the key."""
        if now - self._checked_at >= self.every:
            self._checked_at = now
            self._reload()
        result = self._keys.get(digest) if digest else None
        if result is None:
            text = (
                "that key is not known here; check it, or ask the operator for one"
                if digest
                else "send a key: Authorization: Bearer <key>"
            )
            raise ApiError(text, "authentication_error", code="invalid_api_key")
        reason = explain_refusal(result, datetime.now(UTC))
        if reason is not None:
            raise ApiError(
                f"the key {result.name} {reason}; use another one", "authentication_error", code="invalid_api_key"
            )
        if scope is not None and not result.allows(scope):
            allowed = ", ".join(result.scopes)
            raise ApiError(
                f"the key {result.name} has the scopes {allowed}; this needs {scope}: use a key that has it",
                "permission_error",
                code="scope",
            )
        return result

    def find(self, secret: str, *scopes: KeyScope) -> ApiKey | None:
        """Return the entry of the key ``secret`` if it is valid and has all ``scopes`` now; else None."""
        try:
            return [self.key(secret, scope, time.monotonic()) for scope in scopes or (None,)].pop()
        except ApiError:
            return None

    def opens(self, secret: str, *scopes: KeyScope) -> bool:
        """Return whether the key ``secret`` is valid and has all ``scopes`` now."""
        return self.find(secret, *scopes) is not None

    def consume(self, key: ApiKey, now: float) -> float:
        """Count one request of ``key`` at ``now`` (monotonic seconds); return 0, or the seconds to wait because it made too many."""
        return self._consume("requests", key, self.limit_of(key, "per_minute"), 1, now)

    def consume_tokens(self, key: ApiKey, count: int, now: float) -> float:
        """Count ``count`` tokens of ``key`` at ``now`` (monotonic seconds); return 0, or the seconds to wait because it used too many."""
        return self._consume("tokens", key, self.limit_of(key, "tokens_per_minute"), count, now)

    def _consume(self, kind: str, key: ApiKey, maximum: int | None, count: int, now: float) -> float:
        if maximum is None:
            return 0.0
        bucket = self._buckets.get((kind, key.sha256))
        if bucket is None or bucket.size != maximum:
            bucket = self._buckets[kind, key.sha256] = TokenBucket(maximum, float(maximum), now)
        return bucket.acquire(now, count)

    def limit_of(self, key: ApiKey, name: Literal["per_minute", "max_concurrency", "tokens_per_minute"]) -> int | None:
        """Return a limit of a key: its own, else that of the settings, which does not apply to admins; None: no limit."""
        own: int | None = getattr(key, name)
        default: int | None = getattr(self.limits, name)
        return own if own is not None or "admin" in key.scopes else default

    @contextmanager
    def hold(self, key: ApiKey) -> Iterator[bool]:
        """Hold one of the key's concurrent requests while the block runs; yield False where all of them are in use."""
        most = self.limit_of(key, "max_concurrency")
        if most is not None and self._open[key.sha256] >= most:
            yield False
            return
        self._open[key.sha256] += 1
        try:
            yield True
        finally:
            self._open[key.sha256] -= 1
            if not self._open[key.sha256]:
                del self._open[key.sha256]

    def _reload(self) -> None:
        try:
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return
            entries = read(self.path)
        except (TunectlError, OSError) as error:
            if self._stamp != (0, 0, 0):
                logging_setup.get_logger(__name__).error("the old keys stay: %s", error)
            self._stamp = (0, 0, 0)  # look again next time, say it once
            return
        self._stamp = stamp
        self._take(entries)
        logging_setup.get_logger(__name__).info("%s: %d keys", self.path, len(entries))

    def _take(self, entries: Sequence[ApiKey]) -> None:
        self._keys = {key.sha256: key for key in entries}
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name[1] in self._keys}


def explain_refusal(key: ApiKey, now: datetime) -> str | None:
    """Return why a known key is refused at the time ``now`` (disabled, expired); None where it is accepted."""
    if not key.enabled:
        return "is disabled"
    if key.expires_at is not None and now >= key.expires_at:
        return f"has expired on {key.expires_at:%Y-%m-%d}"
    return None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        result = path.stat()
    except FileNotFoundError:
        return None
    return result.st_ino, result.st_size, result.st_mtime_ns
