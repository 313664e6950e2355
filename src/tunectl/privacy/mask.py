"""Replace personal data by placeholders: ``[EMAIL_1]``, ``[PERSON_2]``.

The same value has the same placeholder within one record, in its input and in all its answers, so a model can learn to copy
it from one to the other. Numbers start at 1 in every record: few tokens to learn, and nobody can be traced from one record
to another. Live traffic uses the same function, so masked text looks the same in training and serving. Masking masked text
changes nothing.

Finders read the decoded text (``privacy/decoded_text.py``): JSON in a string, URLs, HTML and Markdown are
decoded for them, and masked in the original. A text that is JSON stays JSON.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunectl.privacy import patterns, person_names, secret_keys, street_addresses
from tunectl.privacy.decoded_text import decode_text, find_base64_texts
from tunectl.privacy.json_numbers import find_json_numbers
from tunectl.privacy.resources import PiiResources
from tunectl.privacy.spans import KINDS, LABELS, PLACEHOLDER, EntityType, PiiSpan

Finder = Callable[[str, PiiResources], Iterator[PiiSpan]]

# In order of trust: where two overlap, the earlier stays.
FINDERS: dict[EntityType, Finder] = {
    "url_credentials": patterns.find_url_credentials,
    "secret": secret_keys.find_secrets,
    "email": patterns.find_emails,
    "iban": patterns.find_ibans,
    "card": patterns.find_card_numbers,
    "ssn": patterns.find_ssns,
    "ip": patterns.find_ip_addresses,
    "phone": patterns.find_phone_numbers,
    "address": street_addresses.find_street_addresses,
    "person": person_names.find_person_names,
}
_SHORT_WORD = re.compile(r"[a-z_]{0,15}")
"""A word in which no finder finds anything, as most keys of JSON are; one of 16 letters could be Base64."""
_CLOSED, _IN_URL = b"\1", b"\2"
_NOT_IN_URLS: frozenset[EntityType] = frozenset(("card", "ssn", "phone", "address", "person", "iban"))


@dataclass(frozen=True, slots=True)
class MaskedText:
    """Text without personal data, and what was masked."""

    text: str
    counts: Counter[EntityType]
    """Places that were masked, by kind. Holds no values."""


@dataclass(slots=True)
class PlaceholderMap:
    """The placeholders used in one record, so that equal values get the same one."""

    placeholders: dict[tuple[EntityType, str], str] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)

    def reserve(self, text: str) -> None:
        """Reserve the numbers of placeholders that ``text`` contains already."""
        for match in PLACEHOLDER.finditer(text):
            self.highest[match[1]] = max(self.highest.get(match[1], 0), int(match[2]))

    def placeholder(self, span: PiiSpan) -> str:
        """Return the placeholder of a value, new ones counted from 1."""
        slot = (span.kind, span.value)
        if slot not in self.placeholders:
            label = LABELS[span.kind]
            self.highest[label] = self.highest.get(label, 0) + 1
            self.placeholders[slot] = f"[{label}_{self.highest[label]}]"
        return self.placeholders[slot]


class PiiMasker:
    """Finds and masks the declared kinds of personal data. Holds no state between records."""

    def __init__(self, tools: PiiResources, *, kinds: Iterable[EntityType] = KINDS, keep: Iterable[str] = ()) -> None:
        self.tools = tools
        requested = set(kinds)
        self.finders = [
            (finder, (_CLOSED, _IN_URL) if kind in _NOT_IN_URLS else (_CLOSED,))
            for kind, finder in FINDERS.items()
            if kind in requested
        ]
        """Finders in order of precedence, and the marks of places where each finds nothing."""
        if "phone" in requested:
            self.finders.append((patterns.find_linked_phones, (_CLOSED,)))
        self.keep = frozenset(_normalize_value(value) for value in keep)
        """Public values that are not masked, without regard to case, space and punctuation."""

    def find(self, text: str) -> list[PiiSpan]:
        """Return personal data in ``text`` in reading order, without overlaps."""
        if _SHORT_WORD.fullmatch(text):
            return []
        spans: list[PiiSpan] = []
        covered = bytearray(len(text))
        for start, end in patterns.find_urls(text):
            covered[start:end] = _IN_URL * (end - start)
        for match in PLACEHOLDER.finditer(text):
            covered[match.start() : match.end()] = _CLOSED * len(match[0])
        decoded = decode_text(text)
        for begin, stop, plain in find_base64_texts(decoded.text):  # first: its letters may look like something else
            start, end = decoded.original_span(begin, stop)
            inner = self.find(plain) if _CLOSED not in covered[start:end] else []
            if inner:
                covered[start:end] = _CLOSED * (end - start)
                spans.append(PiiSpan(inner[0].kind, start, end, plain))
        for finder, excluded in self.finders:
            for result in finder(decoded.text, self.tools):
                start, end = decoded.original_span(result.start, result.end)
                span_bytes = covered[start:end]
                if not any(bar in span_bytes for bar in excluded) and not self._public(decoded.text, result):
                    covered[start:end] = _CLOSED * len(span_bytes)
                    spans.append(PiiSpan(result.kind, start, end, result.value))
        return sorted(spans, key=lambda result: result.start)

    def _public(self, text: str, span: PiiSpan) -> bool:
        return bool(self.keep) and _normalize_value(text[span.start : span.end]) in self.keep

    def mask(self, text: str, memory: PlaceholderMap | None = None) -> MaskedText:
        """Return ``text`` with placeholders; pass one ``memory`` for all texts of a record, after reserving each of them."""
        result = self.find(text)
        if not result:
            return MaskedText(text, Counter())
        if memory is None:
            memory = PlaceholderMap()
            memory.reserve(text)
        return _replace_spans(text, result, memory, find_json_numbers(text, result))

    def mask_parts(self, parts: Sequence[str], memory: PlaceholderMap) -> list[MaskedText]:
        """Return ``parts``, which are read one after the other, masked: a value that extends over several is replaced in the first of them."""
        if len(parts) == 1:
            return [self.mask(parts[0], memory)]
        text = "".join(parts)
        spans = deque(self.find(text))
        quotes = find_json_numbers(text, spans)
        result: list[MaskedText] = []
        begin = covered = 0
        for part in parts:
            start, end = max(begin, covered), begin + len(part)
            inside = []
            while spans and spans[0].start < end:
                span = spans.popleft()
                inside.append(PiiSpan(span.kind, span.start - start, min(span.end, end) - start, span.value))
                covered = span.end
            rest = part[start - begin :]
            numbers = {item.start: quotes.get(item.start + start, "") for item in inside}
            if not quotes:  # the parts together are no JSON, one of them may be
                numbers = find_json_numbers(rest, inside)
            together = _replace_spans(rest, inside, memory, numbers)
            alone = self.mask(together.text, memory)  # a value that the next part's letters hide
            result.append(MaskedText(alone.text, together.counts + alone.counts))
            begin = end
        return result


def _replace_spans(
    text: str, spans: Sequence[PiiSpan], memory: PlaceholderMap, numbers: Mapping[int, str]
) -> MaskedText:
    """Return ``text`` with placeholders for ``spans``; ``numbers`` are the quotation marks of those that are numbers in JSON."""
    pieces, end = [], 0
    for item in spans:
        quote = numbers.get(item.start, "")
        pieces += [text[end : item.start], quote, memory.placeholder(item), quote]
        end = item.end
    return MaskedText("".join([*pieces, text[end:]]), Counter(item.kind for item in spans))


def _normalize_value(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()
