"""Section ``curate``: repair, quality, language, personal data, duplicates. Null switches one of them off."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tunectl.config.schema.base import Share, StrictModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.pattern_ambiguity import validate_pattern

TextSide = Literal["input", "output", "both"]
PersonalKind = Literal["email", "phone", "card", "iban", "ip", "address", "person", "url_credentials", "ssn", "secret"]
CaselessPattern = Annotated[str, AfterValidator(partial(validate_pattern, ignore_case=True))]


class Repair(StrictModel):
    """Steps of text normalization; none rejects a record."""

    mojibake: bool
    """Repair text that was decoded with the wrong encoding (``cafÃ©`` to ``café``)."""
    control_characters: bool
    """Remove control codes, terminal escapes, byte order marks and invisible characters."""
    html: bool
    """Remove tags, scripts, styles and comments of HTML, and resolve its entities."""
    unicode_form: Literal["NFC", "NFKC"] | None
    """Unicode normal form; NFKC also folds full-width letters and ligatures."""
    white_space: bool
    """Normalize spaces and line ends; at most one empty line in a row; keep indentation."""


class WordBounds(StrictModel):
    """Bounds on the number of words; null is no bound."""

    min_words: int | None = Field(ge=0)
    """Fewest words."""
    max_words: int | None = Field(ge=1)
    """Most words."""

    @model_validator(mode="after")
    def validate_order(self) -> Self:
        """Refuse bounds that no text can satisfy; return the section."""
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"min_words = {self.min_words} is above max_words = {self.max_words}; swap them")
        return self


class Repetition(StrictModel):
    """Rules on repeated lines and word sequences (Gopher, arXiv 2112.11446, table A1)."""

    min_words: int = Field(ge=1)
    """Words below which a text is not tested: short texts repeat words by chance."""
    dup_line_frac: Share | None
    """Highest share of lines that copy an earlier line."""
    top_2_gram_frac: Share | None
    """Highest share of letters in the most frequent sequence of two words."""
    top_3_gram_frac: Share | None
    """Like top_2_gram_frac, for sequences of three words."""
    top_4_gram_frac: Share | None
    """Like top_2_gram_frac, for sequences of four words."""
    dup_5_gram_frac: Share | None
    """Highest share of letters in sequences of five words that occurred before in the text."""


class Boilerplate(StrictModel):
    """Filter for lines that every page of a site carries, such as cookie notices."""

    phrases: list[CaselessPattern] = Field(min_length=1)
    """Regular expressions, found anywhere in a line, without regard to case."""
    max_line_share: Share
    """Highest share of a text's lines that may match."""


class Quality(StrictModel):
    """Quality filters; a record that fails one is rejected with the filter's reason."""

    documents: WordBounds | None
    """Length of documents."""
    inputs: WordBounds | None
    """Length of an example's conversation before the answer."""
    answers: WordBounds | None
    """Length of an answer."""
    repetition: Repetition | None
    """Repeated lines and word sequences, in documents and answers."""
    max_symbol_share: Share | None
    """Highest share of characters that are no letter, digit, space or usual punctuation; raise it for code and emoji."""
    min_words_with_letters: Share | None
    """Lowest share of words with a letter (Gopher: 0.8); lower it for tables."""
    boilerplate: Boilerplate | None
    """Cookie notices, newsletter calls and the like, in documents."""
    placeholder_text: list[CaselessPattern] | None
    """Regular expressions of placeholder text, for example ``lorem ipsum``."""
    echo: bool
    """Reject answers that only repeat the input."""
    truncated: bool
    """Reject answers that end in a comma, an opening bracket, or a word that cannot end a sentence."""
    banned_words: list[str] | None
    """Whole words that no record may contain, without regard to case. Null: none."""
    control_tokens: list[CaselessPattern] | None
    """Regular expressions of a chat template's control tokens, as ``<\\|[\\w.-]{1,40}\\|>``; a document, input or answer that writes one is
    rejected as ``control_token``. Null: it is kept, and is text wherever it is learned from or served."""


class Language(StrictModel):
    """Filter that rejects texts that are certainly in another language than the allowed ones."""

    allowed: list[str] = Field(min_length=1)
    """ISO 639-1 codes, for example ``en``."""
    min_confidence: Share
    """Certainty that a text is in no allowed language from which it is rejected; below, it passes as ``unknown``."""
    min_letters: int = Field(ge=1)
    """Letters below which a text is not tested and passes as ``unknown``."""
    side: TextSide
    """Side of an example that is tested."""


class PiiConfig(StrictModel):
    """Personal data becomes placeholders such as ``[EMAIL_1]``, the same for the same value within a record."""

    kinds: list[PersonalKind] = Field(min_length=1)
    """Kinds to mask; remove one that your texts need."""
    regions: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]] = Field(min_length=1)
    """Countries (ISO 3166) whose phone numbers are found without a ``+`` prefix."""
    locales: list[Annotated[str, Field(pattern=r"^[a-z]{2}_[A-Z]{2}$")]] = Field(min_length=1)
    """Locales whose first names and surnames are known, for example ``en_US``."""
    keep: list[str]
    """Public values that are never masked, for example the company's own address; without regard to case and space."""


class ExactDedupConfig(StrictModel):
    """Exact deduplication: the same document, or the same input with the same answer."""

    normalize: bool
    """Compare without regard to case, punctuation and white space."""


class Shingling(StrictModel):
    """Cut of texts into overlapping pieces (shingles), by which they are compared."""

    unit: Literal["word", "character"]
    """What a piece is made of; characters for languages without spaces."""
    size: int = Field(ge=1, le=32)
    """Words or characters in one piece; longer pieces make fewer texts similar."""


class NearDedupConfig(StrictModel):
    """Near duplicates: MinHash with banding finds candidates, exact Jaccard of their shingles decides."""

    side: TextSide
    """Which side of an example must be alike (both: each of them). Answers to one input are never compared."""
    action: Literal["remove", "cluster"]
    """remove: keep one of a cluster. cluster: keep all, in the same split."""
    keep: Literal["longest", "first"]
    """Which record of a cluster is kept."""
    threshold: float = Field(gt=0, le=1)
    """Jaccard similarity from which two texts are near duplicates; lower removes more."""
    shingle: Shingling
    """How texts are cut into the pieces that are compared."""
    bands: int = Field(ge=1, le=256)
    """MinHash bands; candidates agree in at least one. More find more and take more time."""
    rows: int = Field(ge=1, le=64)
    """MinHash values in one band. A pair of similarity s is found with probability 1 - (1 - s^rows)^bands."""


class CurateFilters(StrictModel):
    """The filters of curate, in the order in which they run; null switches one off."""

    repair: Repair | None
    """Normalize text."""
    quality: Quality | None
    """Reject records of low quality."""
    language: Language | None
    """Reject other languages."""
    pii: PiiConfig | None
    """Mask personal data."""
    exact: ExactDedupConfig | None
    """Remove exact duplicates."""
    near: NearDedupConfig | None
    """Remove or mark near duplicates."""
    max_rejected_share: Share
    """Share of records rejected above which the stage fails."""


class Curate(CurateFilters):
    """The section ``curate``: the filters, and how they are run."""

    engine: Literal["local", "ray"] = Field(exclude=True)
    """local: in the process of the stage. ray: on a Ray cluster, by Ray Data; the result is the same to the byte, so that another
    choice reruns nothing (it stands in no stage's settings)."""


class CurateStage(StrictModel):
    """Sections of the configuration that the stage curate reads, from ``artifacts/config/curate.json``."""

    curate: CurateFilters
    seed: int
    hardware: HardwareProfile
