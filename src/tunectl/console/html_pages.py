"""jinja2's seam of the console: a screen's template filled with its struct, inside the frame.

A template extends ``frame.html`` and fills ``content``; ``screen`` is its struct, and ``macros.html`` has the parts::

    {% extends "frame.html" %}
    {% import "macros.html" as ui %}
    {% block content %}
      {{ ui.problems(screen.problems) }}
      {% call ui.section("Runs") %}{{ ui.table(["run", "BLEU"], rows, numbers=[1]) }}{% endcall %}
    {% endblock %}

Every value is escaped: what people and models wrote is text, never markup. An SVG of our own goes through ``svg`` alone, which
takes only what ``stage_graph`` and ``reports.svg_plots`` drew. Filters: ``number`` (1,234), ``percent`` (12.3 %), ``seconds`` (1 min 40 s),
``moment`` (27 Nov 2026, 21:16 UTC as a ``time`` element), ``age`` (3 h ago), ``bytes`` (1.2 MB), ``plain`` (control characters shown).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

from tunectl.backends.reports import render
from tunectl.console import links, report_fragment
from tunectl.core.optional import import_optional

FOLDER: Final = Path(__file__).parent
STATIC: Final = FOLDER / "static"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def render_page(template: str, **values: Any) -> str:
    """Return the page of ``template``; a value that it names and nobody passed is an error."""
    text: str = _environment().get_template(template).render(**values)
    return text


@cache
def _environment() -> Any:
    jinja = import_optional("jinja2", extra="console")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    environment.globals.update(asset=asset_address, link=links.link, graph=_draw_build)
    return environment


def _draw_build(screen: Any) -> str:
    from tunectl.console.stage_graph import draw_graph

    return draw_graph(screen.stages, screen.above)


@cache
def asset_address(name: str) -> str:
    """Return where a file of ``static/`` lies; the address changes with its content, so browsers may keep it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def format_seconds(value: float | None) -> str:
    """Return a duration in its two largest units."""
    if value is None:
        return "n/a"
    if value < 10:
        return f"{value:.1f} s" if value >= 0.1 else "under 0.1 s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_moment(value: datetime | str | None) -> str:
    """Return a time in UTC, to the minute."""
    at = _parse_time(value)
    return "n/a" if at is None else f"{at.day} {at:%b %Y, %H:%M} UTC"


def format_age(value: datetime | str | None, now: datetime) -> str:
    """Return how long before ``now``, in the largest unit."""
    at = _parse_time(value)
    if at is None:
        return "never"
    past = max(0.0, (now - at).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if past >= size:
            return f"{past / size:.0f} {unit} ago"
    return "just now"


def format_bytes(value: float) -> str:
    """Return a size in its largest decimal unit."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} bytes"


def show_control(text: str) -> str:
    r"""A text whose control characters and marks of direction are visible, as ``\\u202e``."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))


def raise_first(text: str) -> str:
    """Return the text with a capital first letter; names in it stay as they are."""
    return text[:1].upper() + text[1:]


def mark_safe(svg: str) -> Any:
    """Return an SVG of our own as markup.

    Raises  ValueError for anything that is no SVG, or carries script or style.
    """
    if not svg.startswith("<svg") or re.search(
        r"<script|<style|<foreignObject|\sstyle=|\son[a-z]+=", svg, re.IGNORECASE
    ):
        raise ValueError("only an SVG of our own, without style and script, is put into a page as it is")
    return import_optional("markupsafe", extra="console").Markup(svg)


@lru_cache(maxsize=8)
def mark_fragment(page: str) -> Any:
    """A report's markup, cleaned here once more, so that nothing else can get into a page by this filter."""
    return import_optional("markupsafe", extra="console").Markup(report_fragment.clean(page))


def _parse_time(value: datetime | str | None) -> datetime | None:
    if not value:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "number": render.number,
    "percent": render.percent,
    "interval": render.interval,
    "seconds": format_seconds,
    "moment": format_moment,
    "age": format_age,
    "bytes": format_bytes,
    "plain": show_control,
    "svg": mark_safe,
    "fragment": mark_fragment,
    "zip": zip,
    "sentence": raise_first,
}
