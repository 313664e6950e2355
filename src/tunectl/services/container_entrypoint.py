"""The program of the container: ``bentoml serve`` on the Bento in the image, with a shutdown as in the settings.

    docker run IMAGE                                                the server
    docker exec NAME python -m tunectl serve keys add WHO           a key for it

Keys, inference log and judgments are kept in ``/data``, a volume; a release store may be mounted as ``/data/releases``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from tunectl.core.errors import TunectlError, UsageError
from tunectl.serving.server_settings import settings


def bentoml_command(environment: Mapping[str, str]) -> list[str]:
    """Return the arguments that start BentoML's server.

    Raises  ConfigError for settings that are absent or wrong.
    """
    serve = settings().serve
    if serve.tls is not None:
        raise UsageError(
            "serve.tls is for `tunectl serve`; this image speaks HTTP, as its health check does",
            hint="terminate TLS in a reverse proxy, and build the image with serve.tls=null",
        )
    seconds = serve.shutdown.grace_period_seconds
    command = [
        "bentoml",
        "serve",
        environment.get("BENTO_PATH", "."),
        "--host",
        environment.get("BENTOML_HOST", "0.0.0.0"),  # noqa: S104  # a container's own network
    ]
    return [*command, "--timeout-graceful-shutdown", str(seconds)]


def main() -> None:
    """Replace this process by BentoML's server, so that the server gets the container's signals."""
    try:
        command = bentoml_command(os.environ)
    except TunectlError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    os.execvp(command[0], command)  # noqa: S606  # no shell: a list of arguments


if __name__ == "__main__":
    main()
