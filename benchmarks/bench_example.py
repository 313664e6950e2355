"""Is the aligned model of the bundled example better than the tuned one, whatever the seed and the processor?

    python benchmarks/bench_example.py [--instructions native | avx2] [--seeds 501 502 ...]

Works in a clone of the last commit under ``.tunectl/bench-example``, with the settings of ``make run-full``. Fine-tuning runs once for
each set of instructions, with the seed of the recipe; preferences, reward, align and evaluate run again with each of SEEDS, which were
fixed before the first run. ``avx2`` tells torch, oneDNN and MKL to use AVX2 alone, which stands in for a processor without AVX512.

Every finished seed is a row of ``results/bench_example.jsonl`` with the digest of its settings; what is there is not run again, so the
table grows over days and machines, and no row is dropped. 18 minutes a seed on two cores with AMX. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench_e2e import GIT, run_command
from hardware_info import machine, versions

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

SEEDS = (501, 502, 503, 504, 505)
"""Others than those of earlier settings (101 to 105, 201, 206 to 208, 301, 302, 401 to 404), in which it was seen what to mend."""
STAGES = ("preferences", "reward", "align", "evaluate")
"""Stages that run with each seed; those before them run once."""
INSTRUCTIONS = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
ROWS = HERE / "results" / "bench_example.jsonl"
TABLE = HERE / "results" / "bench_example.md"
MEASURES = ("bleu", "checks")
Row = dict[str, Any]


def main() -> None:
    """Run the seeds that have no row yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instructions", choices=INSTRUCTIONS, default="native")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    args = parser.parse_args()
    project = ROOT / ".tunectl" / "bench-example" / args.instructions
    os.environ.update(INSTRUCTIONS[args.instructions])
    prepare(project)
    settings = digest_settings(project)
    for seed in args.seeds:
        if any(
            (row["instructions"], row["seed"], row["settings"]) == (args.instructions, seed, settings)
            for row in read_rows()
        ):
            print(f"seed {seed}: its row is there", flush=True)
            continue
        seconds = run_seed(project, seed)
        row = {
            "instructions": args.instructions,
            "seed": seed,
            "settings": settings,
            "commit": run_command(["git", "rev-parse", "HEAD"], project, capture=True).strip(),
            "day": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions("tunectl-lm", "torch", "transformers", "trl"),
            "seconds": seconds,
            **read_figures(project),
        }
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(describe(row), flush=True)
        write_table(settings)
    rows = write_table(settings)
    print(json.dumps({"benchmark": "example", "settings": settings, **summarize(rows)}))


