"""The console: serves the pages of one project until it is told to stop.

It listens, and prints its link, before it imports the libraries for the pages: an early browser waits for a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from tunectl.access.api_keys import KeyStore
from tunectl.access.guard import list_hosts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.system import malloc
from tunectl.backends.web import bounded_http
from tunectl.console.console_sessions import SignIn, locate_link_file, open_keys
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import require_installed

if TYPE_CHECKING:
    from tunectl.config.schema.console import ConsoleConfig
    from tunectl.console.recorded_project import Recording

LOOPBACK = "127.0.0.1"


class ConsoleAddress(NamedTuple):
    """Address of a console, the host names that it accepts, and whether it may change the project (``acts``)."""

    host: str
    port: int
    hosts: Collection[str]
    """Host names by which browsers reach it."""
    link_host: str
    """The host name in its link."""
    acts: bool = True


def run(settings: ConsoleConfig, layout: ProjectPaths, project: str, *, started: Callable[[str], None]) -> None:
    """Serve the console until SIGTERM or SIGINT; ``started`` is called with the link to sign in.

    Raises  MissingExtraError without the extra ``console``; UsageError where other machines can reach it and no key is set; InfrastructureError for a
            port that is taken.
    """
    host = LOOPBACK if settings.host == "localhost" else settings.host
    hosts = {*settings.hosts, *(list_hosts(host) if settings.loopback else ())}
    link_host = settings.hosts[0] if settings.hosts and not settings.loopback else f"[{host}]" if ":" in host else host
    address = ConsoleAddress(host, settings.port, hosts, link_host, settings.acts)
    _serve(address, layout, project, open_keys(settings, layout), started, None)


def run_recorded(port: int, layout: ProjectPaths, recording: Recording, *, started: Callable[[str], None]) -> None:
    """Serve the recorded project in ``layout`` on this machine until SIGTERM or SIGINT; its clock continues from the end of ``recording``.

    Raises  MissingExtraError without the extra ``console``; InfrastructureError for a port that is taken.
    """
    address = ConsoleAddress(LOOPBACK, port, list_hosts(LOOPBACK), LOOPBACK)
    _serve(address, layout, recording.project, None, started, recording)


def _serve(
    address: ConsoleAddress,
    layout: ProjectPaths,
    project: str,
    keys: KeyStore | None,
    started: Callable[[str], None],
    recording: Recording | None,
) -> None:
    for package in ("starlette", "jinja2", "uvicorn"):
        require_installed(package, extra="console")
    malloc.limit_arenas(1)
    sign_in = SignIn(locate_link_file(layout), keys)
    try:
        listening = bounded_http.listen(address.host, address.port)
    except OSError as error:
        setting, command = ("--port ", "tunectl demo") if recording else ("console.port=", "tunectl console")
        raise InfrastructureError(
            f"{setting}{address.port}: {address.host}:{address.port} cannot be used: {error.strerror}",
            hint=f"close the program that uses it, or choose another port: {command} {setting}{min(address.port + 1, 65535)}",
        ) from error
    port = listening.getsockname()[1]
    sign_in.address = f"http://{address.link_host}:{port}"
    sign_in.write_link_file()
    sign_in.save_sessions(port)
    try:
        started(sign_in.create_link())
        _build_server(address, layout, project, sign_in, recording).run(sockets=[listening])
    finally:
        sign_in.end()
        listening.close()


def _build_server(
    address: ConsoleAddress, layout: ProjectPaths, project: str, sign_in: SignIn, recording: Recording | None
) -> Any:
    from tunectl.console.console_app import ConsoleApp
    from tunectl.console.console_guard import ConsoleGuard
    from tunectl.console.recorded_project import choose_clock

    guard = ConsoleGuard(address.hosts, sign_in, acts=address.acts)
    app = ConsoleApp(layout, guard, sign_in, project=project, clock=choose_clock(recording), recording=recording)
    server = bounded_http.build_server(app.build())
    app.watcher.is_stopping = lambda: server.should_exit
    return server
