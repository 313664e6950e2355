"""The record that one line of each file holds.

Rows are frozen ``msgspec`` structs: decoding a line checks its types, too; ``msgspec.structs.replace`` changes one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct, field

from tunectl.artifacts.reject_reasons import RejectReason

Role = Literal["system", "user", "assistant", "tool"]


class Source(Struct, frozen=True):
    """File or web address that a record came from, and the 1-based row, line, page or element in it (0: all of it)."""

    file: str
    row: int = 0

    @property
    def location(self) -> str:
        """``file:row``, or the file alone where all of it is meant."""
        return f"{self.file}:{self.row}" if self.row else self.file


class Document(Struct, frozen=True):
    """A piece of raw text: a page, a flyer, a review, a post, an article."""

    id: str
    """Stable across runs: derived from source and content."""
    text: str
    source: Source
    kind: str = "text"
    """The name of the declared source of the row, for example ``reviews``."""
    fields: dict[str, str] = field(default_factory=dict)
    """Declared columns kept for slices and balance, for example ``neighbourhood``."""


class Segment(Struct, frozen=True):
    """A piece of text in an example without chat template, and whether it is trained on."""

    text: str
    train: bool


class Message(Struct, frozen=True, omit_defaults=True):
    """One message of a conversation: its role, text and tool calls."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    """OpenAI shape; ``arguments`` is an object, not a JSON string."""
    train: bool | None = None
    """Whether an assistant turn is trained on. None: as the stage decides (the last turn, or all of them)."""
    parts: list[Segment] = field(default_factory=list)
    """Filled where only parts of an assistant turn are trained on: its content in pieces."""


class Tokens(Struct, frozen=True):
    """Body of an example that was tokenized before. ``labels`` has the length of ``ids``; -100 is not trained on."""

    ids: list[int]
    labels: list[int]


class ReferenceAnswer(Struct, frozen=True, omit_defaults=True):
    """One reference answer and the row it came from."""

    text: str
    """Text of the answer; tool calls follow it as ``chat.tool_calls`` writes them, also for templates with a form of their own."""
    source: Source
    calls: bool = False
    """Whether ``text`` ends with tool calls."""
    parts: list[Segment] = field(default_factory=list)
    """Filled where only parts of the answer are trained on: the text in pieces, without the calls."""


class Example(Struct, frozen=True, omit_defaults=True):
    """One input and its reference answers: several references of one input are one record.

    Exactly one of three bodies is filled: ``messages`` with ``answers`` (the usual), ``segments``, or ``tokens``.
    """

    id: str
    source: Source
    """Source of the first row with this input; each answer has its own."""
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
SPLIT_NAMES: Final[tuple[SplitName, ...]] = ("train", "validation", "test")
Choice = Literal["first", "second", "both_good", "both_bad", "good", "bad"]
"""A person's choice: of two answers the better one, or both alike; of a single answer, good or bad."""


class AnnotationMetadata(Struct, frozen=True, omit_defaults=True):
    """Annotator, time, margin and tags of one judgment."""

    source: Source
    annotator: str | None = None
    """Annotator's name; None where the data has none."""
    created_at: str | None = None
    """Time as the data gives it; the page writes UTC, ISO 8601."""
    margin: float | None = None
    """By how much the chosen answer is better, in the units of the data."""
    tags: list[str] = field(default_factory=list)
    """Reasons that the annotator ticked."""


class Comparison(Struct, frozen=True, omit_defaults=True):
    """One person's judgment of two answers to one input, or of one answer alone."""

    id: str
    prompt: str
    """Digest that equal inputs share."""
    messages: list[Message]
    """The conversation before the answers."""
    answers: list[list[Message]]
    """Two answers, or a single labeled one; each ends with an assistant turn."""
    choice: Choice
    annotation: AnnotationMetadata
    kind: str = "text"
    """The name of the declared source it came through."""
    fields: dict[str, str] = field(default_factory=dict)
    split: Literal["train", "validation", "test"] | None = None
    """Set by the user's own split column."""
    left: int | None = None
    """Which of the two answers was shown on the left; None where the data does not say."""
    check: Literal["repeat", "attention"] | None = None
    """repeat: the question was asked before. attention: the right answer is known, and is the first."""
    edit: str | None = None
    """The better answer as the person rewrote it."""
    systems: list[str] = field(default_factory=list)
    """System that wrote each answer, where that is known."""
    seconds: float | None = None
    """Seconds from showing the question to the choice."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Tools on offer in the conversation."""


