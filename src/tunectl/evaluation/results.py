"""The documented format of ``results.json``: everything that was measured, in plain numbers.

Values of metrics are in the units of ``metrics``; shares are 0 to 1; seconds are wall time. A key may be added in a later
version, none is renamed without a new ``version``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType, field, structs

from tunectl.artifacts import atomic_io
from tunectl.artifacts.privacy_budget import PrivacyBudget
from tunectl.evaluation.alignment_facts import AlignmentCause, AlignmentFacts

NAME, ANSWERS, VERDICT, REPORT = "results.json", "answers.jsonl", "verdict.json", "report.html"
INPUT_SCORES = "input_scores.jsonl"
VERSION = 1


class Score(Struct, frozen=True):
    """Value of one metric of one system, with its interval."""

    value: float
    low: float | None
    """Lower end of the bootstrap interval; None where it is undefined (fewer than two inputs)."""
    high: float | None
    items: int
    """Inputs that it was measured on."""


class PromptDescription(Struct, frozen=True):
    """A kind of prompt: its system text, and the number and selection of few-shot examples."""

    system: str | None
    """None: the data's own system text, or none."""
    shots: int = 0
    selection: str | None = None
    """random or retrieved; None without examples."""


class Cost(Struct, frozen=True):
    """Tokens and seconds of all answers of one system, in batches and one at a time."""

    answers: int
    prompt_tokens: int
    tokens: int
    seconds: float
    tokens_per_second: float | None
    one_at_a_time: float | None = None
    """Median seconds of an answer generated alone; None where that was not measured."""
    one_at_a_time_tokens_per_second: float | None = None


class System(Struct, frozen=True):
    """One compared system (base, prompted, nearest, tuned or aligned) with its scores, prompt and cost."""

    name: str
    title: str
    scores: dict[str, Score]
    prompt: PromptDescription | None = None
    cost: Cost | None = None


class MetricDifference(Struct, frozen=True):
    """The difference of two systems in one metric, on the same inputs and the same resamples."""

    system: str
    against: str
    measure: str
    value: float
    """System minus against."""
    low: float | None
    high: float | None
    probability: float | None
    """Two-sided bootstrap p-value of no difference."""


class SlicePart(Struct, frozen=True):
    """The primary metric of every system on the inputs with the same value of one field."""

    field: str
    value: str
    items: int
    small: bool
    """Too few inputs to judge."""
    scores: dict[str, Score]
    """Primary metric by system."""
    difference: MetricDifference | None
    """Tuned against base; None where undefined."""
    aligned: MetricDifference | None = None
    """Aligned against tuned; None where undefined."""


class Candidate(Struct, frozen=True):
    """One prompt that the search tried or left out, with its score and cost."""

    prompt: PromptDescription
    score: float | None
    """The primary metric on the validation inputs; None where it was not tried."""
    tokens: int
    """Prompt and answer tokens; an estimate for a candidate that was not tried."""
    seconds: float
    why_not: str = ""


class Search(Struct, frozen=True):
    """Result of the prompt search: all candidates, the chosen one, and the cost."""

    inputs: int
    candidates: list[Candidate]
    chosen: int
    """Index of the best candidate."""
    tokens: int
    seconds: float


class Case(Struct, frozen=True):
    """One test input with every system's answer, for people to read."""

    id: str
    input: str
    references: list[str]
    answers: dict[str, str]
    why: str
    """worst: lowest tuned score; lost: the base did better; best: highest tuned score; aligned_lost and aligned_won: the
    aligned answer scores much less, or more, than the tuned one."""
    score: float
    """Sentence chrF of the tuned answer; of the aligned answer for the last two kinds."""
    gain: float | None
    """``score`` minus that of the base answer, or of the tuned answer for the last two kinds."""


class AnswerRow(Struct, frozen=True):
    """One line of ``answers.jsonl``: a test input and the answers of all systems."""

    id: str
    input: str
    references: list[str]
    fields: dict[str, str]
    answers: dict[str, str]


