"""Releases that somebody broke and hashed anew: each is refused when it is loaded, and the champion goes on (fault 9)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving_process import Server
from tiny_release import stored

from scenarios.fault_result import FaultResult
from scenarios.load_patterns import CHAT, chat
from scenarios.raw_http_client import ask
from tunectl.registry.release_store import ReleaseRegistry

ADAPTER = "adapter/adapter_model.safetensors"
Change = Callable[[Path], None]


class Trap:
    """What an unpickler of this would do: write a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.mark), "w")


def changes(mark: Path) -> dict[str, Change]:
    """What is done to a release folder, by name; a pickle that is read makes ``mark``."""
    trap = pickle.dumps(Trap(mark))

    def only_pickle(folder: Path) -> None:
        (folder / ADAPTER).unlink()
        (folder / "adapter/adapter_model.bin").write_bytes(trap)
        _contract(folder, adapter_sha256=_sha(folder / "adapter/adapter_model.bin"))

    def pickle_beside(folder: Path) -> None:
        (folder / "adapter/adapter_model.bin").write_bytes(trap)
        (folder / ADAPTER).write_bytes(trap)
        _contract(folder, adapter_sha256=_sha(folder / ADAPTER))

    def base(folder: Path) -> None:
        path = folder / "model/model.safetensors"
        _weights(path, lambda name, one: one.flip(0) if one.dim() == 2 else one)
        _contract(folder, base={**json.loads((folder / "contract.json").read_text())["base"], "sha256": _sha(path)})

    def rank(folder: Path) -> None:
        _config(folder, r=8)

    def truncated(folder: Path) -> None:
        data = (folder / ADAPTER).read_bytes()
        (folder / ADAPTER).write_bytes(data[: len(data) // 2])
        _contract(folder, adapter_sha256=_sha(folder / ADAPTER))

    def numbers(folder: Path) -> None:
        _weights(folder / ADAPTER, lambda name, one: one * float("nan"))
        _contract(folder, adapter_sha256=_sha(folder / ADAPTER))

    def zeros(folder: Path) -> None:
        _weights(folder / ADAPTER, lambda name, one: one * 0)
        _contract(folder, adapter_sha256=_sha(folder / ADAPTER))

    def no_json(folder: Path) -> None:
        (folder / "adapter/adapter_config.json").write_text('{"r": ')

    def remote_code(folder: Path) -> None:
        path = folder / "model/config.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
        )
        (folder / "model/evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
        base(folder)

    return {
        "pickle alone": only_pickle,
        "pickle called safetensors": pickle_beside,
        "another base": base,
        "another rank": rank,
        "truncated": truncated,
        "NaN weights": numbers,
        "weights of zero": zeros,
        "broken config": no_json,
        "code in the model": remote_code,
    }


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _contract(folder: Path, **values: object) -> None:
    path = folder / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _config(folder: Path, **values: object) -> None:
    path = folder / "adapter/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _weights(path: Path, change: Callable[[str, Any], Any]) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: change(name, one).contiguous() for name, one in load_file(path).items()}, path, {"format": "pt"})


async def bad_adapters(
    server: Server, store: ReleaseRegistry, folder: Path, names: list[str] | None = None
) -> FaultResult:
    """Promote one broken release after another in the store of a running server; the old champion is put back at the end."""
    mark = folder / "unpickled"
    every = changes(mark)
    chosen = names or list(every)
    found = FaultResult(
        9, f"{len(chosen)} broken adapters", "refused at load, with the reason; the champion keeps serving"
    )
    champion = store.champion().release
    for name in chosen:
        bad = _broken(store, champion, folder / name.replace(" ", "-"), every[name])
        store.promote(bad, author="fault", message=name)
        reason = await _refusal(server, champion, bad)
        found.figures[name] = reason.splitlines()[0].replace(f"{store.root}/releases/", "")[:110] if reason else ""
        found.require(bool(reason), f"{name}: it was not refused")
        reply = await ask(server.port, CHAT, server.keys["chat"], chat(2))
        told = json.loads(reply.events[0])["system_fingerprint"] if reply.streamed else reply.status
        found.require(told == champion, f"{name}: asked afterwards, {told} answers")
    found.require(not mark.exists(), "a pickle or the model's own code was run")
    store.promote(champion, author="fault", message="back")
    return found


def _broken(store: ReleaseRegistry, champion: str, folder: Path, change: Change) -> str:
    shutil.copytree(store.folder(champion), folder)
    (folder / "manifest.json").unlink()
    change(folder)
    return stored(folder, store.root)


async def _refusal(server: Server, champion: str, bad: str) -> str:
    """Why the bad release was not loaded; empty where it was."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        said = json.loads((await ask(server.port, "/readyz", None)).body)
        if said["variants"].get("champion", {}).get("release") != champion:
            return ""
        reason = said.get("problems", {}).get("champion", "")
        if bad in reason:
            return reason
        await asyncio.sleep(0.1)
    return ""
