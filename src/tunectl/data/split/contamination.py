"""Find train records that reveal a validation or test record."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tunectl.artifacts.records import Document, Example
from tunectl.data.record_text import input_text
from tunectl.data.split.groups import answer_texts, split_words

What = Literal["input", "answer"]
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Signs of scripts that write no space between words: Thai, Lao, Burmese, Khmer, kana and Han."""
_TOKEN = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Leak:
    """One train record or document that contains most of a validation or test text."""

    train: int
    """Index in the list of train records."""
    held_out: int
    """Index in the list of validation and test records."""
    what: What
    overlap: float
    """Share of the held-out text's n-grams that are in the train text; 1 is all of it."""


def find_contaminated(
    train: Sequence[Example | Document],
    examples: Sequence[Example],
    *,
    compare: Sequence[What],
    ngram: int,
    overlap: float,
) -> list[Leak]:
    """Return for each record of ``train`` its worst leak: at least the share ``overlap`` (0 to 1) of a held-out text's ``ngram``-word runs is in it.

    ``examples`` are the held-out records. A document is one text, compared with all that ``compare`` names; an answer of a train
    example is also what the assistant said earlier in it. Inputs shorter than ``ngram`` words leak where they are equal. Answers as
    short (a class, yes or no) never leak: they are equal for different inputs. Where a script puts no space between words, each sign
    counts as a word.
    """
    worst: dict[int, Leak] = {}
    for what in compare:
        for leak in _find_one(train, examples, what, ngram, overlap):
            if leak.train not in worst or leak.overlap > worst[leak.train].overlap:
                worst[leak.train] = leak
    return [worst[row] for row in sorted(worst)]


def _find_one(
    train: Sequence[Example | Document], examples: Sequence[Example], what: What, ngram: int, overlap: float
) -> Iterator[Leak]:
    texts = [
        (row, ngrams(_tokenize(text), ngram, whole=what == "input"))
        for row, example in enumerate(examples)
        for text in _texts(example, what)
    ]
    indexes_by_gram = _index_rarest([grams for _, grams in texts], overlap)
    if not indexes_by_gram:
        return
    for row, record in enumerate(train):
        for text in _collect_train_texts(record, what):
            train_grams = ngrams(_tokenize(text), ngram, whole=what == "input")
            for index in sorted({index for gram in train_grams for index in indexes_by_gram.get(gram, ())}):
                held_out, grams = texts[index]
                share = len(grams & train_grams) / len(grams)
                if share >= overlap:
                    yield Leak(row, held_out, what, share)


def _index_rarest(texts: Sequence[set[tuple[str, ...]]], overlap: float) -> dict[tuple[str, ...], list[int]]:
    """Return the indexes of ``texts`` by n-gram, each text under its rarest n-grams only.

    A text that shares ``overlap`` of its n-grams shares one of these, too: the others are too few. So a sentence that ends
    every answer makes no candidates (prefix filtering: Chaudhuri, Ganti and Kaushik 2006).
    """
    frequency = Counter(gram for grams in texts for gram in grams)
    result: dict[tuple[str, ...], list[int]] = {}
    for index, grams in enumerate(texts):
        count = len(grams) - max(1, math.ceil(overlap * len(grams) - 1e-9)) + 1
        for gram in sorted(grams, key=lambda gram: (frequency[gram], gram))[:count]:
            result.setdefault(gram, []).append(index)
    return result


def _tokenize(text: str) -> list[str]:
    return [token for word in split_words(text) for token in _TOKEN.findall(word)]


def _texts(example: Example, what: What) -> list[str]:
    return [input_text(example)] if what == "input" else answer_texts(example)


def _collect_train_texts(record: Example | Document, what: What) -> list[str]:
    """Return the texts of a train record that could reveal a held-out text."""
    if isinstance(record, Document):
        return [record.text]
    earlier = [turn.content for turn in record.messages if turn.role == "assistant"] if what == "answer" else []
    return _texts(record, what) + earlier


def ngrams(tokens: Sequence[str], size: int, *, whole: bool = False) -> set[tuple[str, ...]]:
    """Return the distinct n-grams of ``size`` words; none for a shorter text, or with ``whole`` all of its words as one."""
    if len(tokens) < size:
        return {tuple(tokens)} if whole and tokens else set()
    return {tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)}


def overlap_share(train: Iterable[Example], examples: Iterable[Example], *, ngram: int = 4) -> float | None:
    """Return the share, 0 to 1, of the ``ngram``-word runs of the held-out answers that occur in some train answer, counted with repetitions.

    A high share means that answers can be composed from memory. None where no held-out answer is that long.
    """
    test_grams: Counter[tuple[str, ...]] = Counter()
    for example in examples:
        for text in answer_texts(example):
            tokens = _tokenize(text)
            test_grams.update(tuple(tokens[start : start + ngram]) for start in range(len(tokens) - ngram + 1))
    seen: set[tuple[str, ...]] = set()
    for example in train:
        for text in answer_texts(example):
            seen.update(gram for gram in ngrams(_tokenize(text), ngram) if gram in test_grams)
    total = test_grams.total()
    return sum(test_grams[gram] for gram in seen) / total if total else None
