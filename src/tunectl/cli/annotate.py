"""Collect human preferences: compare answers on a page.

    tunectl annotate prepare            let the models write the answers to compare, ahead of time
    tunectl annotate                    open the page
    tunectl annotate --generate         open the page at once, and write the answers meanwhile
    tunectl annotate annotate.port=9000 annotate.prepare.inputs=20

Choices are saved in the folder of annotate.store before the page confirms them. Then: tunectl repro preferences=default
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import DataError, TunectlError, UsageError

if TYPE_CHECKING:
    from tunectl.access.api_keys import KeyStore
    from tunectl.annotation.annotation_queue import AnnotationQueue
    from tunectl.config.schema.root import TunectlConfig

PREPARE = "prepare"
NO_MORE = "No more answers can be written: {reason}"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl annotate`` to ``parser``."""
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="prepare | key=value",
        help="prepare: only write answers; key=value for this run",
    )
    parser.add_argument("--json", action="store_true", help="with prepare: print JSON")
    parser.add_argument("--generate", action="store_true", help="write answers while the page is open")


def run(args: argparse.Namespace) -> int:
    """Write the answers to compare, or serve the annotation page until Ctrl-C; return the exit code.

    Raises  InfrastructureError for a port or store in use; UsageError for an open address without a key; DataError without questions.
    """
    from tunectl.config.loading import checks

    layout = ProjectPaths()
    overrides = [argument for argument in args.arguments if argument != PREPARE]
    root = checks.load_project_config(layout, overrides).root
    folder = layout.root / root.annotate.store
    if len(overrides) < len(args.arguments):
        return _prepare(layout, root, folder, as_json=args.json)
    return _serve(layout, root, folder, generate=args.generate)


def _prepare(layout: ProjectPaths, root: TunectlConfig, folder: Path, *, as_json: bool) -> int:
    from tunectl.backends.system import terminal
    from tunectl.core import progress
    from tunectl.pipeline.candidate_generation import CandidateBatch, generate_candidates
    from tunectl.preferences import annotation_store

    batch = CandidateBatch([], 0, 0, 0)
    with annotation_store.open_store(folder, annotation_store.PREPARE) as store:
        before = len(store.tasks)
        with progress.bar("inputs answered", root.annotate.prepare.inputs) as bar:
            for progress_batch in generate_candidates(layout, root):
                bar.advance(progress_batch.done - batch.done)
                batch = progress_batch
                store.add(batch.tasks)
        count = len(store.tasks)
    if as_json:
        result = {"store": str(folder), "inputs": batch.of, "left_out": batch.left_out}
        terminal.print_json({**result, "new": count - before, "questions": count})
        return 0
    alike = (
        f"; {batch.left_out} of {batch.of} inputs left out: their answers were alike or empty" if batch.left_out else ""
    )
    terminal.print_line(f"{folder}: {count - before} new questions, {count} in all{alike}; now: tunectl annotate")
    return 0


def _serve(layout: ProjectPaths, root: TunectlConfig, folder: Path, *, generate: bool) -> int:
    from tunectl.annotation import annotate_app
    from tunectl.annotation.active_sampling import QueuePolicy
    from tunectl.annotation.annotation_queue import AnnotationQueue
    from tunectl.annotation.uncertainty_ranking import DOUBT, RANDOM, why_unranked
    from tunectl.backends.system import terminal
    from tunectl.preferences import annotation_store

    asking, keys = root.annotate.queue, _open_keys(layout, root)
    with annotation_store.open_store(folder) as store:
        if not store.tasks and not generate:
            raise DataError(
                f"{folder}: there are no answers to compare yet",
                hint="let the models write answers: tunectl annotate prepare, or while the page is open: tunectl annotate --generate",
            )
        queue = AnnotationQueue(
            store, QueuePolicy(asking.repeat_rate, asking.attention_rate, asking.min_gap, root.seed)
        )
        listening = annotate_app.listen(root.annotate.host, root.annotate.port)
        writing = _BackgroundWriter(layout, root, queue, generate=generate)
        setup = annotate_app.AnnotateAppConfig(
            root.project, tuple(root.annotate.tags), keys, _hosts(root, keys), writing.pending
        )
        host, port = listening.getsockname()[:2]
        reason = why_unranked(layout)
        terminal.print_line(DOUBT if reason is None else RANDOM.format(reason=reason))
        terminal.print_line(f"open {_url(host, port)} ; stop with Ctrl-C")
        with writing.running() if generate or reason is None else nullcontext():
            annotate_app.serve(queue, setup, listening)
    return 0


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _hosts(root: TunectlConfig, keys: KeyStore | None) -> frozenset[str] | None:
    """Return the host names that the page answers to: this machine's own, or any where keys are required."""
    from tunectl.access import guard

    return guard.list_hosts(root.annotate.host) if keys is None else None


def _open_keys(layout: ProjectPaths, root: TunectlConfig) -> KeyStore | None:
    """Return the keys that people type; None where the page is reached from this machine only and no key has its scope.

    Raises  UsageError where others can reach the page and no key opens it.
    """
    from tunectl.access import api_keys

    path = api_keys.find_keys_file(layout.root, root.serve.keys_file)
    entries = api_keys.read(path)
    if root.annotate.loopback and not any("annotate" in entry.scopes for entry in entries):
        return None
    if not any(entry.allows("annotate") for entry in entries):
        raise UsageError(
            f"annotate.host = {root.annotate.host}: other machines can reach the page, and no key in {path} opens it",
            hint="make one for each person: tunectl serve keys add NAME --scope annotate",
        )
    keys = api_keys.KeyStore(path, 1.0)
    keys.load()
    return keys


class _BackgroundWriter:
    """Writes answers, and ranks questions by the reward model's uncertainty, in a thread while the page is open."""

    def __init__(self, layout: ProjectPaths, root: TunectlConfig, queue: AnnotationQueue, *, generate: bool) -> None:
        self._layout, self._root, self._queue, self._generate = layout, root, queue, generate
        self._progress: str | None = None
        self._stop = threading.Event()

    def pending(self) -> str | None:
        """Return the progress of the answers; None when all are there."""
        return self._progress

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work while the block runs; stop after the current batch when it ends."""
        self._progress = "The models are being loaded." if self._generate else None
        thread = threading.Thread(target=self._run, name="answers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(timeout=60)

    def _run(self) -> None:
        if self._generate:
            self._write()
        if not self._stop.is_set():
            self._rank()

    def _write(self) -> None:
        from tunectl.core import logging_setup
        from tunectl.pipeline.candidate_generation import generate_candidates

        try:
            for batch in generate_candidates(self._layout, self._root):
                self._queue.add(batch.tasks)
                self._progress = batch.sentence
                if self._stop.is_set():
                    return
            self._progress = None
        except TunectlError as error:
            logging_setup.get_logger(__name__).error("no more answers: %s", error)
            self._progress = NO_MORE.format(reason=error.message)
        except Exception as error:  # noqa: BLE001  (otherwise annotators would wait for ever)
            logging_setup.get_logger(__name__).exception("no more answers")
            self._progress = NO_MORE.format(reason=error)

    def _rank(self) -> None:
        from tunectl.annotation.uncertainty_ranking import rank_by_uncertainty, why_unranked
        from tunectl.core import logging_setup

        try:
            if why_unranked(self._layout) is None:
                self._queue.rank(rank_by_uncertainty(self._layout, self._root, self._queue.list_tasks()))
        except TunectlError as error:
            logging_setup.get_logger(__name__).warning("questions come in random order: %s", error)
