"""alibi-detect's online MMD detector on the texts of bench_drift, in an environment of its own.

    python3 -m venv /somewhere && /somewhere/bin/pip install 'alibi-detect[torch]'
    /somewhere/bin/python benchmarks/drift_alibi.py OWN.npy OTHER.npy [--ert 10000] [--window 100] [--runs 20]

The files are embeddings that bench_drift kept under .tunectl/bench_drift. Prints the rows until the detector fires: where nothing
changes (its declared expected run time is --ert rows), and from a change to 15 % foreign rows on. Its license, BSL 1.1, allows no
use in production: nothing of tunectl needs it.
"""

from __future__ import annotations

import argparse

import numpy as np


def main() -> None:
    """Print both run times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("own")
    parser.add_argument("other")
    parser.add_argument("--ert", type=int, default=10_000, help="expected rows between two false alarms")
    parser.add_argument("--window", type=int, default=100, help="rows of its sliding window")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--bootstraps", type=int, default=20_000, help="above --ert, which is a quantile of as many")
    args = parser.parse_args()
    from alibi_detect.cd import MMDDriftOnline

    own, other = np.load(args.own), np.load(args.other)
    quiet: list[int] = []
    changed: list[int] = []
    for run in range(args.runs):
        random = np.random.default_rng(run)
        reference = own[random.choice(len(own), 1000)]
        result = MMDDriftOnline(
            reference, args.ert, args.window, backend="pytorch", n_bootstraps=args.bootstraps, verbose=False
        )
        for share, times in ((0.0, quiet), (0.15, changed)):
            result.reset_state()
            row, fired = 0, False
            while not fired and row < 3 * args.ert:
                row += 1
                source = other if random.random() < share else own
                fired = bool(result.predict(source[random.integers(len(source))])["data"]["is_drift"])
            times.append(row)
        print(f"run {run}: nothing {quiet[-1]:,} rows, 15 % foreign {changed[-1]:,}", flush=True)
    for name, times in (("nothing", quiet), ("15 % foreign", changed)):
        print(f"{name}: {int(np.mean(times)):,} rows on average, median {int(np.median(times)):,}, of {sorted(times)}")


if __name__ == "__main__":
    main()
