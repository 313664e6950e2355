"""`tunectl serve image`: the container image of the Bento that the stage package built."""

from __future__ import annotations

import argparse

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError


def run(args: argparse.Namespace) -> int:
    """Build the container image of the Bento under the given name, or the project's, and print its size; return the exit code.

    Raises  UsageError for more than one name, or without a Bento; InfrastructureError without a Docker engine.
    """
    from tunectl.backends.export import bento_image
    from tunectl.backends.system import terminal

    names = args.arguments[1:]
    if len(names) > 1:
        raise UsageError(
            f"tunectl serve {' '.join(args.arguments)}: takes one name", hint="tunectl serve image NAME:TAG"
        )
    layout = ProjectPaths()
    name = names[0] if names else _load_project_name(layout)
    size = bento_image.containerize(layout.artifact("package") / "bento", name)
    short = name.rpartition("/")[2].partition(":")[0]  # a registry may have a port
    if args.json:
        terminal.print_json({"image": name, "bytes": size})
        return 0
    locked = "--read-only --tmpfs /tmp --cap-drop ALL"
    terminal.print_line(f"image: {name}, {size / 1e6:.0f} MB")
    terminal.print_line(f"run    docker run -d --name {short} {locked} -p 127.0.0.1:3000:3000 -v {short}:/data {name}")
    terminal.print_line(f"key    docker exec {short} python -m tunectl serve keys add NAME")
    terminal.print_line(f"stop   docker stop -t 75 {short}")
    return 0


def _load_project_name(layout: ProjectPaths) -> str:
    from tunectl.config.loading import checks

    return checks.load_project_config(layout).root.project
