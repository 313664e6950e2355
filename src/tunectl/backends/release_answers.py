"""Answers of a release, in a process of its own: what the gate compares, with the time and the memory they took.

Run as a module: ``python -m tunectl.backends.release_answers JOB ANSWERS``. The engine is the one that serves (``engine_side``).
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import msgspec

from tunectl.artifacts import io
from tunectl.artifacts.records import Message
from tunectl.chat.tokens import Tokenizer
from tunectl.config.profile import Profile
from tunectl.release import contract as contracts
from tunectl.serving.prompt import Prompts


class Job(msgspec.Struct, frozen=True):
    """What is to be answered."""

    release: str
    """Folder."""
    asked: list[list[Message]]
    limit: int
    """Longest answer in tokens."""


class Answers(msgspec.Struct, frozen=True):
    """What came of it."""

    texts: list[str | None]
    """None where the prompt leaves no room for an answer."""
    seconds: float
    """Of all answers together, loading left out."""
    load_seconds: float
    peak_bytes: int
    """Resident memory of the process and those it started, at its largest."""


def answered(job: Job) -> Answers:
    """Load the release and answer everything, greedily."""
    from tunectl.backends.package_tools import PackageTools

    folder, begun = Path(job.release), time.monotonic()
    contract = contracts.load(folder)
    tokenizer = Tokenizer(folder / contracts.TOKENIZER)
    prompts = Prompts(contracts.template_of(folder, contract), tokenizer)
    ids = [prompts.chat(messages) for messages in job.asked]
    room = contract.context_length - job.limit
    fitting = [place for place, prompt in enumerate(ids) if len(prompt) <= room]
    profile = Profile(
        device="cpu", threads=None, dtype="float32", train_tokens=4096, generate_batch=8, gradient_checkpointing=False
    )
    side = PackageTools(profile).opened(folder, contract.stop_token_ids)
    try:
        side.answers([ids[place] for place in fitting[:1]], 1)
        loaded = time.monotonic()
        said = side.answers([ids[place] for place in fitting], job.limit)
        ended = time.monotonic()
    finally:
        side.close()
    texts: list[str | None] = [None] * len(ids)
    for place, one in zip(fitting, said, strict=True):
        texts[place] = tokenizer.text_of([token for token in one.ids if token not in tokenizer.special]).strip()
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Answers(texts, ended - loaded, loaded - begun, peak * 1024)


def main(job: Path, answers: Path) -> None:
    """Do one job."""
    io.write_json(answers, answered(io.read_json(job, Job)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
