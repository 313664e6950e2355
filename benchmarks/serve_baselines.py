"""The systems of bench_serve: how each is started, asked and stopped. While one is measured the others stand still (SIGSTOP)."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_envs import ROOT, UnavailableError, find, install
from serve_fixtures import Material

RUNNING = 32
"""Answers at once: the most clients."""
CACHE_TOKENS, BATCH_TOKENS = 65_536, 512
"""As in conf/serve/default.yaml; the bare engine gets the same."""
CONTEXT = 4096
"""Tokens of a conversation that peers make room for: a prompt of 2,000 tokens and its answer among them."""
PATIENCE = 420
"""Seconds until a server must be ready."""


@dataclass
class Place:
    """Where one system lives."""

    environment: Path
    material: Material
    folder: Path
    port: int
    release: str
    """merged or apart, of ours and the bare engine."""
    key: str = ""

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.environment / "bin/python")


@dataclass(frozen=True)
class Peer:
    """One system."""

    name: str
    says: str
    """What it is, its precision, and the settings that were the best for it here."""
    environment: str
    command: Callable[[Place], list[str]]
    ready: str
    """Path that answers 200 once it can serve; empty: a line on its standard output."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields of its requests beside messages, max_tokens, stream and temperature."""
    env: Callable[[Place], dict[str, str]] = lambda _: {}
    release: str = ""
    """Of ours: which one it serves, merged or apart."""
    ours: bool = False
    """Whether our server answers: keys, inference log, liveness proof."""


USAGE = {"stream_options": {"include_usage": True}}
FORCED = {**USAGE, "ignore_eos": True}


def _tunectl(place: Place) -> list[str]:
    words = ["--host", "127.0.0.1", "--port", str(place.port), "--timeout-graceful-shutdown", "5"]
    return [place.python, "-m", "bentoml", "serve", "tunectl.services.bento_service:TunectlService", *words]


def _bare(place: Place) -> list[str]:
    numbers = [str(item) for item in (place.port, CACHE_TOKENS, BATCH_TOKENS, RUNNING)]
    folder = place.material.releases[place.release]
    numbers.append(str(place.material.settings["inference_log"]["logprob_share"]))
    adapter = [str(folder / "adapter")] if place.release == "adapter" else []
    return [place.python, str(ROOT / "benchmarks/serve_bare_engine.py"), str(folder / "model"), *numbers, *adapter]


def _transformers(place: Place) -> list[str]:
    words = ["--device", "cpu", "--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(place.port)]
    return [str(place.environment / "bin/transformers"), "serve", str(place.material.endless), *words]


def _continuous(place: Place) -> list[str]:
    # without these it sizes its cache to 60 % of the machine's memory
    sizes = ["--cb-num-blocks", str(CACHE_TOKENS // 256), "--cb-block-size", "256", "--cb-max-batch-tokens", "512"]
    return [*_transformers(place), "--continuous-batching", "--attn-implementation", "sdpa", *sizes]


def _vllm(place: Place) -> list[str]:
    return [*_vllm_serve(place, place.material.merged), "--served-model-name", "benchmark"]


def _vllm_serve(place: Place, model: Path) -> list[str]:
    words = ["--host", "127.0.0.1", "--port", str(place.port), "--dtype", "bfloat16"]
    words += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(RUNNING)]
    return [str(place.environment / "bin/vllm"), "serve", str(model), *words]


def _vllm_adapter(place: Place) -> list[str]:
    adapter, base = place.material.adapter, place.material.base
    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    size = next(each for each in (8, 16, 32, 64, 128, 256, 320, 512) if each >= rank)  # those that it knows
    words = ["--enable-lora", "--max-lora-rank", str(size), "--lora-modules", f"benchmark={adapter}"]
    return [*_vllm_serve(place, base), "--served-model-name", "base", *words]


def _llama(place: Place) -> list[str]:
    words = ["--host", "127.0.0.1", "--port", str(place.port), "--jinja", "--no-webui"]
    words += ["--parallel", str(RUNNING), "--ctx-size", str(RUNNING * CONTEXT), "--threads", str(cores())]
    return [str(place.environment / "bin/llama-server"), "-m", str(place.material.gguf), *words]


def _own(place: Place) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT / "src"),
        "TUNECTL_REGISTRY": str(place.material.stores[place.release]),
        "TUNECTL_SERVE": str(place.folder / "serve.json"),
        "BENTOML_HOME": str(place.folder / "bentoml"),
        "BENTOML_CONTAINERIZED": "1",
    }


def _all_cores(_: Place) -> dict[str, str]:
    """vLLM keeps a core for its front end unless it is told; with all cores it is faster here."""
    sizes = {"VLLM_CPU_KVCACHE_SPACE": "3", "VLLM_NO_USAGE_STATS": "1"}
    return {**sizes, "VLLM_CPU_OMP_THREADS_BIND": f"0-{cores() - 1}"}


