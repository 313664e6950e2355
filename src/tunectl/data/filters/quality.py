"""Quality filter: named rules that reject poor records. Each rule is null in YAML to switch it off.

A rule tests one text and returns None, or what is wrong. Lengths, letters, symbols and repetition follow Gopher (Rae et al.
2021, arXiv 2112.11446, appendix A1.1), with bounds in YAML because ads and chats are shorter than web pages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from tunectl.artifacts.records import Document, Example, RejectedRow, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.config.schema.curate import Boilerplate, Quality, Repetition, WordBounds
from tunectl.core.declared_pattern import DeclaredPattern
from tunectl.data.record_text import input_text, output_text
from tunectl.data.text_normalization import normalize
from tunectl.data.transform import Outcome, Record, RejectedRecord, Scope

TextCheck: TypeAlias = Callable[[str], str | None]
"""Returns None for a good text, else what is wrong."""
Rule: TypeAlias = tuple[RejectReason, TextCheck]
"""Reject reason and check."""

_USUAL = frozenset(" \t\n.,;:!?'\"()[]{}-\u2013\u2014/\\%&$€£#@*+=_<>|~`^°…\u2018\u2019“”„«»•·©®™\u200c\u200d")
# Words that cannot be the last of a sentence in English; other languages are only judged by their last sign.
_OPEN_WORDS = frozenset(
    ("a", "an", "the", "and", "or", "but", "than", "because", "if", "our", "your", "their", "its", "my")
)


def length(bounds: WordBounds, too_short: RejectReason, too_long: RejectReason) -> list[Rule]:
    """Return the rules (reject reason, test of a text) against texts with too few and too many words."""

    def short(text: str) -> str | None:
        count = len(text.split())
        return (
            f"{count} words, least {bounds.min_words}"
            if bounds.min_words is not None and count < bounds.min_words
            else None
        )

    def long(text: str) -> str | None:
        count = len(text.split())
        return (
            f"{count} words, most {bounds.max_words}"
            if bounds.max_words is not None and count > bounds.max_words
            else None
        )

    return [(too_short, short), (too_long, long)]


def min_words_with_letters(minimum: float) -> list[Rule]:
    """Return rules against texts in which less than the share ``minimum`` (0 to 1) of the words has a letter, and those without any."""

    def none(text: str) -> str | None:
        return None if any(map(str.isalpha, text)) else "no letter in it"

    def few(text: str) -> str | None:
        words = text.split()
        words_with_letters = sum(any(map(str.isalpha, word)) for word in words)
        share = words_with_letters / len(words) if words else 1.0
        return f"{share:.2f} of the words have a letter, least {minimum:g}" if share < minimum else None

    return [("no_letters", none), ("few_letters", few)]


def max_symbol_share(maximum: float) -> list[Rule]:
    """Return a rule against texts in which more than the share ``maximum`` (0 to 1) of the characters are unusual symbols.

    Unusual is what is no letter, digit, space or common punctuation.
    """

    def check(text: str) -> str | None:
        if text.isascii():
            return None  # every printable sign of ASCII is usual punctuation
        odd = sum(not (sign in _USUAL or sign.isalnum() or sign.isspace() or _mark(sign)) for sign in text)
        share = odd / len(text)
        return f"{share:.2f} of the characters are symbols, most {maximum:g}" if share > maximum else None

    return [("symbols", check)]


def _mark(sign: str) -> bool:
    import unicodedata

    return unicodedata.category(sign).startswith("M") and sign != "\ufe0f"


def repetition_bounds(bounds: Repetition) -> list[Rule]:
    """Return rules (reject reason, test of a text) against repeated lines and sequences of words."""
    tops = [(2, bounds.top_2_gram_frac), (3, bounds.top_3_gram_frac), (4, bounds.top_4_gram_frac)]

    def lines(text: str) -> str | None:
        share = duplicate_line_fraction(text)
        if bounds.dup_line_frac is None or share <= bounds.dup_line_frac or len(text.split()) < bounds.min_words:
            return None
        return f"{share:.2f} of the lines are copies, most {bounds.dup_line_frac:g}"

    def runs(text: str) -> str | None:
        words = text.split()
        if len(words) < bounds.min_words:
            return None
        for size, most in tops:
            if most is not None and (share := top_ngram_fraction(words, size)) > most:
                return f"{share:.2f} of the characters of all words are in one run of {size} words, most {most:g}"
        if (
            bounds.dup_5_gram_frac is not None
            and (share := duplicate_ngram_fraction(words, 5)) > bounds.dup_5_gram_frac
        ):
            return f"{share:.2f} of the characters of all words are in copied runs of 5 words, most {bounds.dup_5_gram_frac:g}"
        return None

    return [("repeated_lines", lines), ("repeated_words", runs)]


def boilerplate(bounds: Boilerplate) -> list[Rule]:
    """Return a rule against texts with too many lines that match boilerplate phrases."""
    pattern = any_of(bounds.phrases)

    def check(text: str) -> str | None:
        lines = [line for line in text.split("\n") if line.strip()]
        share = sum(pattern.search(line) is not None for line in lines) / len(lines) if lines else 0.0
        return f"{share:.2f} of the lines, most {bounds.max_line_share:g}" if share > bounds.max_line_share else None

    return [("boilerplate", check)]


def matches_pattern(reason: RejectReason, pattern: re.Pattern[str] | DeclaredPattern) -> list[Rule]:
    """Return a rule that rejects texts in which ``pattern`` is found; the detail of the reject is the match."""

    def check(text: str) -> str | None:
        match = pattern.search(text)
        return match.group().strip()[:80] if match else None

    return [(reason, check)]


def any_of(patterns: list[str]) -> DeclaredPattern:
    """Return one pattern that matches any of several, without regard to case; ``^`` and ``$`` mean the whole text."""
    return DeclaredPattern("|".join(f"(?:{pattern})" for pattern in patterns), ignore_case=True)


def find_truncation(text: str) -> str | None:
    """Return the ending that shows that a text is cut off (comma, opening bracket, dash, or a word that ends no sentence); else None."""
    end = text.rstrip()
    if end.endswith((",", ";", "(", "[", "{", "\u2013", "\u2014", "&")):
        return f"ends in {end[-1]}"
    last = end.rsplit(None, 1)[-1] if end else ""
    return f"ends in the word {last}" if last in _OPEN_WORDS and len(end.split()) > 3 else None


class QualityFilter:
    """The filter that applies quality rules to documents, to inputs, and to each answer.

    An example is kept with the answers that pass; it is rejected when none does.
    """

    name = "quality"
    scope: Scope = "record"

    def __init__(self, quality: Quality) -> None:
        control = _control_tokens(quality)
        shared = control + self._build_shared_rules(quality)
        pages = boilerplate(quality.boilerplate) if quality.boilerplate else []
        repetition = repetition_bounds(quality.repetition) if quality.repetition else []
        self.documents = (
            (length(quality.documents, "document_too_short", "document_too_long") if quality.documents else [])
            + shared
            + repetition
            + pages
        )
        self.inputs = length(quality.inputs, "input_too_short", "input_too_long") if quality.inputs else []
        self.inputs += control
        self.segments = [rule for rule in self._build_answer_rules(quality, shared + repetition) if rule not in control]
        """Rules for template-free rows, which contain their template's tokens themselves."""
        self.answers = self._build_answer_rules(quality, shared + repetition)
        self.echo = quality.echo
        self.dropped: list[RejectedRow] = []
        """Answers dropped from examples that were kept with others."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield each record, or a reject with the name of the first rule that it breaks."""
        for record in records:
            yield self._document(record) if isinstance(record, Document) else self._example(record)

    def _document(self, document: Document) -> Outcome:
        offence = first_failed_rule(self.documents, document.text)
        return RejectedRecord(document, *offence) if offence else document

    def _example(self, example: Example) -> Outcome:
        if example.messages and (offence := first_failed_rule(self.inputs, input_text(example))):
            return RejectedRecord(example, *offence)
        if not example.answers:
            return self._check_segments(example)
        question = normalize(input_text(example)) if self.echo else None
        # the rules are about sentences, and tool calls are none
        results = [
            (answer, None if answer.calls else self._answer(answer.text, question)) for answer in example.answers
        ]
        good = [answer for answer, offence in results if offence is None]
        bad = [
            RejectedRow(answer.source, *offence, truncate(answer.text))
            for answer, offence in results
            if offence is not None
        ]
        if not good:
            return RejectedRecord(example, bad[0].reason, bad[0].detail)
        self.dropped += bad
        return replace(example, answers=good) if bad else example

    def _check_segments(self, example: Example) -> Outcome:
        """Test template-free rows: their trained segments together are the answer. Tokenized rows cannot be tested."""
        offence = first_failed_rule(self.segments, output_text(example)) if example.segments else None
        return RejectedRecord(example, *offence) if offence else example

    def _answer(self, text: str, question: str | None) -> tuple[RejectReason, str] | None:
        offence = first_failed_rule(self.answers, text)
        if offence is None and question is not None and normalize(text) == question:
            return "echo", "the answer is the input"
        return offence

    @staticmethod
    def _build_answer_rules(quality: Quality, shared: list[Rule]) -> list[Rule]:
        rules = [*(length(quality.answers, "answer_too_short", "answer_too_long") if quality.answers else []), *shared]
        if quality.truncated:
            rules += [("truncated", find_truncation)]
        return rules

    @staticmethod
    def _build_shared_rules(quality: Quality) -> list[Rule]:
        rules: list[Rule] = []
        if quality.min_words_with_letters is not None:
            rules += min_words_with_letters(quality.min_words_with_letters)
        if quality.max_symbol_share is not None:
            rules += max_symbol_share(quality.max_symbol_share)
        if quality.placeholder_text is not None:
            rules += matches_pattern("placeholder_text", any_of(quality.placeholder_text))
        if quality.banned_words:
            words = "|".join(re.escape(word) for word in quality.banned_words)
            rules += matches_pattern("banned_word", re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE))
        return rules


