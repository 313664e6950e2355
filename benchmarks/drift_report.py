"""The figures of the drift benchmark as a table, as a plot, and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drift_workers import Figures

from tunectl.monitoring.power_study import Rate


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
    return f"{share:.{2 if 0 < share < 1 else 1 if share < 10 or 99 < share < 100 else 0}f} %"


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
    """Share of windows flagged: a panel a change, a line a rule, a mark a size of window with its interval; rules whose name
    begins with ``ours`` have a color."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rules = [(block, name) for block, figures in blocks.items() for name in next(iter(figures.values()))]
    rules.sort(key=lambda rule: not rule[0].startswith(ours))
    height = 1.3 + 0.34 * len(rules)
    figure, panels = plt.subplots(1, len(changes), figsize=(13, height), sharex=True, sharey=True, layout="constrained")
    for panel, change in zip(panels, changes, strict=True):
        for line, (block, name) in enumerate(rules):
            color = "tab:blue" if block.startswith(ours) else "0.55"
            for number, rows in enumerate(sizes):
                rate = blocks[block][f"{change}, {rows}"].get(name)
                if rate is None:
                    continue
                place = line + (number - (len(sizes) - 1) / 2) * 0.34
                panel.plot(rate.interval, [place, place], color=color, lw=1.5, alpha=0.5)
                full = color if number else "white"
                panel.plot(rate.share, place, "o", ms=5.5, mfc=full, mec=color, zorder=3, clip_on=False)
        if change == changes[0]:
            panel.axvline(0.05, color="0.3", lw=0.9, ls=":")
        panel.set(title=f"{change} (false alarms)" if change == changes[0] else change, xlim=(-0.03, 1.03))
        panel.set(ylim=(len(rules) - 0.4, -0.6), xticks=(0, 0.5, 1))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panel.grid(axis="y", color="0.92")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rules)), [f"{block} {name}" for block, name in rules])
    sort = "; ".join(f"{rows} rows: {'full' if number else 'hollow'}" for number, rows in enumerate(sizes))
    figure.supxlabel(f"share of windows flagged, with its 95 % interval ({sort}); dotted: 5 %", fontsize=10)
    figure.savefig(path, dpi=130)
