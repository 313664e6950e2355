"""What a run of fault tests prints and keeps: a line each, and a table."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from scenarios.fault_result import Found
from tunectl.core import progress

G = TypeVar("G")


def judged(numbers: tuple[int, ...], row: Iterator[Found]) -> Iterator[Found]:
    """What a row finds; one that breaks off is a missed target, not the end of the others."""
    try:
        yield from row
    except Exception as error:  # whatever it is, the other rows are still worth their time
        traceback.print_exc()
        wrong = [f"broke off: {type(error).__name__}: {str(error)[:500]}"]
        yield Found(numbers[0], "/".join(map(str, numbers)), "runs to its end", wrong=wrong)


def run(rows: Sequence[tuple[tuple[int, ...], Callable[[G], Iterator[Found]]]], ground: G) -> list[Found]:
    """Every row on its ground, told as it ends; in the order of their numbers."""
    found: list[Found] = []
    with progress.bar("fault tests", len(rows)) as shown:
        for numbers, row in rows:
            for each in judged(numbers, row(ground)):
                found.append(each)
                print(line(each), flush=True)
            shown.advance(1)
    return sorted(found, key=lambda each: each.number)


def line(found: Found) -> str:
    """One scenario for the terminal."""
    state = "held" if found.held else "MISSED: " + "; ".join([*found.wrong, *found.slow])
    return f"{found.number:>2} {found.name}: {state}  {json.dumps(found.figures)}"


def table(found: list[Found]) -> Iterator[str]:
    """All of them as Markdown."""
    yield "| | fault | target | found |"
    yield "|---|---|---|---|"
    for each in found:
        figures = ", ".join(f"{name} {value}" for name, value in each.figures.items())
        state = "" if each.held else "**missed**: " + "; ".join([*each.wrong, *each.slow]) + " "
        cells = (str(each.number), each.name, each.target, f"{state}{figures}")
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"


def keep(result: dict[str, Any], path: Path, *, others: bool) -> None:
    """Write the numbers and the table beside ``path`` (.json, .md); with ``others`` rows of other fault tests stay as they were kept.

    Raises  SystemExit where those are of another machine, other versions or another scale: one table is of one machine.
    """
    file, here, scale = path.with_suffix(".json"), result["machine"], result["scale"]
    before = json.loads(file.read_text()) if others and file.is_file() else {"rows": []}
    differ = [name for name in ("machine", "versions", "scale") if before["rows"] and before[name] != result[name]]
    if differ:
        raise SystemExit(f"{file} has another {' and another '.join(differ)} than this run: nothing is kept")
    fresh = {row["number"] for row in result["rows"]}
    rows = [*(row for row in before["rows"] if row["number"] not in fresh), *result["rows"]]
    result = {**result, "rows": sorted(rows, key=lambda row: row["number"])}
    counts = "full counts" if scale == 1 else f"{scale:g} of the counts"
    heading = f"`python benchmarks/{path.name}.py`, {counts}, {here['cores']} cores ({here['processor']}):"
    results = [Found(**{name: value for name, value in row.items() if name != "held"}) for row in result["rows"]]
    file.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(f"{heading}\n\n{chr(10).join(table(results))}\n")


def kept(found: Found) -> None:
    """For the suite: no promise was broken. Times are judged on a quiet machine."""
    assert not found.wrong, found
