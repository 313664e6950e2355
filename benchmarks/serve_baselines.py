"""The systems of bench_serve: how each is started, asked and stopped. While one is measured the others are stopped (SIGSTOP)."""

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve_envs import ROOT, UnavailableError, find, install
from serve_fixtures import ServeFixtures

RUNNING = 32
"""Answers at once: the most clients."""
CACHE_TOKENS, BATCH_TOKENS = 65_536, 512
"""As in conf/serve/default.yaml; the bare engine gets the same."""
CONTEXT = 4096
"""Tokens of a conversation that peers make room for: a prompt of 2,000 tokens and its answer among them."""
READY_TIMEOUT = 420
"""Seconds until a server must be ready."""
PROCESS_CLOCK = 2
"""What Linux puts beside a process id in the number of that process's clock (clock_getcpuclockid)."""
REST, LONGEST_REST = 0.5, 60.0
"""Seconds over which a system must take a tenth of a core or less to be at rest, and seconds that are waited for it."""


@dataclass
class SystemSetup:
    """Folder, files and port of one system."""

    environment: Path
    fixtures: ServeFixtures
    folder: Path
    port: int
    release: str
    """The layout that is served: merged or adapter (kept apart)."""
    key: str = ""

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.environment / "bin/python")


@dataclass(frozen=True)
class MeasuredSystem:
    """A system that is measured."""

    name: str
    says: str
    """Description, precision, and the settings that were best here."""
    environment: str
    command: Callable[[SystemSetup], list[str]]
    ready: str
    """Path that answers 200 once it can serve; empty: a line on its standard output."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields of its requests beside messages, max_tokens, stream and temperature."""
    env: Callable[[SystemSetup], dict[str, str]] = lambda _: {}
    release: str = "merged"
    """The layout that it serves: merged or adapter (kept apart)."""
    ours: bool = False
    """Whether our server answers: keys, inference log, liveness proof."""
    logprob_share: float | None = None
    """For our server: share of answers with log-probabilities; None: that of conf/."""
    on_request: bool = False
    """Whether it is measured only where it is named."""


USAGE = {"stream_options": {"include_usage": True}}
FORCED = {**USAGE, "ignore_eos": True}


def _tunectl(setup: SystemSetup) -> list[str]:
    words = ["--host", "127.0.0.1", "--port", str(setup.port), "--timeout-graceful-shutdown", "5"]
    return [setup.python, "-m", "bentoml", "serve", "tunectl.services.bento_service:TunectlService", *words]


def _bare(setup: SystemSetup) -> list[str]:
    numbers = [str(item) for item in (setup.port, CACHE_TOKENS, BATCH_TOKENS, RUNNING)]
    folder = setup.fixtures.releases[setup.release]
    numbers.append(str(setup.fixtures.settings["inference_log"]["logprob_share"]))
    adapter = [str(folder / "adapter")] if setup.release == "adapter" else []
    return [setup.python, str(ROOT / "benchmarks/serve_bare_engine.py"), str(folder / "model"), *numbers, *adapter]


