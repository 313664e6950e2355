"""A project whose stages are scripts of milliseconds: real Git, real DVC, real ``tunectl repro``, real worktrees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "DVC_NO_ANALYTICS": "1",
    "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests' / 'support'}",
}
SPLIT = """
import pathlib
pathlib.Path("artifacts/split").mkdir(parents=True, exist_ok=True)
pathlib.Path("artifacts/split/rows").write_text("rows")
with open(".tunectl/executed", "a") as stream:
    stream.write("split\\n")
"""
SFT = """
import json, os, pathlib, sys, time
from tunectl.backends.sweeps import trial_pruning
from tunectl.core.errors import TrialPrunedError
settings = json.load(open("artifacts/config/sft.json"))["settings"]["sft"]
loss = abs(settings["learning_rate"] * 1000 - 1) + settings["lora_rank"] / 1000
time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
try:
    for step in range(1, 9):
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
PIPELINE = """
stages:
  compose:
    cmd: tunectl run compose
    always_changed: true
    outs: [artifacts/config/sft.json: {cache: false}]
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
"""


def make(folder: Path, *, build: bool = True) -> Path:
    """Write the project, build it once, and commit all."""
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "conf", folder / "conf")
    (folder / "split.py").write_text(SPLIT)
    (folder / "sft.py").write_text(SFT)
    (folder / "dvc.yaml").write_text(PIPELINE.replace("{python}", sys.executable))
    (folder / ".gitignore").write_text(".tunectl/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, env=ENVIRONMENT, check=True)
    if build:
        tunectl(folder, "repro", "--unattended", "--to", "sft")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(
        folder,
        "add",
        "--force",
        "conf",
        "dvc.yaml",
        ".gitignore",
        "split.py",
        "sft.py",
        ".dvc/config",
        "artifacts/config",
    )
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
