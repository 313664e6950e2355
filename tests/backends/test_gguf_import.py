"""A GGUF file, written here with the gguf library, becomes a plain model folder."""

import numpy as np
import pytest

from tunectl.backends.export import gguf_import
from tunectl.backends.modeling import model_loader
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import UsageError

torch = pytest.importorskip("torch")
HIDDEN, INNER, HEADS, GROUPS = 32, 64, 4, 2


def letters():
    from tokenizers.pre_tokenizers import ByteLevel

    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "th"]


@pytest.fixture
def file(tmp_path):
    library = pytest.importorskip("gguf")
    random = np.random.default_rng(1)
    path = tmp_path / "cache" / "tiny.gguf"
    path.parent.mkdir()
    writer = library.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10_000.0)
    tokens = letters()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    sizes = {
        "token_embd.weight": (len(tokens), HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_k.weight": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_v.weight": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate.weight": (INNER, HIDDEN),
        "blk.0.ffn_up.weight": (INNER, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, INNER),
    }
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, tensors


def test_weights_tokenizer_and_template_come_through(file, tmp_path, capfd):
    path, tensors = file
    out = tmp_path / "model"
    gguf_import.convert(path, out)
    assert "it/s" not in capfd.readouterr().err
    profile = HardwareProfile(
        device="cpu", threads=1, dtype="bfloat16", train_batch_tokens=64, generate_batch=1, gradient_checkpointing=False
    )
    loaded = model_loader.load(out, adapter=None, profile=profile)
    state = loaded.model.state_dict()
    assert state["model.embed_tokens.weight"].dtype == torch.bfloat16
    for ours, theirs in (
        ("embed_tokens", "token_embd"),
        ("layers.0.mlp.down_proj", "blk.0.ffn_down"),
        ("norm", "output_norm"),
    ):
        expected = torch.from_numpy(tensors[f"{theirs}.weight"]).to(torch.bfloat16)
        assert torch.equal(state[f"model.{ours}.weight"], expected)
    assert loaded.model.config.num_key_value_heads == GROUPS
    assert loaded.tokenizer("the<|im_end|>", add_special_tokens=False).tokens() == ["th", "e", "<|im_end|>"]
    assert (out / "chat_template.jinja").read_text().startswith("{% for m in messages %}")
    assert "quantization_config" not in (out / "config.json").read_text()


def test_a_file_is_parsed_once(file, monkeypatch):
    library = pytest.importorskip("gguf")
    parsed = []

    class CountingReader(library.GGUFReader):
        def __init__(self, path, *rest):
            parsed.append(path)
            super().__init__(path, *rest)

    monkeypatch.setattr(library, "GGUFReader", CountingReader)
    gguf_import.load_gguf(file[0])
    assert len(parsed) == 1
    assert library.GGUFReader is CountingReader, "what transformers sees afterwards is the library's own again"


def test_what_is_no_gguf_is_an_error(tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF but no")
    with pytest.raises(UsageError, match=r"^bad\.gguf cannot be read as a GGUF model: "):
        gguf_import.convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_takes_more_than_its_limits_ends_its_reader_alone(file, tmp_path):
    path, _ = file
    tight = gguf_import.ReadLimits(memory_bytes=400 << 20, seconds=60)
    with pytest.raises(UsageError, match=r"^tiny\.gguf cannot be read as a GGUF model: ") as caught:
        gguf_import.convert(path, tmp_path / "out", limits=tight)
    assert caught.value.hint.endswith("model=folder; reading it is limited to 0 GiB of memory and 60 s")
    with pytest.raises(UsageError, match=r"reading it took more than 0.2 s\n  check that the file is whole"):
        gguf_import.convert(path, tmp_path / "out", limits=gguf_import.ReadLimits(16 << 30, 0.2))


def test_a_count_of_tensors_that_cannot_be_is_an_error_and_no_hang(file, tmp_path):
    """A header that promises 2^40 tensors, as a made-up file does."""
    path, _ = file
    content = bytearray(path.read_bytes())
    content[8:16] = (2**40).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"^tiny\.gguf cannot be read as a GGUF model: "):
        gguf_import.convert(path, tmp_path / "out", limits=gguf_import.ReadLimits(16 << 30, 60))