def _transformers(setup: SystemSetup) -> list[str]:
    words = ["--device", "cpu", "--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(setup.port)]
    return [str(setup.environment / "bin/transformers"), "serve", str(setup.fixtures.endless), *words]


def _continuous(setup: SystemSetup) -> list[str]:
    # without these it sizes its cache to 60 % of the machine's memory
    sizes = ["--cb-num-blocks", str(CACHE_TOKENS // 256), "--cb-block-size", "256", "--cb-max-batch-tokens", "512"]
    return [*_transformers(setup), "--continuous-batching", "--attn-implementation", "sdpa", *sizes]


def _vllm(setup: SystemSetup) -> list[str]:
    return [*_vllm_serve(setup, setup.fixtures.merged), "--served-model-name", "benchmark"]


def _vllm_serve(setup: SystemSetup, model: Path) -> list[str]:
    words = ["--host", "127.0.0.1", "--port", str(setup.port), "--dtype", "bfloat16"]
    words += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(RUNNING)]
    return [str(setup.environment / "bin/vllm"), "serve", str(model), *words]


def _vllm_adapter(setup: SystemSetup) -> list[str]:
    adapter, base = setup.fixtures.adapter, setup.fixtures.base
    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    size = next(each for each in (8, 16, 32, 64, 128, 256, 320, 512) if each >= rank)  # those that it knows
    words = ["--enable-lora", "--max-lora-rank", str(size), "--lora-modules", f"benchmark={adapter}"]
    return [*_vllm_serve(setup, base), "--served-model-name", "base", *words]


def _llama(setup: SystemSetup) -> list[str]:
    words = ["--host", "127.0.0.1", "--port", str(setup.port), "--jinja", "--no-webui"]
    words += ["--parallel", str(RUNNING), "--ctx-size", str(RUNNING * CONTEXT), "--threads", str(cores())]
    return [str(setup.environment / "bin/llama-server"), "-m", str(setup.fixtures.gguf), *words]


def _tunectl_environment(setup: SystemSetup) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT / "src"),
        "TUNECTL_REGISTRY": str(setup.fixtures.stores[setup.release]),
        "TUNECTL_SERVE": str(setup.folder / "serve.json"),
        "BENTOML_HOME": str(setup.folder / "bentoml"),
        "BENTOML_CONTAINERIZED": "1",
    }


def _all_cores(_: SystemSetup) -> dict[str, str]:
    """vLLM reserves a core for its front end by default; with all cores it is faster here."""
    sizes = {"VLLM_CPU_KVCACHE_SPACE": "3", "VLLM_NO_USAGE_STATS": "1"}
    return {**sizes, "VLLM_CPU_OMP_THREADS_BIND": f"0-{cores() - 1}"}


TUNECTL = MeasuredSystem(
    "tunectl",
    "our server over HTTP, adapter merged, int8 (OpenVINO)",
    "tunectl",
    _tunectl,
    "/readyz",
    FORCED,
    _tunectl_environment,
    ours=True,
)
PEERS = (
    TUNECTL,
    MeasuredSystem("bare", "the same engine alone, adapter merged", "tunectl", _bare, ""),
    replace(
        TUNECTL,
        name="tunectl_apart",
        says="our server over HTTP, adapter kept apart, int8 (OpenVINO)",
        release="adapter",
    ),
    MeasuredSystem("bare_apart", "the same engine alone, adapter kept apart", "tunectl", _bare, "", release="adapter"),
    MeasuredSystem("vllm", "vLLM's CPU build, bf16, bound to all cores", "vllm", _vllm, "/health", FORCED, _all_cores),
    MeasuredSystem(
        "vllm_adapter",
        "vLLM's CPU build, bf16, bound to all cores, adapter kept apart",
        "vllm",
        _vllm_adapter,
        "/health",
        FORCED,
        _all_cores,
        "adapter",
    ),
    MeasuredSystem(
        "transformers_cb", "transformers, continuous batching, bf16", "transformers", _continuous, "/health"
    ),
    MeasuredSystem(
        "llama_cpp", "llama.cpp's server, Q8_0, 32 slots, all cores", "llama_cpp", _llama, "/health", FORCED
    ),
    replace(
        TUNECTL,
        name="tunectl_no_logprobs",
        says="our server over HTTP, adapter merged, int8, log-probabilities only for requests that ask",
        logprob_share=0.0,
        on_request=True,
    ),
)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


