"""What one line of each file is.

Rows are frozen ``msgspec`` structs: decoding a line checks its types, too; ``msgspec.structs.replace`` changes one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from tunectl.artifacts.reject_reasons import RejectReason

Role = Literal["system", "user", "assistant", "tool"]


class Source(Struct, frozen=True):
    """Where a record came from: a path or address, and the 1-based row, line, page or element in it (0: all of it)."""

    file: str
    row: int = 0


class Document(Struct, frozen=True):
    """A piece of raw text: a page, a flyer, a review, a post, an article."""

    id: str
    """Stable across runs: derived from source and content."""
    text: str
    source: Source
    kind: str = "text"
    """The name of the declared source it came through, for example ``reviews``."""
    fields: dict[str, str] = field(default_factory=dict)
    """Declared columns kept for slices and balance, for example ``neighbourhood``."""


class Segment(Struct, frozen=True):
    """A piece of text, and whether it is learned from."""

    text: str
    train: bool


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    """OpenAI shape; ``arguments`` is an object, not a JSON string."""
    train: bool | None = None
    """Whether an assistant turn is learned from. None: as the stage decides (the last turn, or all of them)."""
    parts: list[Segment] = field(default_factory=list)
    """Filled where an assistant turn is learned from in part: its content in pieces."""


class Tokens(Struct, frozen=True):
    """A row that came tokenized already. ``labels`` has the length of ``ids``; -100 is not learned from."""

    ids: list[int]
    labels: list[int]


class ReferenceAnswer(Struct, frozen=True, omit_defaults=True):
    """One reference answer and the row it came from."""

    text: str
    """What is said; tool calls stand behind it as ``chat.tool_calls`` writes them, also for templates with a form of their own."""
    source: Source
    calls: bool = False
    """Whether the end of ``text`` is tool calls."""
    parts: list[Segment] = field(default_factory=list)
    """Filled where the answer is learned from in part: what is said, in pieces, without the calls."""


class Example(Struct, frozen=True, omit_defaults=True):
    """One input and its reference answers: several references of one input are one record.

    Exactly one of three bodies is filled: ``messages`` with ``answers`` (the usual), ``segments``, or ``tokens``.
    """

    id: str
    source: Source
    """Of the first row that gave this input; each answer names its own."""
    messages: list[Message] = field(default_factory=list)
    """The conversation before the final answer; ends with a user or tool turn."""
    answers: list[ReferenceAnswer] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    """Template-free text (Axolotl ``input_output``)."""
    tokens: Tokens | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    kind: str = "text"
    fields: dict[str, str] = field(default_factory=dict)
    split: Literal["train", "validation", "test"] | None = None
    """Set by the user's own split column, or by the split stage."""
    cluster: str | None = None
    """Members of one cluster stay in one split, and are resampled together: near duplicates; from the split stage on also
    equal inputs and records that share a value of ``split.group``. None: it stands alone."""
    weight: float = 1.0
    """Loss weight, set by re-weighting to the declared population."""


SplitName = Literal["train", "validation", "test"]
Choice = Literal["first", "second", "both_good", "both_bad", "good", "bad"]
"""What a person said: of two answers the better one, or both alike; of one answer alone, good or bad."""


class AnnotationMetadata(Struct, frozen=True, omit_defaults=True):
    """Who said something, when, and how sure."""

    source: Source
    annotator: str | None = None
    """None where the data does not say."""
    created_at: str | None = None
    """As the data says it; the page writes UTC, ISO 8601."""
    margin: float | None = None
    """By how much the chosen answer is better, in the units of the data."""
    tags: list[str] = field(default_factory=list)
    """Reasons."""


class Comparison(Struct, frozen=True, omit_defaults=True):
    """One person's opinion about two answers to one input, or about one answer alone."""

    id: str
    prompt: str
    """Digest that equal inputs share."""
    messages: list[Message]
    """The conversation before the answers."""
    answers: list[list[Message]]
    """Two, or one that was marked alone; each ends with an assistant turn."""
    choice: Choice
    annotation: AnnotationMetadata
    kind: str = "text"
    """The name of the declared source it came through."""
    fields: dict[str, str] = field(default_factory=dict)
    split: Literal["train", "validation", "test"] | None = None
    """Set by the user's own split column."""
    left: int | None = None
    """Which of the two answers stood on the left; None where the data does not say."""
    check: Literal["repeat", "attention"] | None = None
    """repeat: the question was asked before. attention: the right answer is known, and is the first."""
    edit: str | None = None
    """The better answer as the person would have it."""
    systems: list[str] = field(default_factory=list)
    """Who wrote each answer, where that is known."""
    seconds: float | None = None
    """From showing the question to the choice."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Those on offer in the conversation."""