PEERS = (
    Peer(
        "tunectl",
        "our server over HTTP, adapter merged, int8 (OpenVINO)",
        "tunectl",
        _tunectl,
        "/readyz",
        FORCED,
        _own,
        "merged",
        ours=True,
    ),
    Peer("bare", "the same engine alone, adapter merged", "tunectl", _bare, "", release="merged"),
    Peer(
        "tunectl_apart",
        "our server over HTTP, adapter kept apart",
        "tunectl",
        _tunectl,
        "/readyz",
        FORCED,
        _own,
        "adapter",
        ours=True,
    ),
    Peer("bare_apart", "the same engine alone, adapter kept apart", "tunectl", _bare, "", release="adapter"),
    Peer("vllm", "vLLM's CPU build, bf16, bound to all cores", "vllm", _vllm, "/health", FORCED, _all_cores),
    Peer(
        "vllm_adapter",
        "vLLM's CPU build, bf16, bound to all cores, adapter kept apart",
        "vllm",
        _vllm_adapter,
        "/health",
        FORCED,
        _all_cores,
    ),
    Peer("transformers_cb", "transformers, continuous batching, bf16", "transformers", _continuous, "/health"),
    Peer("llama_cpp", "llama.cpp's server, Q8_0, 32 slots, all cores", "llama_cpp", _llama, "/health", FORCED),
)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


class Running:
    """One system: a process and all that it starts."""

    def __init__(self, peer: Peer, material: Material, path: Path) -> None:
        """Start it.

        Raises  UnavailableError when its environment cannot be made, or it cannot be started.
        """
        folder = path / "run" / peer.name
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.peer = peer
        self.place = Place(_environment(peer, material, path), material, folder, port, peer.release)
        if peer.ours:
            self.place.key = _prepare_settings(folder, material)
        self.log = folder / "log"
        quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True"}
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    peer.command(self.place),
                    cwd=folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **quiet, **peer.env(self.place)},
                    start_new_session=True,  # Ctrl-C is ours to hand on
                )
        except OSError as error:
            raise UnavailableError(str(error)) from error

    def wait(self) -> float:
        """Wait until it can serve; seconds that it took.

        Raises  UnavailableError with the last line of its log when it ends, or is not ready in time.
        """
        start = time.monotonic()
        while time.monotonic() - start < PATIENCE:
            if self.process.poll() is not None:
                raise UnavailableError(f"it ended with {self.process.returncode}: {self.last()}")
            if self._answers():
                return time.monotonic() - start
            time.sleep(0.5)
        raise UnavailableError(f"not ready after {PATIENCE} s: {self.last()}")

    def last(self) -> str:
        """The last line of its log that says something."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        named = [line for line in lines if "Error" in line]
        return (named or lines or ["without a word"])[-1][:300]

    def _answers(self) -> bool:
        if not self.peer.ready:
            return "ready" in self.log.read_text(errors="replace").splitlines()
        connection = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=5)
        try:
            connection.request("GET", self.peer.ready)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def pause(self) -> None:
        """Let it stand still, all its processes and threads."""
        self._send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it: kindly, then not."""
        self.resume()
        family = self.family()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _send_signal(self, number: int) -> None:
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def family(self) -> list[int]:
        """It and all that it started, parents first; some start sessions of their own, so that a group would not hold them."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    children.setdefault(int(parent), []).append(int(entry.name))
        result = [self.process.pid]
        for pid in result:
            result += children.get(pid, [])
        return result

    def cpu(self) -> float:
        """Seconds of processor time that it has taken so far."""
        return sum(_cpu(pid) for pid in self.family())

    def memory(self) -> float:
        """Megabytes that are in memory, what processes share counted once."""
        return sum(_memory(pid) for pid in self.family())


def _environment(peer: Peer, material: Material, path: Path) -> Path:
    """Where a system is installed: in a check of the script ours are those of this interpreter."""
    if peer.environment != "tunectl":
        return find(peer.environment, path)
    return Path(sys.prefix) if material.quick else install("tunectl", path)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def _prepare_settings(folder: Path, material: Material) -> str:
    """Settings of conf/ and a key for one of our servers, whose inference log starts empty; returns the key."""
    from datetime import UTC, datetime

    from tunectl.access import api_keys

    (folder / "serve.json").write_text(json.dumps(material.settings))
    for old in folder.glob(".tunectl/inference_log/*"):
        old.unlink()
    (folder / ".tunectl/keys.json").unlink(missing_ok=True)
    secret, entry = api_keys.create_key("benchmark", ["admin"], None, datetime.now(UTC))
    api_keys.add(folder / ".tunectl/keys.json", entry)
    return secret


if __name__ == "__main__":
    print(*(f"{item.name:16} {item.says}" for item in PEERS), sep="\n", file=sys.stdout)
