"""Add the guarantee of a private training to the verdict about quality."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tunectl.artifacts.privacy_budget import PrivacyBudget
from tunectl.evaluation.results import Results


def add_privacy(results: Results, budget: PrivacyBudget, not_counted: Sequence[str]) -> Results:
    """Return ``results`` whose verdict includes epsilon; ``not_counted`` names stages that were trained on people's data without privacy."""
    sentence = budget.sentence
    if not_counted:
        sentence += f" Not counted: what {' and '.join(not_counted)} learned, without privacy."
    verdict, aligned = results.verdict, results.verdict.aligned
    reason = f"{verdict.reason} {sentence}"
    if aligned is not None:  # the sentence about the aligned model stays last: the page shows it apart
        reason = f"{verdict.reason.removesuffix(aligned.reason).strip()} {sentence} {aligned.reason}"
    return replace(
        results, verdict=replace(verdict, reason=reason, evidence=[*verdict.evidence, sentence], privacy=budget)
    )
