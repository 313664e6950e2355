"""Sampled answers to inputs, kept batch by batch so that a kill loses at most one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunectl.artifacts import atomic_io, private_files
from tunectl.artifacts.records import Example
from tunectl.core import progress
from tunectl.preferences.simulated_annotator import SampledAnswers

BATCH = 192
"""Answers generated together: enough for batches of equal length, few enough that a kill loses little."""
Write = Callable[[Sequence[Example], int], list[str]]
"""Returns one answer per input, from inputs and a seed."""


def sample_answers(
    inputs: Sequence[tuple[Example, str]], answers: int, write: Callable[[], Write], seed: int, work: Path
) -> Iterator[SampledAnswers]:
    """Yield ``answers`` answers to each of ``inputs`` (with their prompt key), in order.

    ``write`` loads the model, and is called only where answers are missing. Finished batches are in ``work`` and are
    read from there; each has its own seed, so that an interrupted run ends with the same texts as one without interruption.
    """
    each = max(1, BATCH // answers)
    writer: Write | None = None
    with progress.bar("sampled answers", len(inputs) * answers) as bar:
        for index in range(0, len(inputs), each):
            batch, path = inputs[index : index + each], work / f"answers-{index // each:05d}.jsonl"

            def texts(batch: Sequence[tuple[Example, str]] = batch, index: int = index) -> list[list[str]]:
                nonlocal writer
                writer = writer or write()
                result = writer([example for example, _ in batch for _ in range(answers)], seed + index)
                return [result[index : index + answers] for index in range(0, len(result), answers)]

            yield from read_or_generate(path, batch, texts)
            bar.advance(len(batch) * answers)


def read_or_generate(
    path: Path, batch: Sequence[tuple[Example, str]], write: Callable[[], Sequence[list[str]]]
) -> list[SampledAnswers]:
    """Return the answers to ``batch``, read from ``path``; where that is absent they are generated first, and written atomically."""
    private_files.make_folder(path.parent)
    private_files.restrict(path)
    if not path.is_file():
        texts = write()
        rows = (SampledAnswers(*item, answers) for item, answers in zip(batch, texts, strict=True))
        atomic_io.write_rows(path, rows, private_files.FILE)
    return list(atomic_io.read_rows(path, SampledAnswers))
