"""The figures of the drift benchmark as a table and as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunectl.monitoring.power_study import Rate

KINDS = {"run": "one long run", "sequences": "sequences of nine windows", "all": "together"}
"""What nulls are called in the table."""


def page(result: Mapping[str, Any]) -> str:
    """What is committed."""
    seconds, machine = result["seconds_of_10000_rows"], result["machine"]
    misses = "\n".join(f"- missed: {one}" for one in result["missed"])
    return f"""# Drift of real text: false verdicts and delay

Reference ({result["reference_rows"]:,} rows) and windows are drawn from the first corpus of a pair; what is foreign comes from the
second. Embedding: {result["embedding"]}. {result["minutes"]} minutes on {machine["cores"]} cores ({machine["processor"]}).

## Nothing changes

{null_table(result["null"])}

## Something changes

"by the 3rd" and "by the 9th": share of sequences with a verdict by that window after the change, with the 95 % interval; "delay": rows
until half of the sequences have one; "0.1": the rule of version 0.1, three windows in a row, each significant after Holm.

{power_table(result["power"])}

{peer_table(result["peers"])}

A window of 10,000 rows that shifted, sampled, tested with the eight before it: {seconds["window"]} s, and {seconds["report"]} s for
Evidently's report of it.

{misses or "All targets are reached."}
"""


def null_table(nulls: list[dict[str, Any]]) -> str:
    """False verdicts: a row a pair, and one of all."""
    lines = [
        "| what | pair | rows | references | evaluations | false verdicts | in 1,000 | most with one reference |",
        "|---" * 8 + "|",
    ]
    both = {"evaluations": [], "false": []} | {
        name: [each for one in nulls for each in one[name]] for name in ("evaluations", "false")
    }
    for one in [*nulls, {"kind": "all", "pair": "", "rows": "", **both}]:
        total, false = sum(one["evaluations"]), sum(one["false"])
        share = f"{1000 * false / total:.2f}" if total else "n/a"
        lines.append(
            f"| {KINDS[one['kind']]} | {one['pair']} | {one['rows']} | {len(one['false'])} | {total:,} | {false} "
            f"| {share} | {max(one['false'], default=0)} |"
        )
    return "\n".join(lines)


def power_table(powers: list[dict[str, Any]]) -> str:
    """A row a change and pair."""
    head = "| change | windows of | pair | by the 3rd | by the 9th | delay | 0.1, by the 3rd | signals alone |"
    lines = [head, "|---" * 8 + "|"]
    for one in sorted(powers, key=lambda each: (each["change"], -each["rows"])):
        best = sorted(one["alone"].items(), key=lambda each: -each[1].share)[:2]
        alone = ", ".join(f"{name} {short(rate)}" for name, rate in best)
        delay = "more" if one["delay_rows"] is None else f"{one['delay_rows']:,}"
        cells = [
            one["change"],
            one["rows"],
            one["pair"],
            one["third"],
            one["ninth"],
            delay,
            short(one["in_a_row"]),
            alone,
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def peer_table(peers: Mapping[str, Mapping[str, Rate]]) -> str:
    """Shares of windows of 300 rows that the rules of others flag, on the first pair."""
    if not peers:
        return ""
    changes = list(next(iter(peers.values())))
    lines = ["| windows of 300 rows flagged by | " + " | ".join(changes) + " |", "|---" * (len(changes) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(short(one.get(each)) for each in changes) + " |" for name, one in peers.items()
    ]
    return "\n".join(lines)


def short(rate: Rate | None) -> str:
    """A share in a cell of the table."""
    if rate is None:
        return "n/a"
    share = rate.share * 100
    return f"{share:.{2 if 0 < share < 1 else 1 if share < 10 or 99 < share < 100 else 0}f} %"


def plain(value: Any) -> Any:
    """For JSON: rates as counts."""
    if isinstance(value, Rate):
        return {"count": value.count, "trials": value.total, "interval": value.interval}
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
