"""How often the sequential test is wrong when it is looked at after every single identity, and how early it stops harm.

    make bench-canary        writes benchmarks/results/canary.md

Simulated yes-or-no outcomes. "Wrong" is the share of experiments in which a line was crossed at any time; a test with fixed
level that is looked at as often is shown beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import NormalDist

import numpy as np

from tunectl.canary import sequential_test
from tunectl.canary.sequential_test import SequentialTestRules

RESULTS = Path(__file__).parent / "results" / "canary.md"
CASES = (
    ("equal, 20 %", 0.2, 0.2, 0.5, 0.0),
    ("equal, 50 %", 0.5, 0.5, 0.5, 0.0),
    ("equal, 2 %", 0.02, 0.02, 0.5, 0.0),
    ("equal, share 10 %", 0.2, 0.2, 0.1, 0.0),
    ("worse by the margin (5 points)", 0.3, 0.25, 0.5, 0.05),
    ("better: 20 to 25 %", 0.2, 0.25, 0.5, 0.0),
    ("better: 20 to 30 %", 0.2, 0.3, 0.5, 0.0),
    ("better: 20 to 30 %, share 20 %", 0.2, 0.3, 0.2, 0.0),
    ("harm: 30 to 20 %", 0.3, 0.2, 0.5, 0.0),
    ("harm: 50 to 20 %", 0.5, 0.2, 0.5, 0.0),
    ("harm: 50 to 20 %, share 10 %", 0.5, 0.2, 0.1, 0.0),
)


def simulate_experiments(
    rates: tuple[float, float], rules: SequentialTestRules, units: int, runs: int, seed: int
) -> list[tuple[str, int | None]]:
    """Decision of each experiment, and after how many identities."""
    random = np.random.default_rng(seed)
    result = []
    for _ in range(runs):
        variant = random.random(units) < rules.share
        outcome = (random.random(units) < np.where(variant, rates[1], rates[0])).astype(float)
        decision, _, at = sequential_test.first_decision(variant, outcome, {}, rules)
        result.append((decision, at))
    return result


def naive(rates: tuple[float, float], share: float, units: int, runs: int, seed: int) -> float:
    """How often a z-test at 5 % (one-sided), looked at after every identity from the hundredth on, says better at some time."""
    random, line = np.random.default_rng(seed), NormalDist().inv_cdf(0.95)
    wrong = 0
    for _ in range(runs):
        variant = random.random(units) < share
        outcome = random.random(units) < np.where(variant, rates[1], rates[0])
        n1, n0 = np.maximum(np.cumsum(variant), 1), np.maximum(np.cumsum(~variant), 1)
        p1, p0 = np.cumsum(outcome & variant) / n1, np.cumsum(outcome & ~variant) / n0
        pooled = np.cumsum(outcome) / np.arange(1, units + 1)
        spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n1 + 1 / n0), 1e-12))
        wrong += bool(((p1 - p0) / spread > line)[100:].any())
    return wrong / runs


def main() -> None:
    """Simulate and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--units", type=int, default=5000)
    args = parser.parse_args()
    lines = [
        f"Sequential test of an experiment, {args.runs} simulated experiments of {args.units} identities, a look after each.",
        "",
        "| case | promoted | stopped for harm | unfair | identities, median | naive z-test says better |",
        "|---|---|---|---|---|---|",
    ]
    for name, champion, challenger, share, margin in CASES:
        rules = SequentialTestRules(share, margin, 0.05, 0.05, 0.05, 50, None)
        result = simulate_experiments((champion, challenger), rules, args.units, args.runs, seed=11)
        shares = [sum(item == outcome for item, _ in result) / args.runs for outcome in ("promote", "harm", "unfair")]
        ends = [index for _, index in result if index is not None]
        middle = f"{np.median(ends):.0f}" if len(ends) > args.runs / 2 else "undecided"
        peeked = naive((champion, challenger), share, args.units, min(args.runs, 300), seed=12)
        lines.append(f"| {name} | {shares[0]:.1%} | {shares[1]:.1%} | {shares[2]:.1%} | {middle} | {peeked:.0%} |")
        print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
