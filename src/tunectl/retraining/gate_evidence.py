"""The gate's evidence: both releases answer the golden set, the drifted slice and the safety questions, each in its own process.

Their answers are measured here; ``promotion_gate`` decides by the numbers.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message
from tunectl.backends.engines.release_generation import GenerationJob, GenerationResult
from tunectl.backends.system import supervised_process
from tunectl.backends.vcs import git_worktree
from tunectl.backends.wiring import evaluation
from tunectl.config.schema.evaluate import Evaluate
from tunectl.config.schema.retrain import PromotionGate, RetrainingConfig
from tunectl.core.errors import InfrastructureError
from tunectl.evaluation import items, metrics, safety, scoring
from tunectl.evaluation.items import Item
from tunectl.inference_log.feedback import digest_messages
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import golden_set, promotion_gate
from tunectl.retraining.promotion_gate import GateCheck, GateComparison, GateLimits, GateVerdict, Guardrail
from tunectl.retraining.state_machine import RetrainRun
from tunectl.retraining.workspace import RetrainWorkspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOURS = 6
"""Longest time in hours for the answers of one release."""
ON_GPUS = "vllm"
"""The engine whose releases may have weights that need a GPU."""
LOADS = "loads"


class GateInputs(Struct, frozen=True):
    """Prompts that champion and challenger answer for the gate: golden set, drifted slice, harmful prompts."""

    golden: list[Item]
    drifted: list[Item]
    harmful: list[Item]
    leaked: int = 0
    """Number of golden items that were in the challenger's training data, and are left out."""
    version: int = 1
    """Version of the golden set."""

    @property
    def asked(self) -> list[list[Message]]:
        """All prompts in one list: golden, drifted, harmful."""
        return [list(item.messages) for item in (*self.golden, *self.drifted, *self.harmful)]


class ReleaseOutputs(Struct, frozen=True):
    """Answers of one release to the prompts of the gate, with latency and peak memory."""

    golden: list[str] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    harmful: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Mean seconds per answer, at the engine's full concurrency."""
    peak_bytes: int = 0
    trouble: str = ""
    """Why there are no answers; empty where there are."""


def collect_evidence(
    run: RetrainRun,
    release: str,
    store: ReleaseRegistry,
    settings: RetrainingConfig,
    evaluate: Evaluate,
    workspace: RetrainWorkspace,
    stop: threading.Event,
) -> GateVerdict:
    """Return the gate's verdict on the challenger ``release``: both releases answer, and their answers are compared.

    Raises  InfrastructureError where the champion itself cannot answer: then nothing can be compared.
    """
    champion = store.champion()
    if champion is None:
        raise InfrastructureError(
            "there is no champion to compare with", hint="promote one: tunectl release promote ID"
        )
    inputs = gate_inputs(
        store, git_worktree.project_path(workspace.layout.root, workspace.worktree), settings.gate, workspace.layout
    )
    if "window" not in run.facts("proposed") and _count_groups(inputs.drifted) < settings.gate.min_slice_items:
        inputs = replace(inputs, drifted=[])  # nothing drifted: a few new edits are no goal of this retrain
    sides: list[ReleaseOutputs] = []
    names = champion.release, release
    engines = {store.manifest(name).engine for name in names}
    gpus = settings.resources.device == "any" or ON_GPUS in engines  # of both sides: their times are compared
    for name in names:
        sides.append(_side(name, inputs, store, settings, workspace, run, stop, gpus=gpus))
        if stop.is_set():
            return GateVerdict("insufficient", "stopped")
    if sides[0].trouble:
        raise InfrastructureError(
            f"the champion does not answer: {sides[0].trouble}",
            hint=f"the errors of its process are in {workspace.log_path(run)}",
        )
    result = decide_on_answers(inputs, sides[0], sides[1], settings.gate, evaluate)
    golden_set.count_use(store.root)  # after the decision: a gate that is killed and repeated counts once
    return replace(result, against=champion.release, version=inputs.version, leaked=inputs.leaked)


def gate_inputs(store: ReleaseRegistry, project: Path, settings: PromotionGate, layout: ProjectPaths) -> GateInputs:
    """Return the golden set (frozen now, where there is none yet) without the challenger's training items, and the drifted slice."""
    version, folder = _golden(store, project, settings, layout)
    golden_items, _ = items.from_examples(golden_set.items(folder, version))
    training_digests = _read_training_digests(ProjectPaths(project).artifact("split") / "train.jsonl")
    clean = [item for item in golden_items if digest_messages(item.messages) not in training_digests]
    path = ProjectPaths(project).artifact("feedback") / "slice.jsonl"
    drifted = items.from_examples(atomic_io.read_rows(path, Example))[0] if path.is_file() else []
    harmful = [safety.as_item(question) for question in safety.questions(()) if question.kind == "harmful"]
    return GateInputs(clean, drifted, harmful, len(golden_items) - len(clean), version.version)


def _count_groups(rows: Sequence[Item]) -> int:
    return len({item.cluster for item in rows})


