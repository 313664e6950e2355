"""The measure that decides, of answers that another program wrote to the same test inputs."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.config.evaluate import Evaluate
from tunectl.evaluation import compare, scoring
from tunectl.evaluation.items import Item
from tunectl.evaluation.results import Score
from tunectl.evaluation.scorer import Tools


def score(cfg: Evaluate, tools: Tools, items: Sequence[Item], answers: Sequence[str], *, seed: int) -> Score | None:
    """``evaluate.gate.primary`` with its interval, as the evaluation computes it; None where it is undefined."""
    gate = cfg.gate
    tables = scoring.measure(items, answers, None, tools=tools, declared=cfg.checks, seen=frozenset(), rules=None)
    groups = [item.cluster for item in items]
    plan = compare.resampling(groups, resamples=gate.resamples, confidence=gate.confidence, seed=seed)
    return compare.score(gate.primary, tables[gate.primary], plan)