def _control_tokens(quality: Quality) -> list[Rule]:
    if not quality.control_tokens:
        return []
    return matches_pattern("control_token", any_of(quality.control_tokens))


def first_failed_rule(rules: list[Rule], text: str) -> tuple[RejectReason, str] | None:
    """Return (reason, detail) of the first rule that ``text`` breaks; None where it breaks none."""
    for reason, check in rules:
        detail = check(text)
        if detail is not None:
            return reason, detail
    return None


# How much of a text repeats: the metrics of Gopher, table A1.


def duplicate_line_fraction(text: str) -> float:
    """Return the share of the non-empty lines that are copies of an earlier one, 0 to 1."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return 1.0 - len(set(lines)) / len(lines) if lines else 0.0


def top_ngram_fraction(words: Sequence[str], size: int) -> float:
    """Return the share of the letters of ``words`` inside the most frequent run of ``size`` words; 0 when no run repeats.

    Where several runs are equally frequent, the longest counts.
    """
    runs = Counter(zip(*(words[start:] for start in range(size)), strict=False))
    if not runs:
        return 0.0
    most = max(runs.values())
    if most < 2:
        return 0.0
    longest = max(sum(map(len, run)) for run, count in runs.items() if count == most)
    return min(1.0, longest * most / _letters(words))


def duplicate_ngram_fraction(words: Sequence[str], size: int) -> float:
    """Return the share of the letters of ``words`` inside runs of ``size`` words that occurred before; each letter counts once."""
    seen: set[tuple[str, ...]] = set()
    covered = end = 0
    for start in range(len(words) - size + 1):
        run = tuple(words[start : start + size])
        if run in seen:
            covered += sum(map(len, words[max(start, end) : start + size]))
            end = start + size
        seen.add(run)
    return covered / _letters(words) if words else 0.0


def _letters(words: Sequence[str]) -> int:
    return sum(map(len, words)) or 1
