"""Find train records that reveal a validation or test record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tunectl.artifacts.records import Document, Example
from tunectl.data.record_text import input_text
from tunectl.data.split.groups import answer_texts, split_words

What = Literal["input", "answer"]


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
    short (a class, yes or no) never leak: they are equal for different inputs.
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
        (row, ngrams(split_words(text), ngram, whole=what == "input"))
        for row, example in enumerate(examples)
        for text in _texts(example, what)
    ]
    indexes_by_gram: dict[tuple[str, ...], list[int]] = {}
    for index, (_, grams) in enumerate(texts):
        for gram in grams:
            indexes_by_gram.setdefault(gram, []).append(index)
    if not indexes_by_gram:
        return
    for row, record in enumerate(train):
        for text in _collect_train_texts(record, what):
            shared = Counter(
                index
                for gram in ngrams(split_words(text), ngram, whole=what == "input")
                for index in indexes_by_gram.get(gram, ())
            )
            for index, count in shared.items():
                share = count / len(texts[index][1])
                if share >= overlap:
                    yield Leak(row, texts[index][0], what, share)


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
            tokens = split_words(text)
            test_grams.update(tuple(tokens[start : start + ngram]) for start in range(len(tokens) - ngram + 1))
    seen: set[tuple[str, ...]] = set()
    for example in train:
        for text in answer_texts(example):
            seen.update(gram for gram in ngrams(split_words(text), ngram) if gram in test_grams)
    total = test_grams.total()
    return sum(test_grams[gram] for gram in seen) / total if total else None
