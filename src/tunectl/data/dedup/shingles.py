"""Hash texts to sets of shingles, many texts at a time, in numpy.

A word is a run of letters and digits of the lower-cased text; a shingle is ``size`` words, or ``size`` characters of those
words with one space between them. A text of fewer units has one shingle, of all its units; a text without any has none.
Hashes are 64 bits of a polynomial over code points, then mixed, so equal hashes mean equal shingles but for one chance in
about 10^19 per pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Hashes = npt.NDArray[np.uint64]
    Indexes = npt.NDArray[np.int64]

Unit = Literal["word", "character"]
CHUNK_CHARACTERS = 400_000  # about 3 MB an array of 64-bit values: fits the second-level cache of a core
_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 2**64)
_SEPARATOR = 0x20
_LAST_LETTER = 0x33479  # after it there are only tags, selectors and private codes


@dataclass(frozen=True, slots=True)
class Shingles:
    """Shingles of some texts: those of text ``i`` are ``values[offsets[i]:offsets[i + 1]]``, in reading order."""

    values: Hashes
    """(shingles,) hashes; a shingle that occurs twice in a text is listed twice."""
    offsets: Indexes
    """(texts + 1,) ascending."""
    prints: Hashes
    """(texts,) fingerprint of the words in their order; equal prints mean equal words."""


class TextsOnDisk(Sequence[str]):
    """Sequence of texts that are read from disk at each access; their lengths are in memory."""

    lengths: Sequence[int]


def text_lengths(texts: Sequence[str]) -> Iterable[int]:
    """Return the number of characters of each text."""
    return texts.lengths if isinstance(texts, TextsOnDisk) else map(len, texts)


def char_batches(texts: Sequence[str], characters: int = CHUNK_CHARACTERS) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) indices of consecutive texts that together have about ``characters`` characters."""
    start = total = 0
    for index, length in enumerate(text_lengths(texts)):
        total += length + 1
        if total >= characters:
            yield start, index + 1
            start, total = index + 1, 0
    if start < len(texts):
        yield start, len(texts)


def shingle(texts: Sequence[str], *, unit: Unit, size: int) -> Shingles:
    """Return the hashed shingles of ``texts``; memory grows with their characters, so pass a chunk of them."""
    import numpy as np

    codes, bounds = _letters(texts)
    words = _Words.find(codes, bounds)
    prints = _fingerprints(words)
    if unit == "word":
        values, offsets = _windows(words.hashes, words.offsets, size)
    else:
        values, offsets = _windows(*_hash_characters(codes, words), size)
    return Shingles(values, offsets, np.ascontiguousarray(prints))


def _letters(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], Indexes]:
    """Return code points of the lower-cased texts, one separator after each; and (texts + 1,) where each begins."""
    import numpy as np

    lowered = [text.lower() for text in texts]
    lengths = np.fromiter(map(len, lowered), np.int64, len(lowered))
    bounds = np.zeros(len(lowered) + 1, np.int64)
    np.cumsum(lengths + 1, out=bounds[1:])
    joined = " ".join([*lowered, ""])
    return np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32), bounds


@dataclass(frozen=True, slots=True)
class _Words:
    starts: Indexes
    """(words,) position of each word's first character."""
    ends: Indexes
    """(words,) position after its last."""
    hashes: Hashes
    """(words,)"""
    offsets: Indexes
    """(texts + 1,) index of each text's first word."""

    @classmethod
    def find(cls, codes: npt.NDArray[np.uint32], bounds: Indexes) -> _Words:
        """Return the words of all texts, hashed by one running sum over the characters.

        With S the running sum of code x base^position, the word from s to e hashes to (S[e] - S[s]) x base^-s,
        in arithmetic modulo 2^64: no loop over words.
        """
        import numpy as np

        inside = _alphanumeric()[np.minimum(codes, _LAST_LETTER + 1)]
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        if len(inside) and inside[0]:
            edges = np.concatenate((np.zeros(1, edges.dtype), edges))
        starts, ends = edges[0::2], edges[1::2]  # a text ends in a separator, so every word ends
        powers, inverses = _powers(len(codes) + 1)
        sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(_mix_bits(codes) * powers[: len(codes)], out=sums[1:])
        hashes = splitmix64_finalize((sums[ends] - sums[starts]) * inverses[starts])
        return cls(starts, ends, hashes, np.searchsorted(starts, bounds).astype(np.int64))


