"""A whole project for the watcher: Git, DVC, live traffic, a champion; the trainer is faked to be short, all around it is real."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conf_copy import copy_conf
from msgspec import to_builtins

from tunectl.artifacts.records import DriftWindow, Feedback, InferenceRecord
from tunectl.backends.storage import inference_log_sql
from tunectl.inference_log.log_store import TimeWindow
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests' / 'support'}",
}
TRAINER = """
import hashlib, json, os, pathlib, resource, subprocess, sys, time
window = pathlib.Path("inference_log/window.json").read_bytes()
# a trainer has children, and it writes at the very end
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
time.sleep(float(os.environ.get("FAKE_SECONDS", "0.2")))
child.kill()
child.wait()
trouble = os.environ.get("FAKE_TROUBLE")
if trouble == "memory":
    resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
    bytearray(2**30)
elif trouble == "killed":
    os.kill(os.getpid(), 9)  # what the kernel does when memory is out
elif trouble == "disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    pathlib.Path("weights.tmp").write_bytes(b"0" * 10_000)
elif trouble:
    sys.exit("CUDA out of memory")
fresh = pathlib.Path("artifacts/package")
(fresh / "release").mkdir(parents=True)
(fresh / "release" / "weights").write_text(hashlib.sha256(window).hexdigest())
facts = {"project": "shop", "engine": "transformers", "layout": "adapter", "metrics": {"bleu": 50.0}, "verdicts": {}, "lineage": None}
(fresh / "facts.json").write_text(json.dumps(facts))
"""
PIPELINE = """
stages:
  package:
    cmd: {python} trainer.py
    deps: [inference_log/window.json, trainer.py]
    outs: [artifacts/package]
"""
WATCH = {
    "approval.training": "none",
    "port": 0,
    "poll_seconds": 0.05,
    "reconcile_minutes": 0,
    "limits.cooldown_hours": 0,
    "limits.max_per_week": 1000,
    "data.min_examples": 1,
    "data.min_new_examples": 1,
    "data.min_annotators": 1,
    "canary": "null",
    "train.max_attempts": 20,
}


def make(folder: Path, inferences: int = 12) -> ReleaseRegistry:
    """Copy the project into ``folder``; returns its release store, with a champion."""
    shutil.copytree(make_template(inferences), folder, symlinks=True)
    return ReleaseRegistry(folder / ".tunectl" / "releases")


@functools.cache
def make_template(inferences: int) -> Path:
    """The project that is copied, once a process; nothing in it names the folder where it lies."""
    above = Path(tempfile.mkdtemp(prefix="tunectl-retrain-"))
    atexit.register(shutil.rmtree, above, ignore_errors=True)
    write_project(above / "shop", inferences)
    return above / "shop"


def write_project(folder: Path, inferences: int) -> None:
    """Files, Git, DVC, traffic, and a champion."""
    folder.mkdir()
    copy_conf(folder)
    (folder / "trainer.py").write_text(TRAINER)
    (folder / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    (folder / ".gitignore").write_text(".tunectl/\n/log.txt\n")
    (folder / "inference_log").mkdir()
    (folder / "inference_log" / "window.json").write_text("null\n")
    for words in (
        ["git", "init", "--quiet", "--initial-branch=main"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "--quiet", "-m", "start"],
    ):
        subprocess.run(words, cwd=folder, env=ENVIRONMENT, check=True)
    live(folder, inferences)
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    release = folder / ".tunectl" / "first"
    release.mkdir()
    (release / "weights").write_text("first")
    made = store.add(release, BuildFacts("shop", "transformers", "adapter"))
    store.promote(made.id, author="test", message="the first release")


def live(folder: Path, inferences: int) -> None:
    """Traffic that people edited, and a window that says drift."""
    (folder / ".tunectl" / "inference_log").mkdir(parents=True)
    now = datetime.now(UTC) - timedelta(days=3)
    with inference_log_sql.open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", folder) as store:
        for number in range(inferences):
            at = now + timedelta(minutes=number)
            asked = {"model": "shop", "messages": [{"role": "user", "content": f"An ad for shop {number}"}]}
            said = {"choices": [{"message": {"role": "assistant", "content": f"Ad {number}"}}]}
            name = f"chatcmpl-{number}"
            store.write(
                [InferenceRecord(name, at, "champion", "r", "t", asked, f"u{number}", finished_at=at, response=said)]
            )
            store.write([Feedback(f"f{number}", name, "edit", f"A better ad {number}", at, f"a{number % 4}")])


def drift(folder: Path, champion: str, name: str = "w" * 16) -> DriftWindow:
    """Add a window that says drift."""
    now = datetime.now(UTC)
    found = DriftWindow(
        name, now - timedelta(hours=1), now, 100, "drift", True, champion, "training", reason="new shops", evidence=4.0
    )
    with inference_log_sql.open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", folder) as store:
        store.add_window(TimeWindow(name, found.since, found.until, now, to_builtins(found)))
    return found


def overrides(**more: object) -> list[str]:
    """Overrides of a watcher that hurries."""
    return [f"retrain.{name}={value}" for name, value in {**WATCH, **more}.items()]


def start(folder: Path, *words: str, before: Sequence[str] = (), **environment: str) -> subprocess.Popen[bytes]:
    """The watcher as a process of its own, started by ``before``."""
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*before, sys.executable, str(Path(__file__).with_name("killable_retrainer.py")), *words],
            cwd=folder,
            env={**ENVIRONMENT, **environment},
            stdout=log,
            stderr=log,
        )


def states(folder: Path) -> list[list[str]]:
    """The states of every run."""
    runs = sorted((folder / ".tunectl" / "retrain" / "runs").glob("*.json"))
    return [[step["state"] for step in json.loads(path.read_text())["steps"]] for path in runs]


def parties(watcher: int) -> dict[str, list[int]]:
    """The parties of a run, by name; of DVC the process that builds, as the short ones before it end by themselves."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    family, found = {watcher}, {"watcher": [watcher], "guard": [], "repro": [], "dvc": [], "trainer": []}
    for _ in range(6):
        family |= {int(pid) for pid, parent, _ in rows if int(parent) in family}
    names = {"process_guard": "guard", "tunectl repro": "repro", "guarded_dvc repro": "dvc", "trainer.py": "trainer"}
    for pid, _, words in rows:
        for mark, name in names.items():
            if int(pid) in family and mark in words:
                found[name].append(int(pid))
                break
    return found


def events(folder: Path, kind: str) -> list[dict]:
    """Bodies of what happened, as the inference log has it."""
    with inference_log_sql.open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", folder) as store:
        return [event.body for event in store.events(kind=kind)]
