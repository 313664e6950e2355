"""A project whose stages are scripts of milliseconds: real Git, real DVC, real ``tunectl repro``, real worktrees."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from conf_copy import copy_conf

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "DVC_NO_ANALYTICS": "1",
    "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests' / 'support'}",
}
SPLIT = """
import pathlib
from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
pathlib.Path("artifacts/split").mkdir(parents=True, exist_ok=True)
rows = [
    Example(id=f"e{n}", source=Source("f", n), messages=[Message("user", f"shop {n}")],
            answers=[ReferenceAnswer(f"shop number {n} is open every day of the week", Source("f", n))])
    for n in range(40)
]
atomic_io.write_rows(pathlib.Path("artifacts/split/test.jsonl"), rows)
with open(".tunectl/executed", "a") as stream:
    stream.write("split\\n")
"""
SFT = """
import json, math, os, pathlib, sys, time
from tunectl.backends.sweeps import trial_pruning
from tunectl.core.errors import TrialPrunedError
settings = json.load(open("artifacts/config/sft.json"))["settings"]["sft"]
loss = abs(math.log10(settings["learning_rate"]) + 3.5) + settings["lora_rank"] / 1000
try:
    for step in range(1, 9):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")) / 8)
        trial_pruning.report_validation("sft", step, loss + 1 / step)
except TrialPrunedError as error:
    note = {"stage": "sft", "exit_code": error.exit_code, "message": error.message, "hint": error.hint}
    pathlib.Path(".tunectl/failure.json").write_text(json.dumps(note))
    sys.exit(1)
pathlib.Path("artifacts/sft").mkdir(parents=True, exist_ok=True)
pathlib.Path("artifacts/sft/adapter").write_text(str(loss))
pathlib.Path("artifacts/metrics").mkdir(exist_ok=True)
pathlib.Path("artifacts/metrics/sft.json").write_text(json.dumps({"validation_loss": loss, "steps": 8}))
with open(".tunectl/executed", "a") as stream:
    stream.write("sft\\n")
"""
EVALUATE = """
import json, pathlib
from tunectl.artifacts import atomic_io
from tunectl.evaluation.results import AnswerRow
settings = json.load(open("artifacts/config/evaluate.json"))["settings"]["evaluate"]
loss = float(pathlib.Path("artifacts/sft/adapter").read_text())
right = round(40 * (1 - loss))
rows = []
for n in range(40):
    text = f"shop number {n} is open every day of the week" if n < right else "nobody knows what this could be about"
    rows.append(AnswerRow(f"e{n}", f"shop {n}", [], {}, {"tuned": text}))
pathlib.Path("artifacts/evaluate").mkdir(exist_ok=True)
atomic_io.write_rows(pathlib.Path("artifacts/evaluate/answers.jsonl"), rows)
assert settings["split"] == "test"
"""
PIPELINE = """
stages:
  compose:
    cmd: tunectl run compose
    always_changed: true
    outs: [artifacts/config/sft.json: {cache: false}, artifacts/config/evaluate.json: {cache: false}]
  split:
    cmd: {python} split.py
    deps: [split.py]
    outs: [artifacts/split]
  sft:
    cmd: {python} sft.py
    deps: [artifacts/split, sft.py]
    params: [artifacts/config/sft.json: ]
    outs: [artifacts/sft]
    metrics: [artifacts/metrics/sft.json: {cache: false}]
  evaluate:
    cmd: {python} evaluate.py
    deps: [artifacts/sft, artifacts/split, evaluate.py]
    params: [artifacts/config/evaluate.json: ]
    outs: [artifacts/evaluate]
"""


def make(folder: Path, *, build: bool = True) -> Path:
    """Copy the project into ``folder``, built once, and committed."""
    shutil.copytree(make_template(build), folder, symlinks=True)
    return folder


@functools.cache
def make_template(build: bool) -> Path:
    """The project that is copied, once a process; no stage and no command reads in it where it lies."""
    above = Path(tempfile.mkdtemp(prefix="tunectl-sweep-"))
    atexit.register(shutil.rmtree, above, ignore_errors=True)
    write_project(above / "shop", build=build)
    return above / "shop"


def write_project(folder: Path, *, build: bool) -> None:
    """Write the project, build it once, and commit all."""
    folder.mkdir()
    copy_conf(folder)
    recipe = folder / "conf" / "config.yaml"
    # the rate of lora leaves room for a better one
    recipe.write_text(recipe.read_text().replace("sft: local_lens", "sft: lora"))
    (folder / "split.py").write_text(SPLIT)
    (folder / "sft.py").write_text(SFT)
    (folder / "evaluate.py").write_text(EVALUATE)
    (folder / "dvc.yaml").write_text(PIPELINE.replace("{python}", sys.executable))
    (folder / ".gitignore").write_text(".tunectl/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, env=ENVIRONMENT, check=True)
    if build:
        tunectl(folder, "repro", "--unattended", "--to", "sft")
    commit(folder)


def commit(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "--quiet", "--message", "start")


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def tunectl(folder: Path, *words: str, code: int = 0, **environment: str) -> str:
    """Run a command in the project; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tunectl", *words],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, done.stdout
    return done.stdout
