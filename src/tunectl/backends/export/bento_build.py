"""Build the Bento of a release: BentoML's own builder over ``bentofile.yaml``, in a process and a store of its own.

Run as a module inside the build context: ``python -m tunectl.backends.export.bento_build NAME VERSION LABELS``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tunectl import __version__
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.export import sbom
from tunectl.backends.export.exporter_env import error_line
from tunectl.backends.storage.object_store import DRIVERS
from tunectl.config.schema.serve import ServeSettings
from tunectl.core.distribution import DISTRIBUTION, format_reinstall_command, normalize_name
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional
from tunectl.registry import release_manifest, release_statement
from tunectl.registry.release_manifest import BuildFacts, ReleaseManifest

PACKAGE = Path(__file__).resolve().parents[2]
BENTOFILE = "bentofile.yaml"
DOCKERFILE = "bento.dockerfile.j2"
SETTINGS = "serve.json"
RANGE_ENGINE: Final = "transformers"
"""The engine whose torch is given as a range, because its builds differ by machine: the only requirement without a hash."""
LOCKS: Final = {kind: f"store-{'gs' if kind == 'gcs' else 'az' if kind == 'abfs' else kind}" for kind in DRIVERS}
"""The lock of each kind of address."""
_PACKAGE: Final = re.compile(r"^([^#\s-].*?) \\$", re.MULTILINE)
_BLOCK: Final = re.compile(r"^[^#\s-].*\n(?:[ ]+--hash.*\n)*", re.MULTILINE)
LEFT_OUT = ("__pycache__", "*.pyc", "_project", "_site")


def build(release: Path, facts: BuildFacts, name: str, out: Path, *, settings: ServeSettings, at: str) -> None:
    """Build a Bento that contains ``release`` in the folder ``out``; ``name`` is the Bento's name, the release's name its version.

    ``settings`` are those of its server; ``at`` is the time (UTC, ISO 8601) for the manifest of the release in it.
    Raises  InfrastructureError with BentoML's error message; MissingExtraError where BentoML is not installed.
    """
    import_optional("bentoml", extra="serve")
    scratch = Path(tempfile.mkdtemp(prefix="bento-"))  # not under .tunectl: BentoML refuses hidden folders
    try:
        context = scratch / "context"
        context_folder = build_context(release, facts, context, settings=settings, at=at)
        labels = json.dumps(
            {
                "release": context_folder.id,
                "project": context_folder.project,
                "engine": context_folder.engine,
                "layout": context_folder.layout,
            }
        )
        built = Path(_run(context, scratch / "home", [name, context_folder.id, labels]))
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(built, out)
        out.chmod(0o755)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def build_context(
    release: Path, facts: BuildFacts, context: Path, *, settings: ServeSettings, at: str
) -> ReleaseManifest:
    """Fill the folder ``context`` with the package, the release under its name, the settings, and the engine's files.

    Returns  the manifest of the release
    """
    shutil.copytree(PACKAGE, context / "tunectl", ignore=shutil.ignore_patterns(*LEFT_OUT))
    # the package is not installed there, only copied
    described = context / f"{normalize_name()}-{__version__}.dist-info" / "METADATA"
    atomic_io.write_text(described, f"Metadata-Version: 2.4\nName: {DISTRIBUTION}\nVersion: {__version__}\n")
    files = release_manifest.digests(release)
    size = sum((release / name).stat().st_size for name in files)
    result = ReleaseManifest(
        release_manifest.content_id(files), at, facts.project, None, facts.engine, facts.layout, files, size,
        facts.metrics, facts.verdicts, facts.lineage,
    )  # fmt: skip
    target = context / "release" / result.id
    shutil.copytree(release, target)
    release_manifest.save(result, target)
    release_statement.sign_by_environment(target)
    atomic_io.write_json(context / SETTINGS, settings.model_dump(mode="json"))
    requirements = _requirements(facts.engine, settings.serve.registry)
    atomic_io.write_text(context / "requirements.txt", requirements)
    atomic_io.write_json(
        context / sbom.NAME, sbom.build_sbom(result, requirements, template_file(BENTOFILE).read_text())
    )
    for own in (BENTOFILE, DOCKERFILE):
        shutil.copyfile(template_file(own), context / own)
    return result


def _requirements(engine: str, store: str) -> str:
    """Return the lock of the engine, torch where it is a range, and the lock of what opens the registry's address."""
    needed = template_file(f"requirements/serve-{engine}.txt").read_text()
    if engine == RANGE_ENGINE:
        needed += template_file("requirements/torch.txt").read_text()
    kind = LOCKS.get(store.partition("://")[0]) if "://" in store else None
    if kind is None:
        return needed
    packages = set(_PACKAGE.findall(needed))
    driver = template_file(f"requirements/{kind}.txt").read_text()
    return needed + "".join(block for block in _BLOCK.findall(driver) if block.partition(" \\")[0] not in packages)


def template_file(name: str) -> Path:
    """Return the path of the project's own file ``name``, or of tunectl's default if the project has none.

    Raises  InfrastructureError where there is neither.
    """
    for folder in (ProjectPaths().root, PACKAGE / "_project", PACKAGE.parents[1]):
        if (folder / name).is_file():
            return folder / name
    raise InfrastructureError(
        f"{name} is missing from this project and this installation",
        hint=f"restore it: git checkout -- {name}; or {format_reinstall_command()}",
    )


def _run(context: Path, home: Path, arguments: list[str]) -> str:
    home.mkdir()
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, **quiet, "BENTOML_HOME": str(home.absolute()), "PYTHONPATH": str(context.absolute())}
    process = subprocess.run(
        [sys.executable, "-m", "tunectl.backends.export.bento_build", *arguments],
        cwd=context, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if process.returncode:
        raise InfrastructureError(
            f"the Bento cannot be built: {error_line(process.stderr) or f'exit code {process.returncode}'}",
            hint=f"compare {template_file(BENTOFILE)} with the error, correct it, then: tunectl repro --to package",
        )
    return process.stdout.strip().splitlines()[-1]


def main(name: str, version: str, labels: str) -> None:
    """Build the Bento of the build context in the current folder, and print the path of its folder.

    ``labels`` is JSON: the labels of the Bento.
    """
    bentos = import_optional("bentoml.bentos", extra="serve")
    bentofile = bentos.build_bentofile(BENTOFILE, name=name, version=version, labels=json.loads(labels), build_ctx=".")
    sys.stdout.write(f"{bentofile.path}\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