class PreferencePair(Struct, frozen=True, omit_defaults=True):
    """Two answers to one input, of which people preferred ``chosen``."""

    id: str
    prompt: str
    messages: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    annotations: list[AnnotationMetadata]
    """Annotations of those who preferred the chosen answer."""
    margin: float | None = None
    """Mean margin of the votes that have one."""
    kind: str = "text"
    fields: dict[str, str] = field(default_factory=dict)
    split: Literal["train", "validation", "test"] | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Tools on offer in the conversation."""


class LabeledCompletion(Struct, frozen=True, omit_defaults=True):
    """One answer that was labeled good or bad, without another one to compare (KTO)."""

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
    """Tools on offer in the conversation."""


class InferenceRecord(Struct, frozen=True, omit_defaults=True):
    """One request to a served model and, once it is finished, the answer. Text in it is redacted."""

    id: str
    """Id of the answer, as the client saw it (``chatcmpl-...``); a row with the same id counts once."""
    accepted_at: datetime
    """Time of acceptance with a time zone; before the first token."""
    variant: str
    """Variant that answered: ``champion``, ``challenger`` or ``base``."""
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
    """Whether the answer has the format that was asked for; None where none was."""
    latency_seconds: float | None = None
    """Seconds from acceptance to the last token."""
    erased_at: datetime | None = None
    """When the text was deleted at somebody's request; nothing may be built from this row any more."""
    key_hash: str | None = None
    acts_for: bool | None = None
    """Keyed hash of the API key that asked, and whether it may send requests for many people; None in rows of schema version 0002."""

    @property
    def person(self) -> str | None:
        """Hash that identifies the person: of the user that a key with scope acts_for names, else of the key."""
        return self.key_hash if self.acts_for is False else self.user_hash


FeedbackKind = Literal["thumb", "rating", "preference", "click", "conversion", "edit"]


class Feedback(Struct, frozen=True, omit_defaults=True):
    """One person's feedback on one inference, as in the inference log. Text in it is redacted."""

    id: str
    """Id made by the sender; feedback with the same id and key counts once."""
    inference_id: str
    kind: FeedbackKind
    value: Any
    """Value as ``inference_log/feedback_validation.py`` defines it for each kind; None once it was erased, and for some clicks and conversions."""
    created_at: datetime
    annotator: str | None = None
    """Keyed hash of who gave it."""
    erased_at: datetime | None = None
    """When value and annotator were deleted at somebody's request; a click without a value is not erased."""
    key_hash: str | None = None
    acts_for: bool | None = None
    received_at: datetime | None = None
    """``key`` is as in ``InferenceRecord``; ``received_at`` is when the server received it, while ``created_at`` is what the client says."""

    @property
    def counted_at(self) -> datetime:
        """Time from which the feedback counts: the later of ``created_at`` and ``received_at``, so that no client can backdate it."""
        return self.created_at if self.received_at is None else max(self.created_at, self.received_at)

    @property
    def person(self) -> str | None:
        """Hash that identifies the person: of the user that a key with scope acts_for names, else of the key."""
        return self.key_hash if self.acts_for is False else self.annotator


DriftVerdict = Literal["ok", "drift", "insufficient", "error"]
"""ok: no signal shifted. drift: a signal shifted, on the evidence of the last windows together. insufficient: too few
rows, or no reference, to decide. error: the window could not be examined; ``reason`` says why."""


class PooledTest(Struct, frozen=True):
    """Result of one signal's test on the rows of the last windows together."""

    windows: int
    """How many windows are pooled."""
    rows: int
    """Rows with a value."""
    p_value: float
    effect: float


