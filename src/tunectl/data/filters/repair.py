"""Repair: normalize text; only texts that are empty afterwards are rejected.

Every step is a function from text to text; a step that changed a text counts once under its name.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from tunectl.artifacts.records import Document, Example, RejectedRow
from tunectl.config.schema.curate import Repair
from tunectl.core import unicode_form
from tunectl.data.record_text import TextKind, map_texts
from tunectl.data.transform import Outcome, Record, RejectedRecord, Scope

RepairStep = Callable[[str], str]

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# C0 and C1 codes except tab and line ends, soft hyphen, zero-width space, word joiner, byte order mark, direction marks.
# Joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji need them.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
_OPENING = re.compile(r"<(script|style|noscript|template|svg)\b[^<>]*>|<!--", re.IGNORECASE)
_BREAKS = re.compile(
    r"<(/?)(br|p|div|li|ul|ol|tr|table|h[1-6]|section|article|header|footer|blockquote|hr)(\s+[a-z][^<>]*|\s*/?)>",
    re.IGNORECASE,
)
# Only names of HTML: "a < b", "<T>" of a program and "<3" stay.
_TAGS = re.compile(
    r"<(/?)(a|abbr|area|aside|audio|b|base|bdi|bdo|big|body|button|canvas|caption|center|cite|code|col|colgroup|dd|del|details|dfn|dl|dt|em|embed|"
    r"fieldset|figcaption|figure|font|form|head|html|i|iframe|img|input|ins|kbd|label|legend|link|main|map|mark|meta|nav|object|option|"
    r"picture|pre|q|s|samp|script|select|small|source|span|strike|strong|style|sub|summary|sup|svg|tbody|td|template|textarea|tfoot|th|thead|"
    r"time|title|track|tt|u|var|video|wbr)(\s+[a-z][^<>]*|\s*/?)>|<!doctype[^<>]*>",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"</([a-z][a-z0-9]{0,15})\s{0,20}>", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"\s+(?:[a-z_][\w:.\-]*\s*=(?!=)|(?:async|autofocus|checked|compact|controls|defer|disabled|hidden|multiple|noshade"
    r"|nowrap|open|readonly|required|reversed|selected)(?![\w:.\-]))",
    re.IGNORECASE,
)
"""The first attribute of a tag: with a value, or one without; in a program another word follows: n<p and m>q."""
_UNCLOSED = frozenset(
    {
        *("br", "hr", "wbr", "img", "input", "BR", "HR", "WBR"),
        *("p", "li", "div", "ul", "ol", "tr", "td", "th", "thead", "tbody", "tfoot", "dd", "dt", "blockquote"),
        *("h1", "h2", "h3", "h4", "h5", "h6"),
    }
)
"""Tags, as they are spelled, that HTML need not close and that are no usual names of types."""
_INCLUDES = ("#include", "# include", "#import")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE)
# A reference to no letter, which HTML shows as U+FFFD; Python reads no number of thousands of digits.
_TOO_LARGE = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")
_LINE_ENDS = re.compile("\r\n?|\u2028|\x85|\x0c")
_PARAGRAPHS = re.compile("\u2029")
_BLANKS = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\t\x0b]")
_INNER = re.compile(r"(?<=\S) {2,}")
_EMPTY_LINES = re.compile(r"\n{3,}")


def strip_control_chars(text: str) -> str:
    """Return the text without terminal escapes, control codes and invisible characters."""
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    return _CONTROLS.sub("", text)


def strip_html(text: str) -> str:
    """Return the text without HTML: entities resolved, scripts and comments removed, block tags as line ends, other tags removed."""
    for _ in range(3):  # feeds escape twice: &amp;lt;br&amp;gt;
        if "&" not in text or not _ENTITY.search(text):
            break
        text = html.unescape(_TOO_LARGE.sub("\N{REPLACEMENT CHARACTER}", text))
    if "<" not in text:
        return text
    return _remove_tags(_TAGS, _remove_tags(_BREAKS, _without_hidden(text), "\n"), "")


def _remove_tags(tags: re.Pattern[str], text: str, replacement: str) -> str:
    """Replace what ``tags`` matches, except parts of programs that only look like a tag."""
    closings = {closing[1]: closing.start() for closing in _CLOSING.finditer(text)}
    return tags.sub(lambda match: replacement if _is_tag(match, closings) else match[0], text)


def _is_tag(match: re.Match[str], closings: dict[str, int]) -> bool:
    """Return whether a match is a tag of HTML: ``List<Object>``, ``#include <map>``, ``<S extends T>`` hold none.

    ``closings`` has the start of the last closing tag of each name, as it is spelled.
    """
    slash, name, tail = match.groups()
    if name is None or slash or tail.endswith("/") or _ATTRIBUTE.match(tail):
        return True
    prefix = match.string[max(0, match.start() - 20) : match.start()]
    if prefix.rstrip(" \t").endswith(_INCLUDES):
        return False
    after_word = prefix[-1:].isalnum() or prefix.endswith(("_", "::"))
    is_capital = len(name) == 1 and name.isupper()
    if tail.strip():  # words that are no attributes
        return not (after_word or is_capital)
    if closings.get(name, -1) > match.start():
        return True
    return name in _UNCLOSED if after_word else not is_capital or name == "P"


def _without_hidden(text: str) -> str:
    """Remove closed scripts, styles and comments, in one pass, however many are not closed."""
    pieces: list[str] = []
    never: set[str] = set()
    lowered = text.lower()
    lowered = lowered if len(lowered) == len(text) else text  # a few letters change length; positions must fit
    start = 0
    for opening in _OPENING.finditer(text):
        end = "-->" if opening[1] is None else f"</{opening[1].casefold()}"
        if opening.start() < start or end in never:
            continue
        close = lowered.find(end, opening.end())
        stop = lowered.find(">", close)
        if close < 0 or stop < 0:
            never.add(end)
            continue
        pieces += [text[start : opening.start()], " "]
        start = stop + 1
    return "".join([*pieces, text[start:]])


def normalize_whitespace(text: str) -> str:
    """Return the text with one space between words, none at line ends, and at most one empty line in a row."""
    text = _PARAGRAPHS.sub("\n\n", _LINE_ENDS.sub("\n", text))
    text = _INNER.sub(" ", _BLANKS.sub(" ", text))
    lines = "\n".join(line.rstrip(" ") for line in text.split("\n"))
    return _EMPTY_LINES.sub("\n\n", lines).strip("\n").rstrip()


def repair_steps(repair: Repair, mojibake: RepairStep) -> list[tuple[str, RepairStep]]:
    """Return the declared steps as (name, function) in the order in which they must run; ``mojibake`` is the function of the step of that name."""
    form = repair.unicode_form
    table: list[tuple[str, RepairStep | None]] = [
        ("mojibake", mojibake if repair.mojibake else None),
        ("html", strip_html if repair.html else None),
        ("control_characters", strip_control_chars if repair.control_characters else None),
        ("unicode_form", (lambda text: unicode_form.normalize(form, text)) if form is not None else None),
        ("white_space", normalize_whitespace if repair.white_space else None),
    ]
    return [(name, step) for name, step in table if step is not None]


class RepairText:
    """The filter that repairs every text; records whose text is empty afterwards are rejected.

    Template-free segments keep their white space and their tags: both can be part of the template.
    """

    name = "repair"
    scope: Scope = "record"

    def __init__(self, repair: Repair, *, mojibake: RepairStep) -> None:
        self.steps = repair_steps(repair, mojibake)
        self.counts: Counter[str] = Counter({name: 0 for name, _ in self.steps})
        """Number of texts that each step changed."""
        self.dropped: list[RejectedRow] = []
        """Answers dropped from examples that were kept with others."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Yield each record repaired, or a reject ``empty``, ``empty_input`` or ``empty_answer``."""
        for record in records:
            repaired = map_texts(record, lambda texts, kind: [self._repair_text(text, kind) for text in texts])
            yield _judge(repaired) if isinstance(repaired, Document) else self._judge_example(repaired)

    def _repair_text(self, text: str, kind: TextKind) -> str:
        for name, step in self.steps:
            if kind == "segment" and name in ("html", "white_space"):
                continue
            after = step(text)
            if after != text:
                self.counts[name] += 1
                text = after
        return text

    def _judge_example(self, example: Example) -> Outcome:
        if example.messages and not example.messages[-1].content.strip() and not example.messages[-1].tool_calls:
            return RejectedRecord(example, "empty_input")
        filled = [answer for answer in example.answers if answer.text.strip()]
        if example.answers and not filled:
            return RejectedRecord(example, "empty_answer")
        if len(filled) < len(example.answers):
            empty = [answer for answer in example.answers if not answer.text.strip()]
            self.dropped += [RejectedRow(answer.source, "empty_answer") for answer in empty]
            return replace(example, answers=filled)
        if example.segments and not any(segment.text.strip() for segment in example.segments if segment.train):
            return RejectedRecord(example, "empty_answer")
        return example


def _judge(document: Document) -> Outcome:
    return document if document.text.strip() else RejectedRecord(document, "empty")
