"""The base of every section: frozen, no extra keys, no defaults."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class StrictModel(BaseModel):
    """Base class of the configuration's sections.

    Fields have a type, bounds and one line of prose (a string under the field), and no default: values live in ``conf/`` and nowhere else,
    so each value has one place. None means absent; it is never written as 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), strict=False)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own (loopback); other names are not resolved."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def validate_host(address: str) -> None:
    """Check that ``address`` is one that a program can listen on.

    Raises  ValueError where it is neither localhost nor an IP address.
    """
    if address != "localhost":
        try:
            ip_address(address)
        except ValueError as error:
            raise ValueError(f"host is {address}; write localhost or an IP address") from error


def _validate_web_address(address: str) -> str:
    """Return the address; ValueError where no program could ask it: it has no host, or its port is none."""
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an address such as http://127.0.0.1:8080")
    return address


def validate_endpoint(endpoint: str) -> str:
    """Return ``endpoint`` (HOST:PORT).

    Raises  ValueError where it has no host, or its port is none.
    """
    host, _, port = endpoint.rpartition(":")
    usable = bool(host) and not any(letter in ":/" or letter.isspace() for letter in host)
    if not usable or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("must be HOST:PORT, with a port from 1 to 65535")
    return endpoint


HostPort = Annotated[str, AfterValidator(validate_endpoint)]
"""HOST:PORT."""
WebAddress = Annotated[str, Field(pattern=r"^https?://\S+$"), AfterValidator(_validate_web_address)]
