"""A corpus that gives every block of curation work, and the stage on it: shared by the tests of the ways to run it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Source, Tokens
from tunectl.config.schema.curate import CurateStage
from tunectl.data.curation_pipeline import FilterDeps
from tunectl.pipeline.stages import curate
from tunectl.privacy.mask import PiiMasker
from tunectl.privacy.resources import PiiResources

ROOT = Path(__file__).parents[2]
TOOLS = PiiResources(lambda text: [], bool, bool, bool, frozenset(["sarah"]), frozenset(["miller"]))
FAKES = FilterDeps(
    mojibake=lambda repair: lambda text: text.replace("Ã©", "é"),
    languages=lambda language: lambda text: ("de", 0.99) if "und" in text.split() else ("en", 0.99),
    personal=lambda personal: PiiMasker(TOOLS, kinds=personal.kinds, keep=personal.keep),
)
HARDWARE = {
    "device": "cpu",
    "threads": 2,
    "dtype": "auto",
    "train_batch_tokens": 4096,
    "generate_batch": 8,
    "gradient_checkpointing": False,
}
NEAR = {
    "side": "both",
    "action": "remove",
    "keep": "longest",
    "threshold": 0.6,
    "shingle": {"unit": "word", "size": 2},
    "bands": 12,
    "rows": 2,
}
Records = list[Document | Example]


def document(number: int, text: str) -> Document:
    return Document(f"d{number}", text, Source("pages.csv", number))


def make_corpus(seed: int) -> Records:
    """Copies in another spelling, near copies of equal length, several answers to one input, and rows to reject."""
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(300)]
    texts: list[str] = [
        "too short",
        "",
        "Wir haben Brot und Butter und Bier " * 3,
        "The cafÃ© of Sarah Miller opens at 7 today",
    ]
    for _ in range(40):
        words = draw.choices(vocabulary, k=draw.randint(8, 20))
        texts.append(" ".join(words))
        for _ in range(draw.choice([0, 1, 3])):
            copy = list(words)
            copy[draw.randrange(len(copy))] = draw.choice(vocabulary)
            texts.append(" ".join(copy).upper() if draw.random() < 0.3 else " ".join(copy))
        texts += [texts[-1].capitalize() + "!"] * draw.choice([0, 0, 2])
    draw.shuffle(texts)
    records: Records = [document(number, text) for number, text in enumerate(texts)]
    asked = [f"please write about {word}" for word in vocabulary[:12]]
    for number, text in enumerate(draw.sample(texts, 60)):
        place = Source("ads.csv", number)
        answers = [ReferenceAnswer(f"{text} by Sarah Miller", place), ReferenceAnswer(draw.choice(texts), place)]
        fields = {"city": draw.choice(["a", "b"])}
        records.append(Example(f"e{number}", place, [Message("user", draw.choice(asked))], answers, fields=fields))
    return records + [Example(f"t{number}", Source("t", 1), tokens=Tokens([1, 2], [1, 2])) for number in range(3)]


def make_giant_bucket(count: int) -> Records:
    """One template: all documents are near duplicates, in a bucket that is larger than what is compared pair by pair."""
    text = "the very same template of many words for shop number {} in town today and every other day of the week"
    return [document(number, text.format(number)) for number in range(count)]


def curate_into(
    folder: Path, records: Records, near: dict[str, Any] | None, engine: Any = None, **changes: Any
) -> dict[str, bytes]:
    """Run the stage with conf/curate/default.yaml and ``changes``; return its files."""
    values = yaml.safe_load((ROOT / "conf" / "curate" / "default.yaml").read_text())
    del values["engine"]
    values |= {"near": None if near is None else NEAR | near, "max_rejected_share": 1.0, **changes}
    cfg = CurateStage.model_validate({"curate": values, "seed": 0, "hardware": HARDWARE})
    documents = [record for record in records if isinstance(record, Document)]
    examples = [record for record in records if isinstance(record, Example)]
    atomic_io.write_rows(folder / "ingest" / "documents.jsonl", documents)
    atomic_io.write_rows(folder / "ingest" / "examples.jsonl", examples[: len(examples) // 2])
    if examples:
        atomic_io.write_rows(folder / "feedback" / "examples.jsonl", examples[len(examples) // 2 :])
    else:
        atomic_io.write_json(folder / "feedback" / manifest.PASSED_THROUGH, {"reason": "none"})
    (folder / "curate").mkdir()
    inputs = curate.Inputs(folder / "ingest", folder / "feedback")
    curate.run(cfg, inputs, curate.Outputs(folder / "curate"), libraries=FAKES, engine=engine)
    return {path.name: path.read_bytes() for path in sorted((folder / "curate").iterdir())}
