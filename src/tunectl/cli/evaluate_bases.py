"""``tunectl evaluate --bases``: candidate base models on the validation split, before anyone tunes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts import manifest
from tunectl.artifacts.layout import Layout
from tunectl.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from tunectl.config.root import Root
    from tunectl.evaluation.bases import Trial

INPUTS = 32
"""Validation inputs where ``--limit`` names no other number."""
_HUB = re.compile(r"^([\w.-]+/[\w.-]+?)(?:@([0-9a-f]{40}))?$")


def compare(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Fetch each base, let it answer, print the best first.

    Raises  UsageError for a word that is no model; DataError where the validation split has no usable input.
    """
    import msgspec

    from tunectl.backends import evaluation_tools, terminal
    from tunectl.chat import contract
    from tunectl.cli.evaluate_file import settings
    from tunectl.evaluation import bases

    layout = Layout()
    words = [word for word in args.bases.split(",") if word]
    if not words:
        raise UsageError("--bases names no model", hint="for example: --bases smollm2_135m,DIR,owner/name@COMMIT")
    root = settings(layout, overrides)
    folders = {word: base_folder(layout, word, overrides) for word in words}
    backend = evaluation_tools.backend(root.profile, None)
    trial = _trial(args, layout, root, backend)
    found = []
    for word, folder in folders.items():
        generator = backend.open(folder, None)
        try:
            zero, few, speed = bases.tried(trial, generator, backend.prompter(folder, None))
        finally:
            generator.close()
        facts = contract.load(folder)
        size = sum(item.stat().st_size for item in folder.glob("*.safetensors")) / 1e6
        found.append(bases.Base(word, facts.parameters, round(size, 1), facts.licence, zero, few, speed))
    ranked = bases.ranked(found, trial.primary)
    result = bases.Bases(len(trial.items), trial.shots, trial.primary, trial.confidence, ranked)
    if args.json:
        terminal.print_json(msgspec.to_builtins(result))
        return
    columns, rows = bases.table(result)
    terminal.table("base models", columns, rows, caption=f"{len(trial.items)} validation inputs, nothing tuned")


def base_folder(layout: Layout, word: str, overrides: Sequence[str]) -> Path:
    """The model folder that ``word`` means: an option of conf/model, a folder, or a Hub id with its commit.

    Raises  UsageError for anything else.
    """
    from tunectl.cli.evaluate_file import settings
    from tunectl.cli.evaluate_model import from_folder, prepared
    from tunectl.config.given import options
    from tunectl.config.model import HubModel, Model

    known = options(layout.conf, "model")
    if word in known:
        return prepared(layout, settings(layout, [*overrides, f"model={word}"]).model)
    if Path(word).is_dir():
        return from_folder(layout, Path(word))
    match = _HUB.match(word)
    if match is None:
        raise UsageError(
            f"--bases {word}: neither an option of conf/model ({', '.join(known)}), nor a folder, nor a Hub id",
            hint="a Hub id looks like owner/name@COMMIT",
        )
    if match.group(2) is None:
        raise UsageError(
            f"--bases {word}: no such folder, and a Hub id needs its commit, because a branch can move",
            hint=f"write {word}@COMMIT with the 40 characters of the commit hash",
        )
    source = HubModel(method="hub", repo=match.group(1), revision=match.group(2), sha256=None)
    return prepared(layout, Model(source=source, chat_template=None, end_of_turn=None, system=None, licence=None))


def _trial(args: argparse.Namespace, layout: Layout, root: Root, backend: object) -> Trial:
    from tunectl.artifacts import io
    from tunectl.artifacts.records import Example
    from tunectl.backends import evaluation_tools
    from tunectl.cli.evaluate_file import decoding
    from tunectl.evaluation import bases, items
    from tunectl.evaluation.entry import Asking

    assert isinstance(backend, evaluation_tools.Backend)
    split = layout.artifact("split")
    manifest.read(split)
    validation, _ = items.from_examples(io.read_rows(split / "validation.jsonl", Example))
    if not validation:
        raise DataError(f"{split / 'validation.jsonl'} holds no input with a reference answer")
    pool, _ = items.from_examples(io.read_rows(split / "train.jsonl", Example))
    cfg = root.evaluate
    gate = cfg.gate
    return bases.Trial(
        items=items.drawn(validation, args.limit or INPUTS, root.seed),
        pool=pool,
        shots=max(cfg.prompts.shots) if cfg.prompts is not None else 3,
        asking=Asking(decoding(args, root), root.seed, 0),
        tools=backend.tools,
        primary="bleu" if gate.primary == "checks" else gate.primary,
        references=cfg.references,
        resamples=gate.resamples,
        confidence=gate.confidence,
    )
