"""E2E: does RLOO from human references alone lower the slot error rate of inputs that nothing has seen?

    python benchmarks/bench_e2e.py CORPUS.csv [--inputs 90] [--least 6] [--seed 0] [--keep]

CORPUS.csv has the columns mr and ref of the E2E NLG challenge. ``--inputs`` inputs of at least ``--least`` attributes are drawn
and kept out; from the others come fine-tuning (``experiment=e2e``), pairs, reward model and policy (``e2e_align``), all with
``--seed``. Then sft and align answer the inputs that were kept out, greedily, and are compared input by input. Works in a clone of
the last commit under ``.tunectl/bench-e2e`` (the environment is this checkout's); run it again and it goes on where it was
stopped, in the same clone: delete that to begin anew. 30 to 65 minutes on two cores. --test FILE.csv measures on that file instead, and trains on all of the corpus. The last line is
JSON; --keep adds it to results/bench_e2e.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "examples" / "local_lens"), str(ROOT / "monitoring")]

import numpy as np  # noqa: E402
from hardware_info import machine, versions  # noqa: E402
from loop_demo.processes import OFFLINE_ENV  # noqa: E402

from tunectl.artifacts import atomic_io  # noqa: E402
from tunectl.artifacts.records import Message  # noqa: E402
from tunectl.config.schema import slot_error as slot_rules  # noqa: E402
from tunectl.evaluation import slot_error  # noqa: E402
from tunectl.evaluation.items import Item  # noqa: E402
from tunectl.evaluation.results import AnswerRow  # noqa: E402
from tunectl.evaluation.two_model_report import FIRST, SECOND  # noqa: E402
from tunectl.stats import bootstrap  # noqa: E402

RESULT = HERE / "results" / "bench_e2e.json"
GIT = ("-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main")
SLOTS = "conf/evaluate/e2e.yaml"
SHOWN = ("slot_error", "bleu", "chrf")
Rows = list[dict[str, str]]


def main() -> None:
    """Draw, train, compare, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="CSV with the columns mr and ref")
    parser.add_argument("--test", type=Path, help="another file of the kind to measure on; nothing is kept out then")
    parser.add_argument("--inputs", type=int, default=90, help="inputs to keep out (90)")
    parser.add_argument("--least", type=int, default=6, help="attributes that such an input has at least (6)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw, of training and of the policy (0)")
    parser.add_argument("--keep", action="store_true", help=f"add the figures to {RESULT.relative_to(ROOT)}")
    args = parser.parse_args()
    project = ROOT / ".tunectl" / "bench-e2e" / f"seed-{args.seed}"
    if not project.is_dir():
        run_command(["git", *GIT, "clone", "--quiet", str(ROOT), str(project)], ROOT)
    rows = read(args.corpus)
    apart = set() if args.test else draw_inputs(rows, args.inputs, args.least, args.seed)
    write(project / "train.csv", [row for row in rows if row["mr"] not in apart])
    write(project / "held_out.csv", read(args.test) if args.test else [row for row in rows if row["mr"] in apart])
    overrides = ["data.path=train.csv", f"seed={args.seed}"]
    seconds = {}
    for name, words in (
        ("sft", ["experiment=e2e", *overrides, "--to", "sft"]),
        ("align", ["experiment=e2e_align", *overrides, "--to", "align"]),
    ):
        start = time.monotonic()
        run_command([sys.executable, "-m", "tunectl", "repro", *words], project)
        seconds[name] = round(time.monotonic() - start)
    words = [
        "evaluate",
        "held_out.csv",
        "--model",
        "align",
        "--against",
        "sft",
        "--slots",
        SLOTS,
        "--json",
        "--out",
        "answers",
    ]
    compared = json.loads(run_command([sys.executable, "-m", "tunectl", *words], project, capture=True))
    attributes = compare_attributes(project / "answers" / "answers.jsonl")
    figures = json.loads((project / "artifacts" / "metrics" / "reward.json").read_text())
    result = {
        "benchmark": "e2e",
        "machine": machine(),
        "settings": {
            "seed": args.seed,
            "commit": run_command(["git", "rev-parse", "HEAD"], project, capture=True).strip(),
            "training_inputs": len({row["mr"] for row in rows} - apart),
            "held_out_inputs": len(apart) or None,
            "test": args.test.name if args.test else None,
            "versions": versions("tunectl-lm", "torch", "transformers", "trl"),
        },
        "seconds": seconds,
        "reward": figures,
        "compared": compared,
        "attributes": attributes,
    }
    differences = {item["measure"]: item for item in compared["differences"]}
    for name in SHOWN:
        one = differences[name]
        print(f"{name:12} aligned minus tuned {one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})")
    for name, one in attributes.items():
        print(
            f"{name:16} missing or wrong {one['tuned']} -> {one['aligned']} of {one['inputs']}: "
            f"{one['value']:+.1f} points ({one['low']:+.1f} to {one['high']:+.1f})"
        )
    if args.keep:
        before = json.loads(RESULT.read_text()) if RESULT.is_file() else []
        others = [item for item in before if item["settings"] != result["settings"]]
        RESULT.write_text(json.dumps([*others, result], indent=1) + "\n")
    print(json.dumps(result))


