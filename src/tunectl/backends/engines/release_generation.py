"""Generate the answers of a release in a process of its own: the gate compares them, with the time and the memory they took.

Run as a module: ``python -m tunectl.backends.engines.release_generation JOB ANSWERS``. The engine is the one that serves the release.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from tunectl.access.api_errors import ApiError
from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Message
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.generation.prompt import PromptRenderer
from tunectl.packaging import serving_contract as contracts


class GenerationJob(msgspec.Struct, frozen=True):
    """Job file of the subprocess of the promotion gate: prompts (one conversation each) that a release answers, and the limit in tokens."""

    release: str
    """Folder of the release."""
    prompts: list[list[Message]]
    limit: int
    """Longest answer in tokens."""


class GenerationResult(msgspec.Struct, frozen=True):
    """Result file of the subprocess of the promotion gate: one answer per prompt (None: not asked), with time and memory."""

    texts: list[str | None]
    """None where the prompt leaves no room for an answer, or the chat template refuses it."""
    seconds: float
    """Seconds of all answers together, without loading."""
    peak_bytes: int
    """Largest resident memory of the process and its children."""


def generate(job: GenerationJob) -> GenerationResult:
    """Load the release of ``job``, answer each prompt greedily, and return the answers, in their order, with time and peak memory."""
    from tunectl.backends.wiring.packaging import PackagingBackend

    folder = Path(job.release)
    contract = contracts.load(folder)
    tokenizer = Tokenizer(folder / contracts.TOKENIZER)
    prompts = PromptRenderer(contracts.template_of(folder, contract), tokenizer)
    fitting = encode_prompts(job, prompts, contract.context_length)
    profile = HardwareProfile(
        device="cpu",
        threads=None,
        dtype="float32",
        train_batch_tokens=4096,
        generate_batch=8,
        gradient_checkpointing=False,
    )
    side = PackagingBackend(profile).open_release(folder, contract.stop_token_ids)
    try:
        side.generate(list(fitting.values())[:1], 1)
        loaded = time.monotonic()
        outputs = side.generate(list(fitting.values()), job.limit)
        ended = time.monotonic()
    finally:
        side.close()
    texts: list[str | None] = [None] * len(job.prompts)
    for index, item in zip(fitting, outputs, strict=True):
        texts[index] = tokenizer.text_of([token for token in item.ids if token not in tokenizer.special]).strip()
    peak = max(
        resource.getrusage(process_kind).ru_maxrss for process_kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return GenerationResult(texts, ended - loaded, peak * 1024)


def encode_prompts(job: GenerationJob, prompts: PromptRenderer, context: int) -> dict[int, list[int]]:
    """Return the token ids of the prompts of ``job`` that can be asked, by index: one that cannot would end the gate, whose golden set is frozen.

    ``context``: most tokens of prompt and answer together.
    """
    fitting = {}
    for index, messages in enumerate(job.prompts):
        with suppress(ApiError):  # the chat template refuses it
            ids = prompts.chat(messages)
            if len(ids) + job.limit <= context:
                fitting[index] = ids
    return fitting


def main(job: Path, answers: Path) -> None:
    """Read a ``GenerationJob`` from ``job``, answer its prompts, and write the ``GenerationResult`` to ``answers``."""
    atomic_io.write_json(answers, generate(atomic_io.read_json(job, GenerationJob)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
