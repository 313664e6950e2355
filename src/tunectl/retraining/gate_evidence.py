"""The gate's evidence: both releases answer the golden set, the drifted slice and the safety questions, each in its own process."""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example
from tunectl.backends.engines.release_generation import GenerationJob, GenerationResult
from tunectl.backends.system import supervised_process
from tunectl.backends.vcs import git_worktree
from tunectl.config.schema.evaluate import Evaluate
from tunectl.config.schema.retrain import PromotionGate, RetrainingConfig
from tunectl.core.errors import InfrastructureError
from tunectl.evaluation import items, safety
from tunectl.inference_log.feedback_selection import digest_messages
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import gate_decision, golden_set
from tunectl.retraining.gate_decision import GateInputs, ReleaseOutputs
from tunectl.retraining.promotion_gate import GateVerdict
from tunectl.retraining.state_machine import RetrainRun
from tunectl.retraining.workspace import RetrainWorkspace

HOURS = 6
"""Longest time for the answers of one release."""
ON_GPUS = "vllm"
"""The engine whose releases may hold weights that no processor reads, or too many of them."""


def collect_evidence(
    run: RetrainRun,
    release: str,
    store: ReleaseRegistry,
    watch: RetrainingConfig,
    evaluate: Evaluate,
    workspace: RetrainWorkspace,
    stop: threading.Event,
) -> GateVerdict:
    """Return the verdict about the challenger ``release``.

    Raises  InfrastructureError where the champion itself cannot answer: then nothing can be compared.
    """
    champion = store.champion()
    if champion is None:
        raise InfrastructureError("there is no champion to compare with", hint="tunectl release promote ID")
    inputs = gate_inputs(
        store, git_worktree.project_path(workspace.layout.root, workspace.worktree), watch.gate, workspace.layout
    )
    sides: list[ReleaseOutputs] = []
    names = champion.release, release
    engines = {store.manifest(name).engine for name in names}
    gpus = watch.resources.device == "any" or ON_GPUS in engines  # of both sides: their times are compared
    for name in names:
        sides.append(_side(name, inputs, store, watch, workspace, run, stop, gpus=gpus))
        if stop.is_set():
            return GateVerdict("insufficient", "stopped")
    if sides[0].trouble:
        raise InfrastructureError(
            f"the champion does not answer: {sides[0].trouble}", hint=f"look into {workspace.log_path(run)}"
        )
    result = gate_decision.decide(inputs, sides[0], sides[1], watch.gate, evaluate)
    golden_set.count_use(store.root)  # now that it has decided: of a gate that is killed and asked again nothing wears
    return replace(result, against=champion.release, version=inputs.version, leaked=inputs.leaked)


def gate_inputs(store: ReleaseRegistry, project: Path, settings: PromotionGate, layout: ProjectPaths) -> GateInputs:
    """Return the golden set (frozen now, where there is none yet) without what the challenger learned, and the drifted slice."""
    version, folder = _golden(store, project, settings, layout)
    golden_items, _ = items.from_examples(golden_set.items(folder, version))
    training_digests = _read_training_digests(ProjectPaths(project).artifact("split") / "train.jsonl")
    clean = [item for item in golden_items if digest_messages(item.messages) not in training_digests]
    path = ProjectPaths(project).artifact("feedback") / "slice.jsonl"
    drifted = items.from_examples(atomic_io.read_rows(path, Example))[0] if path.is_file() else []
    harmful = [safety.as_item(question) for question in safety.questions(()) if question.kind == "harmful"]
    return GateInputs(clean, drifted, harmful, len(golden_items) - len(clean), version.version)


def _golden(
    store: ReleaseRegistry, project: Path, settings: PromotionGate, layout: ProjectPaths
) -> tuple[golden_set.GoldenSetVersion, Path]:
    """Return the version in force; one that has decided often enough makes room for the next, drawn from the test split of now."""
    result = golden_set.newest(store.root)
    if result is not None and result[0].uses < settings.max_uses:
        return result
    local_split, build_split = layout.artifact("split"), ProjectPaths(project).artifact("split")
    source = (local_split if result is None and (local_split / "test.jsonl").is_file() else build_split) / "test.jsonl"
    if result is not None and not source.is_file():
        return result
    rows, number = list(atomic_io.read_rows(source, Example)), result[0].version + 1 if result else 1
    return golden_set.freeze(
        store.root, rows, settings.golden_set_size, seed=number, at=datetime.now(UTC), source="test split"
    )


def _read_training_digests(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {digest_messages(row.messages) for row in atomic_io.read_rows(path, Example) if row.messages}


def _side(
    release: str,
    inputs: GateInputs,
    store: ReleaseRegistry,
    watch: RetrainingConfig,
    workspace: RetrainWorkspace,
    run: RetrainRun,
    stop: threading.Event,
    *,
    gpus: bool,
) -> ReleaseOutputs:
    scratch = workspace.scratch_dir(run)
    job, answers = scratch / f"{release}.job.json", scratch / f"{release}.answers.json"
    given = GenerationJob(str(store.folder(release).absolute()), inputs.asked, watch.gate.max_new_tokens)
    if not answers.is_file() or not job.is_file() or atomic_io.read_json(job, GenerationJob) != given:
        atomic_io.write_json(job, given)
        answers.unlink(missing_ok=True)
        code = supervised_process.run(
            [
                sys.executable,
                "-m",
                "tunectl.backends.engines.release_generation",
                str(job.absolute()),
                str(answers.absolute()),
            ],
            cwd=workspace.layout.root,
            environment=os.environ,
            mark=workspace.mark,
            log=workspace.log_path(run),
            stop=stop,
            limits=supervised_process.ProcessLimits(
                HOURS * 3600, watch.resources.nice, watch.resources.threads, gpus=gpus
            ),
        )
        if code:
            return ReleaseOutputs(trouble=f"it ended with exit code {code} (its log is {workspace.log_path(run)})")
    return split_answers(inputs, atomic_io.read_json(answers, GenerationResult))


def split_answers(inputs: GateInputs, result: GenerationResult) -> ReleaseOutputs:
    """Return answers in three parts; one that had no room is empty."""
    texts = [text or "" for text in result.texts]
    first, second = len(inputs.golden), len(inputs.golden) + len(inputs.drifted)
    mean = result.seconds / max(len(texts), 1)
    return ReleaseOutputs(texts[:first], texts[first:second], texts[second:], mean, result.peak_bytes)
