"""The figures of the drift benchmark as a table, as a plot, and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from drift_crew import Figures

from tunectl.monitor.calibrate import Rate


def table(blocks: Mapping[str, Figures]) -> str:
    """All figures as Markdown: a row a rule, a column a change and size."""
    cells = list(next(iter(blocks.values())))
    lines = ["| | " + " | ".join(f"{cell} rows" for cell in cells) + " |", "|---" * (len(cells) + 1) + "|"]
    for block, figures in blocks.items():
        for name in figures[cells[0]]:
            shown = [short(figures[cell].get(name)) for cell in cells]
            lines.append(f"| {block} {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def short(rate: Rate | None) -> str:
    """A share in a cell of the table."""
    if rate is None:
        return "n/a"
    share = rate.share * 100
    return f"{share:.{2 if 0 < share < 1 else 1 if share < 10 else 0}f} %"


def page(result: Mapping[str, Any], blocks: Mapping[str, Figures]) -> str:
    """What is committed beside the plot."""
    seconds, machine = result["seconds_of_10000_rows"], result["machine"]
    missed = "\n".join(f"- missed: {one}" for one in result["missed"])
    return f"""# Drift of real text: false alarms and power

{result["own"]} against {result["own"]}, each window against {result["reference_rows"]:,} reference rows drawn anew; embeddings: {result["embedding"]}.
"other": that share of the window comes from {result["other"]}; "negative": so many points more negative rows. Cells: share of
windows flagged, of the verdict share of sequences. Trials without and with a change: {trials(blocks)}.
{result["minutes"]} minutes on {machine["cores"]} cores ({machine["processor"]}).

{table(blocks)}

A window of 10,000 rows in which something moved: {seconds["window"]} s, and {seconds["report"]} s for Evidently's report of it.

{missed or "All targets are reached."}
"""


def trials(blocks: Mapping[str, Figures]) -> str:
    """How many there were, by block, in the first cell and in the last."""
    counts = {
        name: [max(rate.trials for rate in told.values()) for told in cells.values()] for name, cells in blocks.items()
    }
    return "; ".join(f"{name.rstrip(',')} {found[0]:,} and {found[-1]:,}" for name, found in counts.items())


def plain(figures: Figures) -> dict[str, dict[str, dict[str, object]]]:
    """For JSON."""
    return {
        cell: {
            name: {"count": one.count, "trials": one.trials, "interval": one.interval} for name, one in rates.items()
        }
        for cell, rates in figures.items()
    }


def plot(blocks: Mapping[str, Figures], changes: Sequence[str], sizes: Sequence[int], ours: str, path: Path) -> None:
    """Share of windows flagged, by change, one panel a size of window; the block ``ours`` is bold and has its intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(sizes), figsize=(13, 4.8), sharey=True, layout="constrained")
    colours, places = plt.colormaps["tab20"].colors, range(len(changes))
    for panel, rows in zip(panels, sizes, strict=True):
        cells = [f"{change}, {rows}" for change in changes]
        lines = [
            (block, name, [figures[cell][name] for cell in cells])
            for block, figures in blocks.items()
            for name in figures[cells[0]]
        ]
        for number, (block, name, rates) in enumerate(lines):
            bold, colour = block == ours, colours[(2 * number + number // 10) % 20]
            style = {"lw": 2.5, "zorder": 3} if bold else {"lw": 1.2, "ls": "--", "alpha": 0.8}
            panel.plot(
                places, [one.share for one in rates], marker="o", ms=4, color=colour, label=f"{block} {name}", **style
            )
            if bold:
                ends = np.array([one.interval for one in rates])
                panel.fill_between(places, ends[:, 0], ends[:, 1], color=colour, alpha=0.15)
        panel.axhline(0.05, color="0.4", lw=0.8, ls=":")
        panel.set(xticks=places, title=f"windows of {rows} rows", ylim=(-0.02, 1.02))
        panel.set_xticklabels(changes, rotation=20, ha="right")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("windows flagged (nothing: false alarms)")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
