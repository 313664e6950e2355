"""A PostgreSQL server elsewhere must show a certificate that somebody vouches for; no server is asked here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tunectl.backends.storage import inference_log_backup, inference_log_schema, postgres_tls


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        ("me@db.example.org/log", {}, "verify-full"),
        ("me@10.0.0.7/log", {}, "verify-full"),
        ("me@[2001:db8::1]/log", {}, "verify-full"),
        ("me@db.default.svc/log", {}, "verify-full"),
        ("/log", {"PGHOST": "db.example.org"}, "verify-full"),
        ("/log?host=127.0.0.1&host=db.example.org", {}, "verify-full"),
        ("me@db.example.org/log?sslmode=disable", {}, None),
        ("me@db.example.org/log", {"PGSSLMODE": "require"}, None),
        ("me@127.0.0.1:5433/log", {}, None),
        ("me@[::1]/log", {}, None),
        ("me@localhost/log", {}, None),
        ("me@postgres/log", {}, None),  # a service of the same compose file
        ("/log", {}, None),
        ("/log?host=/var/run/postgresql", {}, None),
    ],
)
def test_who_must_show_a_certificate(address: str, environment: dict[str, str], expected: str | None) -> None:
    url = sa.make_url(f"postgresql://{address}")
    assert postgres_tls.choose_sslmode(url, environment).get("sslmode") == expected


def test_every_connection_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    url, seen = "postgresql://me@db.invalid/log", dict[str, Any]()
    engine = inference_log_schema.engine(url, tmp_path)

    @sa.event.listens_for(engine, "do_connect")
    def refuse(_dialect: Any, _record: Any, _words: Any, parameters: dict[str, Any]) -> None:
        seen.update(parameters)
        raise OSError("nobody is asked")

    with pytest.raises(OSError, match="nobody is asked"):
        engine.connect()
    assert seen["sslmode"] == "verify-full"
    assert inference_log_backup.libpq_environment(url)["PGSSLMODE"] == "verify-full"
    assert inference_log_backup.libpq_environment(f"{url}?sslmode=require")["PGSSLMODE"] == "require"
