"""Three sections of the evaluation report: win rates of aligned over tuned, why alignment did not help, and slot errors."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.backends.reports import render, svg_plots
from tunectl.evaluation import alignment_causes, summary, win_rate
from tunectl.evaluation.results import Results, SlicePart, WinRate

WIN_COLUMNS = (
    "Judge", "Pairs", "Wins", "Ties", "Losses", "Win rate", "About equally long", "Words, winner", "Words, loser",
    "Longer wins",
)  # fmt: skip


def win_rows(rates: Sequence[WinRate]) -> list[list[str]]:
    """Return a row per judge about the aligned model against the tuned one; its cells are ``WIN_COLUMNS``. Judges without a verdict are left out.

    About equally long: the win rate in such pairs. Words: mean length of answers that won or lost. Longer wins: share of pairs.
    """
    none = render.number(None)
    return [
        [
            win_rate.title(rate.judge).replace(" ", "\u00a0"),
            render.number(rate.pairs),
            render.number(rate.wins),
            render.number(rate.ties),
            render.number(rate.losses),
            _share(rate.rate, rate.low, rate.high),
            none
            if rate.close is None
            else f"{_share(rate.close.rate, rate.close.low, rate.close.high)}, n={rate.close.pairs}",
            none if rate.winner_words is None else f"{rate.winner_words:.1f}",
            none if rate.loser_words is None else f"{rate.loser_words:.1f}",
            none if rate.longer_wins is None else f"{100 * rate.longer_wins:.0f} %",
        ]
        for rate in rates
        if rate.rate is not None
    ]


def judge_notes(rates: Sequence[WinRate]) -> list[str]:
    """Return notes about the judges, a sentence each: reliability, verdicts that depend on the order of the answers, judges without verdict."""
    silent = [f"{win_rate.title(rate.judge)}: {rate.absent}." for rate in rates if rate.absent]
    flips = [
        f"{win_rate.title(rate.judge)}: {rate.flips} of {rate.pairs} pairs were judged differently with the positions swapped; they are ties."
        for rate in rates
        if rate.flips is not None
    ]
    notes = [f"{win_rate.title(rate.judge)}: {rate.note}." for rate in rates if rate.note]
    return notes + flips + silent


def win_plot(rates: Sequence[WinRate]) -> str:
    """Return an SVG plot by judge of the rate at which aligned wins over tuned, with intervals and a line at 50 %; empty without verdicts."""
    measured = [rate for rate in rates if rate.rate is not None]
    if not measured:
        return ""
    values = [100 * (item.rate or 0) for item in measured]
    ends = [(100 * (item.low or 0), 100 * (item.high or 0)) for item in measured]
    labels = [win_rate.title(item.judge) for item in measured]
    summary = "; ".join(
        f"{label}: {value:.0f} %, {low:.0f} to {high:.0f} %"
        for label, value, (low, high) in zip(labels, values, ends, strict=True)
    )
    return svg_plots.forest(
        labels, values, ends, xlabel="pairs won by aligned, %", alt=f"Win rates of aligned. {summary}", zero=50
    )


def _share(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return render.number(None)
    return f"{100 * value:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def cause_rows(results: Results) -> list[list[str]]:
    """Return rows [finding, advice] about why alignment did not help; empty if aligned is significantly better than tuned, or absent."""
    aligned = results.verdict.aligned
    return [] if aligned is None else [[cause.finding, cause.advice] for cause in aligned.causes]


def fact_rows(results: Results) -> list[list[str]]:
    """Return rows [measurement, value as text] from which the findings of ``cause_rows`` follow: steps, reward spread, KL, …; empty without alignment."""
    facts = results.alignment
    if facts is None:
        return []
    run, none = facts.run, render.number(None)
    rows = [
        [
            "Steps done of those planned; step whose weights were kept",
            f"{run.steps} of {run.planned_steps}; {run.best_step}",
        ],
        [
            "Spread of the rewards of one prompt's answers (standard deviation)",
            none if run.reward_spread is None else f"{run.reward_spread:.2f}",
        ],
        ["Sampled answers that were cut", none if run.truncated is None else f"{100 * run.truncated:.0f} %"],
        [f"KL to sft at step {run.look_step}, nats an answer", f"{run.kl:.2f}"],
        [
            "Rise of the validation reward (dpo, kto: fall of the loss on held-out judgments)",
            none if run.rise is None else f"{run.rise:+.2f}{_ends(run.rise_low, run.rise_high)}",
        ],
        ["Test answers that are the same as the tuned model's", f"{100 * facts.gain.same_answers:.0f} %"],
    ]
    reward = facts.reward
    if reward is None:
        return [*rows, ["Reward model on the policy's own answers", facts.reward_absent or none]]
    own = reward.own_accuracy
    return [
        *rows,
        ["Reward model right on held-out pairs", alignment_causes.describe_share(reward.accuracy)],
        ["Test inputs whose aligned answer it prefers", alignment_causes.describe_share(reward.wins)],
        [
            f"It orders tuned and aligned as {alignment_causes.name_judge(reward.judge)} does"
            if own
            else "Ordered as a judge does",
            none
            if own is None
            else f"{alignment_causes.describe_share(own)} of {own.pairs} inputs; {100 * reward.expected:.0f} % was to be expected",
        ],
    ]


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})"


def slot_rows(results: Results) -> list[list[str]]:
    """Return rows [attribute, inputs that state it, then per system the share of their answers where it is missing or wrong]."""
    if results.slots is None:
        return []
    return [
        [
            part.attribute,
            render.number(part.stated),
            *(
                f"{100 * (count.missing + count.wrong) / part.stated:.1f} % ({count.missing} + {count.wrong})"
                for count in part.systems.values()
            ),
        ]
        for part in results.slots.parts
        if part.stated
    ]


def added_rows(results: Results) -> list[list[str]]:
    """Return rows [attribute, then per system the number of answers that state it though the input does not]."""
    if results.slots is None:
        return []
    return [
        [part.attribute, *(render.number(count.added) for count in part.systems.values())]
        for part in results.slots.parts
        if any(count.added for count in part.systems.values())
    ]


def slot_plot(results: Results) -> str:
    """Return an SVG plot of slot errors by attribute for the trained models, or for all systems if none was trained; empty without slots."""
    if results.slots is None:
        return ""
    parts = [part for part in results.slots.parts if part.stated]
    titles = {system.name: system.title for system in results.systems}
    names = [name for name in titles if name in {"tuned", "aligned"}] or list(titles)
    series = {
        titles[name]: [
            (part.systems[name].missing + part.systems[name].wrong) / part.stated if name in part.systems else 0.0
            for part in parts
        ]
        for name in names
    }
    summary = "; ".join(f"{title}: {', '.join(f'{value:.1%}' for value in values)}" for title, values in series.items())
    labels = [part.attribute for part in parts]
    return svg_plots.grouped_bars(
        labels, series, xlabel="missing or wrong", alt=f"{', '.join(labels)}. {summary}", percent=True
    )


def size_rows(results: Results) -> list[list[str]]:
    """Return rows [attributes of the input, inputs, then per system the slot error rate, then the difference of aligned to tuned if both took part]."""
    if results.slots is None:
        return []
    names = [system.name for system in results.systems]
    return [_size(part, names) for part in results.slots.sizes]


def _size(part: SlicePart, names: Sequence[str]) -> list[str]:
    none = render.number(None)
    return [
        f"{part.value}\u00a0(small)" if part.small else part.value,
        render.number(part.items),
        *(f"{part.scores[name].value:.1f}" if name in part.scores else none for name in names),
        *([none if part.aligned is None else summary.format_difference(part.aligned)] if "aligned" in names else []),
    ]
