"""Pages of large projects stay within the CPU time of a few bare interpreters, whatever the processor.

One rule for all of them: a visit costs at most ``BUDGET`` starts of an interpreter that does nothing, and the first visit after a file has
changed, which reads that file once, at most ``FIRST_BUDGET``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import msgspec
import pytest
from console_projects import Console
from console_records import add_runs, add_settings
from msgspec.structs import replace

from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline import run_ledger

ROWS, RUNS = 100_000, 1_000
BUDGET, FIRST_BUDGET = 15, 30


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> ProjectPaths:
    layout = add_settings(tmp_path_factory.mktemp("budgets"))
    folder = layout.artifact("curate")
    folder.mkdir(parents=True)
    row = {"messages": [{"role": "user", "content": "x" * 300}], "kind": "big"}
    lines = (
        msgspec.json.encode({"id": f"e-{at:016x}", "source": {"file": "big.jsonl", "row": at + 1}, **row})
        for at in range(ROWS)
    )
    (folder / "examples.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    record = run_ledger.read_run(layout, add_runs(layout.root)[0])
    for at in range(RUNS - 3):
        name = f"20260101T{at:06}Z-{at:08x}"
        (layout.runs / f"{name}.json").write_bytes(msgspec.json.encode(replace(record, id=name)))
    return layout


@pytest.fixture(scope="module")
def bare() -> float:
    """CPU seconds of an interpreter that does nothing: the best of three."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


@pytest.mark.parametrize(
    "path",
    [
        "/data/rows?stage=curate&at=50000",
        "/data/rows?stage=curate&q=e-000000000001869f",
        "/data/rows?stage=curate&file=examples.jsonl&field.city=Decatur&q=ad",
        "/data/rows/e-000000000001869f",
        "/runs",
        "/runs?at=950",
        "/runs/compare",
    ],
)
def test_a_page_of_a_large_project_costs_few_bare_interpreters(layout: ProjectPaths, bare: float, path: str) -> None:
    first, later = [], []
    for _ in range(2):
        console = Console(layout)  # a new one remembers nothing
        first.append(time_visit(console, path))
        later += [time_visit(console, path) for _ in range(2)]
    assert min(later) <= BUDGET * bare, f"{min(later) / bare:.1f} times"
    assert min(first) <= FIRST_BUDGET * bare, f"the first visit {min(first) / bare:.1f} times"


def time_visit(console: Console, path: str) -> float:
    """CPU seconds of this process for one visit."""
    before = time.process_time()
    assert console.client.get(path).status_code == 200
    return time.process_time() - before
