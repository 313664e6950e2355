"""Language filter: records in other languages than the declared ones are rejected, when the detection is certain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from tunectl.artifacts.records import Document
from tunectl.config.schema.curate import Language
from tunectl.data.record_text import input_text, text_for_language_id
from tunectl.data.transform import Outcome, Record, RejectedRecord, Scope

Guesser = Callable[[str], tuple[str, float]]
UNKNOWN = "unknown"
_NO_LETTERS = re.compile(r"\[[A-Z]+_\d+\]|[\d\W_]+")


class LanguageFilter:
    """The filter that rejects texts that are certainly in a language that is not allowed.

    Short texts, and texts with an uncertain detection, are ``unknown`` and are kept. Both sides of an example are tested
    separately, so a translation into a disallowed language is found.
    """

    name = "language"
    scope: Scope = "record"

    def __init__(self, rule: Language, guess: Guesser) -> None:
        self.rule = rule
        self.guess = guess
        self.counts: Counter[str] = Counter()
        """Tested texts by language."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield each record, or a reject ``language`` with code and confidence."""
        for record in records:
            verdicts = [self.judge(text) for text in self._texts(record)]
            self.counts.update(code for code, _ in verdicts)
            foreign = [(code, sure) for code, sure in verdicts if code not in (UNKNOWN, *self.rule.allowed)]
            if foreign:
                code, sure = foreign[0]
                yield RejectedRecord(record, "language", f"{code} with confidence {sure:.2f}")
            else:
                yield record

    def judge(self, text: str) -> tuple[str, float]:
        """Return (ISO code, confidence 0 to 1) of the text's language; the code is ``unknown`` for a short or uncertain text."""
        # addresses, handles and tags are in no language, and neither are placeholders and digits
        plain_text = " ".join(word for word in text.split() if not any(sign in word for sign in ("@", "#", "://")))
        letters = _NO_LETTERS.sub(" ", plain_text)
        if len(letters) - letters.count(" ") < self.rule.min_letters:
            return UNKNOWN, 0.0
        code, sure = self.guess(letters)
        return (code, sure) if sure >= self.rule.min_confidence else (UNKNOWN, sure)

    def _texts(self, record: Record) -> list[str]:
        if isinstance(record, Document):
            return [record.text]
        if record.tokens is not None:
            return []
        sides = {"input": [input_text], "output": [text_for_language_id], "both": [input_text, text_for_language_id]}
        return [side(record) for side in sides[self.rule.side]]