class PreferencePair(Struct, frozen=True, omit_defaults=True):
    """Two answers to one input, of which people preferred one."""

    id: str
    prompt: str
    messages: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    annotations: list[AnnotationMetadata]
    """Those who preferred the chosen one."""
    margin: float | None = None
    """Mean of the votes that give one."""
    kind: str = "text"
    fields: dict[str, str] = field(default_factory=dict)
    split: Literal["train", "validation", "test"] | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Those on offer in the conversation."""


class LabeledCompletion(Struct, frozen=True, omit_defaults=True):
    """One answer that was called good or bad, not compared with another (KTO)."""

    id: str
    prompt: str
    messages: list[Message]
    completion: list[Message]
    label: bool
    annotations: list[AnnotationMetadata]
    kind: str = "text"
    fields: dict[str, str] = field(default_factory=dict)
    split: Literal["train", "validation", "test"] | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Those on offer in the conversation."""


class InferenceRecord(Struct, frozen=True, omit_defaults=True):
    """One request to a served model and, once it is finished, the answer. Text in it is redacted."""

    id: str
    """Of the answer, as the client saw it (``chatcmpl-...``); the same twice counts once."""
    accepted_at: datetime
    """With a time zone; before the first token."""
    variant: str
    """Which slot answered: ``champion``, ``challenger`` or ``base``."""
    release: str
    template_hash: str
    request: dict[str, Any] | None
    """OpenAI's request body; None once it was erased."""
    user_hash: str | None = None
    """Keyed hash of whoever asked (``inference_log/pseudonyms.py``); None where nobody was named."""
    session: str | None = None
    """Keyed hash of the conversation that the client named."""
    finished_at: datetime | None = None
    """None while it runs, and for ever where the server was killed meanwhile."""
    response: dict[str, Any] | None = None
    """OpenAI's response body (not in chunks)."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    """``stop``, ``length``, ``tool_calls``, ``cancelled``, ``error``."""
    mean_logprob: float | None = None
    """Mean log-probability of the answer's tokens, nats."""
    refusal: bool | None = None
    format_valid: bool | None = None
    """Whether the answer keeps the form that was asked for; None where none was."""
    latency_seconds: float | None = None
    """Seconds from acceptance to the last token."""
    erased_at: datetime | None = None
    """A tombstone: the text was deleted at somebody's request, and nothing may be built from this row."""
    key_hash: str | None = None
    acts_for: bool | None = None
    """Keyed hash of the API key that asked, and whether it may speak for many people; None in rows of schema version 0002."""

    @property
    def person(self) -> str | None:
        """Who counts as one person: whoever a key that acts for many names, else the key."""
        return self.key_hash if self.acts_for is False else self.user_hash


FeedbackKind = Literal["thumb", "rating", "preference", "click", "conversion", "edit"]


class Feedback(Struct, frozen=True, omit_defaults=True):
    """What somebody said or did about one inference. Text in it is redacted."""

    id: str
    """Made by whoever sends it; the same twice counts once."""
    inference_id: str
    kind: FeedbackKind
    value: Any
    """As ``inference_log/feedback_validation.py`` says for each kind; None once it was erased, and for some clicks and conversions."""
    created_at: datetime
    annotator: str | None = None
    """Keyed hash of who said it."""
    erased_at: datetime | None = None
    """When value and annotator were deleted at somebody's request; a click without a value is not erased."""
    key_hash: str | None = None
    acts_for: bool | None = None
    received_at: datetime | None = None
    """Key as in ``InferenceRecord``, and when the server took it: ``created_at`` is what the client says."""

    @property
    def counted_at(self) -> datetime:
        """From when on it counts: nobody makes it older than it is."""
        return self.created_at if self.received_at is None else max(self.created_at, self.received_at)

    @property
    def person(self) -> str | None:
        """Who counts as one person: whoever a key that acts for many names, else the key."""
        return self.key_hash if self.acts_for is False else self.annotator


DriftVerdict = Literal["ok", "drift", "insufficient", "error"]
"""ok: no signal shifted. drift: a signal shifted, on the evidence of the last windows together. insufficient: too few
rows, or no reference, to say. error: the window could not be examined; ``reason`` says why."""


