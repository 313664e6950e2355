"""Start-up times: CPU milliseconds of whole processes, the median of several runs.

    make bench-cli

Times `--help`, `check`, `run split` up to the moment before its first heavy import (the stage finds no input and says so), and a
`repro` with nothing to do: of the stages up to split, which are built first, and of all of them where this checkout is built.
`demo` and `console` are timed until they listen and print their link, and then stopped. So is `demo` of the built wheel in a new environment,
whose modules nobody has compiled at its first start; installing it, which fetches libraries from the package index, is a figure of its own.
How much the core takes on the disk is measured in another one.
Beside them, in the same run: a bare interpreter with argparse.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from hardware_info import machine, versions

PYTHON = sys.executable
TUNECTL = [PYTHON, "-m", "tunectl"]
ROOT = Path(__file__).parents[1]
OWN = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""Variables of this environment with which a start from a wheel would be another one."""


def time_command(words: list[str], folder: Path, runs: int, allowed: set[int]) -> dict[str, float]:
    """Median CPU and wall milliseconds of one command."""
    cpu, wall = [], []
    for _ in range(runs):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.run(
            words, cwd=folder, capture_output=True, check=False, env={**os.environ, "DVC_NO_ANALYTICS": "1"}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode not in allowed:
            raise SystemExit(f"{words} ended with {process.returncode}: {process.stderr.decode()[-500:]}")
        cpu.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000)
        wall.append((time.perf_counter() - started) * 1000)
    return {"cpu_ms": round(statistics.median(cpu), 1), "wall_ms": round(statistics.median(wall), 1)}


def time_to_link(words: list[str], folder: Path, runs: int) -> dict[str, float]:
    """Median CPU and wall milliseconds until a program prints the link at which it listens."""
    cpu, wall, ticks = [], [], os.sysconf("SC_CLK_TCK")
    env = {name: value for name, value in os.environ.items() if name not in OWN or words[0] == PYTHON}
    for _ in range(runs):
        started = time.perf_counter()
        with subprocess.Popen(
            words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            if process.stdout is None or not any(line.startswith("open http") for line in process.stdout):
                raise SystemExit(f"{words} printed no link")
            wall.append((time.perf_counter() - started) * 1000)
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            cpu.append((int(fields[11]) + int(fields[12])) / ticks * 1000)
            process.send_signal(signal.SIGINT)
    return {"cpu_ms": round(statistics.median(cpu), 1), "wall_ms": round(statistics.median(wall), 1)}


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout."""
    build = [PYTHON, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("tunectl_lm-*.whl"))


def measure_core(wheel: Path, folder: Path) -> float:
    """MB of the packages of a new environment with the wheel and no extra: compiled modules included, pip and setuptools left out."""
    home = folder / "core"
    venv.create(home, with_pip=False)
    pip = [PYTHON, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", str(wheel)]
    subprocess.run(pip, cwd=folder, check=True, capture_output=True)
    files = (path for path in home.glob("lib/python*/site-packages/**/*") if path.is_file())
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)


def time_fresh_wheel(wheel: Path, folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Install the wheel with the extra console into a new environment without compiling, as uv does, and time its starts."""
    home = folder / "fresh"
    venv.create(home, with_pip=False)
    pip = [PYTHON, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-compile"]
    demo = [str(home / "bin" / "tunectl"), "demo", "--port", "0"]
    return {
        "wheel with [console], installed": time_command([*pip, f"{wheel}[console]"], folder, 1, {0}),
        "demo from it, first start, to listening": time_to_link(demo, folder, 1),
        "demo from it, later starts, to listening": time_to_link(demo, folder, runs),
    }


def main() -> None:
    """Print one line a command and the JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "project"
        subprocess.run([*TUNECTL, "init", str(project), "--example", "local_lens"], check=True, capture_output=True)
        subprocess.run([*TUNECTL, "run", "compose"], cwd=project, check=True, capture_output=True)
        figures = {
            "bare argparse --help": time_command(
                [PYTHON, "-c", "import argparse; argparse.ArgumentParser().print_help()"], project, runs, {0}
            ),
            "tunectl --help": time_command([*TUNECTL, "--help"], project, runs, {0}),
            "tunectl check": time_command([*TUNECTL, "check"], project, runs, {0}),
            "tunectl run compose": time_command([*TUNECTL, "run", "compose"], project, runs, {0}),
            "tunectl run split, before its heavy import": time_command([*TUNECTL, "run", "split"], project, runs, {5}),
        }
        figures["demo, to listening"] = time_to_link([*TUNECTL, "demo", "--port", "0"], project, runs)
        figures["console, to listening"] = time_to_link([*TUNECTL, "console", "console.port=0"], project, runs)
        wheel = build_wheel(Path(name))
        figures |= time_fresh_wheel(wheel, Path(name), runs)
        core_mb = measure_core(wheel, Path(name))
        to_split = [*TUNECTL, "repro", "--to", "split"]
        subprocess.run(to_split, cwd=project, check=True, capture_output=True)
        figures["tunectl repro --to split, nothing to do"] = time_command(to_split, project, 3, {0})
        if (ROOT / "dvc.lock").is_file():
            figures["tunectl repro, nothing to do"] = time_command([*TUNECTL, "repro"], ROOT, 3, {0, 3})
    for label, figure in figures.items():
        print(f"{label:<46} {figure['cpu_ms']:>8.1f} ms CPU {figure['wall_ms']:>8.1f} ms wall")
    bare = figures["bare argparse --help"]["cpu_ms"]
    ratios = {label: round(figure["cpu_ms"] / bare, 2) for label, figure in figures.items()}
    print(
        json.dumps(
            {
                "machine": machine(),
                "versions": versions("tunectl-lm", "pydantic", "hydra-core", "dvc", "starlette", "uvicorn", "jinja2"),
                "figures": figures,
                "ratios_to_bare": ratios,
                "core_installed_mb": core_mb,
            }
        )
    )


if __name__ == "__main__":
    main()