def compare_attributes(path: Path) -> dict[str, dict[str, float]]:
    """Count the answers that miss or contradict each attribute; difference aligned minus tuned in points, with its paired 95 % interval."""
    rows = list(atomic_io.read_rows(path, AnswerRow))
    items = [Item(row.id, (Message("user", row.input),), tuple(row.references), fields=row.fields) for row in rows]
    rules = slot_error.build_slot_matcher(slot_rules.read(ROOT / SLOTS), items)
    failed = {
        system: [
            {pair[0] for pair in (*match.missing, *match.wrong)}
            for match in slot_error.match_answers(rules, items, [row.answers[name] for row in rows])
        ]
        for system, name in (("aligned", FIRST), ("tuned", SECOND))
    }
    result = {}
    for name in rules.cfg.attributes:
        stated = [index for index, item in enumerate(items) if name in dict(rules.attributes(item))]
        tables = {system: np.array([[name in sets[index], 1] for index in stated]) for system, sets in failed.items()}
        one = bootstrap.difference(
            tables["aligned"],
            tables["tuned"],
            lambda sums: 100 * sums[..., 0] / sums[..., 1],
            bootstrap.resample_counts(len(stated), 2000, 0),
            0.95,
        )
        if one is None or one.low is None or one.high is None:
            raise SystemExit(f"{path}: fewer than two inputs state {name}")
        counts = {system: int(table[:, 0].sum()) for system, table in tables.items()}
        result[name] = {"inputs": len(stated), **counts, "value": one.value, "low": one.low, "high": one.high}
    return result


def read(path: Path) -> Rows:
    """The rows of a corpus file."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [{"mr": row["mr"], "ref": row["ref"]} for row in csv.DictReader(file)]


def write(path: Path, rows: Rows) -> None:
    """The rows as a corpus file; equal rows give an equal file, so that finished stages stay finished."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["mr", "ref"])
        writer.writeheader()
        writer.writerows(rows)


def draw_inputs(rows: Rows, count: int, minimum: int, seed: int) -> set[str]:
    """Inputs to keep out, the same for the same seed."""
    rich = sorted({row["mr"] for row in rows if row["mr"].count("[") >= minimum})
    if len(rich) < count:
        raise SystemExit(f"only {len(rich)} inputs have {minimum} attributes: --inputs {count} is too many")
    return set(random.Random(seed).sample(rich, count))


def run_command(words: list[str], folder: Path, *, capture: bool = False) -> str:
    """Run a command to its good end; what it printed, where ``capture``."""
    process = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **OFFLINE_ENV},
        text=True,
        check=False,
        stdout=subprocess.PIPE if capture else None,
    )
    if process.returncode:
        raise SystemExit(f"{' '.join(words[:6])} ended with {process.returncode}")
    result: Any = process.stdout
    return result or ""


if __name__ == "__main__":
    main()
