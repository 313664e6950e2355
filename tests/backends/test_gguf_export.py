"""A GGUF file of the tiny model, written by the packaged converter and proved by loading it again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from tiny_release import tiny_release

from tunectl.backends.export import exporter_env, gguf_export
from tunectl.backends.modeling.merge_adapter import merge
from tunectl.packaging import serving_contract as contracts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that .ci/run made, or one of this checkout."""
    if exporter_env.VARIABLE not in os.environ:
        monkeypatch.setenv(exporter_env.VARIABLE, str(exporter_env.ensure_interpreter(ROOT / ".tunectl" / "exporters")))


def known_tokenizer(model: Path) -> None:
    """The converter knows tokenizers of bytes by their hash only; so the tiny model gets one in the manner of the first Llama."""
    vocabulary = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    vocabulary |= {f"<0x{number:02X}>": 3 + number for number in range(256)}
    path = model / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"] = {
        "type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": True, "unk_token": "<|endoftext|>", "dropout": None,
        "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "ignore_merges": False,
    }  # fmt: skip
    decoders = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    told |= {"pre_tokenizer": None, "normalizer": None, "post_processor": None}
    told["decoder"] = {"type": "Sequence", "decoders": decoders}
    path.write_text(json.dumps(told))


def test_the_file_is_the_merged_model(tiny_model: Path, tmp_path: Path) -> None:
    told = contracts.load(tiny_release(tiny_model, tmp_path / "release"))
    merge(tiny_model, tmp_path / "release" / "adapter", tmp_path / "merged")
    known_tokenizer(tmp_path / "merged")
    assert gguf_export.export(tmp_path / "merged", tmp_path / "model.gguf", "f16", told) > 0.95
    turned = [msgspec.structs.replace(one, answer_ids=one.base_ids, logprobs=one.base_logprobs) for one in told.probes]
    assert gguf_export.agreement(tmp_path / "model.gguf", turned) < 0.7  # it is not the base model
