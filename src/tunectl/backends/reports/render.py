"""Render self-contained HTML pages with jinja2 from a template and plain values.

Templates live in ``backends/reports/templates``. A report extends ``base.html`` and fills its blocks::

    {% extends "base.html" %}
    {% import "parts.html" as parts %}
    {% block title %}Evaluation of {{ project }}{% endblock %}
    {% block summary %}<p class="verdict good">Tuned is better.</p>{% endblock %}
    {% block body %}
      <section id="scores"><h2>Scores</h2>
        {{ parts.figure(plot, "Corpus BLEU with 95 % intervals") }}
        {{ parts.table(["system", "BLEU"], rows) }}
      </section>
    {% endblock %}

``base.html`` brings the style (light and dark, readable on a phone), and a contents line made of ``sections``: a list of
``(id, title)`` pairs that every page passes. Parts: ``figure(svg, caption)``, ``grid`` (a call block that sets figures side
by side), ``table(columns, rows, numbers=[1, 2])`` (which scrolls sideways inside itself), ``tiles([(number, name)])``, ``bad``/``good`` notes
and ``fold(title)`` (a call block that is closed at first). Values are escaped; an SVG of ``backends/reports/svg_plots.py`` goes through ``figure`` only.
Filters: ``number`` (1,234 or 0.123), ``percent`` (0.123 -> 12.3 %), ``interval`` ((low, high) -> 0.12 to 0.34).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tunectl.core.optional import import_optional


def render(template: str, **values: Any) -> str:
    """Return the page of ``template`` filled with ``values``.

    A value that the template names and nobody passed is an error, never a blank.
    """
    text: str = _environment().get_template(template).render(**values)
    return text


@cache
def _environment() -> Any:
    jinja = import_optional("jinja2", extra="data")
    environment = jinja.Environment(
        loader=jinja.PackageLoader("tunectl.backends.reports", "templates"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment


def number(value: float | None) -> str:
    """Return a count with thousands marks, or four significant digits; n/a where there is none."""
    if value is None:
        return "n/a"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}"


def percent(value: float | None) -> str:
    """Return a share from 0 to 1 as per cent."""
    return "n/a" if value is None else f"{value * 100:.1f} %"


def interval(value: tuple[float, float] | None) -> str:
    """Return both ends of an interval, in the digits of ``number``."""
    return "n/a" if value is None else f"{number(value[0])} to {number(value[1])}"


_FILTERS: dict[str, Callable[..., str]] = {"number": number, "percent": percent, "interval": interval}
