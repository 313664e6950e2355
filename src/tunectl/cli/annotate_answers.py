"""The answers that people compare, written by the models under comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.artifacts import io, manifest
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Example
from tunectl.core.errors import DataError

if TYPE_CHECKING:
    from tunectl.config.root import Root
    from tunectl.preferences.store import Question

CHUNK = 8
"""Inputs answered together; people can begin after the first."""


def written(layout: Layout, root: Root) -> Iterator[tuple[list[Question], str]]:
    """Questions as they are made, a few at a time, and how far they are in words.

    Raises  ArtifactError when a model is not there; DataError when there are no inputs.
    """
    from tunectl.data.grouping import input_key
    from tunectl.preferences import questions

    wanted = root.annotate.prepare
    path = layout.artifact("split") / f"{wanted.part}.jsonl"
    examples = questions.drawn(list(io.read_rows(path, Example)), wanted.inputs, root.seed)
    if not examples:
        raise DataError(
            f"{path} holds no input to answer", hint="check split.shares, or choose the other annotate.prepare.part"
        )
    keyed = [(one, input_key(one)) for one in examples]
    yield list(questions.checks(keyed, root.seed)), f"0 of {len(examples)} inputs are answered."
    with ExitStack() as stack:
        writers = _writers(layout, root, stack)
        for start in range(0, len(keyed), CHUNK):
            chunk = keyed[start : start + CHUNK]
            both = [
                writer([one for one, _ in chunk], root.seed + 1000 * turn + start)
                for turn, writer in enumerate(writers)
            ]
            made = [
                questions.question(one, prompt, answers, wanted.systems)
                for (one, prompt), *answers in zip(chunk, *both, strict=True)
            ]
            done = min(start + CHUNK, len(keyed))
            yield [item for item in made if item is not None], f"{done} of {len(keyed)} inputs are answered."


def _writers(layout: Layout, root: Root, stack: ExitStack) -> list[Any]:
    """One function a system, in their order: examples and a seed -> their answers."""
    from tunectl.backends import evaluation_tools, hf_generate
    from tunectl.evaluation.generator import Request

    opened: dict[str, Any] = {}

    def writer(system: str) -> Any:
        folder, adapter = _folders(layout, system)
        generator = hf_generate.opener(root.profile)(folder, adapter)
        stack.callback(generator.close)
        prompter = evaluation_tools.prompter(folder, adapter)

        def answers(examples: Sequence[Example], seed: int) -> list[str]:
            asked = [Request(prompter.prompt(one.messages, one.tools)) for one in examples]
            replies = generator.answer(asked, root.annotate.prepare.decoding, seed=seed, label=f"answers of {system}")
            return [reply.text for reply in replies]

        return answers

    return [opened.setdefault(system, opened.get(system) or writer(system)) for system in root.annotate.prepare.systems]


def _folders(layout: Layout, system: str) -> tuple[Path, Path | None]:
    """Weights and adapter of a system; the tuned one stands on the further pre-trained weights where there are any."""
    model = layout.artifact("model")
    manifest.read(model)
    if system == "model":
        return model, None
    adapter, adapted = layout.artifact(system), layout.artifact("adapt")
    manifest.read(adapter)
    return (model if manifest.read(adapted).passed_through else adapted), adapter