class PooledTest(Struct, frozen=True):
    """One signal's test on the rows of the last windows together."""

    windows: int
    """How many of them."""
    rows: int
    """Rows with a value."""
    p_value: float
    effect: float


class DriftSignal(Struct, frozen=True, omit_defaults=True):
    """One thing that is watched for drift, in one window. No number is ever NaN or infinite; None is "could not be said"."""

    name: str
    """For example ``prompt_text``."""
    method: str
    """How it is compared, for example ``mmd``."""
    n: int
    """Rows of the window that had a value."""
    reference: int
    """Rows of the reference that had a value."""
    score: float | None = None
    """The statistic of the test; drift makes it larger."""
    threshold: float | None = None
    """What the statistic must exceed at the signal's own level, from the permutations."""
    p_value: float | None = None
    """Of the permutation test of this window alone."""
    adjusted_p_value: float | None = None
    """The smallest of this window and of ``pooled``, in shares of the budget of false alarms: multiplied by the number of pools and
    divided by the signal's share of the budget."""
    effect: float | None = None
    """Size of the difference, free of the number of rows."""
    effect_floor: float | None = None
    """Size below which a difference does not count, from reference-against-reference splits."""
    shifted: bool = False
    """Whether ``adjusted_p_value`` is within the budget, of a test whose ``effect`` is over the floor."""
    reason: str = ""
    """Why there is no number, for example ``too few rows: 3 of 50``."""
    pooled: list[PooledTest] = field(default_factory=list)
    """The same test on the rows of the last windows together."""


class SegmentShift(Struct, frozen=True):
    """A part of the window, and how much more (or less) of it there is than in the reference."""

    name: str
    """What its prompts have in common: words, a language, a length."""
    window: float
    """Share of the window's rows, 0 to 1."""
    reference: float
    """Share of the reference's rows, 0 to 1."""
    exemplars: list[str]
    """Ids of inferences in it, the most typical first."""


class DriftWindow(Struct, frozen=True, omit_defaults=True):
    """A closed window of live traffic, examined: the ``body`` of its row in the inference log's table ``windows``."""

    id: str
    """First 16 hex digits of the SHA-256 of its manifest: span, inference ids, reference, release, settings."""
    since: datetime
    until: datetime
    """Inferences accepted in [since, until)."""
    rows: int
    """Inferences that were compared: finished, of the champion, not erased, one a session."""
    verdict: DriftVerdict
    shifted: bool
    """Whether a signal shifted, on the evidence of the last windows together."""
    release: str
    """The champion whose answers these are."""
    reference: str
    """Which reference the prompts were compared with: id of a window, ``training`` or ``none``."""
    signals: dict[str, DriftSignal] = field(default_factory=dict)
    """By name."""
    exemplars: list[str] = field(default_factory=list)
    """Ids of the inferences that differ most from the reference, most different first."""
    segments: list[SegmentShift] = field(default_factory=list)
    """What there is more of, largest change first."""
    reason: str = ""
    """For people: what shifted, or why nothing can be said."""
    evidence: float = 0.0
    """Orders of magnitude by which what was seen is rarer than chance, all signals and pools together; 3 is once in 1,000. A
    window that could not be examined carries that of the window before. Windows of version 0.1 have none."""
    evidence_required: float = 3.0
    """The evidence that makes ``drift``: -log10 of the declared false alarms per evaluation."""
    pooled_windows: int = 1
    """Over how many windows, up to this one, the strongest evidence was found."""
    changed_since: datetime | None = None
    """Of a drift: since when the change is likely to be there, the begin of a window."""
    too_small_for: float | None = None
    """The declared smallest effect, where nine windows of this size are too few rows to see it; None: they are enough."""
    report: str | None = None
    """Evidently's page, a file name under the folder of reports."""
    previous_p_values: dict[str, float] = field(default_factory=dict)
    """By signal: p-value against the release's window before this one, for people; no verdict rests on it."""


class RejectedRow(Struct, frozen=True):
    """A row that did not go on, and why."""

    source: Source
    reason: RejectReason
    """For example ``exact_duplicate``."""
    detail: str = ""
    """What offended: the value, the twin's id, the pattern."""
    sample: str = ""
    """The first 200 characters of the row."""


def truncate(text: str, limit: int = 200) -> str:
    """Return the start of ``text`` on one line, for ``RejectedRow.sample``."""
    flat = " ".join(text[: 4 * limit].split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
