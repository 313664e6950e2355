"""Compare an export with the trained model: agreement token by token, and the metric of the evaluation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import fmean

from msgspec import Struct
from msgspec.structs import replace

from tunectl.config.schema.evaluate import Evaluate
from tunectl.evaluation import paired_comparison, scoring
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import MetricBackends
from tunectl.evaluation.results import Score
from tunectl.packaging.protocols import TeacherForced
from tunectl.registry.release_manifest import RecordedVerdict

SAME, DIFFERENT, NOTHING = "export_is_the_model", "export_differs", "adapter_changes_nothing"
GGUF_DIFFERS = "gguf_differs"
NOTHING_MESSAGE = "Tuned and base model answer all validation inputs that were asked alike, so no probe can prove to a server that the adapter is applied."


class TokenAgreement(Struct, frozen=True):
    """Agreement of the engine with the trained model, both predicting the tokens of the trained model's own answers."""

    answers: int
    tokens: int
    top1: float
    """Share of tokens that are the engine's first choice too."""
    gap: float
    """Mean absolute difference of the log-probability of the engine's choice, nats. Engines give none for stop tokens."""
    shift: float
    """Mean of that difference with its sign, engine minus trained: a gap without a shift is rounding."""


class EngineScore(Struct, frozen=True):
    """The primary metric of the evaluation on the engine's own answers, beside that of the trained model."""

    measure: str
    inputs: int
    trained: float
    low: float
    """Lower end of the trained model's interval: the engine's score must not be below."""
    engine: float


class ParityReport(Struct, frozen=True):
    """Content of ``parity.json``: agreement of the exported with the trained model, and the verdict."""

    agreement: TokenAgreement
    measured: EngineScore | None
    """None where no test inputs were answered."""
    verdict: RecordedVerdict
    gguf: float | None = None
    """Share of the probes' tokens that the GGUF file's model ranks first as well; None where no such file is wanted."""


class ParityBounds(Struct, frozen=True):
    """Limits of the comparison (share of equal tokens, nats); None: the value is only printed."""

    agreement: float | None
    gap: float | None


def token_agreement(
    answers: Sequence[Sequence[int]],
    readings: Sequence[TeacherForced],
    trained: Sequence[Sequence[float]],
    stops: Sequence[int],
) -> TokenAgreement:
    """Return how far the engine's predictions (``readings``) agree with the trained model on its ``answers`` (token ids).

    ``trained`` holds the trained model's log-probabilities of the engine's choices (nats, positions as in ``answers``).
    ``stops``: ids of the tokens that end an answer; any two of them count as equal.
    """
    pairs = [
        (expected, token, engine - own)
        for answer, reading, owns in zip(answers, readings, trained, strict=True)
        for expected, token, engine, own in zip(answer, reading.choices, reading.logprobs, owns, strict=True)
    ]
    same = [expected == token or (expected in stops and token in stops) for expected, token, _ in pairs]
    gaps = [gap for _, token, gap in pairs if token not in stops and isfinite(gap)]
    return TokenAgreement(
        len(answers),
        len(pairs),
        fmean(same) if same else 0.0,
        fmean(map(abs, gaps)) if gaps else float("inf"),
        fmean(gaps) if gaps else 0.0,
    )


def verdict(result: TokenAgreement, score: EngineScore | None, bounds: ParityBounds, *, probes: int) -> RecordedVerdict:
    """Return a passed verdict where every limit holds, else a failed one with all reasons; it fails for 0 ``probes``, too."""
    if not probes:
        return RecordedVerdict(False, NOTHING, NOTHING_MESSAGE)
    wrong = []
    if bounds.agreement is not None and result.top1 < bounds.agreement:
        wrong.append(f"{result.top1:.1%} of {result.tokens} tokens agree, at least {bounds.agreement:.1%} must")
    if bounds.gap is not None and result.gap > bounds.gap:
        wrong.append(f"log-probabilities differ by {result.gap:.3f} nat, at most {bounds.gap:g} is allowed")
    if score is not None and score.engine < score.low:
        wrong.append(
            f"{score.measure} falls from {score.trained:.2f} to {score.engine:.2f}, below the interval's end {score.low:.2f}"
        )
    if wrong:
        return RecordedVerdict(False, DIFFERENT, f"The export is not the model that was trained: {'; '.join(wrong)}.")
    text = f"The export is the model that was trained: {result.top1:.1%} of {result.tokens} tokens agree, {result.gap:.3f} nat apart"
    if score is not None:
        text += (
            f"; {score.measure} {score.engine:.2f} on {score.inputs} test inputs, {score.trained:.2f} before the export"
        )
    return RecordedVerdict(True, SAME, f"{text}.")


def with_gguf(report: ParityReport, share: float, minimum: float) -> ParityReport:
    """Return the report with ``share``, the agreement of the GGUF file (0 to 1); below ``minimum`` the verdict becomes failed."""
    if share >= minimum or not report.verdict.passed:
        return replace(report, gguf=share)
    text = (
        f"The GGUF file is not the model that was trained, so it was deleted: {share:.1%} of the probe tokens agree, at least "
        f"{minimum:.1%} must. Take finer weights (package.gguf.type=f16), or none (package.gguf=null)."
    )
    return replace(report, gguf=share, verdict=RecordedVerdict(False, GGUF_DIFFERS, text))


def score_exported(
    cfg: Evaluate, tools: MetricBackends, items: Sequence[Item], answers: Sequence[str], *, seed: int
) -> Score | None:
    """Return the metric ``evaluate.gate.primary_metric`` of ``answers`` (one per item, in their order) with its bootstrap interval.

    It is computed as evaluate does, for the answers before and after the export alike; None where no item has a value.
    """
    gate = cfg.gate
    tables = scoring.compute_statistics(
        items, answers, None, tools=tools, declared=cfg.checks, train_grams=frozenset(), rules=None
    )
    groups = [item.cluster for item in items]
    plan = paired_comparison.make_resampling(groups, resamples=gate.resamples, confidence=gate.confidence, seed=seed)
    return paired_comparison.score(gate.primary_metric, tables[gate.primary_metric], plan)
