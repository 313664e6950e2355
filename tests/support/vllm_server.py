"""A real vLLM server on the CPU, in the environment of its own that ``benchmarks/serve_envs.py`` makes; skipped by name where it cannot run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLE = "TUNECTL_TEST_ENVS"
"""Names the folder of environments; without it they are those of `make bench-serve`."""
START_SECONDS = 600
SETTINGS = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
}


def find_environment() -> Path:
    """The environment of vLLM; the test is skipped without it, or on a processor without AVX512."""
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("vLLM's CPU build needs AVX512, which this processor lacks")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import serve_envs
    finally:
        sys.path.pop(0)
    try:
        return serve_envs.find("vllm", Path(os.environ.get(VARIABLE) or ROOT / ".tunectl/bench-serve"))
    except serve_envs.UnavailableError as error:
        pytest.skip(f"vLLM is {error}")


class VllmProcess:
    """A server of ``model`` on a port of loopback; ``url`` is its address."""

    def __init__(self, environment: Path, model: Path, log: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}", log
        words = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
        words += ["--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "16", *options]
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [str(environment / "bin/vllm"), *words],
                env={**inherited, **SETTINGS},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it serves."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
            except OSError:
                time.sleep(0.5)
            else:
                return
        raise AssertionError(self.log.read_text()[-4000:])

    def close(self) -> None:
        """End it with all its processes."""
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
