"""The liveness proof on a real engine: whoever serves something else than what was tested does not get ready."""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tiny_release import stored, tiny_adapter

from tunectl.artifacts.records import Message
from tunectl.backends.engines.transformers_engine import TransformersEngine
from tunectl.chat.template import Template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import ArtifactError
from tunectl.packaging.serving_contract import RenderFixture
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.serving.loaded_release import load_release


class Deaf(TransformersEngine):
    """An engine that loads the adapter's release and does not apply the adapter."""

    def open(self, release, deliver, *, adapter):
        return super().open(release, deliver, adapter=False)


def reason(folder: Path, engine: type[TransformersEngine] = TransformersEngine) -> str:
    async def tried() -> str:
        try:
            release = await load_release(folder, lambda _: engine(1))
        except ArtifactError as error:
            return str(error)
        await release.retire()
        return ""

    return asyncio.run(tried())


@pytest.fixture
def again(store: ReleaseRegistry, releases: tuple, tmp_path: Path) -> Callable[[Callable[[Path], None]], Path]:
    """A release that somebody changed and then hashed anew, so that only its behavior tells."""

    def made(change: Callable[[Path], None]) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(store.folder(releases[1]), folder)
        (folder / "manifest.json").unlink()
        change(folder)
        return store.folder(stored(folder, store.root))

    return made


def contract(folder: Path, **values: object) -> None:
    path = folder / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def sha(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_release_itself_is_proved(store: ReleaseRegistry, releases: tuple) -> None:
    assert reason(store.folder(releases[1])) == ""


def test_an_engine_that_ignores_the_adapter(store: ReleaseRegistry, releases: tuple) -> None:
    assert "the adapter is not applied: all 4 probes are answered as the base model answers" in reason(
        store.folder(releases[1]), Deaf
    )


def test_a_tampered_adapter(store: ReleaseRegistry, releases: tuple) -> None:
    path = store.folder(releases[1]) / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x00\x41")
    assert "adapter/adapter_model.safetensors was changed" in reason(store.folder(releases[1]))


def test_another_adapter_hashed_anew(again, tiny_model: Path) -> None:
    def change(folder: Path) -> None:
        tiny_adapter(tiny_model, folder / "adapter", seed=9)
        contract(folder, adapter_sha256=sha(folder / "adapter/adapter_model.safetensors"))

    assert "these are not the weights that were tested" in reason(again(change))


def other_base(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    torch.manual_seed(5)
    save_file(
        {name: torch.randn_like(value) * value.std() for name, value in load_file(path).items()},
        path,
        {"format": "pt"},
    )


def test_another_base(again) -> None:
    found = reason(again(other_base))
    assert "model/model.safetensors differs from the base that contract.json names, tiny at revision " in found


def test_another_base_hashed_anew(again) -> None:
    def change(folder: Path) -> None:
        other_base(folder)
        told = json.loads((folder / "contract.json").read_text())["base"]
        contract(folder, base={**told, "sha256": sha(folder / "model/model.safetensors")})

    assert "these are not the weights that were tested" in reason(again(change))


def other_template(folder: Path) -> None:
    path = folder / "tokenizer" / "chat_template.jinja"
    path.write_text(path.read_text() + "!")


def test_another_template(again) -> None:
    assert "differs from the template that contract.json names" in reason(again(other_template))


def test_another_template_hashed_anew(again) -> None:
    def change(folder: Path) -> None:
        other_template(folder)
        contract(folder, template_sha256=sha(folder / "tokenizer/chat_template.jinja"))

    assert "test conversation 0 of contract.json gives another text here than in training" in reason(again(change))


def test_a_contract_that_reads_written_special_tokens_as_such(again) -> None:
    def change(folder: Path) -> None:
        source = (folder / "tokenizer/chat_template.jinja").read_text()
        asked = [Message("user", "hi<|im_end|>")]
        text = Template(source, "<|im_start|>", "<|im_end|>").render(asked, add_generation_prompt=True)
        ids = Tokenizer(folder / "tokenizer").ids(text)
        contract(folder, fixtures=[msgspec.to_builtins(RenderFixture(asked, text, ids))])

    assert "test conversation 0 of contract.json gives another text here than in training" in reason(again(change))


def test_a_contract_for_another_adapter(again) -> None:
    assert "differs from the adapter that contract.json names" in reason(
        again(lambda folder: contract(folder, adapter_sha256="0" * 64))
    )


def test_only_safetensors_are_read(again) -> None:
    def change(folder: Path) -> None:
        (folder / "adapter" / "adapter_model.safetensors").rename(folder / "adapter" / "adapter_model.bin")
        contract(folder, adapter_sha256=None)

    found = reason(again(change))
    assert "differs from the adapter that contract.json names" in found or "transformers cannot load it" in found


def test_a_base_that_is_no_safetensors_is_not_read(again, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"

    def change(folder: Path) -> None:
        (folder / "model" / "model.safetensors").unlink()
        (folder / "model" / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))

    assert "transformers cannot load it" in reason(again(change))
    assert not mark.exists()


class Trap:
    """What an unpickler of this would do: make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return open, (str(self.mark), "w")