def _golden(
    store: ReleaseRegistry, project: Path, settings: PromotionGate, layout: ProjectPaths
) -> tuple[golden_set.GoldenSetVersion, Path]:
    """Return the current version of the golden set; after enough decisions (to avoid overfitting to it) the next one is drawn from the current test split."""
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
    settings: RetrainingConfig,
    workspace: RetrainWorkspace,
    run: RetrainRun,
    stop: threading.Event,
    *,
    gpus: bool,
) -> ReleaseOutputs:
    scratch = workspace.scratch_dir(run)
    job, answers = scratch / f"{release}.job.json", scratch / f"{release}.answers.json"
    expected = GenerationJob(str(store.folder(release).absolute()), inputs.asked, settings.gate.max_new_tokens)
    if not answers.is_file() or not job.is_file() or atomic_io.read_json(job, GenerationJob) != expected:
        atomic_io.write_json(job, expected)
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
                HOURS * 3600, settings.resources.nice, settings.resources.threads, gpus=gpus
            ),
        )
        if code:
            return ReleaseOutputs(trouble=f"it ended with exit code {code} (its log is {workspace.log_path(run)})")
    return split_answers(inputs, atomic_io.read_json(answers, GenerationResult))


def split_answers(inputs: GateInputs, result: GenerationResult) -> ReleaseOutputs:
    """Return the answers by set of prompts (golden, drifted, harmful); empty for a prompt that fills the model's context, or that its template refuses."""
    texts = [text or "" for text in result.texts]
    first, second = len(inputs.golden), len(inputs.golden) + len(inputs.drifted)
    mean = result.seconds / max(len(texts), 1)
    return ReleaseOutputs(texts[:first], texts[first:second], texts[second:], mean, result.peak_bytes)


def decide_on_answers(
    inputs: GateInputs, champion: ReleaseOutputs, challenger: ReleaseOutputs, gate: PromotionGate, evaluate: Evaluate
) -> GateVerdict:
    """Return the gate's verdict from both releases' answers."""
    settings = evaluate.gate
    limits = GateLimits(
        gate.margin,
        gate.min_effect,
        gate.min_golden_items,
        gate.min_slice_items,
        settings.confidence,
        settings.resamples,
    )
    checks = check_infrastructure(champion, challenger, gate)
    if challenger.trouble:
        return promotion_gate.decide(GateComparison("golden", 0, 0), None, [], checks, limits)
    parts = [
        _part("golden", inputs.golden, champion.golden, challenger.golden, evaluate, limits),
        _part("slice", inputs.drifted, champion.drifted, challenger.drifted, evaluate, limits),
    ]
    drifted = parts[1] if inputs.drifted else None
    return promotion_gate.decide(parts[0], drifted, guardrails(inputs, champion, challenger, gate), checks, limits)


def _part(
    name: Literal["golden", "slice"],
    rows: Sequence[Item],
    champion: Sequence[str],
    challenger: Sequence[str],
    evaluate: Evaluate,
    limits: GateLimits,
) -> GateComparison:
    if not rows:
        return GateComparison(name, 0, 0)
    primary = evaluate.gate.primary_metric
    tables = []
    for outputs in (champion, challenger):
        table = scoring.compute_statistics(
            rows, outputs, None, tools=evaluation.tools(), declared=evaluate.checks, train_grams=frozenset(), rules=None
        )
        tables.append(table[primary])
    groups = [item.cluster for item in rows]
    return promotion_gate.compare_on_items(name, tables[0], tables[1], groups, _upwards(primary), limits)


def _upwards(primary: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the metric with a sign by which more is better."""
    measure = metrics.get_metric(primary)
    if measure.better == "lower":
        return lambda sums: -measure.combine(sums)
    return measure.combine


def check_infrastructure(
    champion: ReleaseOutputs, challenger: ReleaseOutputs, settings: PromotionGate
) -> list[GateCheck]:
    """Return the checks that the challenger can be served: it loads, half of its answers or more are not empty, latency and memory are in bounds."""
    if challenger.trouble:
        return [GateCheck(LOADS, False, challenger.trouble)]
    outputs = [*challenger.golden, *challenger.drifted]
    answered_share = (
        sum(bool(text) for text in outputs) / len(outputs) if outputs else 1.0
    )  # nothing asked is too few, not silence
    most = (
        min(settings.max_latency_seconds, settings.max_latency_ratio * champion.seconds)
        if champion.seconds
        else settings.max_latency_seconds
    )
    memory = settings.max_memory_ratio * champion.peak_bytes
    return [
        GateCheck(LOADS, True, "it answers"),
        GateCheck("answers", answered_share >= 0.5, f"{answered_share:.0%} of the answers say something"),
        GateCheck(
            "time", challenger.seconds <= most, f"{challenger.seconds:.2f} s an answer, {most:.2f} s are allowed"
        ),
        GateCheck(
            "memory",
            challenger.peak_bytes <= memory,
            f"{challenger.peak_bytes / 1e9:.2f} GB, {memory / 1e9:.2f} GB are allowed",
        ),
    ]


def guardrails(
    inputs: GateInputs, champion: ReleaseOutputs, challenger: ReleaseOutputs, settings: PromotionGate
) -> list[Guardrail]:
    """Return two guardrails of the challenger: its share of refused golden prompts, and of answered harmful prompts against the champion's."""
    refusal_rate = sum(safety.refuses(text) for text in challenger.golden) / max(len(challenger.golden), 1)
    result = [
        Guardrail("share of refusals on the golden set", round(refusal_rate, 4), settings.max_refusal_rate, most=True)
    ]
    if inputs.harmful:
        harmful_shares = [
            sum(not safety.refuses(text) for text in side.harmful) / len(inputs.harmful)
            for side in (champion, challenger)
        ]
        bound = min(1.0, harmful_shares[0] + settings.max_harmful_increase)
        result.append(
            Guardrail("share of harmful questions answered", round(harmful_shares[1], 4), round(bound, 4), most=True)
        )
    return result
