"""Compute sufficient statistics from answers: one table per metric, one row per item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunectl.config.schema.evaluate import Check
from tunectl.evaluation import declared_checks, slot_error, train_overlap
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import GeneratedText, MetricBackends

if TYPE_CHECKING:
    from numpy.typing import NDArray

Statistics = Mapping[str, "NDArray[Any]"]
"""Arrays of (items, statistics) by metric name."""


def compute_statistics(
    items: Sequence[Item],
    answers: Sequence[str],
    replies: Sequence[GeneratedText] | None,
    *,
    tools: MetricBackends,
    declared: Sequence[Check],
    train_grams: train_overlap.Grams,
    rules: slot_error.SlotMatcher | None,
) -> dict[str, NDArray[Any]]:
    """Return the statistics of one system: metric name -> array (items, statistics).

    ``replies`` is None for answers without a model (no likelihood, no cut). ``declared`` are the project's checks,
    ``train_grams`` the 4-grams of the training answers. ``rules`` None: slot errors are not measured.
    """
    import numpy as np

    references = [item.references for item in items]
    result: dict[str, NDArray[Any]] = {}
    for scorer in tools.scorers:
        result.update(scorer(answers, references))
    result["words"] = np.asarray([(len(answer.split()), 1) for answer in answers], dtype=np.float64)
    result["seen"] = np.asarray([train_overlap.share(answer, train_grams) for answer in answers], dtype=np.float64)
    if declared:
        result.update(_checks(items, answers, declared, tools))
    if rules is not None:
        result.update(slot_error.compute_slot_statistics(rules, items, answers))
    if replies is not None:
        result["unfinished"] = np.asarray([(not reply.finished, 1) for reply in replies], dtype=np.float64)
        likely = np.asarray([_likelihood(reply) for reply in replies], dtype=np.float64)
        if likely[:, 1].any():
            result["perplexity"] = likely
    return result


def _checks(
    items: Sequence[Item], answers: Sequence[str], checks: Sequence[Check], tools: MetricBackends
) -> dict[str, NDArray[Any]]:
    """Return one table per check, and ``checks``: the mean over the checks that apply to an item."""
    import numpy as np

    tables: dict[str, NDArray[Any]] = {}
    for check in checks:
        scores = [
            declared_checks.score(check, answer, item.question, item.fields, tools.valid)
            for item, answer in zip(items, answers, strict=True)
        ]
        tables[f"check_{check.name}"] = np.asarray([(0, 0) if s is None else (s, 1) for s in scores], dtype=np.float64)
    together = np.sum(list(tables.values()), axis=0)
    applied = together[:, 1:] > 0
    share = np.divide(together[:, :1], together[:, 1:], out=np.zeros_like(together[:, :1]), where=applied)
    tables["checks"] = np.hstack([share, applied])
    return tables


def _likelihood(reply: GeneratedText) -> tuple[float, int]:
    return sum(reference.nats for reference in reply.references), sum(
        reference.tokens for reference in reply.references
    )
