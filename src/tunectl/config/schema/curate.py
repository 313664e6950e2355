"""Section ``curate``: repair, quality, language, personal data, duplicates. Null switches a part off."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.hardware import HardwareProfile

Share = Annotated[float, Field(ge=0, le=1)]
Side = Literal["input", "output", "both"]
PersonalKind = Literal["email", "phone", "card", "iban", "ip", "address", "person", "url_credentials", "ssn"]


class Repair(StrictModel):
    """Mending text without judging it."""

    mojibake: bool
    """Undo text that was decoded with the wrong table (``cafÃ©`` to ``café``)."""
    control_characters: bool
    """Remove control codes, terminal escapes, byte order marks and invisible characters."""
    html: bool
    """Remove tags, scripts, styles and comments of HTML, and resolve its entities."""
    unicode_form: Literal["NFC", "NFKC"] | None
    """Unicode normal form; NFKC also folds full-width letters and ligatures."""
    white_space: bool
    """One kind of space and line end, no trailing blanks, at most one empty line; indentation stays."""


class WordBounds(StrictModel):
    """Words that a text may have; null is no bound."""

    min_words: int | None = Field(ge=0)
    """Fewest words."""
    max_words: int | None = Field(ge=1)
    """Most words."""

    @model_validator(mode="after")
    def validate_order(self) -> Self:
        """Refuse bounds that no text can meet."""
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"min_words = {self.min_words} is above max_words = {self.max_words}")
        return self


class Repetition(StrictModel):
    """Rules on repeated lines and word sequences (Gopher, arXiv 2112.11446, table A1)."""

    min_words: int = Field(ge=1)
    """Texts of fewer words are not judged: short texts repeat by chance."""
    dup_line_frac: Share | None
    """Most share of lines that are copies of an earlier line."""
    top_2_gram_frac: Share | None
    """Most share of letters inside the most frequent sequence of two words."""
    top_3_gram_frac: Share | None
    """The same for three words."""
    top_4_gram_frac: Share | None
    """The same for four words."""
    dup_5_gram_frac: Share | None
    """Most share of letters inside sequences of five words that occurred before in the text."""


class Boilerplate(StrictModel):
    """Lines that every page of a site carries."""

    phrases: list[str] = Field(min_length=1)
    """Regular expressions, found anywhere in a line, without regard to case."""
    max_line_share: Share
    """Most share of a text's lines that may hold one of them."""


class Quality(StrictModel):
    """Named rules that turn a record away."""

    documents: WordBounds | None
    """Length of documents."""
    inputs: WordBounds | None
    """Length of an example's conversation before the answer."""
    answers: WordBounds | None
    """Length of an answer."""
    repetition: Repetition | None
    """Repeated lines and word sequences, in documents and answers."""
    max_symbol_share: Share | None
    """Most share of characters that are no letter, digit, space or usual punctuation; emoji count as symbols."""
    min_words_with_letters: Share | None
    """Least share of words with a letter in them (Gopher: 0.8)."""
    boilerplate: Boilerplate | None
    """Cookie notices, newsletter calls and the like, in documents."""
    placeholder_text: list[str] | None
    """Regular expressions of text that was never filled in, for example ``lorem ipsum``."""
    echo: bool
    """Turn away answers that only repeat the input."""
    truncated: bool
    """Turn away answers that break off: they end in a comma, an opening bracket, or a word that cannot end a sentence."""
    banned_words: list[str] | None
    """Whole words that no record may hold, without regard to case."""


class Language(StrictModel):
    """Which languages stay."""

    allowed: list[str] = Field(min_length=1)
    """ISO 639-1 codes, for example ``en``."""
    min_confidence: Share
    """How sure it must be that a text is in none of the allowed languages; below it is ``unknown``, and that passes."""
    min_letters: int = Field(ge=1)
    """Texts with fewer letters are not judged and pass as ``unknown``."""
    side: Side
    """Which side of an example is judged."""


class PiiConfig(StrictModel):
    """Personal data becomes placeholders such as ``[EMAIL_1]``, the same for the same value within a record."""

    kinds: list[PersonalKind] = Field(min_length=1)
    """What is looked for."""
    regions: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]] = Field(min_length=1)
    """Countries whose national phone numbers are known without a ``+`` prefix."""
    locales: list[Annotated[str, Field(pattern=r"^[a-z]{2}_[A-Z]{2}$")]] = Field(min_length=1)
    """Whose first names and surnames are known, for example ``en_US``."""
    keep: list[str]
    """Values that are public and stay, for example the company's own address; without regard to case and space."""


class ExactDedupConfig(StrictModel):
    """Exact duplicates: the same document; the same input with the same answer."""

    normalize: bool
    """Compare without regard to case, punctuation and white space."""


class Shingling(StrictModel):
    """The pieces that two texts are compared by."""

    unit: Literal["word", "character"]
    """What a piece is made of; characters for languages without spaces."""
    size: int = Field(ge=1, le=32)
    """Units in one piece."""


class NearDedupConfig(StrictModel):
    """Near duplicates: MinHash with banding finds candidates, exact Jaccard of their shingles decides."""

    side: Side
    """Which side of an example must be alike (both: each of them). Answers to one input are never compared."""
    action: Literal["remove", "cluster"]
    """remove: one of a cluster stays. cluster: all stay, marked so that one split gets them all."""
    keep: Literal["longest", "first"]
    """Which of a cluster stays."""
    threshold: float = Field(gt=0, le=1)
    """Jaccard similarity from which two texts are near duplicates."""
    shingle: Shingling
    """What is compared."""
    bands: int = Field(ge=1, le=256)
    """Candidates agree in at least one band; more find more and cost more."""
    rows: int = Field(ge=1, le=64)
    """MinHash values in one band. A pair of similarity s is found with probability 1 - (1 - s^rows)^bands."""


class Curate(StrictModel):
    """What happens to records between ingest and split; parts run in the order in which they stand here."""

    repair: Repair | None
    """Mend text."""
    quality: Quality | None
    """Turn away poor records."""
    language: Language | None
    """Turn away other languages."""
    pii: PiiConfig | None
    """Mask personal data."""
    exact: ExactDedupConfig | None
    """Remove exact duplicates."""
    near: NearDedupConfig | None
    """Remove or mark near duplicates."""
    max_rejected_share: Share
    """The stage fails when more than this share of the records is turned away."""


class CurateStage(StrictModel):
    """What the stage ``curate`` sees."""

    curate: Curate
    seed: int
    hardware: HardwareProfile