class RunningSystem:
    """A running system: a process and its descendants."""

    def __init__(self, peer: MeasuredSystem, fixtures: ServeFixtures, path: Path) -> None:
        """Start it.

        Raises  UnavailableError when its environment cannot be made, or it cannot be started.
        """
        folder = path / "run" / peer.name
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.peer = peer
        self.setup = SystemSetup(_environment(peer, fixtures, path), fixtures, folder, port, peer.release)
        if peer.ours:
            self.setup.key = _prepare_settings(folder, fixtures, peer.logprob_share)
        self.log = folder / "log"
        quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True"}
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    peer.command(self.setup),
                    cwd=folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **quiet, **peer.env(self.setup)},
                    start_new_session=True,  # Ctrl-C is ours to hand on
                )
        except OSError as error:
            raise UnavailableError(str(error)) from error

    def wait(self) -> float:
        """Wait until it can serve; seconds that it took.

        Raises  UnavailableError with the last line of its log when it ends, or is not ready in time.
        """
        start = time.monotonic()
        while time.monotonic() - start < READY_TIMEOUT:
            if self.process.poll() is not None:
                raise UnavailableError(f"it ended with {self.process.returncode}: {self.last()}")
            if self._answers():
                return time.monotonic() - start
            time.sleep(0.1)
        raise UnavailableError(f"not ready after {READY_TIMEOUT} s: {self.last()}")

    def last(self) -> str:
        """The last line of its log that says something."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        named = [line for line in lines if "Error" in line]
        return (named or lines or ["without a word"])[-1][:300]

    def _answers(self) -> bool:
        if not self.peer.ready:
            return "ready" in self.log.read_text(errors="replace").splitlines()
        connection = http.client.HTTPConnection("127.0.0.1", self.setup.port, timeout=5)
        try:
            connection.request("GET", self.peer.ready)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def pause(self) -> None:
        """Stop all its processes and threads (SIGSTOP)."""
        self._send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue all its processes (SIGCONT)."""
        self._send_signal(signal.SIGCONT)

    def settle(self) -> None:
        """Wait until it computes no more: some systems finish answers whose clients have left, and would do so in the next window."""
        end = time.monotonic() + LONGEST_REST
        while time.monotonic() < end:
            cpu = self.cpu()
            time.sleep(REST)
            if self.cpu() - cpu < REST / 10:
                return

    def stop(self) -> None:
        """Terminate it; kill it if it does not end."""
        self.resume()
        processes = self.list_processes()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _send_signal(self, number: int) -> None:
        for pid in self.list_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def list_processes(self) -> list[int]:
        """List its process and descendants, parents first; some start their own sessions, so a process group would miss them."""
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

    def cpu(self, without: str = "") -> float:
        """Return seconds of processor time so far, without the processes whose command has a word."""
        return sum(_cpu(pid) for pid in self.list_processes() if not without or without not in _command(pid))

    def memory(self) -> float:
        """Megabytes that are in memory, what processes share counted once."""
        return sum(_memory(pid) for pid in self.list_processes())


def _environment(peer: MeasuredSystem, fixtures: ServeFixtures, path: Path) -> Path:
    """Return where a system is installed; a check of the script uses this interpreter for our server."""
    if peer.environment != "tunectl":
        return find(peer.environment, path)
    return Path(sys.prefix) if fixtures.quick else install("tunectl", path)


def _cpu(pid: int) -> float:
    """Read the processor clock of a process, in nanoseconds by the kernel: /proc/PID/stat counts in hundredths of a second."""
    try:
        return time.clock_gettime((~pid << 3) | PROCESS_CLOCK)
    except OSError:
        return 0.0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def _prepare_settings(folder: Path, fixtures: ServeFixtures, logprob_share: float | None) -> str:
    """Write settings of conf/ and a key for one of our servers, whose inference log starts empty; return the key."""
    from datetime import UTC, datetime

    from tunectl.access import api_keys

    settings = fixtures.settings
    if logprob_share is not None:
        settings = {**settings, "inference_log": {**settings["inference_log"], "logprob_share": logprob_share}}
    (folder / "serve.json").write_text(json.dumps(settings))
    for old in folder.glob(".tunectl/inference_log/*"):
        old.unlink()
    (folder / ".tunectl/keys.json").unlink(missing_ok=True)
    secret, entry = api_keys.create_key("benchmark", ["admin"], None, datetime.now(UTC))
    api_keys.add(folder / ".tunectl/keys.json", entry)
    return secret


if __name__ == "__main__":
    print(*(f"{item.name:16} {item.says}" for item in PEERS), sep="\n", file=sys.stdout)
