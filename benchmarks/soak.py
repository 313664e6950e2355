"""The server under hostile clients for half an hour: honest requests at half of its capacity lose nothing.

    python benchmarks/soak.py [--minutes 30] [--store DIR] [--keep]

On loopback, with a tiny model, or a release of yours (``--store .tunectl/releases``). What the hostile clients do:
tests/support/scenarios/soak.py. Ends with 1 where a target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "support")]

from hardware_info import machine, versions  # noqa: E402
from scenarios import soak  # noqa: E402
from serving_process import Server  # noqa: E402
from tiny_release import prepare_store  # noqa: E402

from tunectl.backends.system import terminal  # noqa: E402

RESULT = HERE / "results" / "soak"


def main() -> int:
    """Run it, print the figures, keep them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="beside the hostile clients")
    parser.add_argument("--slow", type=int, default=1000, help="slow connections")
    parser.add_argument("--store", type=Path, help="a release store to serve from, in place of a tiny model's")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/soak.json and .md")
    args = parser.parse_args()
    terminal.install_progress()
    folder = Path(tempfile.mkdtemp(prefix="tunectl-soak-"))
    store = prepare_store(folder, args.store)
    server = Server(folder / "server", env={"TUNECTL_REGISTRY": str(store)})
    try:
        server.until_ready(600)
        seconds = args.minutes * 60
        finding = asyncio.run(soak.soak(server, seconds=seconds, quiet=max(5.0, seconds / 15), slow=args.slow))
    finally:
        server.stop(seconds=90)
        shutil.rmtree(folder, ignore_errors=True)
    state = "held" if finding.held else "MISSED: " + "; ".join([*finding.wrong, *finding.slow])
    print(f"{finding.name}: {state}  {json.dumps(finding.figures)}")
    here = machine()
    result = {"machine": here, "versions": versions("bentoml", "uvicorn"), "minutes": args.minutes, "slow": args.slow}
    result |= {**asdict(finding), "held": finding.held}
    if args.keep:
        RESULT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in finding.figures.items())
        heading = f"`python benchmarks/soak.py`, {args.minutes:g} minutes, {here['cores']} cores ({here['processor']}):"
        RESULT.with_suffix(".md").write_text(f"{heading}\n\n| | |\n|---|---|\n{rows}\n")
    return 0 if finding.held else 1


if __name__ == "__main__":
    sys.exit(main())
