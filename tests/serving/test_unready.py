"""A server is not ready before its release is proved: the reason is in /readyz and in the log, and it gets ready afterwards."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openvino_release import openvino_release
from safetensors.numpy import load_file, save_file
from serving_process import Server
from tiny_release import stored

from tunectl.artifacts import atomic_io
from tunectl.registry.release_state import ChampionPointer
from tunectl.registry.release_store import CHAMPION, ReleaseRegistry

ADAPTER, TEMPLATE = "adapter/adapter_model.safetensors", "tokenizer/chat_template.jinja"
ENGINES = ["transformers", pytest.param("openvino", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


SEQUENCE = itertools.count(1)
"""A server goes to no pointer with a sequence that it has seen."""


def rewritten(folder: Path, **values: object) -> None:
    path = folder / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def ignored_adapter(folder: Path) -> None:
    """Names that are none of the model's: every engine passes them over, and says so at best on its standard error."""
    path = folder / ADAPTER
    save_file({name.replace("_proj", "_other"): value for name, value in load_file(path).items()}, path)
    rewritten(folder, adapter_sha256=atomic_io.sha256_path(path))


def other_base(folder: Path) -> None:
    (path,) = [*folder.glob("model/model.safetensors"), *folder.glob("model/openvino_model.bin")]
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + 4000] = content[start : start + 4000][::-1]
    path.write_bytes(content)
    told = json.loads((folder / "contract.json").read_text())["base"]
    rewritten(folder, base={**told, "sha256": atomic_io.sha256_path(path)})  # so that only what it says tells


def other_template(folder: Path) -> None:
    path = folder / TEMPLATE
    path.write_text(path.read_text() + "!")
    rewritten(folder, template_sha256=atomic_io.sha256_path(path))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "ignored": (
        ignored_adapter,
        "the adapter is not applied: all 4 probes are answered as the base|these are not the weights",
    ),
    "base": (
        other_base,
        "these are not the weights that were tested|log-probabilities that are no numbers|the engine failed on a probe",
    ),
    "template": (other_template, "test conversation 0 of contract.json gives another text here than in training"),
}


@pytest.fixture(scope="module", params=ENGINES)
def release(request, releases: tuple[Path, str, str], tiny_model: Path, tmp_path_factory) -> Path:
    if request.param == "transformers":
        return releases[0].parent / "r1"
    return openvino_release(tiny_model, tmp_path_factory.mktemp("openvino") / "r1")


@pytest.fixture(scope="module")
def unready(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ReleaseRegistry]]:
    folder = tmp_path_factory.mktemp("unready")
    server = Server(folder / "server", env={"TUNECTL_REGISTRY": str(folder / "store")}, engine__threads=2)
    try:
        yield server, ReleaseRegistry(folder / "store")
    finally:
        server.stop()


def pointed(store: ReleaseRegistry, name: str) -> None:
    """Swap the pointer past the checks of ``promote``, as a damaged disk or a stranger would."""
    pointer = ChampionPointer(name, None, "2026-01-01T00:00:00+00:00", "t", "w", next(SEQUENCE))
    atomic_io.write_json(store.root / CHAMPION, pointer)


def refused(server: Server, words: str) -> None:
    said = server.wait(lambda ready, said: not ready and bool(re.search(words, said.get("reason", ""))), 120)
    assert said["ready"] is False
    assert re.search(words, server.log.read_text())
    status, headers, body = server.call(
        "/v1/chat/completions", {"model": "shop", "messages": [{"role": "user", "content": "Hi"}]}
    )
    assert (status, json.loads(body)["error"]["code"]) == (503, "not_ready")
    assert int(headers["retry-after"]) >= 1


def test_not_ready_until_a_release_is_proved(
    unready: tuple[Server, ReleaseRegistry], release: Path, tmp_path: Path
) -> None:
    server, store = unready
    refused(server, "there is no champion in .*; promote a release: tunectl release promote ID")
    for name, (change, words) in CHANGES.items():
        shutil.copytree(release, tmp_path / name)
        change(tmp_path / name)
        pointed(store, stored(tmp_path / name, store.root))
        refused(server, words)
    good = stored(release, store.root)
    bytes_of = (store.folder(good) / ADAPTER).read_bytes()
    (store.folder(good) / ADAPTER).write_bytes(bytes_of[:-1] + b"x")
    pointed(store, good)
    refused(server, f"release {good} is damaged: {ADAPTER} was changed")
    (store.folder(good) / ADAPTER).write_bytes(bytes_of)
    said = server.until_ready(120)
    assert said["variants"]["champion"]["release"] == good
    assert said["variants"]["champion"]["as_base"] == 0
