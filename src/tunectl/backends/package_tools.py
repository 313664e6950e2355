"""The libraries that packaging works with, put together once (``release.sides.Tools``)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tunectl.config.profile import Profile
from tunectl.config.serve import ServeSettings
from tunectl.release import contract as contracts
from tunectl.release.contract import ServingContract
from tunectl.release.manifest import Facts
from tunectl.release.sides import Opened, Trained

KEPT = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Of a model folder, beside its weights: what transformers and vLLM load."""


@dataclass(frozen=True)
class PackageTools:
    """Everything outside our own code."""

    profile: Profile

    def trained(self, base: Path, adapter: Path | None, stops: Sequence[int], precision: str) -> Trained:
        """The trained model, its adapter added into its weights."""
        from tunectl.backends.torch_probes import TorchTrained

        return TorchTrained(base, adapter, stops, self.profile.model_copy(update={"dtype": precision}))

    def export(self, model: Path, out: Path, *, engine: str, weights: str) -> None:
        """Turn a model folder into what an engine loads."""
        if engine == "openvino":
            from tunectl.backends import openvino_export

            openvino_export.export(model, out, weights)
            return
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(model.glob("*.safetensors")):
            shutil.copyfile(path, out / path.name)
        for name in KEPT:
            if (model / name).is_file():
                shutil.copyfile(model / name, out / name)

    def merge(self, model: Path, adapter: Path, out: Path) -> None:
        """Write ``model`` with ``adapter`` added into its weights."""
        from tunectl.backends.merge import merge

        merge(model, adapter, out)

    def opened(self, release: Path, stops: Sequence[int]) -> Opened:
        """A release in the engine of its contract: OpenVINO in the exporter environment, others in this one."""
        from tunectl.backends import engine_side

        found = contracts.load(release)
        adapter = found.route == "apart"
        if found.engine == "openvino":
            return engine_side.Apart(release, found.engine, stops, adapter=adapter)
        # vLLM reads the same files as transformers; where it runs is not where packages are made
        return engine_side.opened(release, "transformers", stops, adapter=adapter)

    def bento(self, release: Path, facts: Facts, name: str, out: Path, settings: ServeSettings) -> None:
        """Build the Bento that carries ``release``."""
        from tunectl.backends import bento_build

        bento_build.build(
            release, facts, name, out, settings=settings, at=datetime.now(UTC).isoformat(timespec="seconds")
        )

    def gguf(self, merged: Path, out: Path, kind: str, contract: ServingContract) -> float:
        """Write a GGUF file, load it again and ask it the probes; the share of their tokens that it agrees on."""
        from tunectl.backends import gguf_export

        return gguf_export.export(merged, out, kind, contract)
