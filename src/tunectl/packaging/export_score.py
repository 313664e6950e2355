"""The primary metric, of answers that another program generated for the same test inputs."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.config.schema.evaluate import Evaluate
from tunectl.evaluation import paired_comparison, scoring
from tunectl.evaluation.items import Item
from tunectl.evaluation.metric_protocols import MetricBackends
from tunectl.evaluation.results import Score


def score_exported(
    cfg: Evaluate, tools: MetricBackends, items: Sequence[Item], answers: Sequence[str], *, seed: int
) -> Score | None:
    """Return ``evaluate.gate.primary_metric`` with its interval, as the evaluation computes it; None where it is undefined."""
    gate = cfg.gate
    tables = scoring.compute_statistics(
        items, answers, None, tools=tools, declared=cfg.checks, seen=frozenset(), rules=None
    )
    groups = [item.cluster for item in items]
    plan = paired_comparison.make_resampling(groups, resamples=gate.resamples, confidence=gate.confidence, seed=seed)
    return paired_comparison.score(gate.primary_metric, tables[gate.primary_metric], plan)