class DriftSignal(Struct, frozen=True, omit_defaults=True):
    """Test result of one drift signal in one window. No number is ever NaN or infinite; None means that it could not be computed."""

    name: str
    """For example ``prompt_text``."""
    method: str
    """Test that compares it, for example ``mmd``."""
    n: int
    """Rows of the window that had a value."""
    reference: int
    """Rows of the reference that had a value."""
    score: float | None = None
    """Statistic of the test; a larger one means more drift."""
    threshold: float | None = None
    """What the statistic must exceed at the signal's own level, from the permutations."""
    p_value: float | None = None
    """P-value of the permutation test of this window alone."""
    adjusted_p_value: float | None = None
    """The smallest p-value of this window and of ``pooled``, corrected for multiple tests: multiplied by the number of pools and
    divided by the signal's share of the budget of false alarms."""
    effect: float | None = None
    """Size of the difference, independent of the number of rows."""
    effect_floor: float | None = None
    """Size below which a difference does not count, from reference-against-reference splits."""
    shifted: bool = False
    """Whether ``adjusted_p_value`` is within the budget of false alarms, for a test whose ``effect`` is over the floor."""
    reason: str = ""
    """Why there is no number, for example ``too few rows: 3 of 50``."""
    pooled: list[PooledTest] = field(default_factory=list)
    """The same test on the rows of the last windows together."""


class SegmentShift(Struct, frozen=True):
    """A segment of prompts, and its share in the window and in the reference."""

    name: str
    """What its prompts have in common: words, a language, a length."""
    window: float
    """Share of the window's rows, 0 to 1."""
    reference: float
    """Share of the reference's rows, 0 to 1."""
    exemplars: list[str]
    """Ids of inferences in it, the most typical first."""


class DriftWindow(Struct, frozen=True, omit_defaults=True):
    """Result of the drift tests on a closed window of live traffic: the ``body`` of its row in the inference log's table ``windows``."""

    id: str
    """First 16 hex digits of the SHA-256 of its manifest: span, inference ids, reference, release, settings."""
    since: datetime
    until: datetime
    """End of the window; it has the inferences accepted in [since, until)."""
    rows: int
    """Inferences that were compared: finished, of the champion, not erased, one per session."""
    verdict: DriftVerdict
    shifted: bool
    """Whether a signal shifted, on the evidence of the last windows together."""
    release: str
    """The champion whose answers these are."""
    reference: str
    """Which reference the prompts were compared with: id of a window, ``training`` or ``none``."""
    signals: dict[str, DriftSignal] = field(default_factory=dict)
    """Signals by name."""
    exemplars: list[str] = field(default_factory=list)
    """Ids of the inferences that differ most from the reference, most different first."""
    segments: list[SegmentShift] = field(default_factory=list)
    """Segments whose share has changed, largest change first."""
    reason: str = ""
    """For people: what shifted, or why the verdict could not be reached."""
    evidence: float = 0.0
    """Orders of magnitude by which the observation is rarer than chance, all signals and pools together; 3 is once in 1,000. A
    window that could not be examined has the evidence of the window before. Windows of version 0.1 have none."""
    evidence_required: float = 3.0
    """The evidence from which on the verdict is ``drift``: -log10 of the declared false alarms per evaluation."""
    pooled_windows: int = 1
    """Number of windows, up to this one, whose pooled rows gave the strongest evidence."""
    changed_since: datetime | None = None
    """For a drift: when the change probably began, as the start of a window."""
    too_small_for: float | None = None
    """The declared smallest effect, where even nine windows of this size have too few rows to detect it; None: they have enough."""
    report: str | None = None
    """File name of Evidently's page, in the folder of reports."""
    previous_p_values: dict[str, float] = field(default_factory=dict)
    """P-value of each signal against the release's previous window, for people; no verdict uses it."""


class RejectedRow(Struct, frozen=True):
    """One rejected row, with the reason and a sample of its text: a line of rejects.jsonl."""

    source: Source
    reason: RejectReason
    """For example ``exact_duplicate``."""
    detail: str = ""
    """The value, the duplicate's id, or the pattern that caused it."""
    sample: str = ""
    """The first 200 characters of the row."""


def truncate(text: str, limit: int = 200) -> str:
    """Return the first ``limit`` characters of ``text`` on one line, for ``RejectedRow.sample``."""
    flat = " ".join(text[: 4 * limit].split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