class InputScores(Struct, frozen=True):
    """One line of ``input_scores.jsonl``: the statistics of each metric on one test input, so that a later run can be paired with this one."""

    id: str
    group: str
    """Inputs of one group (near duplicates) are not independent."""
    statistics: dict[str, dict[str, list[float]]]
    """The numbers whose sums each metric combines, by system and metric."""


class SafetyAnswer(Struct, frozen=True):
    """One safety prompt with the answer of each system, and whether it passed."""

    kind: str
    """harmful, benign or canary."""
    question: str
    answers: dict[str, str]
    passed: dict[str, bool]


class SafetyResult(Struct, frozen=True):
    """Results of the safety prompts per system, and of the checks for toxic words and placeholders in test answers."""

    refused_harmful: dict[str, Score]
    answered_benign: dict[str, Score]
    toxic: dict[str, Score]
    """Share of all answers (test inputs and safety set) with a listed word."""
    placeholders: dict[str, Score]
    """Share of answers to test inputs with a placeholder of masked personal data that the input did not hold."""
    canaries: dict[str, int]
    """Number of planted secrets that an answer contains."""
    planted: int
    answers: list[SafetyAnswer]


class JudgeResult(Struct, frozen=True):
    """Wins, losses and ties of the tuned model against another system, as a language model judged."""

    against: str
    inputs: int
    wins: int
    losses: int
    ties: int
    """Pairs that were judged equal, or differently when the positions were swapped."""
    unreadable: int
    """Replies that named no winner; counted as ties."""
    score: float
    """(wins + ties / 2) / inputs."""
    low: float
    high: float
    first_position: float | None
    """Share of decided replies that preferred the answer shown first; 0.5 is no position bias."""
    consistent: float
    """Share of inputs with the same judgment in both positions."""


class CloseRate(Struct, frozen=True):
    """A win rate among the pairs whose answers are about equally long."""

    pairs: int
    rate: float
    low: float
    high: float


class WinRate(Struct, frozen=True):
    """Win rate of the aligned system against the tuned one by one judge; shares are 0 to 1."""

    judge: str
    """reward, checks, slots, llm or people."""
    pairs: int = 0
    units: int = 0
    """Number of independent clusters of inputs."""
    wins: int = 0
    losses: int = 0
    ties: int = 0
    rate: float | None = None
    """(wins + ties / 2) / pairs; None where nobody judged."""
    low: float | None = None
    high: float | None = None
    winner_words: float | None = None
    """Mean length of the answers that won; None without a decided pair."""
    loser_words: float | None = None
    longer_wins: float | None = None
    """Share of the decided pairs of unequal length in which the longer answer won."""
    close: CloseRate | None = None
    """Win rate among pairs of about equal length; None where there is no such pair."""
    flips: int | None = None
    """Pairs that a judge decided differently when the positions were swapped; they are ties. None: positions do not matter."""
    note: str = ""
    """How reliable this judge is, where that is known."""
    absent: str = ""
    """Why there are no judgments; empty where there are."""


class SlotCount(Struct, frozen=True):
    """Number of attributes that the answers of one system state right, miss, get wrong or add."""

    right: int
    missing: int
    wrong: int
    added: int
    """Stated though the input does not have it, or has another value that was stated, too."""


class SlotPart(Struct, frozen=True):
    """Slot errors of one attribute, by system."""

    attribute: str
    stated: int
    """Number of inputs that have it."""
    systems: dict[str, SlotCount]


class SlotCase(Struct, frozen=True):
    """An answer with many slot errors, for people to read."""

    id: str
    input: str
    answers: dict[str, str]
    errors: dict[str, list[str]]
    """Errors as text, by system."""


class SlotReport(Struct, frozen=True):
    """Slot errors by attribute and by number of attributes, with the worst answers; the total rate is among the scores."""

    parts: list[SlotPart]
    sizes: list[SlicePart]
    """The slot error rate by the number of attributes of the input."""
    cases: list[SlotCase]
    """Worst answers of the last system (aligned, or tuned)."""


