"""What report.json of the stage holds."""

from __future__ import annotations

from msgspec import Struct

from tunectl.artifacts.records import SplitName
from tunectl.preferences.agreement import InterAnnotatorAgreement, Proportion
from tunectl.preferences.contrastive_pairs import ContrastReport
from tunectl.preferences.simulated_annotator import AnnotationSummary


class PreferenceReport(Struct, frozen=True):
    """Sizes, leaks and biases of the preferences."""

    sizes: dict[str, int]
    """Part to pairs."""
    marks: dict[str, int]
    """Part to marks."""
    prompts: int
    """Different inputs."""
    prompts_of_split: dict[str, int]
    """Part to inputs that ``split`` holds there too; those of test are asked in test alone, so nothing leaks."""
    moved: int
    """Records that the data marked for another part than their input went to."""
    longer_wins: Proportion | None
    """Share of the pairs in which the longer answer won; far from a half is a bias that a reward model would learn."""
    agreement: InterAnnotatorAgreement
    """Of what people said; pairs made of references are nobody's opinion."""
    contrast: dict[SplitName, ContrastReport]
    """Part to pairs made of references; empty where none were asked for."""
    simulated: AnnotationSummary | None
    """What became of sampled answers; None where no annotator was simulated."""
