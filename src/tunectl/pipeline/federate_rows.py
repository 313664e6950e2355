"""The rows of a federation's clients: read, dealt to the clients of a simulation, packed, and counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.sft import Sft
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.sft import sft_dataset


def read_examples(layout: ProjectPaths) -> tuple[list[Example], list[Example]]:
    """Return the training and the validation examples of the project's split."""
    folder = layout.artifact("split")
    train, validation = (
        list(atomic_io.read_rows(folder / f"{name}.jsonl", Example)) for name in ("train", "validation")
    )
    return train, validation


def partition(
    examples: tuple[list[Example], list[Example]], shares: Sequence[float], seed: int
) -> list[tuple[list[Example], list[Example]]]:
    """Return (train, validation) per client: train is divided by ``shares`` without cutting clusters, validation is whole for each."""
    train, validation = examples
    clusters: dict[str, list[Example]] = {}
    for example in train:
        clusters.setdefault(example.cluster or example.id, []).append(example)
    names = sorted(clusters)
    random.Random(f"{seed}:federate").shuffle(names)  # noqa: S311  a deal, not a secret
    parts: list[list[Example]] = [[] for _ in shares]
    total, assigned = sum(shares), 0
    ends = [round(len(train) * sum(shares[: number + 1]) / total) for number in range(len(shares))]
    for name in names:
        owner = next(number for number, end in enumerate(ends) if assigned < end or number == len(ends) - 1)
        parts[owner] += clusters[name]
        assigned += len(clusters[name])
    return [(part, validation) for part in parts]


def pack_examples(examples: list[Example], base: Path, section: Sft, tally: RowCounter) -> list[PackedRow]:
    """Return the examples as rows for the model in ``base``; ``tally`` counts each answer.

    Raises  DataError where the chat template renders none of them.
    """
    spec = model_spec.load(base)
    system = spec.system if section.system is None else section.system
    masker = LossMasker(
        template.load(base, system=system), Tokenizer(base), end_of_turn=spec.eot_token.id, train_on=section.loss_on
    )
    limits = sft_dataset.LengthLimits(section.max_length)
    return sft_dataset.pack_rows(sft_dataset.tokenize_examples(examples, masker, limits, tally), section)


def save_counts(tally: RowCounter, folder: Path, max_rejected_share: float) -> str:
    """Write the counts of a client's training rows, and those it leaves out, into its ``folder``; return the counts as a sentence.

    Raises  DataError where all, or more than ``max_rejected_share`` (0 to 1) of them, are left out.
    """
    counts = row_counts.save(
        tally,
        folder,
        records_out=tally.kept,
        max_rejected_share=max_rejected_share,
        setting="sft.max_rejected_share",
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rejected.items())
    refused = f"{sum(counts.rejected.values())} refused" + (
        f" ({reasons}; {row_counts.REJECTS} in {folder})" if reasons else ""
    )
    return f"{tally.stage}: {counts.rows_in} rows, {refused}, {counts.kept} trained"
