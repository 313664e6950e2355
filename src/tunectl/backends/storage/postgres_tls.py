"""Whether a PostgreSQL server is believed: what people wrote goes to no other machine unencrypted, nor to one that nobody vouches for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

VERIFY: Final = "verify-full"


def choose_sslmode(url: Any, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the parameter of libpq that has a server at another machine show a certificate; nothing where somebody has decided.

    Libpq's own default is to speak unencrypted where the server has no TLS, and to believe any certificate.

    Args:
        url: SQLAlchemy's address.
        environment: Where PGSSLMODE and PGHOST may stand.
    """
    if "sslmode" in url.query or environment.get("PGSSLMODE"):
        return {}
    hosts = url.host or url.query.get("host") or environment.get("PGHOST") or ""
    every = hosts if isinstance(hosts, tuple) else str(hosts).split(",")
    return {} if all(map(_is_near, every)) else {"sslmode": VERIFY}


def _is_near(host: str) -> bool:
    """Return whether a host is this machine, or has a name of a network of its own, as services of one compose file have."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.startswith(("/", "@")) or "." not in host.rstrip(".") or host.endswith(".localhost")
