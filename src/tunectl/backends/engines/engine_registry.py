"""Engines by the name that a release's contract gives; an engine's module is imported only when a release needs it."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tunectl.config.schema.serve import Serve
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.generation.engine import Engine

ENGINES: Final = {
    "openvino": "tunectl.backends.engines.openvino_engine",
    "transformers": "tunectl.backends.engines.transformers_engine",
    "vllm": "tunectl.backends.engines.vllm_engine",
}
"""Name to module; each has a function ``engine(serve)`` that returns its engine."""


def get_engine(name: str, serve: Serve) -> Engine:
    """Return the engine called ``name`` (openvino, transformers or vllm), built from the settings ``serve``.

    Raises  ArtifactError for an unknown name; UsageError for settings that this engine does not have; MissingExtraError when its library
            is not installed.
    """
    module = ENGINES.get(name)
    if module is None:
        raise ArtifactError(
            f"the release needs the engine {name}; this tunectl has {', '.join(ENGINES)}",
            hint="package again with one of these (package=openvino), or use the tunectl version that made the release",
        )
    cards = serve.engine.tensor_parallel_size
    if cards > 1 and name != "vllm":
        raise UsageError(
            f"serve.engine.tensor_parallel_size = {cards}: the engine {name} runs a model on one device",
            hint="set it to 1, or package for vLLM: package=vllm",
        )
    engine: Engine = import_module(module).engine(serve)
    return engine
