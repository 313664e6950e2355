"""Features of texts that are not fitted to the reference: a fitted map would make all other text look different.

Characters are hashed, words are looked up; sentence embeddings come from ``backends``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tunectl.stats.vectors import l2_normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUCKETS = 128
"""Buckets of character n-grams."""
LENGTHS = (1, 2, 3)
"""Lengths of n-grams in bytes."""
LONGEST = 2000
"""Characters of a text that are used: with more, one long text could dominate a window."""
BATCH = 2048
"""Texts per batch."""


class Embedder(Protocol):
    """Converts texts to vectors; it was not fitted to any reference."""

    name: str
    """Name, for reports and for the id of a window."""

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return vectors (texts, dimensions), float32, each of Euclidean norm 1, or 0 for a text without a known word; never NaN."""
        ...


def char_ngram_features(texts: Sequence[str]) -> NDArray[Any]:
    """Return hashed byte n-grams of each text (texts, BUCKETS): signed square roots of counts, float32, each row of Euclidean norm 1. Any script, any language.

    Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
    """
    import numpy as np

    parts = [_hash_ngrams(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    return l2_normalize(np.concatenate(parts)) if parts else np.zeros((0, BUCKETS), dtype=np.float32)


def _hash_ngrams(texts: Sequence[str]) -> NDArray[Any]:
    import numpy as np

    encoded = [text[:LONGEST].encode("utf-8", "replace") for text in texts]
    sizes = np.array([len(each) for each in encoded])
    row = np.repeat(np.arange(len(texts)), sizes)
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.uint64)
    total = np.zeros(len(texts) * BUCKETS)
    for length in LENGTHS:
        count = len(data) - length + 1
        if count < 1:
            break
        code = np.full(count, length, dtype=np.uint64)
        for index in range(length):
            code = code * np.uint64(257) + data[index : index + count]
        code = (code * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)  # Fibonacci hashing; wraps around on purpose
        is_repeated = row[:count] == row[length - 1 :]
        bucket = row[:count] * BUCKETS + (code % np.uint64(BUCKETS)).astype(np.int64)
        sign = 1.0 - 2.0 * ((code >> np.uint64(32)) & np.uint64(1)).astype(np.float64)
        total += np.bincount(bucket[is_repeated], weights=sign[is_repeated], minlength=len(total))
    roots = np.sign(total) * np.sqrt(np.abs(total))
    result: NDArray[Any] = roots.reshape(len(texts), BUCKETS).astype(np.float32)
    return result


_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?|[:;=8xX][-o*']?[)\](\[dDpP/\\|@3<]|<3|!")


def _parse_word_list(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEGATIONS = _parse_word_list(
    "aint ain't arent aren't cannot cant can't couldnt couldn't didnt didn't doesnt doesn't dont don't hadnt hadn't hasnt "
    "hasn't havent haven't isnt isn't neither never no nobody none nor not nothing nowhere shouldnt shouldn't wasnt wasn't "
    "werent weren't without wont won't wouldnt wouldn't hardly barely rarely seldom scarcely"
)
_STRONGER = _parse_word_list(
    "absolutely amazingly awfully completely considerably deeply enormously entirely especially exceptionally extremely "
    "fabulously fully greatly highly hugely incredibly intensely majorly more most particularly purely quite really "
    "remarkably so substantially thoroughly totally tremendously unbelievably unusually utterly very"
)
_WEAKER = _parse_word_list(
    "almost kinda less little marginally occasionally partly slightly somewhat sort kind scarcely"
)
_STEP, _FLIP = 0.293, -0.74
"""Valence that an intensifier adds, and factor of a negation; measured by Hutto and Gilbert."""
_COMPLAINT = -1.0
"""Valence of a negation whose next words have none."""
_RIDGE = 10.0
"""Ridge of the regression on embeddings, as a multiple of the mean squared length: it is fitted to some hundred to some thousand rows."""
_NOTHING = 1e-12
"""Smaller spreads are rounding errors."""


class Sentiment:
    """Scores how friendly texts are, by a lexicon of words with a valence from -4 to 4 and the rules of VADER, simplified.

    Source: Hutto and Gilbert, "VADER", ICWSM 2014. Negations within three words invert a valence, intensifiers before
    it scale it, what follows "but" weighs more; a negation of anything else ("does not start") counts as a mild complaint.
    English; a text without a known word is 0.
    """

    def __init__(self, lexicon: Mapping[str, float]) -> None:
        self._lexicon = lexicon

    def score(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return the sentiment of each text (texts,), from -1 (bad) to 1."""
        import numpy as np

        return np.array([self._one(text[:LONGEST]) for text in texts], dtype=np.float64)

    def _one(self, text: str) -> float:
        words = [result.casefold().replace("\u2019", "'") for result in _WORD.findall(text)]
        scores = [self._lexicon.get(word, 0.0) for word in words]
        valences = [self._valence(words, scores, index) for index in range(len(words))]
        if "but" in words:
            turn = words.index("but")
            valences = [valence * (0.5 if index < turn else 1.5) for index, valence in enumerate(valences)]
        balance = sum(valences)
        louder = 0.292 * min(words.count("!"), 4)
        balance += louder if balance > 0 else -louder if balance < 0 else 0.0
        return float(balance / (balance * balance + 15.0) ** 0.5)

    def _valence(self, words: Sequence[str], known_valences: Sequence[float], index: int) -> float:
        valence = known_valences[index]
        if words[index] in _NEGATIONS and not any(known_valences[index + 1 : index + 4]):
            return valence + _COMPLAINT
        if not valence:
            return 0.0
        before = words[max(0, index - 3) : index]
        degree = sum(
            (_STEP if word in _STRONGER else -_STEP if word in _WEAKER else 0.0)
            * (1.0 - 0.05 * (len(before) - 1 - index))
            for index, word in enumerate(before)
        )
        valence += degree if valence > 0 else -degree
        return valence * _FLIP if any(word in _NEGATIONS for word in before) else valence


def smooth_by_neighbors(balance: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the lexicon sentiment of each text plus the sentiment predicted from its embedding (rows,), both in standard deviations.

    ``balance`` (rows,) is the lexicon's score, ``vectors`` (rows, d) the embeddings. The prediction is a ridge regression of score on
    embedding, leave-one-out, so that texts without a known word ("sent it back after a week") get the sentiment of similar ones. Pass the
    rows of window and reference together: then a permutation test of the result is exact.
    """
    return smooth_by_taught_rows(balance, vectors, None)


def smooth_by_taught_rows(balance: NDArray[Any], vectors: NDArray[Any], fit_rows: NDArray[Any] | None) -> NDArray[Any]:
    """Return what ``smooth_by_neighbors`` does, but with the regression fitted to ``fit_rows`` (indices; None: all); for simulations."""
    import numpy as np

    rows = np.arange(len(balance)) if fit_rows is None else fit_rows
    target = balance - balance[rows].mean()
    spread = float(target[rows].std())
    if spread <= _NOTHING:
        return np.zeros(len(target))
    target = target / spread
    centered = np.asarray(vectors, dtype=np.float64) - vectors[rows].mean(axis=0)
    target_rows = centered[rows]
    ridge = _RIDGE * float((target_rows**2).sum(axis=1).mean())
    if ridge <= _NOTHING:
        alone: NDArray[Any] = target
        return alone
    solved = np.linalg.solve(target_rows.T @ target_rows + ridge * np.eye(target_rows.shape[1]), target_rows.T)
    own = np.einsum("ij,ji->i", target_rows, solved)
    weights = solved @ target[rows]
    others = centered @ weights
    others[rows] = target[rows] - (target[rows] - target_rows @ weights) / (1 - own)
    spread = float(others[rows].std())
    result: NDArray[Any] = target + (others - others[rows].mean()) / (spread if spread > _NOTHING else 1.0)
    return result
