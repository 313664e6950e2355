"""The console: serves the pages of one project until it is told to stop."""

from __future__ import annotations

from collections.abc import Callable

from tunectl.access.api_keys import KeyStore
from tunectl.access.guard import list_hosts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.web import bounded_http
from tunectl.config.schema.console import ConsoleConfig
from tunectl.console.console_app import ConsoleApp, link_file
from tunectl.console.console_guard import ConsoleDoor
from tunectl.console.console_sessions import SignIn
from tunectl.console.recorded_project import Recording, choose_clock
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional

KEY_SECONDS = 1.0
"""Between looks at the file of keys: a key that is taken out ends its sessions as fast."""


def run(
    settings: ConsoleConfig,
    layout: ProjectPaths,
    project: str,
    *,
    started: Callable[[str], None],
    recording: Recording | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; ``started`` hears the link to sign in with. The clock of a recorded project goes on from its recording.

    Raises  MissingExtraError without the extra; UsageError where others reach it and no key opens it; InfrastructureError for a
            port that is taken.
    """
    for module in ("starlette.applications", "jinja2", "uvicorn"):
        import_optional(module, extra="console")
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    sign_in = SignIn(link_file(layout), _open_keys(settings, layout))
    try:
        listening = bounded_http.listen(host, settings.port)
    except OSError as error:
        raise InfrastructureError(
            f"console.port = {settings.port}: {host}:{settings.port} cannot be used: {error.strerror}",
            hint=f"close that program, or choose another port: tunectl console console.port={min(settings.port + 1, 65535)}",
        ) from error
    port = listening.getsockname()[1]
    hosts = {*settings.hosts, *(list_hosts(host) if settings.loopback else ())}
    shown = settings.hosts[0] if settings.hosts and not settings.loopback else f"[{host}]" if ":" in host else host
    sign_in.address = f"http://{shown}:{port}"
    door = ConsoleDoor(hosts, settings.proxies, sign_in, acts=settings.acts)
    clock = choose_clock(recording)
    app = ConsoleApp(layout, door, sign_in, project=project, clock=clock, recording=recording)
    server = bounded_http.build_server(app.build())
    app.watcher.is_stopping = lambda: server.should_exit
    sign_in.write_link_file()
    try:
        started(sign_in.create_link())
        server.run(sockets=[listening])
    finally:
        sign_in.remove_link_file()
        listening.close()


def _open_keys(settings: ConsoleConfig, layout: ProjectPaths) -> KeyStore | None:
    if settings.keys_file is None:
        return None
    path = layout.root / settings.keys_file
    if not path.is_file():
        if not settings.loopback:
            raise UsageError(
                f"console.host = {settings.host}, which others reach, and {path} does not exist",
                hint="make a key first: tunectl serve keys add NAME",
            )
        return None
    keys = KeyStore(path, KEY_SECONDS)
    keys.load()
    return keys
