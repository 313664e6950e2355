"""One HTML page about the annotators who compared answers: how far they agree, and their biases, with intervals."""

from __future__ import annotations

from tunectl.backends.reports import render, svg_plots
from tunectl.preferences.agreement import InterAnnotatorAgreement, Person, Proportion, summary

SHARES = {
    "with_others": "Agrees with other people",
    "with_self": "Says the same when asked again",
    "left": "The left answer wins",
    "longer": "The longer answer wins",
    "attention": "Attention checks passed",
}


def page(project: str, result: InterAnnotatorAgreement) -> str:
    """Return the HTML of the agreement page; plots are drawn for the measures that ``result`` has."""
    figures = []
    for name, title in SHARES.items():
        rated = [(person.name, share) for person in result.people if (share := getattr(person, name)) is not None]
        if rated:
            figures.append((_plot(title, rated), title))
    return render.render(
        "agreement.html",
        project=project,
        summary=summary(result),
        good=result.alpha is not None and result.alpha >= 0.667,
        tiles=[
            (render.number(result.judgments), "judgments"),
            (len(result.people), "people"),
            (result.shared, "shared questions"),
        ],
        columns=["who", "judgments", *SHARES.values(), "median seconds"],
        rows=[_row(person) for person in result.people],
        figures=figures,
        sections=[("people", "People"), ("plots", "Plots")],
    )


def _plot(title: str, rated: list[tuple[str, Proportion]]) -> str:
    listed = "; ".join(f"{name} {share.value:.0%}" for name, share in rated)
    return svg_plots.forest(
        [name for name, _ in rated],
        [share.value for _, share in rated],
        [(share.low, share.high) for _, share in rated],
        xlabel="share, with 95 % interval",
        alt=f"{title}: {listed}",
        zero=0.5,
    )


def _row(person: Person) -> list[object]:
    shares = [getattr(person, name) for name in SHARES]
    cells = ["" if share is None else str(share) for share in shares]
    return [person.name, person.judgments, *cells, "" if person.seconds is None else f"{person.seconds:g}"]
