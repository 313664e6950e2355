"""Ingest of plain formats, this tree beside an older one: rows a second, interleaved.

    python benchmarks/bench_ingest.py --old OTHER_CHECKOUT/src [--rounds 7] [--rows 60000]

Each round reads the same CSV, JSON lines and text once with each tree, in an order that alternates, in a process of its own. What is
timed is the stage's ``run`` in processor time, after its imports. The ratio is old over new, with the 95 % interval of its mean over
rounds (bootstrap); above 1 this tree is faster. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean

from hardware_info import machine, versions

CHILD = """
import json, sys, time
from pathlib import Path
import yaml
from tunectl.config.schema.ingest import IngestStage
from tunectl.pipeline.stages import ingest
values = yaml.safe_load(Path(sys.argv[1]).read_text())
sources = {f"s{n}": {**values, "path": path} for n, path in enumerate(sys.argv[2].split("|"))}
cfg = IngestStage(ingest={"sources": sources, "max_rejected_share": 0.2})
Path("out").mkdir(exist_ok=True)
started = time.process_time()
metrics = ingest.run(cfg, ingest.Inputs(), ingest.Outputs(artifact=Path("out")))
print(json.dumps([time.process_time() - started, metrics.rows_in]))
"""
CONF = Path("conf/ingest/source/files.yaml")
"""Below the checkout of each tree, which knows its own settings."""


def write_sources(folder: Path, rows: int) -> str:
    """Three files of plain formats with about ``rows`` rows each."""
    chance = random.Random(1)
    words = [f"word{number}" for number in range(4000)]

    def draw(count: int) -> str:
        return " ".join(chance.choices(words, k=count))

    with (folder / "a.csv").open("w") as csv, (folder / "b.jsonl").open("w") as lines:
        csv.write("prompt,completion\n")
        for _ in range(rows):
            csv.write(f'"{draw(12)}","{draw(20)}"\n')
            lines.write(json.dumps({"prompt": draw(12), "completion": draw(20)}) + "\n")
    texts = folder / "texts"
    texts.mkdir()
    for number in range(rows // 60):
        (texts / f"{number}.txt").write_text("\n\n".join(draw(60) for _ in range(20)))
    return "a.csv|b.jsonl|texts"


def run_once(source: Path, folder: Path, paths: str) -> tuple[float, int]:
    """Seconds of processor time and rows of one ingest by the tree ``source``."""
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(source.parent / CONF), paths],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, rows = json.loads(process.stdout.splitlines()[-1])
    return seconds, rows


def main() -> None:
    """Print a line a round, then the ratio with its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="folder src of the older tree")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=60_000)
    options = parser.parse_args()
    new = Path(__file__).parents[1] / "src"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_sources(folder, options.rows)
        ratios, rates = [], []
        for number in range(options.rounds):
            order = [options.old.resolve(), new] if number % 2 else [new, options.old.resolve()]
            result = {source: run_once(source, folder, paths) for source in order}
            ratios.append(result[options.old.resolve()][0] / result[new][0])
            rates.append(result[new][1] / result[new][0])
            print(
                f"round {number + 1}: old over new {ratios[-1]:.3f}, {rates[-1]:,.0f} rows a second of processor time"
            )
    chance = random.Random(7)
    means = sorted(fmean(chance.choices(ratios, k=len(ratios))) for _ in range(5000))
    interval = [round(means[125], 3), round(means[-126], 3)]
    figures = {
        "benchmark": "ingest",
        "old_over_new": round(fmean(ratios), 3),
        "interval": interval,
        "rows_a_second": round(fmean(rates)),
    }
    print(json.dumps(figures | {"machine": machine(), "versions": versions("tunectl-lm", "msgspec")}))


if __name__ == "__main__":
    main()
