"""Content of the preferences stage's report.json."""

from __future__ import annotations

from msgspec import Struct

from tunectl.artifacts.records import SplitName
from tunectl.preferences.agreement import InterAnnotatorAgreement, Proportion
from tunectl.preferences.contrastive_pairs import ContrastReport
from tunectl.preferences.simulated_annotator import AnnotationSummary


class PreferenceReport(Struct, frozen=True):
    """Content of ``report.json``: sizes, leaks and biases of the preferences."""

    sizes: dict[str, int]
    """Number of pairs in each part."""
    marks: dict[str, int]
    """Number of labeled answers in each part."""
    prompts: int
    """Number of different inputs."""
    prompts_of_split: dict[str, int]
    """Number of inputs in each part that ``split`` has in the same part; those of test are in test only, so nothing leaks."""
    moved: int
    """Number of records that the data marked for another part."""
    longer_wins: Proportion | None
    """Share of the pairs in which the longer answer won; far from a half is a bias that a reward model would learn."""
    agreement: InterAnnotatorAgreement
    """Agreement of people; pairs made from references are not judgments of people."""
    contrast: dict[SplitName, ContrastReport]
    """Pairs made from references in each part; empty where none were wanted."""
    simulated: AnnotationSummary | None
    """Counts of sampled answers; None without a simulated annotator."""
