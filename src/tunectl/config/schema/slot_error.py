"""Rules that find the attributes of an input in an answer: the ``slots`` part of ``conf/evaluate/*.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.core.errors import ConfigError
from tunectl.core.pattern_ambiguity import validate_pattern

TERM = re.compile(r"(?<!\(\?P)(?<!\(\?)<([a-z_]+)>")
"""A term in a pattern, for example ``<rating>``."""
HINT = "write rules as in conf/evaluate/e2e.yaml, below a key slots"

Pattern = Annotated[str, Field(min_length=1)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1)]


class VerbatimSlot(StrictModel):
    """Rule for an attribute whose value itself must be in the answer, whatever its case, accents, hyphens and apostrophes."""

    method: Literal["verbatim"]
    """Name of this choice."""
    optional: tuple[str, ...]
    """Words that may be missing at the start of a value, for example ``the``."""


class PatternSlot(StrictModel):
    """Rule for an attribute whose values may be expressed in other words: each has patterns."""

    method: Literal["patterns"]
    """Name of this choice."""
    values: dict[str, Patterns] = Field(min_length=1)
    """Patterns of each value (Python ``re`` syntax, whole words). They are matched against text in lower case without accents and apostrophes, with
    a blank for a hyphen. ``<word>`` stands for a term. A match inside a longer match of another value does not count."""
    decoys: tuple[Pattern, ...]
    """Patterns that look like a value but are not, for example ``outside the city center``; matches inside do not count."""


Slot = Annotated[VerbatimSlot | PatternSlot, Field(discriminator="method")]


class SlotErrorRules(StrictModel):
    """Rules of the slot error rate: for each attribute of the input, how an answer expresses its values."""

    parse: Literal["bracketed", "fields"]
    """bracketed: the input reads ``name[value], name[value]``. fields: the attributes are declared fields of the record."""
    terms: dict[str, Patterns]
    """Alternatives for ``<name>`` in a pattern, by name; a term may contain other terms, in any order, without a cycle."""
    attributes: dict[str, Slot] = Field(min_length=1)
    """Rule for the values of each attribute; other attributes of an input are not judged."""

    @model_validator(mode="after")
    def _check_patterns(self) -> SlotErrorRules:
        self._refuse_unknown_and_circular_terms()
        for name, pieces in self.terms.items():
            for piece in pieces:
                self._refuse_bad(f"terms.{name}", piece)
        for name, slot in self.attributes.items():
            if isinstance(slot, PatternSlot):
                for value, patterns in slot.values.items():
                    self._refuse_bad_patterns(f"attributes.{name}.values.{value}", patterns)
                self._refuse_bad_patterns(f"attributes.{name}.decoys", slot.decoys)
        return self

    def _refuse_unknown_and_circular_terms(self) -> None:
        """Raise for unknown or circular terms. Their order is free: the resolved JSON of a stage has sorted keys."""
        uses = {name: {used for piece in pieces for used in TERM.findall(piece)} for name, pieces in self.terms.items()}
        for name, pieces in self.terms.items():
            for piece in pieces:
                self._refuse_unknown(f"terms.{name}", piece)
        open_terms = dict(uses)
        while open_terms:
            closed = [name for name, used in open_terms.items() if not used & open_terms.keys()]
            if not closed:
                raise ValueError(f"terms: {', '.join(sorted(open_terms))} use each other in a circle; break it")
            for name in closed:
                del open_terms[name]

    def _refuse_bad_patterns(self, where: str, patterns: Patterns) -> None:
        for pattern in patterns:
            self._refuse_unknown(where, pattern)
            self._refuse_bad(where, pattern)

    def _refuse_unknown(self, where: str, pattern: str) -> None:
        unknown = [name for name in TERM.findall(pattern) if name not in self.terms]
        if unknown:
            names = ", ".join(self.terms) or "none"
            raise ValueError(f"{where}: {pattern!r} uses <{unknown[0]}>, which is no term; there are: {names}")

    def _refuse_bad(self, where: str, pattern: str) -> None:
        try:
            whole = validate_pattern(self.expand_terms(pattern))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if not where.startswith("terms.") and re.match(whole, ""):
            raise ValueError(
                f"{where}: {pattern!r} matches an empty text, so it would be found everywhere; make it need a character"
            )

    def expand_terms(self, pattern: str) -> str:
        """Return a pattern with each ``<term>`` replaced by its alternatives."""
        while TERM.search(pattern):
            pattern = TERM.sub(lambda result: f"(?:{'|'.join(self.terms[result[1]])})", pattern)
        return pattern


def read(path: Path) -> SlotErrorRules:
    """Return the rules in a YAML file: its ``slots`` key, or all of it.

    Raises  ConfigError with the file and what is wrong: no such file, no YAML, or no rules.
    """
    import yaml

    try:
        result: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path} cannot be read: {error}"], hint=HINT) from error
    try:
        return SlotErrorRules.model_validate(result.get("slots", result) if isinstance(result, dict) else result)
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, item['loc'])) or 'slots'}: {item.get('ctx', {}).get('error', item['msg'])}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigError(problems, hint=HINT) from error
