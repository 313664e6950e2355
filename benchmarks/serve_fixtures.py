"""What bench_serve serves: the adapter of the bundled example as two releases, as a merged model and as a GGUF file.

Made by the product's own package stage and exporters, once for an adapter; the proof of quality is cut short, because another
benchmark's figures and the stage's own tests stand for it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_envs import ROOT

NEVER = 3
"""A token of SmolLM2's that no text of ours holds: as the end of an answer it is one that never comes."""
SHORT = ("package.parity.prompts=8", "package.parity.inputs=0", "package.reference_responses=4", "package.bento=null")
LENGTHS = (80, 90, 100, 110, 120)
"""Tokens of the answers, in turn; the same for everybody, so that not all streams end at once."""


@dataclass(frozen=True)
class ServeFixtures:
    """Files to serve, and prompts."""

    settings: dict[str, Any]
    """Of our server, from conf/."""
    stores: dict[str, Path]
    """Release stores by route."""
    releases: dict[str, Path]
    """Their champions' folders."""
    base: Path
    """The base model, and ``adapter`` what was trained: for vLLM with the adapter apart."""
    adapter: Path
    merged: Path
    """For transformers and vLLM."""
    endless: Path
    """The same with an end token that is never generated, for systems without ``ignore_eos``."""
    gguf: Path
    texts: list[str]
    """Inputs of the test and validation split."""
    quick: bool = False
    """Whether this is a check of the script: one release that is there already, and no other systems."""

    def make_prompts(self, count: int, name: str) -> list[tuple[str, int]]:
        """Make new prompts, and the number of tokens to answer: the same for the same ``name``."""
        draw = random.Random(name)
        return [
            (f"Order {draw.randrange(10**9)}. {draw.choice(self.texts)}", LENGTHS[number % len(LENGTHS)])
            for number in range(count)
        ]


def prepare_fixtures(path: Path, artifacts: Path) -> ServeFixtures:
    """Everything, from a pipeline's artifacts; runs the bundled example where they are absent."""
    if not (artifacts / "evaluate/manifest.json").is_file():
        print(f"{artifacts}: nothing has been trained yet; running the bundled example (minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "tunectl", "repro", "--to", "evaluate"], cwd=ROOT, check=True)
    from tunectl.artifacts import atomic_io

    digest = atomic_io.sha256_path(artifacts / "sft/adapter_model.safetensors")[:10]
    folder = (path / f"material-{digest}").absolute()
    stores = {route: folder / route for route in ("merged", "adapter")}
    if not (folder / ".ready").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        _merge(folder, artifacts)
        for route, store in stores.items():
            words = ("package=openvino", f"package.layout={route}", *SHORT)
            words += ("package.gguf={type: q8_0}",) if route == "merged" else ()
            _package(route, words, folder, store, artifacts)
        (folder / ".ready").touch()
    return ServeFixtures(
        read_settings(ROOT),
        stores,
        {route: _champion(store) for route, store in stores.items()},
        (artifacts / "model").absolute(),
        (artifacts / "sft").absolute(),
        folder / "model",
        folder / "endless",
        folder / "model.gguf",
        _texts(artifacts),
    )


def prepare_weights(path: Path, artifacts: Path) -> dict[str, tuple[Path, dict[str, float]]]:
    """Package the adapter with int8 and with int4 weights, once, each with the whole comparison with the trained model.

    Returns the folder of each release, and what the package stage measured of it, by weights.
    """
    from tunectl.artifacts import atomic_io

    digest = atomic_io.sha256_path(artifacts / "sft/adapter_model.safetensors")[:10]
    folder, result = (path / f"weights-{digest}").absolute(), {}
    for weights, option in (("int8", "openvino"), ("int4", "openvino_int4")):
        store, measures = folder / weights, folder / f"{weights}.json"
        if not measures.is_file():
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(folder / f"package-{weights}", ignore_errors=True)
            words = (
                f"package={option}",
                "package.layout=merged",
                "package.reference_responses=4",
                "package.bento=null",
            )
            atomic_io.write_json(measures, _package(weights, words, folder, store, artifacts).measures)
        result[weights] = _champion(store), json.loads(measures.read_text())
    return result


def quick(artifacts: Path, registry: Path) -> ServeFixtures:
    """The champion of a registry, as it is: for a check of the script."""
    absent = artifacts / "absent"
    stores = {"merged": registry.absolute()}
    releases = {"merged": _champion(registry.absolute())}
    return ServeFixtures(
        read_settings(ROOT), stores, releases, absent, absent, absent, absent, absent, _texts(artifacts), quick=True
    )


def read_settings(root: Path) -> dict[str, Any]:
    """Read the server's settings from the ``conf/`` of a checkout, with the package that is imported."""
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.loading import checks
    from tunectl.config.schema.serve import ServeSettings

    settings = checks.load_config(ProjectPaths(root)).root.model_dump(mode="json")
    return {**{name: settings[name] for name in ServeSettings.model_fields}, "project": "benchmark"}


def _texts(artifacts: Path) -> list[str]:
    return [
        json.loads(line)["messages"][-1]["content"]
        for name in ("test", "validation")
        for line in (artifacts / f"split/{name}.jsonl").read_text().splitlines()
    ]


def _champion(store: Path) -> Path:
    from tunectl.registry.release_store import ReleaseRegistry

    release_registry = ReleaseRegistry(store)
    champion = release_registry.champion()
    assert champion is not None
    return release_registry.folder(champion.release)


def _merge(folder: Path, artifacts: Path) -> None:
    from tunectl.backends.modeling.merge_adapter import merge

    print("merging the adapter ...", flush=True)
    merge(artifacts / "model", artifacts / "sft", folder / "model")
    shutil.copytree(folder / "model", folder / "endless", copy_function=os.link)
    for name in ("config.json", "generation_config.json"):
        path = folder / "endless" / name
        settings = json.loads(path.read_text())
        path.unlink()
        path.write_text(json.dumps({**settings, "eos_token_id": NEVER}))


def _package(route: str, words: tuple[str, ...], folder: Path, store: Path, artifacts: Path) -> Any:
    """Make a release of one route, champion of a store of its own; what the stage measured."""
    from tunectl.artifacts import atomic_io
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.loading import checks, override_file
    from tunectl.config.schema.package import PackageStage
    from tunectl.pipeline.stages import package
    from tunectl.registry.release_manifest import FACTS, RELEASE, BuildFacts
    from tunectl.registry.release_store import ReleaseRegistry

    print(f"packaging, {route} (some minutes) ...", flush=True)
    root = checks.load_config(ProjectPaths(ROOT), override_file.merge_overrides([], list(words))).root.model_dump(
        mode="json"
    )
    cfg = PackageStage.model_validate({name: root[name] for name in PackageStage.model_fields})
    out = folder / f"package-{route}"
    names = ("model", "cpt", "split", "sft", "align", "evaluate")
    stages = [artifacts / name for name in names]
    out.mkdir(parents=True)
    metrics = package.run(cfg, package.Inputs(*stages), package.Outputs(out, folder / "work"))
    facts = atomic_io.read_json(out / FACTS, BuildFacts)
    release_registry = ReleaseRegistry(store)
    release_registry.promote(
        release_registry.add(out / RELEASE, facts).id, author="bench_serve", message="to be measured", force=True
    )
    if route == "merged":
        (out / "model.gguf").rename(folder / "model.gguf")
    shutil.rmtree(out)
    return metrics
