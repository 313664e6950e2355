"""Find from words alone which references of an input leave out an attribute that the others state.

A word, or two in a row, is evidence of a value where references of inputs with that value have it more often than other references:
the logarithm of the ratio of the two shares, with one half added to the count and one to the total of each. No word is declared, and no
rule of the evaluation is read. How well it agrees with those rules on E2E: benchmarks/README.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

MIN_COUNT = 3
"""Number of references that have a word before it is evidence of anything."""
MIN_SHARE = 0.5
"""Share of the best evidence among an input's references from which a reference states the attribute."""
_WORD = re.compile(r"\w+")


class WordEvidence:
    """Evidence of words for attributes, learned from references of inputs with known attributes."""

    def __init__(self, references: Iterable[tuple[Mapping[str, str], str]]) -> None:
        """Count words of ``references``: (attributes of the input, text of the reference)."""
        total, seen = 0, Counter[str]()
        count: Counter[tuple[str, str]] = Counter()
        seen_with: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for attributes, text in references:
            ngrams = _list_ngrams(text)
            total += 1
            seen.update(ngrams)
            for item in attributes.items():
                count[item] += 1
                seen_with[item].update(ngrams)
        self._evidence = {
            item: {
                ngram: evidence
                for ngram, n in ngrams.items()
                if n >= MIN_COUNT
                and (
                    evidence := math.log(
                        (n + 0.5) / (count[item] + 1) * (total - count[item] + 1) / (seen[ngram] - n + 0.5)
                    )
                )
                > 0
            }
            for item, ngrams in seen_with.items()
        }

    def choose_complete(self, attributes: Mapping[str, str], texts: Sequence[str]) -> frozenset[str]:
        """Return those of an input's references that seem to leave out the fewest of its attributes; at least one of several."""
        ngrams = {text: _list_ngrams(text) for text in texts}
        lacking = dict.fromkeys(texts, 0)
        for item in attributes.items():
            known = self._evidence.get(item, {})
            evidence = {text: max((known.get(ngram, 0.0) for ngram in ngrams[text]), default=0.0) for text in texts}
            best = max(evidence.values(), default=0.0)
            for text, value in evidence.items():
                lacking[text] += value < MIN_SHARE * best
        fewest = min(lacking.values(), default=0)
        return frozenset(text for text in texts if lacking[text] == fewest)


def _list_ngrams(text: str) -> set[str]:
    """Return the words of a text in lower case, and every two in a row."""
    singles = _WORD.findall(text.casefold())
    return {*singles, *map(" ".join, pairwise(singles))}
