"""ROUGE-L from Google's rouge-score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunectl.core.optional import import_optional

if TYPE_CHECKING:
    from numpy.typing import NDArray


def statistics(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Mapping[str, NDArray[Any]]:
    """Return ROUGE-L F1 (Lin, 2004) of each answer with its best reference, and 1, ready to be averaged; shape (answers, 2)."""
    scorer = import_optional("rouge_score.rouge_scorer", extra="evaluate").RougeScorer(["rougeL"], use_stemmer=False)
    numpy = import_optional("numpy", extra="evaluate")
    best = [
        max(scorer.score(reference, answer)["rougeL"].fmeasure for reference in answer_references)
        for answer, answer_references in zip(answers, references, strict=True)
    ]
    return {"rouge_l": numpy.column_stack([best, numpy.ones(len(best))])}