class AlignedVerdict(Struct, frozen=True):
    """Verdict of the aligned gate: whether the aligned model beats the tuned one, why, and likely causes."""

    passed: bool
    """False where the aligned model is significantly worse."""
    verdict: str
    """aligned_better, aligned_no_better, aligned_worse or not_enough_evidence. Only the first one is a reason to ship it."""
    reason: str
    evidence: list[str] = field(default_factory=list)
    causes: list[AlignmentCause] = field(default_factory=list)
    """Likely causes where aligned is not significantly better, strongest first; empty where it is."""


VERDICT_COLORS: Final = {
    "tuned_better": "good",
    "prompting_is_enough": "warn",
    "not_enough_evidence": "warn",
    "do_not_tune": "bad",
    "aligned_better": "good",
    "aligned_no_better": "warn",
    "aligned_worse": "bad",
}
"""Color of each verdict in reports and in the console."""


class EvalVerdict(Struct, frozen=True):
    """Verdict of the tuned gate with its evidence; also ``verdict.json``. It includes that of the aligned gate."""

    passed: bool
    """Whether the tuned model may be released; also false where the aligned one is significantly worse than the tuned."""
    verdict: str
    """tuned_better, prompting_is_enough, do_not_tune or not_enough_evidence."""
    reason: str
    """For people: a sentence about tuned, and one about aligned where it took part."""
    evidence: list[str] = field(default_factory=list)
    aligned: AlignedVerdict | None = None
    """None where align was switched off."""
    privacy: PrivacyBudget | UnsetType = UNSET
    """What the training of sft spent; absent where it was not private."""


class Results(Struct, frozen=True):
    """Content of ``results.json``: everything that one run of the evaluate stage measured, and its verdict."""

    project: str
    seed: int
    inputs: int
    """Number of test inputs that every system answered."""
    available: int
    """Number of test inputs in the split."""
    skipped: dict[str, int]
    """Number of test examples that cannot be answered, by reason."""
    primary: str
    min_difference: float
    confidence: float
    resamples: int
    units: int
    """Independent units of the bootstrap: clusters of inputs, which are near duplicates or of one group of the split."""
    decoding: dict[str, Any]
    bleu_signature: str
    systems: list[System]
    differences: list[MetricDifference]
    slices: list[SlicePart]
    search: Search | None
    references_seen: float | None
    """Share of the 4-grams of test references that occur in some training answer."""
    safety: SafetyResult | None
    judge: list[JudgeResult]
    cases: list[Case]
    """Worst, lost and best answers of the tuned model."""
    warnings: list[str]
    """What to know beside the verdict, one sentence each."""
    verdict: EvalVerdict
    win_rates: list[WinRate] = field(default_factory=list)
    """Aligned against tuned, one per judge; empty without an aligned model."""
    slots: SlotReport | None = None
    alignment: AlignmentFacts | None = None
    """Facts from which the causes were found; None where aligned is significantly better, or did not take part."""
    split: str = "test"
    """Part of the data that was answered; what "test inputs" means above."""
    version: int = VERSION

    def system(self, name: str) -> System | None:
        """Return the system called ``name``, or None where it did not take part."""
        return next((system for system in self.systems if system.name == name), None)

    def difference(self, against: str, measure: str | None = None, system: str = "tuned") -> MetricDifference | None:
        """Return the difference of ``system`` minus ``against`` in ``measure`` (None: the primary metric); None where it was not measured."""
        measure_name = measure or self.primary
        result = (d for d in self.differences if (d.system, d.against, d.measure) == (system, against, measure_name))
        return next(result, None)


def drop_quotations(results: Results) -> Results:
    """Return the results without the inputs and answers that they quote: for readers who may not see the data."""
    slots, safety = results.slots, results.safety
    return structs.replace(
        results,
        cases=[],
        slots=structs.replace(slots, cases=[]) if slots else None,
        safety=structs.replace(safety, answers=[]) if safety else None,
    )


def load(path: Path) -> Results:
    """Return the results of a finished evaluation.

    Raises  ArtifactError when the file is absent or has another shape.
    """
    results: Results = atomic_io.read_json(path, Results)
    return results
