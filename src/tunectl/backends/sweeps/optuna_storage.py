"""Storage of Optuna's studies (SQLite or PostgreSQL), and the lock for claiming trials."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunectl.artifacts import lock
from tunectl.backends.storage import postgres_tls
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional, require_installed
from tunectl.core.url_credentials import hide_credentials

SQLITE = "sqlite:///"
DRIVER = "postgresql+psycopg://"
HINT = "check sweep.storage and the variable that sweep.storage_env names, and that the database is up"


def open_storage(url: str, root: Path, heartbeat_seconds: int, missing_beats: int) -> Any:
    """Return Optuna's storage at ``url``; a relative SQLite file is below ``root``.

    A worker that has sent no heartbeat for ``heartbeat_seconds`` * ``missing_beats`` counts as dead.
    Raises  InfrastructureError where it cannot be reached; MissingExtraError.
    """
    optuna = import_optional("optuna", extra="sweep")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    arguments: dict[str, Any] = {}
    if url.startswith(SQLITE):
        file = (root / url.removeprefix(SQLITE)).absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        url = f"{SQLITE}{file}"
        arguments = {"connect_args": {"timeout": 600}}
    else:
        require_installed("psycopg", extra="postgres")
        url = DRIVER + url.partition("://")[2]
        try:
            address = import_optional("sqlalchemy", extra="sweep").make_url(url)
        except ValueError as error:  # a port that is no number; its message may be a part of a password
            raise InfrastructureError("sweep.storage is no address of a database", hint=HINT) from error
        tls = postgres_tls.choose_sslmode(address)
        arguments = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10, **tls}}
    with report_outage(url), _lock_file(url), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs=arguments,
            heartbeat_interval=heartbeat_seconds,
            grace_period=heartbeat_seconds * missing_beats,
        )


@contextmanager
def report_outage(url: str) -> Iterator[None]:
    """Raise an InfrastructureError that names the storage at ``url`` where the block cannot reach or read it."""
    optuna = import_optional("optuna", extra="sweep")
    errors = import_optional("sqlalchemy.exc", extra="sweep")
    try:
        yield
    except (errors.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise InfrastructureError(
            f"sweep.storage {hide_credentials(url).replace(DRIVER, 'postgresql://')} cannot be used: {reason}",
            hint=HINT,
        ) from error


def render_url(storage: Any) -> str:
    """Return the storage's address with its password, for a child process."""
    text: str = storage.engine.url.render_as_string(hide_password=False)
    return text.replace(DRIVER, "postgresql://")


@contextmanager
def lock_storage(storage: Any, name: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock under which workers of sweep ``name`` claim trials; it is released when a process dies.

    ``timeout_seconds``: seconds to wait for the lock of an SQLite storage.
    """
    url = render_url(storage)
    if url.startswith(SQLITE):
        with _lock_file(url, timeout_seconds):
            yield
        return
    key = zlib.crc32(f"tunectl sweep {name}".encode())
    with storage.engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({key})")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({key})")


@contextmanager
def _lock_file(url: str, timeout_seconds: float = 600.0) -> Iterator[None]:
    if not url.startswith(SQLITE):
        yield
        return
    file = Path(url.removeprefix(SQLITE) + ".lock")
    with lock.file_lock(file, "tunectl sweep", busy="another worker holds the sweep", timeout_seconds=timeout_seconds):
        yield
