"""TLS to a PostgreSQL server: people's texts go to no other machine unencrypted, nor to one without a valid certificate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

VERIFY: Final = "verify-full"


def choose_sslmode(url: Any, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return libpq's ``sslmode`` that requires a valid certificate of a server on another machine; empty if the user has set it.

    Libpq's own default is to connect unencrypted where the server has no TLS, and to accept any certificate.

    Args:
        url: SQLAlchemy's address.
        environment: Environment variables, of which PGSSLMODE and PGHOST count.
    """
    if "sslmode" in url.query or environment.get("PGSSLMODE"):
        return {}
    hosts = url.host or url.query.get("host") or environment.get("PGHOST") or ""
    every = hosts if isinstance(hosts, tuple) else str(hosts).split(",")
    return {} if all(map(_is_near, every)) else {"sslmode": VERIFY}


def _is_near(host: str) -> bool:
    """Return whether a host is this machine, or a name without a dot, as services of one compose file have."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.startswith(("/", "@")) or "." not in host.rstrip(".") or host.endswith(".localhost")
