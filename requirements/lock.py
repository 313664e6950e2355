"""Resolve pyproject.toml and the files ``*.in`` into lock files: ``python requirements/lock.py [--upgrade]``.

Each line of a lock is one version with the SHA-256 of every file of that version, whatever index it came from, for Linux and every
supported Python. Versions stay as they are where they still fit; ``--upgrade`` takes the newest ones.

torch is in no lock but that of vLLM: its builds for CPU and CUDA differ by machine, and so do their hashes. ``torch.txt`` and
``torchvision.txt`` hold their ranges, and are installed first. What only a CUDA build of torch asks for is left out for the same
reason. vLLM runs on a machine with a CUDA card and takes one version of torch, so its lock has all of it, for the image's Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
EVERYWHERE = ("--universal", "--python-version=3.11")
"""The oldest Python that is supported; such a lock holds for the later ones, too."""
CUDA_IMAGE = ("--python-platform=x86_64-manylinux_2_28", "--python-version=3.13")
TORCH = {"torch": "torch>=2.9", "torchvision": "torchvision>=0.24"}
CUDA_ONLY = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton$)")
ENVIRONMENT = ("python_full_version < '3.14' and ", " and sys_platform == 'linux'", " ; sys_platform == 'linux'")
"""What uv writes behind every line, because ``tool.uv.environments`` of pyproject.toml says so."""
HEADER = "# Made by `make lock` from {source}: {what}. Each line has the hashes of its files; requirements/install.py installs it.\n"
BESIDE = ("postgres", "s3", "gs", "azure", "mlflow", "wandb", "sweep", "ray", "private", "gpu")
"""Extras that are installed beside [all], each with a lock of what it adds to run.txt; no version of that changes."""
ENVIRONMENTS = {
    "docs": "what `make docs` installs",
    "export": "the environment of tunectl's exporter",
    "federated": "the environment of tunectl federate",
    "serve-openvino": "what a Bento for the engine openvino installs",
    "serve-transformers": "what a Bento for the reference engine installs",
    "serve-vllm": "what a Bento for vLLM installs, on a machine with a CUDA card",
}
STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""What a Bento installs besides, by the kind of the registry's address."""
Lock = dict[str, str]
"""Name to the lines of a package, its hashes with it."""


def parse_lock(text: str) -> Lock:
    """Take the lines of a lock apart by package; a package with markers may have several versions, which stay together."""
    found: Lock = {}
    name = ""
    for line in text.splitlines():
        if line[:1] in {"#", "-", ""}:
            continue
        if not line.startswith(" "):
            name = re.split(r"[=\[<> ;]", line, maxsplit=1)[0]
        for part in ENVIRONMENT:
            line = line.replace(part, "")  # noqa: PLW2901
        found[name] = found.get(name, "") + line + "\n"
    return found


def resolve(source: Path, *options: str, keep: Sequence[str] = ()) -> Lock:
    """Resolve a file of requirements with uv; ``keep`` names locks whose versions hold where they fit."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lock.txt"
        known = "".join((HERE / name).read_text() for name in keep if (HERE / name).is_file())
        out.write_text("".join(line for line in known.splitlines(keepends=True) if not line.startswith("-r")))
        words = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate"]
        words += ["--no-header", "--output-file", str(out), *options, str(source)]
        subprocess.run(words, cwd=HERE.parent, check=True, stdout=subprocess.DEVNULL)
        return parse_lock(out.read_text())


def drop_torch(lock: Lock) -> Lock:
    """Leave out torch, and what only its CUDA builds ask for."""
    return {name: lines for name, lines in lock.items() if name not in TORCH and not CUDA_ONLY.match(name)}


def drop_known(lock: Lock, known: Lock) -> Lock:
    """Leave out what another lock has; what that one has under another marker stays."""
    return {name: lines for name, lines in lock.items() if known.get(name) != lines}


def write(name: str, source: str, what: str, lock: Lock, *, first: str = "") -> None:
    """Write a lock; ``first`` is a line of its own before the packages."""
    lines = "".join(lock[one] for one in sorted(lock))
    (HERE / name).write_text(HEADER.format(source=source, what=what) + first + lines)


def main(words: Sequence[str]) -> None:
    """Write all locks. One that stands on another holds only what that one does not."""
    upgrade = [word for word in words if word == "--upgrade"]
    project = HERE.parent / "pyproject.toml"
    run = drop_torch(resolve(project, "--extra=all", *EVERYWHERE, *upgrade, keep=["run.txt"]))
    write("run.txt", "pyproject.toml", "extra [all]", run)
    for extra in ("dev", *BESIDE):
        both = ("--extra=all", f"--extra={extra}", f"--constraints={HERE / 'run.txt'}")
        lock = drop_torch(resolve(project, *both, *EVERYWHERE, *upgrade, keep=["run.txt", f"{extra}.txt"]))
        first = "-r run.txt\n" if extra == "dev" else ""
        write(f"{extra}.txt", "pyproject.toml", f"extra [{extra}], beside run.txt", drop_known(lock, run), first=first)
    for name, what in ENVIRONMENTS.items():
        where = CUDA_IMAGE if name == "serve-vllm" else EVERYWHERE
        keep = ["run.txt", "docs.txt"] if name == "docs" else [f"{name}.txt"]  # docs.txt goes into the same environment
        lock = resolve(HERE / f"{name}.in", *where, *upgrade, keep=keep)
        write(f"{name}.txt", f"{name}.in", what, lock if where is CUDA_IMAGE else drop_torch(lock))
    server = parse_lock((HERE / "serve-openvino.txt").read_text())
    for kind, package in STORES.items():
        with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
            source.write((HERE / "serve-openvino.in").read_text() + f"{package}\n")
            source.flush()
            lock = resolve(Path(source.name), *EVERYWHERE, keep=["serve-openvino.txt", f"store-{kind}.txt"])
        write(
            f"store-{kind}.txt",
            "lock.py",
            f"{package}, for a Bento whose registry lies there",
            drop_known(lock, server),
        )
    for name, line in TORCH.items():
        (HERE / f"{name}.txt").write_text(f"{line}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
