"""The console section: the web page of a project, ``tunectl console``. No stage reads it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel, WebAddress, is_loopback, validate_host

HostName = Annotated[str, Field(pattern=r"^[a-z0-9.\-\[\]:]+$")]


class ConsoleConfig(StrictModel):
    """The section ``console``: the web page of the project."""

    host: str = Field(min_length=1)
    """Address to listen on; localhost or an IP address. One that other machines reach needs ``keys_file`` and ``hosts``."""
    port: int = Field(ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    hosts: list[HostName]
    """Names by which browsers reach the console besides this machine's own, lower case, without port."""
    acts: bool
    """Whether anything can be changed from the page. False: it only shows."""
    servers: list[WebAddress]
    """Servers of this project's champion, each as the beginning of its address; the console asks their ``/readyz`` and ``/metrics``."""
    prometheus: WebAddress | None
    """Address of a Prometheus that scrapes the servers and the monitor: Live reads their metrics there. Null: it asks each of them."""
    server_key_env: str = Field(min_length=1)
    """Environment variable with the key that those servers and the monitor are asked with: scope chat for Play, scrape for the metrics on Live."""
    keys_file: str | None
    """File of keys that sign in besides the link that is printed at the start, relative to the project. Null: the link alone."""

    @property
    def loopback(self) -> bool:
        """Whether ``host`` is reachable from this machine only."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _require_keys_unless_loopback(self) -> Self:
        validate_host(self.host)
        if self.loopback:
            return self
        if self.keys_file is None:
            raise ValueError(
                f"host is {self.host}, which others reach, and keys_file is null; name a file of keys: .tunectl/keys.json"
            )
        if not self.hosts:
            raise ValueError(
                f"host is {self.host}, which others reach, and hosts is empty; list the names that browsers use"
            )
        return self
