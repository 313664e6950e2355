"""A PostgreSQL server of our own on this machine, as tests and benchmarks want one."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def run_postgres() -> Iterator[Postgres | None]:
    """A server of our own until the block ends; None where PostgreSQL is not installed."""
    programs = _find_programs()
    if programs is None:
        yield None
        return
    server = Postgres(programs)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def _find_programs() -> Path | None:
    """The folder of ``initdb``, which Debian keeps out of the path."""
    found = shutil.which("initdb") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None
    )
    return Path(found).resolve().parent if found else None


class Postgres:
    """A PostgreSQL server in a temporary folder, on loopback; never as root."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="tunectl-pg-"))
        self.user = None
        if os.geteuid() == 0:
            known = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in known else "nobody"
            shutil.chown(self.folder, self.user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._call(
            "initdb",
            "-U",
            "tunectl",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
            str(self.folder / "data"),
        )
        self.start()

    def _call(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self.programs / program), *words],
            user=self.user,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        assert done.returncode == 0, done.stdout.decode()

    def start(self) -> None:
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-k", "", "-h", "127.0.0.1"]
        command += ["-c", "recovery_init_sync_method=syncfs"]
        self.log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [*command, "-p", str(self.port)],
            user=self.user,
            cwd=self.folder,
            stdout=self.log,
            stderr=self.log,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        end = time.monotonic() + 200
        while time.monotonic() < end:
            ready = [str(self.programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(ready, stdout=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Stop at once, as a crash would; the server recovers from its log."""
        if self.process.poll() is None:
            self.process.send_signal(3)  # SIGQUIT: immediate shutdown
            self.process.wait(30)
        self.log.close()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stopped until the block ends: other tests find it running, whatever happened in the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def database(self, name: str) -> str:
        """The address of a database without tables; making a new one for every test would write 8 MB each."""
        import psycopg

        address = f"postgresql://tunectl@127.0.0.1:{self.port}"
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                connection.execute(f'CREATE DATABASE "{name}"')
        with psycopg.connect(f"{address}/{name}", autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return f"{address}/{name}"
