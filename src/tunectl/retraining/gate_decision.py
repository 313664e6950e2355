"""The gate's decision, given what both releases said: measures, checks and floors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from tunectl.artifacts.records import Message
from tunectl.backends.wiring import evaluation
from tunectl.config.schema.evaluate import Evaluate
from tunectl.config.schema.retrain import PromotionGate
from tunectl.evaluation import metrics, safety, scoring
from tunectl.evaluation.items import Item
from tunectl.retraining import promotion_gate
from tunectl.retraining.promotion_gate import GateCheck, GateComparison, GateLimits, GateVerdict, Guardrail

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOADS = "loads"


class GateInputs(Struct, frozen=True):
    """Everything that both sides are asked."""

    golden: list[Item]
    drifted: list[Item]
    harmful: list[Item]
    leaked: int = 0
    """Golden items that the challenger was trained on: they are left out."""
    version: int = 1
    """Of the golden set."""

    @property
    def asked(self) -> list[list[Message]]:
        """In one list: golden, drifted, harmful."""
        return [list(item.messages) for item in (*self.golden, *self.drifted, *self.harmful)]


class ReleaseOutputs(Struct, frozen=True):
    """What one release said."""

    golden: list[str] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    harmful: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Mean of an answer, asked as many at once as the engine takes."""
    peak_bytes: int = 0
    trouble: str = ""
    """Why it did not answer."""


def decide(
    inputs: GateInputs, champion: ReleaseOutputs, challenger: ReleaseOutputs, wanted: PromotionGate, evaluate: Evaluate
) -> GateVerdict:
    """Return the decision, given what both said."""
    settings = evaluate.gate
    limits = GateLimits(
        wanted.margin,
        wanted.min_effect,
        wanted.min_golden_items,
        wanted.min_slice_items,
        settings.confidence,
        settings.resamples,
    )
    checks = check_infrastructure(champion, challenger, wanted)
    if challenger.trouble:
        return promotion_gate.decide(GateComparison("golden", 0, 0), None, [], checks, limits)
    parts = [
        _part("golden", inputs.golden, champion.golden, challenger.golden, evaluate, limits),
        _part("slice", inputs.drifted, champion.drifted, challenger.drifted, evaluate, limits),
    ]
    drifted = parts[1] if inputs.drifted else None
    return promotion_gate.decide(parts[0], drifted, guardrails(inputs, champion, challenger, wanted), checks, limits)


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
            rows, outputs, None, tools=evaluation.tools(), declared=evaluate.checks, seen=frozenset(), rules=None
        )
        tables.append(table[primary])
    groups = [item.cluster for item in rows]
    return promotion_gate.compare_on_items(name, tables[0], tables[1], groups, _upwards(primary), limits)


def _upwards(primary: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the measure as one of which more is better."""
    measure = metrics.get_metric(primary)
    if measure.better == "lower":
        return lambda sums: -measure.combine(sums)
    return measure.combine


def check_infrastructure(
    champion: ReleaseOutputs, challenger: ReleaseOutputs, settings: PromotionGate
) -> list[GateCheck]:
    """Return whether the challenger can serve."""
    if challenger.trouble:
        return [GateCheck(LOADS, False, challenger.trouble)]
    outputs = [*challenger.golden, *challenger.drifted]
    spoken = (
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
        GateCheck("answers", spoken >= 0.5, f"{spoken:.0%} of the answers say something"),
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
    """Return the guardrails: refusals of harmless prompts, answers to harmful ones."""
    refused = sum(safety.refuses(text) for text in challenger.golden) / max(len(challenger.golden), 1)
    result = [Guardrail("share of refusals on the golden set", round(refused, 4), settings.max_refusal_rate, most=True)]
    if inputs.harmful:
        answered = [
            sum(not safety.refuses(text) for text in side.harmful) / len(inputs.harmful)
            for side in (champion, challenger)
        ]
        bound = min(1.0, answered[0] + settings.max_harmful_increase)
        result.append(
            Guardrail("share of harmful questions answered", round(answered[1], 4), round(bound, 4), most=True)
        )
    return result
