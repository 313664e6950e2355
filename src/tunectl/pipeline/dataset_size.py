"""Estimate the size of the declared sources, from all of a small file and the first rows of a large one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document, Example
from tunectl.backends.readers import source_rows
from tunectl.config.schema.ingest import FileSource, HubDataset, Ingest
from tunectl.data.readers.file_discovery import TABLES, SourceFile, file_type, find_outside, glob_files, is_dead_link
from tunectl.data.readers.format_detection import detect
from tunectl.data.readers.record_builder import build_record
from tunectl.data.readers.row import RawRow, RowError
from tunectl.pipeline.cost_estimate import DatasetSize
from tunectl.pipeline.stages.ingest import READERS

WHOLE_BYTES = 8_000_000
"""Size in bytes up to which a table is read to its end."""
FIRST_ROWS = 400
"""Rows read of a larger one."""
PAGES = 12
"""Files read of a folder of pages, evenly spaced."""
ASSUMED_CHARACTERS_A_TOKEN = 3.6
"""Characters per token of English text and attribute lists, where no tokenizer is there yet (SmolLM2: 4.2 prose, 3.0 for E2E inputs)."""
TEXTS = 200
"""Number of texts whose tokens are counted."""


@dataclass
class _RunningTotal:
    """Sums over all sources; the counts of each are scaled from its sample."""

    files: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)
    counted: bool = True

    def add(self, record: Document | Example, factor: float, seen: set[str]) -> None:
        """Add one record that represents ``factor`` of its kind."""
        if isinstance(record, Document):
            self.sums["documents"] += factor  # type: ignore[assignment]
            self.sums["document_characters"] += factor * len(record.text)  # type: ignore[assignment]
            self._keep(record.text)
            return
        if record.id not in seen:
            seen.add(record.id)
            prompt = "\n".join(message.content for message in record.messages)
            self.sums["inputs"] += factor  # type: ignore[assignment]
            self.sums["input_characters"] += factor * len(prompt)  # type: ignore[assignment]
            self._keep(prompt)
        for answer in record.answers:
            self.sums["answers"] += factor  # type: ignore[assignment]
            self.sums["answer_characters"] += factor * len(answer.text)  # type: ignore[assignment]
            self._keep(answer.text)

    def _keep(self, text: str) -> None:
        if len(self.texts) < TEXTS:
            self.texts.append(text)


def estimate_dataset_size(layout: ProjectPaths, ingest: Ingest) -> DatasetSize:
    """Return rows, documents and characters of the sources, counted or extrapolated; Hub data sets and web pages are not fetched.

    Raises  DataError for a source that is missing, or whose format cannot be decided.
    """
    count = _RunningTotal()
    for name, source in ingest.sources.items():
        if isinstance(source, FileSource):
            _files(layout, name, source, count)
        elif isinstance(source, HubDataset):
            count.counted = False
        else:
            count.counted = False
            count.files["html"] += len(source.urls)
            count.sums["documents"] += len(source.urls)
            count.sums["document_characters"] += 4000 * len(source.urls)  # an article
    sums = {key: int(value) for key, value in count.sums.items()}
    names = ("rows", "documents", "document_characters", "inputs", "input_characters", "answers", "answer_characters")
    ratio = _characters_a_token(layout, count.texts)
    return DatasetSize(
        files=dict(count.files),
        **{key: sums.get(key, 0) for key in names},
        characters_a_token=ratio,
        counted=count.counted,
    )


def _files(layout: ProjectPaths, name: str, source: FileSource, count: _RunningTotal) -> None:
    paths = [
        path
        for path in glob_files(source.path, layout.root, f"ingest.sources.{name}.path")
        if not is_dead_link(path) and find_outside(path, source.path, layout.root) is None
    ]
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kind = file_type(path) if source.type == "auto" else source.type
        if kind is not None:
            kinds.setdefault(kind, []).append(path)
    seen: set[str] = set()
    for kind, result in kinds.items():
        count.files[kind] += len(result)
        sample = result if kind in TABLES else result[:: max(1, len(result) // PAGES)]
        count.counted &= len(sample) == len(result)
        for path in sample:
            file = SourceFile(path, path.as_posix(), kind, {"file": path.stem, "folder": path.parent.name})
            _file(file, name, source, count, seen, len(result) / len(sample))


def _file(file: SourceFile, name: str, source: FileSource, count: _RunningTotal, seen: set[str], factor: float) -> None:
    size = file.path.stat().st_size
    is_large = file.type in TABLES and size > WHOLE_BYTES
    read_rows = source_rows.rows(file, source, f"ingest.sources.{name}", READERS)
    rows = [row for row in islice(read_rows, FIRST_ROWS if is_large else None) if isinstance(row, RawRow)]
    if not rows:
        return
    if is_large:
        sample_bytes = sum(len(json.dumps(row.columns, default=str, ensure_ascii=False).encode()) for row in rows)
        factor *= max(1.0, size / sample_bytes)
        count.counted = False
    decision = detect(source, file, rows[:100], f"ingest.sources.{name}")
    for row in rows:
        count.sums["rows"] += factor  # type: ignore[assignment]
        try:
            record = build_record(row, decision, source, name)
        except RowError:
            continue
        count.add(record, factor, seen)


def _characters_a_token(layout: ProjectPaths, texts: Sequence[str]) -> float:
    """Return characters per token, measured with the base model's tokenizer where the model stage has run."""
    folder = layout.artifact("model")
    if not texts or not (folder / "tokenizer.json").is_file():
        return ASSUMED_CHARACTERS_A_TOKEN
    from tunectl.chat.tokenizer import Tokenizer

    tokens = sum(len(item.ids) for item in Tokenizer(folder).encode(texts))
    return sum(map(len, texts)) / max(tokens, 1)
