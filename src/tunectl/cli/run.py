"""Run one stage, as dvc.yaml does.

The stage gets its resolved configuration, the finished artifacts of the stages that it reads, and a fresh folder. Only when
it ends well does that folder take the place of the old artifact; the manifest is written last.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from tunectl.artifacts import io, lock, manifest
from tunectl.artifacts.layout import Layout
from tunectl.core import log
from tunectl.core.errors import ArtifactError, TunectlError
from tunectl.stages import COMPOSE, find

_log = log.get(__name__)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    parser.add_argument("stage", help="a stage of dvc.yaml; tunectl status lists them")


def run(args: argparse.Namespace) -> int:
    """Run the stage; the failure of a stage is left for ``tunectl repro`` in ``.tunectl/failure.json``."""
    layout = Layout()
    name: str = args.stage
    if name != COMPOSE:
        find(name)
    with lock.held(layout.stage_lock, f"stage {name}"):
        layout.failure.unlink(missing_ok=True)
        try:
            compose(layout) if name == COMPOSE else run_stage(layout, name)
        except TunectlError as error:
            note = {"stage": name, "exit_code": error.exit_code, "message": error.message, "hint": error.hint}
            io.write_json(layout.failure, note)
            raise
    return 0


def compose(layout: Layout) -> None:
    """Write one resolved JSON a stage."""
    from tunectl.stages.compose import compose as compose_all

    compose_all(layout)


def run_stage(layout: Layout, name: str) -> None:
    """Run one stage of the table in this process.

    Raises  ArtifactError when an input is absent, corrupted, or was made from another configuration.
    """
    from tunectl.config import resolved

    stage = find(name)
    settings, record = resolved.read(layout, name)
    module = import_module(stage.module)
    digests = {upstream: io.digest_value(read_input(layout, upstream)) for upstream in _fields(module.Inputs)}
    key = io.digest_value({"record": record, "inputs": digests})[:16]
    started = time.monotonic()
    with ExitStack() as stack:
        folders = {"work": layout.work(name, key)}
        for kind, target in (("plots", layout.plots(name)), ("artifact", layout.artifact(name))):
            if kind in _fields(module.Outputs):
                folders[kind] = stack.enter_context(io.replacing_folder(target, layout.scratch))
        outputs = module.Outputs(**{kind: folders[kind] for kind in _fields(module.Outputs)})
        inputs = module.Inputs(**{upstream: layout.artifact(upstream) for upstream in digests})
        metrics = dataclasses.asdict(module.run(settings, inputs, outputs))
        passed = (outputs.artifact / manifest.PASSED_THROUGH).is_file()
        made = manifest.Manifest(name, io.digest_value(record), digests, passed_through=passed)
        manifest.write(outputs.artifact, made)
    seconds = round(time.monotonic() - started, 3)
    io.write_json(layout.metrics(name), {**metrics, "seconds": seconds})
    _log.info("%s: done in %.1f s", name, seconds)


def read_input(layout: Layout, name: str) -> manifest.Manifest:
    """The verified manifest of an upstream artifact that was made from the configuration in force."""
    from tunectl.config import resolved

    folder = layout.artifact(name)
    found = manifest.verify(folder)
    _, record = resolved.read(layout, name)
    if found.config != io.digest_value(record):
        raise ArtifactError(
            f"{folder} was made from another configuration or other code than {layout.config(name)} holds now",
            hint=f"rebuild it with: tunectl repro --to {name}",
        )
    return found


def _fields(shape: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(shape)]
