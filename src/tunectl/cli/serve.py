"""Serve the champion with OpenAI's HTTP API; manage API keys; build the container image.

    tunectl serve                               the champion of the release store, on this machine
    tunectl serve serve.port=8000 serve.host=0.0.0.0
    tunectl serve keys add NAME [--scope chat --scope feedback] [--per-minute 60] [--days 90]
    tunectl serve keys disable|enable|remove NAME
    tunectl serve keys list                     or audit: last use of each, and warnings
    tunectl serve image [NAME:TAG]              bentoml containerize on the Bento that repro built; needs a Docker engine

Scopes of a key; chat and feedback where none is given:

    chat        answers and models
    feedback    verdicts on answers, from which models may learn
    scrape      metrics
    look        pages and reports, which show texts
    annotate    the page on which people compare answers
    operate     begin, stop and retry builds, evaluations and retrains; send alerts
    decide      approve a retrain; promote, reject and roll back releases
    acts_for    name people who each count, for applications that speak for many users
    admin       all of these, and keys

A running server sees a change of the keys within a second, and a promotion within serve.poll_seconds.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig

KEYS, IMAGE = "keys", "image"
FIRST = "first"
"""Name of the key that is created where there is none."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl serve`` to ``parser``."""
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="keys VERB [NAME] | image [NAME] | key=value",
        help="manage keys, build an image, or key=value for this run",
    )
    parser.add_argument("--scope", action="append", help="with keys add: scope of the key; default chat and feedback")
    parser.add_argument("--per-minute", type=int, metavar="N", help="with keys add: most requests a minute")
    parser.add_argument("--max-concurrency", type=int, metavar="N", help="with keys add: most requests at once")
    parser.add_argument("--tokens-per-minute", type=int, metavar="N", help="with keys add: most tokens a minute")
    parser.add_argument("--days", type=int, metavar="N", help="with keys add: lifetime; unlimited where not given")
    parser.add_argument("--json", action="store_true", help="with keys and image: print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the server in place of this process, or manage keys, or build the image, as the arguments say; return the exit code.

    Raises  InfrastructureError for a port in use or an inference log that cannot be written; UsageError without a release; MissingExtraError without BentoML.
    """
    if args.arguments[:1] == [KEYS]:
        from tunectl.cli import serve_keys

        return serve_keys.run(args)
    if args.arguments[:1] == [IMAGE]:
        from tunectl.cli import serve_image

        return serve_image.run(args)
    from tunectl.config.loading import checks
    from tunectl.core.optional import import_optional
    from tunectl.serving import server_settings

    layout = ProjectPaths()
    root = checks.load_project_config(layout, args.arguments).root
    _refuse_nothing(root)
    _refuse_taken(root)
    tls = server_settings.build_tls_arguments(root.serve, layout.root)
    import_optional("bentoml", extra="serve")
    _refuse_unkept(root)
    settings = _settings(layout, root)
    _print_addresses(root, _first_key(root))
    _become_server(layout, root, settings, tls)
    return 0


def _refuse_nothing(root: TunectlConfig) -> None:
    from tunectl.backends.storage import open_registry

    store = open_registry.open_registry(os.environ.get("TUNECTL_REGISTRY", root.serve.registry), Path())
    if store.champion() is None:
        release_ids = ", ".join(store.ids()) or "none"
        raise UsageError(
            f"{store.location}: no release is champion; there are: {release_ids}",
            hint="build one with: tunectl repro, then: tunectl release promote ID -m ...",
        )


def _refuse_taken(root: TunectlConfig) -> None:
    """Fail before anything is loaded where the port is taken; BentoML would show a traceback."""
    address = "127.0.0.1" if root.serve.host == "localhost" else root.serve.host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, root.serve.port))
        except OSError as error:
            reason = "is taken by another program" if error.errno == 98 else f"cannot be used: {error.strerror}"
            raise InfrastructureError(
                f"serve.port = {root.serve.port}: {address}:{root.serve.port} {reason}",
                hint=f"close that program, or choose another port: tunectl serve serve.port={min(root.serve.port + 1, 65535)}",
            ) from error


def _refuse_unkept(root: TunectlConfig) -> None:
    """Fail before anything is loaded where the log cannot be written, or another server writes to it; BentoML would show a traceback."""
    from tunectl.backends.storage import inference_log_sql
    from tunectl.inference_log import pseudonyms

    with inference_log_sql.open_log(pseudonyms.address(root.inference_log), Path(), serving=True) as store:
        pseudonyms.register_hash_key(store, root.inference_log, pseudonyms.load_hash_key(root.inference_log, Path()))


def _settings(layout: ProjectPaths, root: TunectlConfig) -> Path:
    """Write the settings file that the server reads at its start."""
    from tunectl.artifacts import atomic_io
    from tunectl.config.schema.serve import ServeSettings

    settings = ServeSettings(
        project=root.project, serve=root.serve, inference_log=root.inference_log, annotate=root.annotate
    )
    path = layout.state_dir / "serve.json"
    atomic_io.write_json(path, settings.model_dump(mode="json"))
    return path


def _first_key(root: TunectlConfig) -> str | None:
    """Create and return an API key when the server starts for the first time; None if there are keys."""
    from datetime import UTC, datetime

    from tunectl.access import api_keys

    path = _keys(root)
    if api_keys.read(path):
        return None
    secret, entry = api_keys.create_key(FIRST, ["admin"], None, datetime.now(UTC))
    api_keys.add(path, entry)
    return secret


def _keys(root: TunectlConfig) -> Path:
    from tunectl.access import api_keys

    return api_keys.find_keys_file(Path(), root.serve.keys_file)


def _print_addresses(root: TunectlConfig, secret: str | None) -> None:
    from tunectl.backends.system import terminal

    host = f"[{root.serve.host}]" if ":" in root.serve.host else root.serve.host
    address = f"{'https' if root.serve.tls else 'http'}://{host}:{root.serve.port}"
    for what, path in (
        ("OpenAI", "/v1"),
        ("docs", "/docs"),
        ("arena", "/arena"),
        ("metrics", "/metrics"),
        ("ready", "/readyz"),
    ):
        terminal.print_line(f"{what:<8} {address}{path}")
    terminal.print_line("in a browser sign in with any name, and a key as the password")
    if secret is None:
        terminal.print_line(f"key      one of {_keys(root)}; another: tunectl serve keys add NAME")
    else:
        terminal.print_line(f"key      {secret}   (named {FIRST}; shown once)")
    terminal.print_line("stop with Ctrl-C")


def _become_server(layout: ProjectPaths, root: TunectlConfig, settings: Path, tls: list[str]) -> None:
    """Replace this process by BentoML's, so that signals and the exit code are its own."""
    sys.stdout.flush()
    address = "127.0.0.1" if root.serve.host == "localhost" else root.serve.host
    home = (
        layout.state_dir.resolve() / f"bentoml-{root.serve.port}"
    )  # two servers that share one erase each other's files
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "BENTOML_HOME": str(home)}
    quiet["BENTOML_CONTAINERIZED"] = "1"  # when the worker dies the program ends, for a supervisor to start it again
    arguments = ["--host", address, "--port", str(root.serve.port)]
    arguments += ["--timeout-graceful-shutdown", str(root.serve.shutdown.grace_period_seconds), *tls]
    os.execve(  # noqa: S606  # no shell: a list of arguments
        sys.executable,
        [sys.executable, "-m", "bentoml", "serve", "tunectl.services.bento_service:TunectlService", *arguments],
        {**os.environ, **quiet, "TUNECTL_SERVE": str(settings)},
    )
