"""Loading model folders."""

import pickle
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from tiny_release import tiny_adapter

from tunectl.backends.modeling import model_loader
from tunectl.backends.modeling.decoding import stop_ids
from tunectl.chat import model_spec
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import ArtifactError, InfrastructureError


def profile(**changes):
    values = {
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "train_batch_tokens": 512,
        "generate_batch": 4,
        "gradient_checkpointing": False,
    }
    return HardwareProfile(**{**values, **changes})


def test_a_model_folder_loads_and_generates(tiny_model: Path):
    loaded = model_loader.load(tiny_model, adapter=None, profile=profile())
    ids = loaded.tokenizer("<|im_start|>user\nHi<|im_end|>", add_special_tokens=False, return_tensors="pt")
    assert ids["input_ids"][0, 0] == 1
    assert ids["input_ids"][0, -1] == 2
    assert loaded.tokenizer.decode(ids["input_ids"][0]) == "<|im_start|>user\nHi<|im_end|>"
    assert loaded.model(**ids).logits.shape[-1] == 259
    assert not loaded.model.training


def test_answers_end_where_the_contract_says(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    usual = model_loader.load(folder, adapter=None, profile=profile())
    assert stop_ids(usual.model, usual.tokenizer) == (2,)
    own = model_spec.load(folder)
    model_spec.save(replace(own, eot_token=model_spec.SpecialToken("!", 36)), folder)
    loaded = model_loader.load(folder, adapter=None, profile=profile())
    assert stop_ids(loaded.model, loaded.tokenizer) == (2, 36)
    (folder / "model_spec.json").unlink()
    bare = model_loader.load(folder, adapter=None, profile=profile())
    assert stop_ids(bare.model, bare.tokenizer) == (2,)


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError) as caught:
        model_loader.load(tmp_path, adapter=None, profile=profile())
    assert caught.value.message == (
        f"{tmp_path / 'model.safetensors'} does not exist, so {tmp_path} is not a model folder"
    )


def test_pickled_weights_are_not_read(tiny_model: Path, tmp_path: Path):
    import torch

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="does not exist"):
        model_loader.load(folder, adapter=None, profile=profile())


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_a_pickled_adapter_is_not_read(name: str, tiny_model: Path, tmp_path: Path):
    mark = tmp_path / "unpickled"
    tiny_adapter(tiny_model, tmp_path / "adapter", seed=1)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter" / name).write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ArtifactError, match=r"pickled weights are not read|cannot be loaded"):
        model_loader.load(tiny_model, adapter=tmp_path / "adapter", profile=profile())
    assert not mark.exists()


class Trap:
    """What an unpickler of this would do: make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return open, (str(self.mark), "w")


def test_cuda_that_is_not_there_is_said():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InfrastructureError) as caught:
        model_loader.load(Path("model"), adapter=None, profile=profile(device="cuda"))
    assert caught.value.message.startswith("hardware.device = cuda, but torch ")
    assert caught.value.hint == "use the CPU: hardware=cpu, or install torch for CUDA and check nvidia-smi"


@pytest.mark.parametrize(
    ("machine", "onednn", "avx512_bf16", "amx", "expected"),
    [
        ("x86_64", True, True, False, "bfloat16"),
        ("x86_64", True, False, True, "bfloat16"),
        ("x86_64", True, False, False, "float32"),  # Ice Lake: emulated
        ("x86_64", False, True, True, "float32"),  # oneDNN was told to use AVX2
        ("aarch64", True, False, False, "bfloat16"),
        ("aarch64", False, False, False, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, machine: str, onednn: bool, avx512_bf16: bool, amx: bool, expected: str
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(model_loader.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert model_loader.dtype(profile(dtype="auto")) == getattr(torch, expected)
    assert model_loader.dtype(profile(dtype="bfloat16")) == torch.bfloat16
