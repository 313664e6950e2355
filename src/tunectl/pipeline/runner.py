"""Run one stage of the pipeline: check its inputs, give it its settings and an empty folder, and replace its artifact when it succeeds.

The stage gets its resolved configuration, the finished artifacts of the stages that it reads, and an empty folder. Only when
it succeeds does that folder replace the old artifact; the manifest is written last.
"""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from tunectl.artifacts import atomic_io, lock, manifest, private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import dvc_repo
from tunectl.backends.wiring import curation, launch
from tunectl.core import logging_setup, progress_journal
from tunectl.core.errors import ArtifactError, InfrastructureError, TunectlError, UsageError
from tunectl.core.optional import require_all
from tunectl.pipeline.stages import COMPOSE, find

_log = logging_setup.get_logger(__name__)


def execute_stage(layout: ProjectPaths, name: str) -> None:
    """Run ``compose`` or a stage under the project's stage lock, as dvc.yaml does.

    A failure is also written to ``.tunectl/failure.json``: DVC passes on no exit code, and ``tunectl repro`` reads it there.

    Raises  UsageError for an unknown stage; whatever the stage raises.
    """
    if name != COMPOSE:
        find(name)
    with lock.file_lock(layout.stage_lock, f"stage {name}"):
        layout.failure.unlink(missing_ok=True)
        try:
            _refuse_while_restoring(name)
            compose(layout) if name == COMPOSE else run_stage(layout, name)
        except TunectlError as error:
            note = {"stage": name, "exit_code": error.exit_code, "message": error.message, "hint": error.hint}
            atomic_io.write_json(layout.failure, note)
            raise


def _refuse_while_restoring(name: str) -> None:
    if name != COMPOSE and os.environ.get(dvc_repo.RESTORE_ONLY):
        raise InfrastructureError(
            f"the job's results lack stage {name}, built from the inputs and settings of this project",
            hint="check out the commit that the job built, then fetch again; or build the stage here: tunectl repro",
        )


def compose(layout: ProjectPaths) -> None:
    """Write the resolved configuration of every stage, ``artifacts/config/<stage>.json``."""
    from tunectl.pipeline.stages.compose import compose as compose_all

    compose_all(layout)


def run_stage(layout: ProjectPaths, name: str) -> None:
    """Run one stage of the pipeline in this process and replace its artifact.

    Raises  ArtifactError when an input is absent, corrupted, or was made from another configuration; MissingExtraError that
            names every missing library which the stage will import.
    """
    from tunectl.pipeline import resolved_config
    from tunectl.pipeline.required_extras import list_required_packages

    module_name = find(name).module
    settings, record = resolved_config.load_stage_config(layout, name)
    with progress_journal.record_progress(layout.progress(name), name, atomic_io.sha256_json(record)):
        require_all(list_required_packages(settings, [name]))
        _run_module(layout, name, import_module(module_name), settings, record)


def _run_module(layout: ProjectPaths, name: str, module: Any, settings: Any, record: Any) -> None:
    digests = {
        upstream: atomic_io.sha256_json(load_input_artifact(layout, upstream)) for upstream in _fields(module.Inputs)
    }
    key = atomic_io.sha256_json({"record": record, "inputs": digests})[:16]
    launched = launch.launch_backends(name, launch.read(layout.launch), settings)
    backends = launched.backends if launched else curation.choose_engine(name, layout.curate_engine)
    started = time.monotonic()
    with ExitStack() as stack:
        if launched:
            stack.callback(launched.close)
        folders = {"work": layout.work(name, key)}
        private_files.make_folder(folders["work"].parent)
        for kind, target in (("plots", layout.plots(name)), ("artifact", layout.artifact(name))):
            if kind in _fields(module.Outputs):
                folders[kind] = stack.enter_context(atomic_io.atomic_directory(target, layout.scratch))
        outputs = module.Outputs(**{kind: folders[kind] for kind in _fields(module.Outputs)})
        inputs = module.Inputs(**{upstream: layout.artifact(upstream) for upstream in digests})
        metrics = dataclasses.asdict(module.run(settings, inputs, outputs, **backends))
        passed = (outputs.artifact / manifest.PASSED_THROUGH).is_file()
        result = manifest.Manifest(name, atomic_io.sha256_json(record), digests, passed_through=passed)
        manifest.write(outputs.artifact, result)
    seconds = round(time.monotonic() - started, 3)
    record = launched.record() if launched and not passed else {}
    atomic_io.write_json(layout.metrics(name), {**metrics, **record, "seconds": seconds})
    with layout.executed.open("a", encoding="utf-8") as stream:
        stream.write(f"{name}\n")
    _log.info("%s: done in %.1f s", name, seconds)


def join_stage(layout: ProjectPaths, name: str) -> int:
    """Run this machine's processes of a multi-node training (torchrun) that the first machine started; return the number of trainings.

    Raises  UsageError for a stage without training, or where launch.nnodes is 1; InfrastructureError where the first machine does not answer in time.
    """
    if find(name).name not in launch.TRAINED:
        raise UsageError(f"stage {name} trains no model", hint=f"give one of {', '.join(sorted(launch.TRAINED))}")
    from tunectl.backends.launchers import torchrun_join

    return torchrun_join.join_stage(name, launch.read(layout.launch), layout.state_dir / "work")


def load_input_artifact(layout: ProjectPaths, name: str) -> manifest.Manifest:
    """Return the verified manifest of an upstream artifact that was made from the current configuration."""
    from tunectl.pipeline import resolved_config

    folder = layout.artifact(name)
    result = manifest.verify(folder)
    _, record = resolved_config.load_stage_config(layout, name)
    if result.config != atomic_io.sha256_json(record):
        raise ArtifactError(
            f"{folder} was made from another configuration or other code than {layout.config(name)} holds now",
            hint=f"rebuild it with: tunectl repro --to {name}",
        )
    return result


def _fields(shape: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(shape)]
