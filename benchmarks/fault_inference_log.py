"""kill -9 against the inference log, two hundred times on SQLite and on PostgreSQL: is anything missing that was confirmed?

    python benchmarks/fault_inference_log.py [--runs 200] [--sqlite]

Each run starts a process with eight clients, kills it up to half a second after its first confirmation, opens the store
again and compares. Ends with 1 when a row is missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from hardware_info import machine  # noqa: E402
from kill_writer import killed  # noqa: E402
from postgres_server import run_postgres  # noqa: E402

from tunectl.core import progress  # noqa: E402


def main() -> int:
    """Run, print a line a database, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--sqlite", action="store_true", help="leave PostgreSQL out")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tunectl-kill-"))
    rows = [_measure("SQLite", f"sqlite:///{folder}/inference_log.sqlite", folder, args.runs)]
    if not args.sqlite:
        with run_postgres() as server:
            if server is not None:
                rows.append(_measure("PostgreSQL", server.database("kill"), folder, args.runs))
    shutil.rmtree(folder)
    print(json.dumps({"machine": machine(), "rows": rows}))
    return 1 if any(row["missing"] for row in rows) else 0


def _measure(name: str, url: str, folder: Path, runs: int) -> dict[str, object]:
    total = {"accepted": 0, "finished": 0, "feedback": 0, "running": 0}
    missing: list[str] = []
    with progress.bar(f"kills, {name}", runs) as bar:
        for run in killed(url, folder, runs, seed=17):
            total = {key: count + getattr(run, key) for key, count in total.items()}
            missing += run.missing
            bar.advance(1)
    print(
        f"{name}: {runs} kills, {total['accepted']} inferences confirmed, {total['running']} cut off, {len(missing)} missing"
    )
    return {"database": name, "kills": runs, **total, "missing": missing}


if __name__ == "__main__":
    sys.exit(main())
