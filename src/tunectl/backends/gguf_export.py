"""A GGUF file for llama.cpp and Ollama: written by llama.cpp's converter as a package, proved by loading it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunectl.backends import export_room, gguf
from tunectl.core.errors import GateError
from tunectl.core.lazy import need
from tunectl.release.contract import Probe, ServingContract

AGREEMENT = 0.9
"""Least share of the probes' tokens that the file's model chooses too; q8_0 of the embedded model reaches more than that."""


def export(merged: Path, out: Path, kind: str, contract: ServingContract) -> float:
    """Write ``out`` with weights of ``kind`` (f16, bf16, q8_0); returns the share of probe tokens that it agrees on.

    Raises  EnvironmentFailure with the converter's last words; GateError where the file is not the model that was trained.
    """
    words = ["-m", "convert_hf_to_gguf", str(merged.absolute()), "--outfile", str(out.absolute()), "--outtype", kind]
    export_room.run(words, f"writing {out.name}", extras=("gguf",))
    share = agreement(out, contract.probes)
    if share < AGREEMENT:
        out.unlink()
        raise GateError(
            f"{out.name} agrees with the trained model on {share:.1%} of the probe tokens only, at least {AGREEMENT:.0%} must",
            hint="take finer weights: package.gguf.type=f16; or none: package.gguf=null",
        )
    return share


def agreement(file: Path, probes: Sequence[Probe]) -> float:
    """Share of the probes' answer tokens that the model in ``file`` likes best, read by transformers."""
    torch = need("torch", extra="train")
    model = gguf.load(file)[0].eval()
    same = total = 0
    with torch.inference_mode():
        for probe in probes:
            logits = model(torch.tensor([[*probe.token_ids, *probe.answer_ids]])).logits[0]
            start = len(probe.token_ids) - 1
            told = logits[start : start + len(probe.answer_ids)].argmax(dim=-1).tolist()
            same += sum(one == other for one, other in zip(told, probe.answer_ids, strict=True))
            total += len(probe.answer_ids)
    return same / total if total else 0.0
