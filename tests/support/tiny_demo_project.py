"""The loop demo for a tiny model that can learn one sentence: its traffic, its project, and its bad challengers.

Every request has the same reference ad. At first the model answers at random; the edits train it on the first half of the sentence.
The harmful challenger is trained on the whole sentence, so it scores higher in the gate, but its packaged answers are cut after three tokens.
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
from loop_demo.scenario import DemoScenario, SyntheticTraffic
from monitor_project import tiny_encoder

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.inference_log import feedback
from tunectl.registry.release_store import ReleaseRegistry

ROOT = loop_demo_fixtures.ROOT
HALF_SENTENCE, WHOLE_SENTENCE = "Hello there!", "Hello there! Come in."
HOLDOUT = 0.25
"""feedback.holdout."""
ROWS, WINDOW = 60, 60
ADS = "examples/local_lens/data/ads.jsonl"
BUILD_SETTINGS = (
    "model=folder", "ingest=table", f"data.path={ADS}", "ingest.sources.table.fields={phrasing: phrasing}",
    "curate=none", "split=default", "split.leakage=null", "split.hold_out={phrasing: {validation: [], test: [whole]}}",
    "cpt=none", "preferences=none", "reward=none", "align=none", "evaluate=default", "package=transformers",
    "sft.lora_rank=16", "sft.lora_alpha=32", "sft.learning_rate=1.0e-2", "sft.batch_size=8", "sft.evals_per_epoch=1", "sft.early_stopping=null",
    "evaluate.max_inputs=20", "evaluate.prompts=null", "evaluate.safety=null", "evaluate.latency_inputs=0", "evaluate.decoding.max_new_tokens=24",
    "evaluate.gate.primary_metric=chrf", "evaluate.gate.resamples=200",
    "package.bento=null", "package.decoding.max_tokens=24", "package.probing.prompts=2", "package.probing.fixtures=2", "package.probing.max_tokens=8",
    "package.parity.prompts=4", "package.parity.max_tokens=8", "package.reference_responses=60",
)  # fmt: skip
LOOP_SETTINGS = (
    "feedback.quarantine_hours=0", "serve.poll_seconds=0.3",
    "monitor.poll_seconds=0.3", f"monitor.window.max_rows={WINDOW}", "monitor.window.settle_seconds=1", "monitor.prompts.accept_first=true",
    "monitor.answers.reference=live", "monitor.evidently=false", "monitor.encoder.package=tiny", "monitor.encoder.version='1.0'",
    "retrain.approval.training=none", "retrain.poll_seconds=0.2", "retrain.train.start=champion", "retrain.train.overrides=['sft.epochs=30']",
    "retrain.data.min_examples=20", "retrain.data.min_new_examples=10", "retrain.gate.golden_set_size=30", "retrain.gate.min_golden_items=5", "retrain.gate.min_slice_items=5",
    "retrain.gate.max_new_tokens=24", "retrain.gate.margin=5", "retrain.gate.max_latency_seconds=60", "retrain.gate.max_latency_ratio=20", "retrain.gate.max_memory_ratio=5",
    "retrain.canary.share=0.5", "retrain.canary.attribution_hours=0.0006", "retrain.canary.min_units_per_variant=60", "retrain.canary.max_days=0.03",
)  # fmt: skip


@dataclass(frozen=True)
class TinyRequest:
    """A prompt and its reference answer."""

    brief: str
    ad: str


def is_held_out(brief: str) -> bool:
    """Return whether the prompt is held out for the gate."""
    return feedback.is_held_out(feedback.prompt_digest([("user", brief)]), HOLDOUT)


def generate_requests(topics: tuple[str, ...], seed: int) -> Iterator[TinyRequest]:
    rng = random.Random(seed)
    while True:
        brief = f"{text(rng, rng.choice(topics))} {rng.randint(100, 999)}"  # random, so that no number tells early requests from late ones
        yield TinyRequest(brief, WHOLE_SENTENCE if is_held_out(brief) else HALF_SENTENCE)


TRAFFIC = SyntheticTraffic(
    lambda: generate_requests(("garden", "bike"), 1),
    lambda: generate_requests(("bread",), 2),
    lambda _request, answer: 0.95 if HALF_SENTENCE in answer else 0.05,
)


def rows(train_text: str, test_text: str) -> list[dict[str, Any]]:
    """Make past ads: ``train_text`` in the training rows, ``test_text`` in the test rows; every third test row is longer.

    A model this small gives every prompt the same answer. With equal references each interval would have width zero, and one changed
    character would move the whole score.
    """
    rng = random.Random(3)
    result = []
    for number in range(ROWS + 24):
        kind = "whole" if number >= ROWS else "half"
        brief = f"{text(rng, rng.choice(('garden', 'bike')))} {number}"
        longer = f"{test_text} Bring friends." if number % 3 == 0 else test_text
        result.append({"prompt": brief, "completion": longer if kind == "whole" else train_text, "phrasing": kind})
    return result


def environment() -> dict[str, str]:
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    scripts = str(Path(sys.executable).parent)
    more = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **more, "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


def copy_trainable_model(model: Path, folder: Path) -> Path:
    """Copy the tiny model so that it can learn where an answer ends.

    Transformers fills the embedding of padding, which is also the end-of-turn token, with zeros: its logit never changes.
    """
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    table = weights["model.embed_tokens.weight"]
    others = table[3:]
    table[2] = -others.mean(0) / others.mean(0).norm() * others.norm(dim=1).mean()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_root(folder: Path, model: Path) -> Path:
    """Build what ``make run`` builds: a project whose model is hardly trained."""
    root = folder / "root"
    for name in ("conf", "dvc.yaml", ".dvcignore", ".gitignore"):
        setup._copy(ROOT / name, root / name)
    setup._copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    (root / ADS).parent.mkdir(parents=True)
    setup.write_rows(root / ADS, rows(HALF_SENTENCE, WHOLE_SENTENCE))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    words = [*BUILD_SETTINGS, f"model.source.path={copy_trainable_model(model, folder / 'model')}", "sft.epochs=4"]
    process = subprocess.run(
        [sys.executable, "-m", "tunectl", "repro", *words], cwd=root, env=environment(), capture_output=True, text=True
    )
    assert process.returncode in {0, 3}, process.stdout[-3000:] + process.stderr[-3000:]
    store = ReleaseRegistry(root / ".tunectl" / "releases")
    if store.champion() is None:
        store.promote(store.ids()[0], author="test", message="first release", force=True)
    return root


def create_scenario(folder: Path, model: Path) -> DemoScenario:
    """Create the scenario: project, traffic and bad challengers."""
    root, project = build_root(folder, model), folder / "project"
    digest = tiny_encoder(root / ".tunectl" / "cache" / "embeddings" / "tiny-1.0")
    settings = [*LOOP_SETTINGS, f"monitor.encoder.sha256={digest}"]
    store = setup.create_project(root, project, settings)
    other, words = rows("zzz qqq", "zzz qqq"), ("sft.epochs=30", "package.decoding.max_tokens=3")
    jobs = (
        setup.ChallengerSpec("poor", "trained on another sentence", ("sft.epochs=30",), {ADS: other}),
        setup.ChallengerSpec(
            "harmful", "packaged with a limit of three tokens", words, {ADS: rows(WHOLE_SENTENCE, WHOLE_SENTENCE)}
        ),
    )
    poor, harmful = (setup.build_challenger(spec, project, store) for spec in jobs)
    return DemoScenario(
        project=project, traffic=TRAFFIC, poor=poor, build_harmful=lambda: harmful, rows=WINDOW, baseline=2, quiet=1, workers=6, batch=30,
        background_rate=1.0, build_seconds=900, settle_seconds=180,
    )  # fmt: skip


def load_recorded_overrides(project: Path) -> list[str]:
    return [given.text for given in override_file.load_overrides(ProjectPaths(project))]
