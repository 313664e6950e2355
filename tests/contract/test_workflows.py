"""The workflows and hooks for people outside say what the project says: Python versions, make targets, tool versions."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunectl.backends.export import exporter_env

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    found["on"] = found.pop(True, found.get("on"))  # YAML 1.1 reads the key `on` as true
    return dict(found)


def list_steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_three() -> None:
    assert [path.name for path in WORKFLOWS] == ["nightly.yml", "release.yml", "test.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_pins_major_versions(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job and job["timeout-minutes"] for job in workflow["jobs"].values())
    used = [step["uses"] for step in list_steps(workflow) if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@v\d+", name)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_make_targets_and_scripts_exist(path: Path) -> None:
    commands = "\n".join(step.get("run", "") for step in list_steps(load(path)))
    targets = set(re.findall(r"^make ([\w-]+)", commands, re.MULTILINE))
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= known
    assert all((ROOT / name).stat().st_mode & 0o100 for name in re.findall(r"^(\.ci/\w+)", commands, re.MULTILINE))


def test_the_night_skips_no_test_for_want_of_vllm() -> None:
    """Its tests skip without its environment, which they do not make themselves, and a skip fails that run."""
    workflow = load(ROOT / ".github/workflows/nightly.yml")
    runs = [step.get("run", "") for step in list_steps(workflow)]
    assert "TUNECTL_TEST_ENVS" in workflow["env"]
    (install,) = [number for number, run in enumerate(runs) if "benchmarks/serve_envs.py vllm" in run]
    assert '--place "$TUNECTL_TEST_ENVS"' in runs[install]
    assert install < runs.index("make test-all")
    reasons = re.findall(r'pytest\.skip\("([^"]+)"\)', (ROOT / "tests/support/vllm_server.py").read_text())
    allowed = re.search(r"ALLOWED_SKIPS = (\(.*?\n?\))\n", (ROOT / "tests/conftest.py").read_text(), re.DOTALL)
    assert reasons
    assert allowed is not None
    assert all(reason.startswith(ast.literal_eval(allowed[1])) for reason in reasons), (
        "nothing can be installed for these"
    )


def test_the_night_keeps_the_environment_of_flower() -> None:
    workflow = load(ROOT / ".github/workflows/nightly.yml")
    steps = list_steps(workflow)
    (cached,) = [step["with"] for step in steps if "TUNECTL_TEST_ENVS" in step.get("with", {}).get("path", "")]
    assert exporter_env.FLOWER.lock in cached["key"], "a new lock is a new environment"
    runs = [step.get("run", "") for step in steps]
    (made,) = [number for number, run in enumerate(runs) if "exporter_env.FLOWER" in run]
    assert 'os.environ["TUNECTL_TEST_ENVS"]' in runs[made]
    assert f'echo "{exporter_env.FLOWER.variable}=$flower" >> "$GITHUB_ENV"' in runs[made]
    assert made < runs.index("make test-all")


def test_a_pull_request_runs_the_gate() -> None:
    """The selection with the marker ci, on the system for which `.ci/install` is written."""
    workflow = load(ROOT / ".github/workflows/test.yml")
    assert "pull_request" in workflow["on"]
    (job,) = [job for job in workflow["jobs"].values() if any(step.get("run") == ".ci/run" for step in job["steps"])]
    assert job["container"]["image"] == "debian:13"
    gate = (ROOT / ".ci/run").read_text()
    assert "make test-ci" in gate.splitlines()
    assert re.findall(r"^\.ci/install (\w+)", gate, re.MULTILINE) == ["base", "rest"], "all that it installs"


def test_the_installer_knows_its_parts() -> None:
    done = subprocess.run([ROOT / ".ci/install", "others"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, ".ci/install: there is no part others, only base and rest\n")


def test_every_supported_python_is_tested() -> None:
    tested = load(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    declared = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert tested == declared
    assert PROJECT["requires-python"] == f">={tested[0]}"


def test_nothing_is_published_without_the_secret() -> None:
    publish = load(ROOT / ".github/workflows/release.yml")["jobs"]["publish"]
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')"
    uploads = [step for step in publish["steps"] if "upload" in step.get("run", "") and "twine" in step["run"]]
    assert [step["if"] for step in uploads] == ["env.TWINE_PASSWORD != ''"]


def test_hooks_have_the_locked_version_of_ruff() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = [one for one in hooks if one["repo"].endswith("/ruff-pre-commit")]
    locked = re.search(r"^ruff==(\S+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    assert locked is not None
    assert ruff["rev"] == f"v{locked[1]}"
