"""Find names of people with lists of common names and the words around them.

A run of capitalized words holds a person when one of these is so:
- a title comes before it (*Dr. Amara Okafor*);
- it is a known first name and a surname, perhaps with a middle one (*Sarah J. Miller*), and no other word follows in the run;
- words that introduce people are before it (*my name is Amara*, *contact Priya Raman*, *Best regards, Tom*);
- it is a first name and an initial at the end (*- Sarah M.*);
- a mail address in the text is made of its two words (*Ingrid Solberg, ingrid.solberg@example.com*).
Once a full name is found, its parts mean the same person in the rest of the record.

Not found are names that are on no list and are not introduced, and lower-case names; famous people are not distinguished from others.
A word of business or place in the run (*Bakery*, *Park*, *LLC*), or a possessive before another name, prevents masking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from itertools import pairwise

from tunectl.privacy import name_words
from tunectl.privacy.resources import PiiResources
from tunectl.privacy.spans import PiiSpan

_WORD = r"(?:Mr|Mrs|Ms|Dr|Prof|Rev|Fr|Sr|Jr|Sra)\.|[A-Z\u00c0-\u00de][\w'\u2019\-]*\w|[A-Z]\.?"
_RUN = re.compile(rf"(?<![\w\[@#/.\-])(?:{_WORD})(?:[ \u00a0](?:{_WORD})){{0,11}}")
_PIECE = re.compile(r"[^ \u00a0]+")
_INTRODUCED = re.compile(
    r"\b(?:my name is|my name's|name is|i am|i'm|this is|named|contact|ask for|call|email|e-mail|text|reach(?: out to)?|speak (?:to|with)|"
    r"talk to|met|meet|owner|owners|manager|chef|founder|founded by|owned by|run by|written by|review by|posted by|reviewed by|signed|"
    r"regards|sincerely|cheers|thanks|love|dear|hi|hello|server|waiter|waitress|bartender|stylist|barista|therapist|agent|attn|attention|customer|"
    r"client|patient|employee|reviewer|author|name|mr|mrs|ms|dr|my (?:wife|husband|son|daughter|sister|brother|friend|mother|father|neighbor|neighbour|boss))"
    r"[\"']?[,:]?\s*[\-\u2013\u2014\"']?\s*$",
    re.IGNORECASE,
)
# Stronger: what follows is a person even when the name is on no list.
_NAMED = re.compile(
    r"\b(?:my name is|my name's|(?:full |customer |patient )?name[\"']?:|signed,?|attn:?|attention:)\s*[\"']?$",
    re.IGNORECASE,
)
# Roles of people: after them a run of exactly two words is a name, known or not.
_ROLE = re.compile(
    r"\b(?:owner|manager|chef|founder|founded by|owned by|server|bartender|barista|stylist|therapist|speak (?:to|with)|regards|sincerely|"
    r"(?:my|his|her|our) (?:wife|husband|son|daughter|sister|brother|friend|mother|father|neighbor|neighbour|boss))[\"']?[,:]?\s*[\"']?$",
    re.IGNORECASE,
)
# Fields of a record that are named after parts of a name.
_FIELD = re.compile(
    r"[\"'](?:first|last|given|family|full|sur|middle|maiden)[_ \-]?name[\"']\s{0,3}[:=]\s{0,3}[\"']([^\W\d_][^\"'\n\\\[\]]{0,60})[\"']",
    re.IGNORECASE,
)
# A name whose first letter is not one of the words above, after the words that introduce a name.
_OTHER_LETTERS = re.compile(
    r"\b[Mm]y name(?: is|'s) ((?![A-Z\u00c0-\u00de])(?=[^\x00-\x7f])[^\W\d_]{2,40}(?:[ \u00a0](?=[A-Z]|[^\x00-\x7f])[^\W\d_]{2,40}){0,2})"
)
_FIRM = re.compile(r"\s*(?:&|and)\s+(?:sons?|co|company|associates|brothers|daughters|partners)\b", re.IGNORECASE)
_MAILBOX = re.compile(r"(?<![^\W_])([^\W\d_]{2,40})[._\-]([^\W\d_]{2,40})@")
_DASH = re.compile(r"(?:^|[\n.!?\"”])\s*(?:[\-\u2013\u2014~]\s*|by )$", re.IGNORECASE)


def find_person_names(text: str, tools: PiiResources) -> Iterator[PiiSpan]:
    """Find names of people; parts of a full name in ``text`` are found wherever they are alone in it."""
    runs = [CapitalizedSpan(text, match) for match in _RUN.finditer(text)]
    mailboxes = {frozenset(match.groups()) for match in _MAILBOX.finditer(text.casefold())} if "@" in text else set()
    full = [result for run in runs if (result := run.person(tools, mailboxes)) is not None]
    yield from full
    for pattern in (_FIELD, _OTHER_LETTERS):
        for match in pattern.finditer(text):
            yield PiiSpan("person", *match.span(1), match[1].casefold())
    values_by_part = {part: result.value for result in reversed(full) for part in _parts(result.value)}
    covered = {position for result in full for position in range(result.start, result.end)}
    if not values_by_part:
        return
    for run in runs:
        for word in run.words:
            part = values_by_part.get(_bare(word[0]))
            if part is not None and word.start() + run.start not in covered and run.stands_alone(word):
                start = run.start + word.start()
                yield PiiSpan("person", start, start + len(_strip_possessive(word[0])), part)


class CapitalizedSpan:
    """Capitalized words with single spaces between them, and the text before them."""

    def __init__(self, text: str, match: re.Match[str]) -> None:
        self.start = match.start() + _lead(match[0])
        self.text = text[self.start : match.end()]
        self.before = text[max(0, self.start - 40) : self.start]
        self.after = text[match.end() : match.end() + 20]
        self.words = list(_PIECE.finditer(self.text))
        self.bare = [_bare(word[0]) for word in self.words]

    def person(self, tools: PiiResources, mailboxes: Set[frozenset[str]] = frozenset()) -> PiiSpan | None:
        """Return the person named by this run, if any; ``mailboxes`` are pairs of words of which a mail address is made."""
        if len(self.words) == 1 and not self.before.strip():
            return None
        match = self._match_after_title()
        if match is not None:
            return match
        if not name_words.NO_PERSON.isdisjoint((*self.bare, self._next_word())) or _FIRM.match(self.after):
            return None
        return (
            self._match_after_introduction(tools) or self._match_listed_name(tools) or self._match_email_name(mailboxes)
        )

    def stands_alone(self, word: re.Match[str]) -> bool:
        """Return whether a part of a known name may mean the person here: it is not part of the name of a business or place."""
        index = self.words.index(word)
        near = {*self.bare[index + 1 :], self._next_word()}
        return near.isdisjoint(name_words.NO_PERSON) and not (_possessive(word[0]) and index + 1 < len(self.words))

    def _match_after_title(self) -> PiiSpan | None:
        for index, bare in enumerate(self.bare[:-1]):
            if bare in name_words.TITLES and (index == 0 or self.bare[index - 1] in name_words.ORDINARY):
                end = index + 1
                while (
                    end < len(self.words)
                    and self.bare[end] not in name_words.ORDINARY | name_words.NO_PERSON
                    and end - index <= 3
                ):
                    end += 1
                business = not name_words.NO_PERSON.isdisjoint(self.bare[end:])
                if end > index + 1 and not business:
                    return self._build_span(index + 1, end)
        return None

    def _match_after_introduction(self, tools: PiiResources) -> PiiSpan | None:
        first = self.bare[0]
        end = self._name_end(0)
        listed = first in tools.first_names and first not in name_words.COMMON
        if first in name_words.ORDINARY or end < len(self.words):
            return None
        if _NAMED.search(self.before) or (len(self.words) == 2 and _ROLE.search(self.before)):
            return self._build_span(0, end)
        if _INTRODUCED.search(self.before) and (listed or (len(self.words) >= 2 and first in tools.first_names)):
            return self._build_span(0, end)
        signature = len(self.words) == 1 or (len(self.words) == 2 and len(self.bare[1]) == 1)
        if listed and signature and _DASH.search(self.before) and not self.after.strip(" .!\n"):
            return self._build_span(0, end)
        return None

    def _match_listed_name(self, tools: PiiResources) -> PiiSpan | None:
        """Return a known first name, perhaps an initial or second name, and a surname, at the end of the run."""
        for first_index in range(len(self.words) - 1):
            first = self.bare[first_index]
            end = self._name_end(first_index)
            if not _first_name(first, tools) or end != len(self.words) or end - first_index < 2:
                continue
            if any(_possessive(self.words[index][0]) for index in range(first_index, end - 1)):
                continue
            last = self._surname(end)
            is_surname = last in tools.surnames
            short = len(last) == 1 and first not in name_words.COMMON and self.text.endswith(".")
            likely = (
                first not in name_words.COMMON
                and last not in name_words.ORDINARY
                and len(last) > 2
                and first_index == 0
                and end <= 3
            )
            if is_surname or short or likely:
                return self._build_span(first_index, end)
        return None

    def _match_email_name(self, mailboxes: Set[frozenset[str]]) -> PiiSpan | None:
        """Return two words that a mail address in the text is made of: *Ingrid Solberg, ingrid.solberg@example.com*."""
        for index, pair in enumerate(pairwise(self.bare)):
            if frozenset(pair) in mailboxes:
                return self._build_span(index, index + 2)
        return None

    def _name_end(self, index: int) -> int:
        """Return the index after the name that begins at ``index``: at most four words and a suffix, up to an ordinary word."""
        end = index + 1
        while end < len(self.words) and end - index < 4 and self.bare[end] not in name_words.ORDINARY:
            end += 1
        return end

    def _surname(self, end: int) -> str:
        last = end - 1
        while last > 0 and self.bare[last] in name_words.SUFFIXES:
            last -= 1
        return self.bare[last].partition("-")[0] if "-" in self.bare[last] else self.bare[last]

    def _next_word(self) -> str:
        return _bare(self.after.split()[0]) if self.after[:1] in (" ", "-") and self.after.split() else ""

    def _build_span(self, first: int, end: int) -> PiiSpan:
        start = self.start + self.words[first].start()
        last = self.words[end - 1]
        stop = self.start + last.start() + len(_strip_possessive(last[0]))
        value = " ".join(bare for bare in self.bare[first:end] if bare not in name_words.SUFFIXES)
        return PiiSpan("person", start, stop, value)


def _lead(run: str) -> int:
    """Return the number of ordinary and introducing words at the start of a run: *Hi* in *Hi Sarah* shows that *Sarah* is a name."""
    pieces = list(_PIECE.finditer(run))
    for piece in pieces[:-1]:
        if _bare(piece[0]) not in name_words.ORDINARY | name_words.INTRODUCE:
            return piece.start()
    return pieces[-1].start()


def _first_name(bare: str, tools: PiiResources) -> bool:
    """Return whether a name is on the list; both parts of a double name (*Mary-Jane*) must be."""
    return bare in tools.first_names or ("-" in bare and all(part in tools.first_names for part in bare.split("-")))


def _bare(word: str) -> str:
    return _strip_possessive(word).rstrip(".").casefold()


def _strip_possessive(word: str) -> str:
    return re.sub(r"['\u2019]s?$", "", word)


def _possessive(word: str) -> bool:
    return _strip_possessive(word) != word


def _parts(value: str) -> list[str]:
    return [part for part in value.split() if len(part) > 2 and part not in name_words.COMMON | name_words.ORDINARY]