def _mix_bits(codes: npt.NDArray[np.uint32]) -> Hashes:
    """Spread code points over 64 bits, so that sums of neighbors do not cancel."""
    import numpy as np

    wide = codes.astype(np.uint64)
    wide *= np.uint64(0xBF58476D1CE4E5B9)
    wide ^= wide >> np.uint64(29)
    wide *= np.uint64(0x94D049BB133111EB)
    return wide


def splitmix64_finalize(values: Hashes) -> Hashes:
    """Return ``values`` mixed in place by the finalizer of splitmix64 (Steele, Lea and Flood 2014): every input bit moves every output bit."""
    import numpy as np

    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def combine(total: Hashes, piece: Hashes) -> Hashes:
    """Return the hash of the running hash ``total`` and one more value ``piece``, element by element."""
    import numpy as np

    return splitmix64_finalize(total * np.uint64(_BASE) + piece)


def _windows(units: Hashes, offsets: Indexes, size: int) -> tuple[Hashes, Indexes]:
    """Hash every run of ``size`` units that lies inside one text; shorter texts give one run of what they have."""
    import numpy as np

    counts = np.diff(offsets)
    many = np.where(counts > 0, np.maximum(counts - size + 1, 1), 0)
    begins = np.zeros(len(many) + 1, np.int64)
    np.cumsum(many, out=begins[1:])
    first = np.arange(begins[-1], dtype=np.int64) + np.repeat(offsets[:-1] - begins[:-1], many)
    padded = np.concatenate((units, np.zeros(size, np.uint64)))
    values = np.zeros(len(first), np.uint64)
    short = np.flatnonzero((counts > 0) & (counts < size))
    for step in range(size):
        piece = padded[first + step]
        piece[begins[short[counts[short] <= step]]] = 0  # past the end of a short text
        values *= np.uint64(_BASE)
        values += piece
    return splitmix64_finalize(values), begins


def _fingerprints(words: _Words) -> Hashes:
    """Return (texts,) one hash over the words of each text in their order."""
    import numpy as np

    counts = np.diff(words.offsets)
    index = np.arange(len(words.hashes), dtype=np.int64) - np.repeat(words.offsets[:-1], counts)
    powers, _ = _powers(int(counts.max(initial=0)) + 1)
    sums = np.zeros(len(words.hashes) + 1, np.uint64)
    np.cumsum(words.hashes * powers[index], out=sums[1:])
    return splitmix64_finalize(sums[words.offsets[1:]] - sums[words.offsets[:-1]])


def _hash_characters(codes: npt.NDArray[np.uint32], words: _Words) -> tuple[Hashes, Indexes]:
    """Return characters of the words with one separator between two words of a text; and (texts + 1,) offsets."""
    import numpy as np

    lengths = words.ends - words.starts + 1
    last = words.offsets[1:][np.diff(words.offsets) > 0] - 1
    lengths[last] -= 1
    begins = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=begins[1:])
    positions = np.arange(begins[-1], dtype=np.int64) + np.repeat(words.starts - begins[:-1], lengths)
    inside = np.repeat(words.ends, lengths) > positions
    units = _mix_bits(np.where(inside, codes[positions], np.uint32(_SEPARATOR)))
    return units, begins[words.offsets]


_tables: dict[str, Any] = {}


def _alphanumeric() -> npt.NDArray[np.bool_]:
    """Return for each code point up to the last letter of Unicode, and one past it, whether it is a letter or digit, or a mark on one."""
    import unicodedata

    import numpy as np

    if "alphanumeric" not in _tables:
        kinds = (unicodedata.category(chr(code))[0] in "LNM" for code in range(_LAST_LETTER + 2))
        _tables["alphanumeric"] = np.fromiter(kinds, np.bool_, _LAST_LETTER + 2)
    table: npt.NDArray[np.bool_] = _tables["alphanumeric"]
    return table


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Return the first ``count`` powers of the base and of its inverse, modulo 2^64."""
    import numpy as np

    powers, inverses = _tables.get("powers", (np.empty(0, np.uint64), np.empty(0, np.uint64)))
    if len(powers) < count:
        room = max(count, 2 * CHUNK_CHARACTERS)
        powers, inverses = _series(_BASE, room), _series(_INVERSE, room)
        _tables["powers"] = powers, inverses  # threads may do this at once: each goes on with its own
    return powers, inverses


def _series(base: int, count: int) -> Hashes:
    import numpy as np

    steps = np.full(count, base, np.uint64)
    steps[0] = 1
    return np.cumprod(steps)
