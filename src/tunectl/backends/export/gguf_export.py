"""A GGUF file for llama.cpp and Ollama: written by llama.cpp's converter as a package, proved by loading it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunectl.backends.export import exporter_env, gguf_import
from tunectl.core.optional import import_optional
from tunectl.packaging.serving_contract import ParityProbe, ServingContract


def export(merged: Path, out: Path, kind: str, contract: ServingContract) -> float:
    """Write the model folder ``merged`` to the GGUF file ``out`` with weights of ``kind``, load it again, and check its answers.

    ``kind`` is f16, bf16 or q8_0; ``contract`` has the probes (prompts with the expected tokens) that are checked.
    Returns  the share of the probes' tokens that the exported model ranks first as well
    Raises   InfrastructureError with the converter's error message
    """
    arguments = [
        "-m",
        "convert_hf_to_gguf",
        str(merged.absolute()),
        "--outfile",
        str(out.absolute()),
        "--outtype",
        kind,
    ]
    exporter_env.run_in_env(arguments, f"writing {out.name}", extras=("gguf",))
    return agreement(out, contract.probes)


def agreement(file: Path, probes: Sequence[ParityProbe]) -> float:
    """Return the share (0 to 1) of the probes' answer tokens that the GGUF model in ``file`` ranks first, run by transformers."""
    torch = import_optional("torch", extra="train")
    model = gguf_import.load_gguf(file)[0].eval()
    same = total = 0
    with torch.inference_mode():
        for probe in probes:
            logits = model(torch.tensor([[*probe.token_ids, *probe.answer_ids]])).logits[0]
            start = len(probe.token_ids) - 1
            predicted = logits[start : start + len(probe.answer_ids)].argmax(dim=-1).tolist()
            same += sum(item == other for item, other in zip(predicted, probe.answer_ids, strict=True))
            total += len(probe.answer_ids)
    return same / total if total else 0.0
