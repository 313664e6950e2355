"""Sufficient statistics of ROUGE-L (rouge-score), BLEU and chrF (sacrebleu) for each answer, ready to be resampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from tunectl.core.optional import import_optional

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compute_rouge(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Mapping[str, NDArray[Any]]:
    """Return ``rouge_l``: per answer the ROUGE-L F1 (Lin, 2004) with the best of its references, and the count 1; (answers, 2)."""
    scorer = import_optional("rouge_score.rouge_scorer", extra="evaluate").RougeScorer(["rougeL"], use_stemmer=False)
    numpy = import_optional("numpy", extra="evaluate")
    best = [
        max(scorer.score(reference, answer)["rougeL"].fmeasure for reference in answer_references)
        for answer, answer_references in zip(answers, references, strict=True)
    ]
    return {"rouge_l": numpy.column_stack([best, numpy.ones(len(best))])}


def compute_bleu_and_chrf(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Mapping[str, NDArray[Any]]:
    """Return ``bleu`` (answers, 10) and ``chrf`` (answers, 18): per answer the counts from which corpus BLEU and chrF are computed.

    Every answer may have its own number of references; the closest length counts for BLEU and the best one for chrF, as
    ``sacrebleu.corpus_bleu`` does it.
    """
    metrics = import_optional("sacrebleu.metrics", extra="evaluate")
    numpy = import_optional("numpy", extra="evaluate")
    # sacrebleu wants streams: the first reference of every answer, then the second, with None where there is none
    streams = [list(stream) for stream in zip_longest(*references)]
    result = {}
    for name, metric in (("bleu", metrics.BLEU()), ("chrf", metrics.CHRF())):
        rows = metric._extract_corpus_statistics(list(answers), streams)  # noqa: SLF001 - scores alone cannot be resampled
        result[name] = numpy.asarray(rows, dtype=numpy.float64)
    return result


def bleu_signature() -> str:
    """Return sacrebleu's signature of the BLEU that is computed here, for reports."""
    metric = import_optional("sacrebleu.metrics", extra="evaluate").BLEU()
    metric.corpus_score(["a"], [["a"]])  # the signature has the number of references only after a first use
    parts = str(metric.get_signature()).split("|")
    return "|".join(part for part in parts if not part.startswith("nrefs"))
