"""The lock files hold what pyproject.toml asks for: whoever installs them has every extra that they promise."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.txt") if not path.name.startswith("torch"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BESIDE = ("postgres", "s3", "gs", "azure", "mlflow", "wandb", "sweep", "ray", "private", "gpu")


def asked(extra: str) -> list[Requirement]:
    """What an extra needs, ours taken apart; the core first."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    todo, seen = [extra], set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for one in map(Requirement, PROJECT["optional-dependencies"][name]):
            if one.name == PROJECT["name"]:
                todo += [each for each in sorted(one.extras) if each not in seen]
            else:
                found.append(one)
    return found


def list_blocks(name: str) -> dict[str, list[str]]:
    """The lines of a lock by package, hashes with it; files that are named are read, too."""
    found: dict[str, list[str]] = {}
    package = ""
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if line.startswith("-r "):
            found |= list_blocks(line.removeprefix("-r ").strip())
        elif line.startswith("    --hash"):
            found[package].append(line)
        elif line and line[0] not in "#-":
            package = canonicalize_name(re.split(r"[=\[<> ;]", line, maxsplit=1)[0])
            found.setdefault(package, []).append(line)
    return found


def locked(name: str) -> dict[str, str]:
    """Package to its versions (one for each marker), or to its range."""
    found: dict[str, str] = {}
    for package, lines in list_blocks(name).items():
        heads = [re.sub(r"^[\w.-]+(\[.*?\])?", "", line.removesuffix(" \\")) for line in lines if line[0] != " "]
        found[package] = next(
            (
                head.partition(";")[0].strip()
                for head in heads
                if not head.partition(";")[2] or Marker(head.partition(";")[2]).evaluate()
            ),
            "",
        )
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_one_version_with_the_hashes_of_its_files(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    for package, lines in list_blocks(name).items():
        versions = [number for number, line in enumerate(lines) if line[0] != " "]
        for start, end in pairwise([*versions, len(lines)]):
            assert re.match(
                r"[\w.-]+(\[[\w,-]+\])?==[\w.!]+( ; [^\\]+)?( --hash=sha256:[0-9a-f]{64})?( \\)?$", lines[start]
            ), package
            hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", "\n".join(lines[start:end]))
            assert hashes, f"{package} has no hash"
    assert "://" not in text, "a lock names no index: hashes hold for all of them"
    assert "+cpu" not in text


@pytest.mark.parametrize("name", sorted(set(LOCKS) - {"serve-vllm.txt"}))
def test_torch_is_a_range_in_a_file_of_its_own(name: str) -> None:
    """Its builds for CPU and CUDA have other hashes, so no lock but vLLM's, which chooses one, may name it."""
    wrong = [
        one
        for one in locked(name)
        if one in {"torch", "torchvision", "triton"} or re.match(r"nvidia-(?!ml-py)|cuda-", one)
    ]
    assert wrong == []
    assert (ROOT / "requirements/torch.txt").read_text() == "torch>=2.9\n"
    assert (ROOT / "requirements/torchvision.txt").read_text() == "torchvision>=0.24\n"


@pytest.mark.parametrize("name", ["docs", "export", "serve-openvino", "serve-transformers", "serve-vllm"])
def test_a_lock_of_an_environment_holds_what_its_file_asks_for(name: str) -> None:
    found = locked(f"{name}.txt")
    for line in (ROOT / f"requirements/{name}.in").read_text().splitlines():
        if line and line[0] != "#":
            wanted = Requirement(line)
            version = found.get(canonicalize_name(wanted.name), "")
            assert wanted.name == "torch" or wanted.specifier.contains(version.removeprefix("=="), prereleases=True), (
                line
            )


def test_everything_is_installed_by_hash() -> None:
    makefile, bento = (ROOT / "Makefile").read_text(), (ROOT / "bentofile.yaml").read_text()
    script = (ROOT / "requirements/install.py").read_text()
    assert 'STRICT = ("--require-hashes", "--no-deps")' in script
    assert script.count("*STRICT") == 2, "with uv and with pip"
    assert re.findall(r"install.py (.*)", makefile) == ["torch.txt run.txt", "dev.txt", "docs.txt && touch $@"]
    assert 'pip_args: "--verify-hashes"' in bento
    worker = (ROOT / "monitoring/worker.dockerfile").read_text()
    assert "python lock/install.py torch.txt run.txt postgres.txt" in worker
    assert "pip install --no-cache-dir -r" not in worker


def test_every_extra_has_a_lock_and_every_line_of_one_has_a_floor() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert {*everything.extras, *BESIDE, "all", "dev", "vllm"} == set(extras), "vllm has serve-vllm.txt"
    for extra, lines in extras.items():
        for line in map(Requirement, lines):
            floors = [one for one in line.specifier if one.operator in {">=", "==", "~="}]
            assert floors or line.name == PROJECT["name"], f"{extra}: {line}"


@pytest.mark.parametrize("extra", BESIDE)
def test_an_extra_fits_beside_run_txt_as_it_is(extra: str) -> None:
    run, own = locked("run.txt"), locked(f"{extra}.txt")
    assert own.keys().isdisjoint(run)
    for wanted in asked(extra):
        version = {**run, **own}.get(canonicalize_name(wanted.name), "")
        assert wanted.name == "torch" or wanted.specifier.contains(version.removeprefix("=="), prereleases=True), wanted


@pytest.mark.parametrize(("name", "extra"), [("run.txt", "all"), ("dev.txt", "dev")])
def test_a_lock_holds_everything_that_its_extra_asks_for(name: str, extra: str) -> None:
    """`make lock` mends it."""
    kept, wrong = locked(name), {}
    for one in asked(extra):
        if one.marker is not None and not one.marker.evaluate():
            continue
        if one.name == "torch":
            continue
        version = kept.get(canonicalize_name(one.name))
        if version is None or (version.startswith("==") and not one.specifier.contains(version[2:], prereleases=True)):
            wrong[str(one)] = version or "absent"
    assert wrong == {}
