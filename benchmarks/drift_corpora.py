"""Real texts for the drift benchmark, two corpora at a time, embedded once."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tunectl.monitoring import signals
from tunectl.monitoring.features import Embedder
from tunectl.monitoring.signals import MonitoredInference, SignalBackends, SignalColumns

BRIEFS = Path(__file__).parents[1] / "examples" / "local_lens" / "data" / "campaigns.jsonl"
_TURN = re.compile(r"\n\n(Human|Assistant): (.*?)(?=\n\n(?:Human|Assistant): |$)", re.DOTALL)


@dataclass(frozen=True)
class Corpus:
    """Texts of one kind; ``negative`` are the numbers of those that people rated below zero."""

    name: str
    texts: list[str]
    negative: list[int]


def read(name: str, data: Path) -> Corpus:
    """A corpus by name (reviews, tweets, questions, restaurants, briefs), or a CSV file with the columns text and sentiment."""
    if name == "briefs":  # what the bundled example is asked: synthetic
        lines = BRIEFS.read_text(encoding="utf-8").splitlines()
        return Corpus(name, list(dict.fromkeys(json.loads(line)["prompt"] for line in lines)), [])
    if name == "questions":
        return Corpus(name, _questions(data / "hh" / "harmless.jsonl.gz"), [])
    if name == "restaurants":
        with (data / "e2e" / "devset.csv").open(newline="", encoding="utf-8") as stream:
            return Corpus(name, list(dict.fromkeys(row["ref"] for row in csv.DictReader(stream))), [])
    files = {"reviews": "product_reviews.csv", "tweets": "tweets.csv"}
    path = data / "drift" / files[name] if name in files else Path(name)
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; name a CSV file with the columns text and sentiment")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return Corpus(
        path.stem if name not in files else name,
        [row["text"] for row in rows],
        [index for index, row in enumerate(rows) if float(row.get("sentiment") or 0) < 0],
    )


def _questions(path: Path) -> list[str]:
    """What people say in HH-RLHF's chosen transcripts."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        turns = [turn for line in stream for turn in _TURN.findall(json.loads(line)["chosen"])]
    return [text for text in dict.fromkeys(text.strip() for who, text in turns if who == "Human") if text]


class Embedded:
    """An embedder that looks texts up; what is not in ``cache`` is embedded once, by corpus."""

    def __init__(self, inner: Embedder, corpora: Sequence[Corpus], cache: Path) -> None:
        self.name = inner.name
        cache.mkdir(parents=True, exist_ok=True)
        parts = []
        for corpus in corpora:
            digest = hashlib.sha256(json.dumps([inner.name, corpus.texts]).encode()).hexdigest()[:16]
            path = cache / f"{digest}.npy"
            if not path.is_file():
                print(f"embedding {len(corpus.texts):,} texts of {corpus.name}", flush=True)
                np.save(path, inner.embed(corpus.texts))
            parts.append(np.load(path))
        self._vectors = np.concatenate(parts)
        texts = [text for corpus in corpora for text in corpus.texts]
        self._places = {text: index for index, text in enumerate(texts)}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One row a text; every text is one of the corpora's."""
        return self._vectors[[self._places[text] for text in texts]]


@dataclass(frozen=True)
class Pair:
    """Prompts of two corpora, measured: reference and windows are of ``own``, what comes in is of ``other``."""

    own: Corpus
    other: Corpus
    prompts: SignalColumns
    """Rows of ``own``, then those of ``other``."""
    answers: SignalColumns
    """Rows of ``other``, which never change."""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.own.name}, {self.other.name}"


def measure(corpus: Corpus, other: Corpus, tools: SignalBackends) -> Pair:
    """Measure a pair with an embedder that knows both."""
    rows = make_rows([*corpus.texts, *other.texts], seed=1)
    count = len(rows)  # a window's language is looked at in part; here every row may be in one
    prompts = signals.compute_signal_values(rows, "prompt", tools, max_texts=count)
    answers = signals.compute_signal_values(make_rows(other.texts, seed=2), "answer", tools, max_texts=count)
    return Pair(corpus, other, prompts, answers)


def with_cache(tools: SignalBackends, corpora: Sequence[Corpus], cache: Path) -> SignalBackends:
    """The same tools with an embedder that looks texts up."""
    return replace(tools, embedder=Embedded(tools.embedder, corpora, cache))


def make_rows(texts: Sequence[str], seed: int) -> list[MonitoredInference]:
    """Rows with these texts as prompts and as answers; what a text does not have is drawn, the same for every row."""
    source = random.Random(seed)
    return [
        MonitoredInference(
            id=str(index),
            prompt=text,
            answer=text,
            prompt_tokens=len(text.split()),
            answer_tokens=len(text.split()),
            finish_reason="length" if source.random() < 0.1 else "stop",
            refused=source.random() < 0.03,
            format_valid=source.random() < 0.95,
            mean_logprob=-source.expovariate(1.0),
            feedback=source.random() < 0.1,
        )
        for index, text in enumerate(texts)
    ]
