"""Runs fault tests, prints a line for each, and writes their table."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from scenarios.fault_result import FaultResult
from tunectl.core import progress

G = TypeVar("G")


def run_scenario(numbers: tuple[int, ...], row: Iterator[FaultResult]) -> Iterator[FaultResult]:
    """Run a scenario; an exception is a missed target, and the other scenarios still run."""
    try:
        yield from row
    except Exception as error:  # the other scenarios still run
        traceback.print_exc()
        wrong = [f"stopped: {type(error).__name__}: {str(error)[:500]}"]
        yield FaultResult(numbers[0], "/".join(map(str, numbers)), "runs to its end", wrong=wrong)


def run_scenarios(
    rows: Sequence[tuple[tuple[int, ...], Callable[[G], Iterator[FaultResult]]]], workspace: G
) -> list[FaultResult]:
    """Run every scenario, print its result, and return all results in the order of their numbers."""
    results: list[FaultResult] = []
    with progress.bar("fault tests", len(rows)) as progress_bar:
        for numbers, row in rows:
            for result in run_scenario(numbers, row(workspace)):
                results.append(result)
                print(format_line(result), flush=True)
            progress_bar.advance(1)
    return sorted(results, key=lambda result: result.number)


def format_line(result: FaultResult) -> str:
    """Format the result of one scenario for the terminal."""
    state = "met" if result.held else "MISSED: " + "; ".join([*result.wrong, *result.slow])
    return f"{result.number:>2} {result.name}: {state}  {json.dumps(result.figures)}"


def format_table(results: list[FaultResult]) -> Iterator[str]:
    """Format all results as a Markdown table."""
    yield "| | fault | target | result |"
    yield "|---|---|---|---|"
    for result in results:
        figures = ", ".join(f"{name} {value}" for name, value in result.figures.items())
        state = "" if result.held else "**missed**: " + "; ".join([*result.wrong, *result.slow]) + " "
        cells = (str(result.number), result.name, result.target, f"{state}{figures}")
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"


def write_results(result: dict[str, Any], path: Path, *, others: bool) -> None:
    """Write the numbers and the table beside ``path`` (.json, .md); with ``others`` the rows of other fault tests stay.

    Raises  SystemExit if those are of another machine, other versions or another scale.
    """
    file, here, scale = path.with_suffix(".json"), result["machine"], result["scale"]
    before = json.loads(file.read_text()) if others and file.is_file() else {"rows": []}
    differ = [name for name in ("machine", "versions", "scale") if before["rows"] and before[name] != result[name]]
    if differ:
        raise SystemExit(f"{file} has another {' and another '.join(differ)} than this run: nothing is written")
    fresh = {row["number"] for row in result["rows"]}
    rows = [*(row for row in before["rows"] if row["number"] not in fresh), *result["rows"]]
    result = {**result, "rows": sorted(rows, key=lambda row: row["number"])}
    counts = "full counts" if scale == 1 else f"{scale:g} of the counts"
    heading = f"`python benchmarks/{path.name}.py`, {counts}, {here['cores']} cores ({here['processor']}):"
    results = [FaultResult(**{name: value for name, value in row.items() if name != "held"}) for row in result["rows"]]
    file.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(f"{heading}\n\n{chr(10).join(format_table(results))}\n")


def assert_targets_met(result: FaultResult) -> None:
    """Assert for the test suite that no requirement failed. Times count only on a quiet machine."""
    assert not result.wrong, result
