"""Distilling a tiny encoder with random weights; the real one is measured by `make bench-drift`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tunectl.backends.text import sentence_encoder, static_embedding, vader
from tunectl.core.errors import ArtifactError

WORDS = "[PAD] [UNK] [CLS] [SEP] the a good great bad awful day night cat dog ##s run"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tokenizers
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: place for place, word in enumerate(WORDS.split())}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=320, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> static_embedding.StaticEmbedding:
    cache = tmp_path_factory.mktemp("cache")
    folder = static_embedding.distill(encoder, cache)
    before = (folder / "table.npz").stat().st_mtime_ns
    assert static_embedding.distill(encoder, cache) == folder
    assert (folder / "table.npz").stat().st_mtime_ns == before
    return static_embedding.StaticEmbedding(folder)


def test_a_text_is_the_mean_of_its_tokens(table) -> None:
    found = table.embed(["the good cat", "", "good", "zzz", "\x00"])
    assert found.shape == (5, static_embedding.DIMENSIONS)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found, axis=1).tolist() == pytest.approx([1, 0, 1, 1, 1], abs=1e-5)
    assert np.array_equal(table.embed(["good"] * 700)[699], found[2])


def test_the_encoder_itself(encoder: Path) -> None:
    looking = sentence_encoder.EncoderEmbedding(encoder)
    found = looking.embed(["the good cat", "", "the good cat", "dogs run"])
    assert np.array_equal(found[0], found[2])
    assert np.isfinite(found).all()


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "table.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ArtifactError) as caught:
        static_embedding.StaticEmbedding(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/table.npz is absent or damaged: ")
    assert caught.value.hint == f"delete {tmp_path}; the next run makes it again"


def test_weights_that_are_not_the_declared_ones(tmp_path: Path) -> None:
    from tunectl.config.schema.monitor import EncoderConfig

    declared = EncoderConfig(package="an-encoder", version="1.0", folder="model", sha256="0" * 64)
    place = tmp_path / "an-encoder-1.0"
    place.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (place / name).write_text(name)
    with pytest.raises(ArtifactError, match=r"monitor\.encoder\.sha256 says 0000"):
        sentence_encoder.download(declared, tmp_path)


def test_the_lexicon_of_tone() -> None:
    found = vader.lexicon()
    assert found["great"] > 2 > 0 > found["awful"]
    assert ":)" in found
    assert len(found) > 7000


def test_the_lexicon_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunectl.core.errors import MissingExtraError

    monkeypatch.setattr(vader, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError) as caught:
        vader.lexicon()
    assert (
        str(caught.value)
        == "vaderSentiment is not installed, and the drift monitor needs its word list for the signals of tone\n  pip install 'tunectl-lm[monitor]'"
    )
