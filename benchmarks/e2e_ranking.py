"""E2E: does a reward model put the better of two answers first that its own policy would write?

    python benchmarks/e2e_ranking.py PROJECT [--reward DIR] [--answers 4] [--seed 1]

PROJECT is a clone in which ``bench_e2e.py`` came to its end. The tuned model writes some answers to each input that was kept out;
of two answers to one input, the one with fewer slot errors (the rules of evaluation, which no reward sees) should be worth more.
Pairs of references say less: there, another name may give away what is missing. By attribute, pairs count that differ in one
error. Two minutes on two cores. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hardware_info import machine

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Message
from tunectl.backends.modeling import generator as modeling_generator
from tunectl.backends.wiring import evaluation
from tunectl.config.schema import slot_error as declared
from tunectl.config.schema.evaluate import Sampling
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.evaluation import slot_error
from tunectl.evaluation.items import Item
from tunectl.evaluation.protocols import GenerationPrompt
from tunectl.evaluation.slot_error import SlotMatch
from tunectl.stats import bootstrap
from tunectl.training.reward.protocols import ScoredPrompt

SLOTS = Path(__file__).resolve().parents[1] / "conf" / "evaluate" / "e2e.yaml"
HOW = Sampling(method="sampling", max_new_tokens=64, temperature=0.7, top_p=1.0)
"""As conf/align/e2e.yaml samples."""


class Order(NamedTuple):
    """How often the better of two answers was worth more."""

    of_input: list[tuple[int, int]]
    """Right and all pairs of each input that has a pair."""
    by_error: dict[str, list[bool]]
    """What the worse one lacks or says wrongly -> whether each such pair was ordered rightly."""


def main() -> None:
    """Write, judge, score, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a clone in which bench_e2e.py came to its end")
    parser.add_argument(
        "--reward", type=Path, help="a reward artifact on the same tuned model (PROJECT/artifacts/reward)"
    )
    parser.add_argument("--answers", type=int, default=4, help="answers an input (4)")
    parser.add_argument("--seed", type=int, default=1, help="of sampling (1)")
    args = parser.parse_args()
    layout = ProjectPaths(args.project)
    profile = HardwareProfile.model_validate(atomic_io.read_json(layout.config("reward"))["settings"]["hardware"])
    items = read(args.project / "held_out.csv")
    base, sft = layout.artifact("model"), layout.artifact("sft")
    repeats = [item for item in items for _ in range(args.answers)]
    prompter = evaluation.prompter(base, sft)
    generator = modeling_generator.model_loader(profile)(base, sft)
    replies = generator.answer(
        [GenerationPrompt(prompter.prompt(item.messages)) for item in repeats],
        HOW,
        seed=args.seed,
        label="answers of sft",
    )
    generator.close()
    answers = [reply.text for reply in replies]
    match = slot_error.match_answers(slot_error.build_slot_matcher(declared.read(SLOTS), items), repeats, answers)
    model = evaluation.reward_model(
        base=base, sft=sft, reward=args.reward or layout.artifact("reward"), part="members", profile=profile
    )
    values = [item.value for item in model.score([ScoredPrompt(item.messages) for item in repeats], answers)]
    model.close()
    result = compare_answers(match, values, args.answers)
    table = np.asarray(result.of_input, dtype=np.float64)
    share = bootstrap.interval(
        table, lambda sums: sums[..., 0] / sums[..., 1], bootstrap.resample_counts(len(table), 2000, args.seed), 0.95
    )
    assert share is not None
    print(
        f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}) of {int(table[:, 1].sum())} pairs"
    )
    for name, right in sorted(result.by_error.items(), key=lambda item: -len(item[1])):
        print(f"  {name:26} {100 * sum(right) / len(right):5.0f} % of {len(right)}")
    figures = {"right": share.value, "low": share.low, "high": share.high, "pairs": int(table[:, 1].sum())}
    errors = {name: [sum(right), len(right)] for name, right in result.by_error.items()}
    print(
        json.dumps(
            {"benchmark": "e2e_order", "machine": machine(), "answers": len(answers), **figures, "errors": errors}
        )
    )


def read(path: Path) -> list[Item]:
    """The inputs of a corpus file."""
    references: dict[str, list[str]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            references[row["mr"]].append(row["ref"])
    return [Item(text, (Message("user", text),), tuple(texts)) for text, texts in references.items()]


def compare_answers(match: Sequence[SlotMatch], values: Sequence[float], answers: int) -> Order:
    """Compare the answers to each input, two by two, where one has fewer errors."""
    of_input, by_error = [], defaultdict(list)
    for first in range(0, len(match), answers):
        rights = []
        for item, other in combinations(range(first, first + answers), 2):
            if match[item].errors == match[other].errors:
                continue
            better, worse = (item, other) if match[item].errors < match[other].errors else (other, item)
            rights.append(values[better] > values[worse])
            only = errors(match[worse]) - errors(match[better])
            if len(only) == 1 and match[worse].errors - match[better].errors == 1:
                by_error[only.pop()].append(rights[-1])
        if rights:
            of_input.append((sum(rights), len(rights)))
    return Order(of_input, dict(by_error))


def errors(match: SlotMatch) -> set[str]:
    """What an answer lacks or says wrongly."""
    return {f"{name} missing" for name, _ in match.missing} | {f"{name} wrong" for name, *_ in match.wrong}


if __name__ == "__main__":
    main()
