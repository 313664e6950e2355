"""The gate's evidence: both releases answer the golden set, the drifted slice and the safety questions, each in its own process."""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Example
from tunectl.backends import git_worktree, process_group
from tunectl.backends.release_answers import Answers, Job
from tunectl.config.evaluate import Evaluate
from tunectl.config.watch import Watch, WatchGate
from tunectl.core.errors import EnvironmentFailure
from tunectl.evaluation import items, safety
from tunectl.live.harvest import digest_of
from tunectl.release import golden
from tunectl.release.gate import Verdict
from tunectl.release.machine import Run
from tunectl.release.store import Store
from tunectl.services.watcher import weighing
from tunectl.services.watcher.place import Place
from tunectl.services.watcher.weighing import Question, Side

HOURS = 6
"""Longest time for the answers of one release."""
ON_GPUS = "vllm"
"""The engine whose releases may hold weights that no processor reads, or too many of them."""


def judged(
    run: Run, release: str, store: Store, watch: Watch, evaluate: Evaluate, place: Place, stop: threading.Event
) -> Verdict:
    """The verdict about the challenger ``release``.

    Raises  EnvironmentFailure where the champion itself cannot answer: then nothing can be compared.
    """
    champion = store.champion()
    if champion is None:
        raise EnvironmentFailure("there is no champion to compare with", hint="tunectl release promote ID")
    asked = question(store, git_worktree.inside(place.layout.root, place.worktree), watch.gate, place.layout)
    sides: list[Side] = []
    names = champion.release, release
    engines = {store.manifest(name).engine for name in names}
    gpus = watch.resources.device == "any" or ON_GPUS in engines  # of both sides: their times are compared
    for name in names:
        sides.append(_side(name, asked, store, watch, place, run, stop, gpus=gpus))
        if stop.is_set():
            return Verdict("insufficient", "stopped")
    if sides[0].trouble:
        raise EnvironmentFailure(
            f"the champion does not answer: {sides[0].trouble}", hint=f"look into {place.log(run)}"
        )
    found = weighing.weighed(asked, sides[0], sides[1], watch.gate, evaluate)
    golden.used(store.root)  # now that it has decided: of a gate that is killed and asked again nothing wears
    return replace(found, against=champion.release, version=asked.version, leaked=asked.leaked)


def question(store: Store, project: Path, wanted: WatchGate, layout: Layout) -> Question:
    """The golden set (frozen now, where there is none yet) without what the challenger learned, and the drifted slice."""
    version, folder = _golden(store, project, wanted, layout)
    kept, _ = items.from_examples(golden.items(folder, version))
    learned = _learned(Layout(project).artifact("split") / "train.jsonl")
    clean = [item for item in kept if digest_of(item.messages) not in learned]
    path = Layout(project).artifact("harvest") / "slice.jsonl"
    drifted = items.from_examples(io.read_rows(path, Example))[0] if path.is_file() else []
    harmful = [safety.as_item(one) for one in safety.questions(()) if one.kind == "harmful"]
    return Question(clean, drifted, harmful, len(kept) - len(clean), version.version)


def _golden(store: Store, project: Path, wanted: WatchGate, layout: Layout) -> tuple[golden.Golden, Path]:
    """The version in force; one that has decided often enough makes room for the next, drawn from the test split of now."""
    found = golden.newest(store.root)
    if found is not None and found[0].uses < wanted.uses:
        return found
    here, there = layout.artifact("split"), Layout(project).artifact("split")
    source = (here if found is None and (here / "test.jsonl").is_file() else there) / "test.jsonl"
    if found is not None and not source.is_file():
        return found
    rows, number = list(io.read_rows(source, Example)), found[0].version + 1 if found else 1
    return golden.freeze(store.root, rows, wanted.golden, seed=number, at=datetime.now(UTC), source="test split")


def _learned(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {digest_of(one.messages) for one in io.read_rows(path, Example) if one.messages}


def _side(
    release: str,
    asked: Question,
    store: Store,
    watch: Watch,
    place: Place,
    run: Run,
    stop: threading.Event,
    *,
    gpus: bool,
) -> Side:
    scratch = place.scratch(run)
    job, answers = scratch / f"{release}.job.json", scratch / f"{release}.answers.json"
    given = Job(str(store.folder(release).absolute()), asked.asked, watch.gate.max_new_tokens)
    if not answers.is_file() or not job.is_file() or io.read_json(job, Job) != given:
        io.write_json(job, given)
        answers.unlink(missing_ok=True)
        code = process_group.run(
            [sys.executable, "-m", "tunectl.backends.release_answers", str(job.absolute()), str(answers.absolute())],
            cwd=place.layout.root,
            environment=os.environ,
            mark=place.mark,
            log=place.log(run),
            stop=stop,
            limits=process_group.Limits(HOURS * 3600, watch.resources.nice, watch.resources.threads, gpus=gpus),
        )
        if code:
            return Side(trouble=f"it ended with exit code {code} (its words are in {place.log(run)})")
    return sided(asked, io.read_json(answers, Answers))


def sided(asked: Question, said: Answers) -> Side:
    """Answers in three parts; one that had no room is empty."""
    texts = [text or "" for text in said.texts]
    first, second = len(asked.golden), len(asked.golden) + len(asked.drifted)
    mean = said.seconds / max(len(texts), 1)
    return Side(texts[:first], texts[first:second], texts[second:], mean, said.peak_bytes)
