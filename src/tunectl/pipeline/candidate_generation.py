"""Generate the answers that people compare, with the models under comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import to_builtins

from tunectl.artifacts import atomic_io, manifest, private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example
from tunectl.core.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.preferences.annotation_store import AnnotationTask
    from tunectl.preferences.answer_cache import Write

CHUNK = 8
"""Inputs answered together; people can begin after the first batch."""


class CandidateBatch(NamedTuple):
    """Annotation tasks of one generated batch, with the progress over all inputs."""

    tasks: list[AnnotationTask]
    done: int
    """Number of answered inputs."""
    of: int
    left_out: int
    """Number of inputs so far with two equal answers, or an empty one: nobody could choose."""

    @property
    def sentence(self) -> str:
        """Progress as a sentence, ``12 of 40 inputs are answered``, for the annotation page."""
        return f"{self.done} of {self.of} inputs are answered."


def generate_candidates(layout: ProjectPaths, root: TunectlConfig) -> Iterator[CandidateBatch]:
    """Yield annotation tasks batch by batch as their answers are generated; batches that an interrupted run finished are read from disk.

    Raises  ArtifactError when a model is not there; DataError when there are no inputs.
    """
    from tunectl.data.split.groups import prompt_key
    from tunectl.preferences import annotation_tasks, answer_cache

    settings = root.annotate.prepare
    path = layout.artifact("split") / f"{settings.part}.jsonl"
    examples = annotation_tasks.sample_inputs(list(atomic_io.read_rows(path, Example)), settings.inputs, root.seed)
    if not examples:
        raise DataError(
            f"{path} holds no input to answer",
            hint=f"give {settings.part} a larger share in split.shares, or choose the other part: annotate.prepare.part",
        )
    keyed = [(example, prompt_key(example)) for example in examples]
    folders = [_folders(layout, system) for system in settings.systems]
    work = layout.work("annotate", _key(root, folders))
    private_files.make_folder(work.parent)
    left_out = 0
    yield CandidateBatch(list(annotation_tasks.attention_checks(keyed, root.seed)), 0, len(keyed), 0)
    with ExitStack() as stack:
        writers = CandidateGenerator(root, folders, stack)
        for start in range(0, len(keyed), CHUNK):
            chunk = keyed[start : start + CHUNK]
            names = atomic_io.sha256_json([prompt for _, prompt in chunk])[:12]
            samples = answer_cache.read_or_generate(
                work / f"{names}.jsonl", chunk, partial(writers.generate_pairs, chunk, start)
            )
            result = [
                annotation_tasks.make_task(item.example, item.prompt, item.answers, settings.systems)
                for item in samples
            ]
            results = [item for item in result if item is not None]
            left_out += len(result) - len(results)
            yield CandidateBatch(results, start + len(chunk), len(keyed), left_out)


def _key(root: TunectlConfig, folders: Sequence[tuple[Path, Path | None]]) -> str:
    """Return the digest of everything on which the answers depend."""
    stamps = [
        [to_builtins(manifest.read(folder)) if folder is not None else None for folder in pair] for pair in folders
    ]
    decoding = root.annotate.prepare.decoding.model_dump(mode="json")
    return atomic_io.sha256_json([stamps, decoding, root.seed])[:16]


class CandidateGenerator:
    """Generates answers with the two systems of ``annotate.prepare.systems``; loads a model at its first use, once where both are equal."""

    def __init__(self, root: TunectlConfig, folders: Sequence[tuple[Path, Path | None]], stack: ExitStack) -> None:
        self._root, self._folders, self._stack = root, folders, stack
        self._loaded: dict[tuple[Path, Path | None], Write] = {}

    def generate_pairs(self, chunk: Sequence[tuple[Example, str]], start: int) -> list[list[str]]:
        """Return [answer of the first system, of the second] for each (example, prompt key) of ``chunk``; ``start``, the index of its first input, seeds sampling."""
        examples = [example for example, _ in chunk]
        both = [
            self._of(pair)(examples, self._root.seed + 1000 * turn + start) for turn, pair in enumerate(self._folders)
        ]
        return [list(texts) for texts in zip(*both, strict=True)]

    def _of(self, pair: tuple[Path, Path | None]) -> Write:
        from tunectl.backends.wiring import preferences

        if pair not in self._loaded:
            tools, decoding = preferences.build_backend(self._root.hardware), self._root.annotate.prepare.decoding
            label = f"answers of {(pair[1] or pair[0]).name}"
            self._loaded[pair] = preferences.make_answer_writer(tools, *pair, decoding, label, self._stack)
        return self._loaded[pair]


def _folders(layout: ProjectPaths, system: str) -> tuple[Path, Path | None]:
    """Return weights and adapter of a system; the tuned one is based on the weights of cpt where there are any."""
    model = layout.artifact("model")
    manifest.read(model)
    if system == "model":
        return model, None
    adapter, adapted = layout.artifact(system), layout.artifact("cpt")
    if manifest.read(adapter).passed_through:
        raise ArtifactError(
            f"annotate.prepare.systems names {system}, which is switched off",
            hint=f"name another, or build it: tunectl repro {system}=<an option of conf/{system}> --to {system}",
        )
    return (model if manifest.read(adapted).passed_through else adapted), adapter
