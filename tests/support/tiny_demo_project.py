"""The demonstration of the loop for a model that can learn one sentence: its town, its project, and its bad challengers.

Everybody wants the same ad. At first the model says something random; what people write teaches it the first half of the
sentence; a challenger that was taught all of it is better by any measure, unless its answers are cut after three letters.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loop_demo_fixtures
from drift_fixtures import text
from loop_demo import setup
from loop_demo.scenario import Bad, Scene, Town
from monitor_project import tiny_encoder

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.inference_log import feedback
from tunectl.registry.release_store import ReleaseRegistry

ROOT = loop_demo_fixtures.ROOT
HALF, WHOLE = "Hello there!", "Hello there! Come in."
HELD = 0.25
"""feedback.holdout."""
ROWS, WINDOW = 60, 60
ADS = "examples/local_lens/data/ads.jsonl"
BUILD = (
    "model=folder", "ingest=table", f"data.path={ADS}", "ingest.sources.table.fields={phrasing: phrasing}",
    "curate=none", "split=default", "split.leakage=null", "split.hold_out={phrasing: {validation: [], test: [whole]}}",
    "cpt=none", "preferences=none", "reward=none", "align=none", "evaluate=default", "package=transformers",
    "sft.lora_rank=16", "sft.lora_alpha=32", "sft.learning_rate=1.0e-2", "sft.batch_size=8", "sft.evals_per_epoch=1", "sft.early_stopping=null",
    "evaluate.max_inputs=20", "evaluate.prompts=null", "evaluate.safety=null", "evaluate.latency_inputs=0", "evaluate.decoding.max_new_tokens=24",
    "evaluate.gate.primary_metric=chrf", "evaluate.gate.resamples=200",
    "package.bento=null", "package.decoding.max_tokens=24", "package.probing.prompts=2", "package.probing.fixtures=2", "package.probing.max_tokens=8",
    "package.parity.prompts=4", "package.parity.max_tokens=8", "package.reference_responses=60",
)  # fmt: skip
WATCHED = (
    "feedback.quarantine_hours=0", "serve.poll_seconds=0.3",
    "monitor.poll_seconds=0.3", f"monitor.window.max_rows={WINDOW}", "monitor.window.settle_seconds=1", "monitor.prompts.accept_first=true",
    "monitor.answers.reference=live", "monitor.evidently=false", "monitor.encoder.package=tiny", "monitor.encoder.version='1.0'",
    "retrain.approval.training=none", "retrain.poll_seconds=0.2", "retrain.train.start=champion", "retrain.train.overrides=['sft.epochs=30']",
    "retrain.data.min_examples=20", "retrain.data.min_new_examples=10", "retrain.gate.golden_set_size=30", "retrain.gate.min_golden_items=5", "retrain.gate.min_slice_items=5",
    "retrain.gate.max_new_tokens=24", "retrain.gate.margin=5", "retrain.gate.max_latency_seconds=60", "retrain.gate.max_latency_ratio=20", "retrain.gate.max_memory_ratio=5",
    "retrain.canary.share=0.5", "retrain.canary.attribution_hours=0.0006", "retrain.canary.min_units_per_variant=60", "retrain.canary.max_days=0.03",
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What somebody asks, and what they would have written."""

    brief: str
    ad: str


def held(brief: str) -> bool:
    """Whether the question is kept for the gate."""
    return feedback.is_held_out(feedback.prompt_digest([("user", brief)]), HELD)


def wishes(topics: tuple[str, ...], seed: int) -> Iterator[Wish]:
    dice = random.Random(seed)
    while True:
        brief = f"{text(dice, dice.choice(topics))} {dice.randint(100, 999)}"  # no number may tell early from late
        yield Wish(brief, WHOLE if held(brief) else HALF)


TOWN = Town(
    lambda: wishes(("garden", "bike"), 1),
    lambda: wishes(("bread",), 2),
    lambda _wish, answer: 0.95 if HALF in answer else 0.05,
)


def rows(say: str, whole: str) -> list[dict[str, Any]]:
    """Past ads: ``say`` in those that are learned, ``whole`` in those that judge, every third of them a little longer.

    A model this small answers every question alike: were the references alike as well, each interval would have no width, and one
    near tie between two letters would be a fall of the whole evaluation.
    """
    dice = random.Random(3)
    found = []
    for number in range(ROWS + 24):
        kind = "whole" if number >= ROWS else "half"
        brief = f"{text(dice, dice.choice(('garden', 'bike')))} {number}"
        longer = f"{whole} Bring friends." if number % 3 == 0 else whole
        found.append({"prompt": brief, "completion": longer if kind == "whole" else say, "phrasing": kind})
    return found


def environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    scripts = str(Path(sys.executable).parent)
    more = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **more, "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


def teachable(model: Path, folder: Path) -> Path:
    """The tiny model, but one that can learn where an answer ends.

    Transformers fills the embedding of padding, which is also the end of a turn, with zeros: its logit never moves.
    """
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    table = weights["model.embed_tokens.weight"]
    others = table[3:]
    table[2] = -others.mean(0) / others.mean(0).norm() * others.norm(dim=1).mean()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def built(folder: Path, model: Path) -> Path:
    """What ``make run`` would have left: a project whose model has hardly learned anything."""
    root = folder / "root"
    for name in ("conf", "dvc.yaml", ".dvcignore", ".gitignore"):
        setup._copy(ROOT / name, root / name)
    setup._copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    (root / ADS).parent.mkdir(parents=True)
    setup.write_rows(root / ADS, rows(HALF, WHOLE))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    words = [*BUILD, f"model.source.path={teachable(model, folder / 'model')}", "sft.epochs=4"]
    done = subprocess.run(
        [sys.executable, "-m", "tunectl", "repro", *words], cwd=root, env=environment(), capture_output=True, text=True
    )
    assert done.returncode in {0, 3}, done.stdout[-3000:] + done.stderr[-3000:]
    store = ReleaseRegistry(root / ".tunectl" / "releases")
    if store.champion() is None:
        store.promote(store.ids()[0], author="test", message="the first", force=True)
    return root


def scene(folder: Path, model: Path) -> Scene:
    """The stage, set."""
    root, project = built(folder, model), folder / "project"
    digest = tiny_encoder(root / ".tunectl" / "cache" / "embeddings" / "tiny-1.0")
    settings = [*WATCHED, f"monitor.encoder.sha256={digest}"]
    store = setup.project(root, project, settings)
    kept = folder / "prebuilt"
    other, words = rows("zzz qqq", "zzz qqq"), ("sft.epochs=30", "package.decoding.max_tokens=3")
    jobs = (
        setup.Job("poor", "it learned another sentence", ("sft.epochs=30",), {ADS: other}),
        setup.Job("harmful", "its answers are cut after three letters", words, {ADS: rows(WHOLE, WHOLE)}),
    )
    bad = [Bad(setup.build_challenger(job, project, store, kept, print), job.why) for job in jobs]
    return Scene(
        project=project, town=TOWN, poor=bad[0], harmful=bad[1], rows=WINDOW, baseline=2, quiet=1, workers=6, batch=30,
        murmur=1.0, build_seconds=900, settle_seconds=180,
    )  # fmt: skip


def recorded(project: Path) -> list[str]:
    return [given.text for given in override_file.load_overrides(ProjectPaths(project))]
