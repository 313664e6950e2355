"""Build the libraries that the stage package needs (``packaging.protocols.PackagingBackends``)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.serve import ServeSettings
from tunectl.packaging import serving_contract as contracts
from tunectl.packaging.protocols import ReleaseSession, TrainedModel
from tunectl.packaging.serving_contract import ServingContract
from tunectl.registry.release_manifest import BuildFacts

KEPT = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Files of a model folder that are kept beside its weights: what transformers and vLLM load."""


OpenReference = Callable[[Path, Path | None, Sequence[int], HardwareProfile], TrainedModel]


@dataclass(frozen=True)
class PackagingBackend:
    """The real ``packaging.protocols.PackagingBackends``: export, engines, Bento and GGUF."""

    profile: HardwareProfile
    open_reference: OpenReference | None = None
    """Opens the trained model on several processes; None: in this process."""

    def load_trained_model(
        self, base: Path, adapter: Path | None, stops: Sequence[int], precision: str
    ) -> TrainedModel:
        """Return the trained model with its adapter merged, in ``precision`` (a dtype); ``stops`` are the ids that end an answer."""
        profile = self.profile.model_copy(update={"dtype": precision})
        if self.open_reference is not None:
            return self.open_reference(base, adapter, stops, profile)
        from tunectl.backends.modeling.reference_model import ReferenceModel

        return ReferenceModel(base, adapter, stops, profile)

    def export(self, model: Path, out: Path, *, engine: str, weights: str) -> None:
        """Convert the model folder ``model`` to the format of ``engine`` with ``weights`` (such as int8), in the folder ``out``."""
        if engine == "openvino":
            from tunectl.backends.export import openvino_export

            openvino_export.export(model, out, weights)
            return
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(model.glob("*.safetensors")):
            shutil.copyfile(path, out / path.name)
        for name in KEPT:
            if (model / name).is_file():
                shutil.copyfile(model / name, out / name)

    def merge(self, model: Path, adapter: Path, out: Path) -> None:
        """Write the model folder ``model`` with ``adapter`` merged into its weights to ``out``."""
        from tunectl.backends.modeling.merge_adapter import merge

        merge(model, adapter, out)

    def open_release(self, release: Path, stops: Sequence[int]) -> ReleaseSession:
        """Return an open session of a release in its own engine: OpenVINO in the exporter environment, others in this one."""
        from tunectl.backends.engines import offline_runner

        result = contracts.load(release)
        adapter = result.layout == "adapter"
        if result.engine == "openvino":
            return offline_runner.SubprocessRunner(release, result.engine, stops, adapter=adapter)
        # vLLM reads the same files as transformers, and is not installed where releases are packaged
        return offline_runner.open_runner(release, "transformers", stops, adapter=adapter)

    def build_bento(self, release: Path, facts: BuildFacts, name: str, out: Path, settings: ServeSettings) -> None:
        """Build a Bento that contains ``release`` in the folder ``out``."""
        from tunectl.backends.export import bento_build

        bento_build.build(
            release, facts, name, out, settings=settings, at=datetime.now(UTC).isoformat(timespec="seconds")
        )

    def export_gguf(self, merged: Path, out: Path, kind: str, contract: ServingContract) -> float:
        """Write the model folder ``merged`` as GGUF file ``out`` and load it again.

        ``kind`` is llama.cpp's type of weights, such as q8_0. Returns  share (0 to 1) of the answer tokens of ``contract.probes`` that
        the file ranks first, too
        """
        from tunectl.backends.export import gguf_export

        return gguf_export.export(merged, out, kind, contract)
