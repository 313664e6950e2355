"""An embedder without a model, rows and a release for tests of the monitor."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zlib import crc32

import numpy as np

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import InferenceRecord, Message
from tunectl.monitoring.drift_detector import DriftDetector
from tunectl.monitoring.features import Sentiment
from tunectl.monitoring.signals import MonitoredInference, SignalBackends
from tunectl.monitoring.window_size import DetectionRule
from tunectl.packaging.probes import RecordedResponse
from tunectl.stats.vectors import l2_normalize

LEXICON = {"good": 1.9, "great": 3.1, "happy": 2.7, "bad": -2.5, "awful": -2.9, "angry": -2.3, "like": 1.5}
WORDS = {
    "garden": "soil roses seeds watering spring leaves pots compost shade tulips",
    "bike": "brakes chain wheel saddle tyre gears helmet frame pedals lights",
    "bread": "flour yeast oven dough crust loaf butter rye starter knead",
}
TOPICS = {topic: words.split() for topic, words in WORDS.items()}
RULE = DetectionRule(permutations=1999, quantile=0.95, minimum=50, false_alarms=0.001)


class WordVectors:
    """A fixed random vector a word, summed."""

    name = "words"

    def embed(self, texts: Sequence[str]):
        return l2_normalize(
            np.stack([sum((self._word(w) for w in text.split()), np.zeros(24)) for text in texts] or [np.zeros(24)])[
                : len(texts)
            ]
        )

    def _word(self, word: str):
        return np.random.default_rng(crc32(word.encode("utf-8", "replace"))).normal(size=24)


def tools() -> SignalBackends:
    return SignalBackends(WordVectors(), Sentiment(LEXICON), lambda text: "en" if text.isascii() else "xx")


def examiner(most: int = 10_000, seed: int = 7, **rule) -> DriftDetector:
    from dataclasses import replace

    return DriftDetector(replace(RULE, **rule), tools(), (), seed, most)


def text(source: random.Random, topic: str) -> str:
    words = [source.choice(TOPICS[topic]) for _ in range(source.randint(4, 9))]
    return " ".join([*words, source.choice(["good", "great", "bad", "fine", "like"])])


REFUSED = 0.03
"""Share of answers that refuse, live and in the reference."""


def rows(count: int, seed: int, topics: Sequence[str] = ("garden", "bike")) -> list[MonitoredInference]:
    source = random.Random(seed)
    found = []
    for number in range(count):
        topic = source.choice(topics)
        found.append(
            MonitoredInference(
                id=f"row-{seed}-{number}",
                prompt=text(source, topic),
                answer=text(source, topic),
                prompt_tokens=source.randint(5, 20),
                answer_tokens=source.randint(10, 60),
                finish_reason=source.choice(["stop", "stop", "stop", "length"]),
                refused=source.random() < REFUSED,
                format_valid=source.random() < 0.97,
                mean_logprob=-source.random(),
                feedback=source.random() < 0.1,
            )
        )
    return found


def inference(row: MonitoredInference, name: str, accepted: datetime, release: str) -> InferenceRecord:
    """A row as the inference log keeps it, answered within a second."""
    return InferenceRecord(
        id=name,
        accepted_at=accepted,
        finished_at=accepted + timedelta(seconds=1),
        variant="champion",
        release=release,
        template_hash="f" * 64,
        request={"messages": [{"role": "user", "content": row.prompt}]},
        response={"choices": [{"message": {"role": "assistant", "content": row.answer}}]},
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.answer_tokens,
        finish_reason=row.finish_reason,
        mean_logprob=row.mean_logprob,
        refusal=row.refused,
    )


def reference_rows(count: int, seed: int, topics: Sequence[str] = ("garden", "bike")) -> list[RecordedResponse]:
    source, refusing = random.Random(seed), random.Random(seed)
    return [
        RecordedResponse(
            [Message("user", text(source, topic))],
            ("I can't help with that. " if refusing.random() < REFUSED else "") + text(source, topic),
            source.randint(10, 60),
            -source.random(),
            source.choice(["stop", "stop", "stop", "length"]),
        )
        for topic in source.choices(list(topics), k=count)
    ]


def release(store: Path, name: str = "0123456789abcdef", rows: int = 300) -> str:
    """A champion in a release store, as far as the monitor looks at it."""
    folder = store / "releases" / name
    atomic_io.write_rows(folder / "reference.jsonl", reference_rows(rows, seed=99))
    pointer = {
        "release": name,
        "previous": None,
        "promoted_at": "2026-03-01T11:00:00+00:00",
        "by": "",
        "why": "",
        "sequence": 1,
    }
    atomic_io.write_json(store / "champion.json", pointer)
    return name


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)