def prepare(project: Path) -> None:
    """Bring a clone to the last commit, whose code this environment runs, and build it up to the tuned model."""
    if not project.is_dir():
        run_command(["git", *GIT, "clone", "--quiet", str(ROOT), str(project)], ROOT)
    run_command(["git", "fetch", "--quiet", "origin", "HEAD"], project)
    run_command(["git", *GIT, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"], project)
    run_command([sys.executable, "-m", "tunectl", "repro", "--reset-overrides", "--to", "sft"], project)


def run_seed(project: Path, seed: int) -> dict[str, int]:
    """Run the stages with that seed; seconds of each. The files that compose wrote are all that differs."""
    seconds = {}
    for stage in STAGES:
        path = project / "artifacts" / "config" / f"{stage}.json"
        stored = json.loads(path.read_text())
        path.write_text(json.dumps({**stored, "settings": {**stored["settings"], "seed": seed}}, indent=2))
    for stage in STAGES:
        start = time.monotonic()
        run_command([sys.executable, "-m", "tunectl", "run", stage], project)
        seconds[stage] = round(time.monotonic() - start)
    return seconds


def read_figures(project: Path) -> Row:
    """Intervals of the run in ``project``: reward model, judge, win rates, aligned minus tuned, and what align did."""
    reward = json.loads((project / "artifacts" / "metrics" / "reward.json").read_text())
    align = json.loads((project / "artifacts" / "metrics" / "align.json").read_text())
    results = json.loads((project / "artifacts" / "evaluate" / "results.json").read_text())
    return {
        "reward": {name: reward[name] for name in ("accuracy", "accuracy_low", "accuracy_high", "judge_accuracy")},
        "align": {name: align[name] for name in ("steps", "best_step", "stopped", "reward_before", "reward", "kl")},
        "win_rates": {
            item["judge"]: [item["rate"], item["low"], item["high"]]
            for item in results["win_rates"]
            if item["rate"] is not None
        },
        "differences": {
            item["measure"]: [item["value"], item["low"], item["high"]]
            for item in results["differences"]
            if (item["system"], item["against"]) == ("aligned", "tuned") and item["measure"] in MEASURES
        },
    }


def digest_settings(project: Path) -> str:
    """Digest of all that compose wrote, seeds of STAGES left out."""
    digest = hashlib.sha256()
    for path in sorted((project / "artifacts" / "config").glob("*.json")):
        settings = json.loads(path.read_text())["settings"]
        if path.stem in STAGES:
            settings.pop("seed")
        digest.update(json.dumps([path.stem, settings], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def read_rows() -> list[Row]:
    """All rows so far."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.is_file() else []


def summarize(rows: list[Row]) -> Row:
    """Count the runs whose intervals say that aligned is better, or worse."""
    rates = [row["win_rates"]["reward"] for row in rows if "reward" in row["win_rates"]]
    differences = [row["differences"][name] for row in rows for name in MEASURES]
    return {
        "runs": len(rows),
        "judged": len(rates),
        "surely_better": sum(low > 0.5 for _, low, _ in rates),
        "surely_worse": sum(high < 0.5 for _, _, high in rates),
        "measures_surely_lower": sum(high < 0 for _, _, high in differences),
    }


def write_table(settings: str) -> list[Row]:
    """Write the table of the rows with the digest ``settings``, and return them."""
    rows = [row for row in read_rows() if row["settings"] == settings]
    TABLE.write_text(make_table(rows, [row for row in read_rows() if row["settings"] != settings]))
    return rows


def make_table(rows: list[Row], earlier: list[Row]) -> str:
    """The rows as Markdown, the counts in words, and the rows with other settings."""
    counts = summarize(rows)
    return (
        "# The example with other seeds\n\n"
        "`python benchmarks/bench_example.py`. Aligned against tuned on 120 test inputs, greedy answers, 95 % intervals: win rate by the\n"
        "second reward model, difference in checks passed and in BLEU (points). Minutes are those of preferences, reward, align and evaluate.\n\n"
        f"{make_rows(rows)}\n"
        f"Of {counts['runs']} runs the interval of the win rate lies above 50 % in {counts['surely_better']}, and below in "
        f"{counts['surely_worse']}; in {counts['runs'] - counts['judged']} the judge was no better than chance. "
        f"Checks or BLEU are significantly lower in {counts['measures_surely_lower']}.\n\n"
        f"## Earlier settings\n\n{make_rows(earlier)}"
    )


def make_rows(rows: list[Row]) -> str:
    """A table of rows, oldest first."""
    return (
        "| settings | instructions | processor | seed | reward model right | judge right | win rate | checks | BLEU | minutes |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    ) + "".join(
        f"| {row['settings']} | {row['instructions']} | {row['machine']['processor']} | {row['seed']} "
        f"| {describe_share(row['reward']['accuracy'], row['reward']['accuracy_low'], row['reward']['accuracy_high'])} "
        f"| {row['reward']['judge_accuracy']:.1%} | {describe_win_rate(row)} "
        f"| {describe_points(*row['differences']['checks'])} | {describe_points(*row['differences']['bleu'])} "
        f"| {sum(row['seconds'].values()) / 60:.0f} |\n"
        for row in rows
    )


def describe(row: Row) -> str:
    """One row in a line."""
    return (
        f"{row['instructions']} seed {row['seed']}: win rate {describe_win_rate(row)}, "
        f"checks {describe_points(*row['differences']['checks'])}, BLEU {describe_points(*row['differences']['bleu'])}"
    )


def describe_win_rate(row: Row) -> str:
    """The win rate with its interval; ``no verdict`` where the judge may be right by chance."""
    rate = row["win_rates"].get("reward")
    return describe_share(*rate) if rate else "no verdict"


def describe_share(value: float, low: float, high: float) -> str:
    """A share with its interval, in percent."""
    return f"{value:.1%} ({low * 100:.1f} to {high * 100:.1f})"


def describe_points(value: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
