"""Render HTML pages with jinja2: the frame, the style sheet and the parts that all pages of the program share.

Templates live in ``backends/reports/templates``; ``layout.html`` is the frame, ``static/style.css`` the one style sheet, and
``macros.html`` has the parts, which every page knows as ``ui``. The console's screens lie in its own folder and link the style sheet.
A report, and a page of monitor or retrain controller, is whole in one file; it extends ``base.html`` and fills its blocks::

    {% extends "base.html" %}
    {% block title %}Evaluation of {{ project }}{% endblock %}
    {% block lead %}{{ ui.verdict("Tuned is better.", true) }}{% endblock %}
    {% block content %}
      <section id="scores"><h2>Scores</h2>
        {{ ui.figure(plot, "Corpus BLEU with 95 % intervals") }}
        {{ ui.table(["system", "BLEU"], rows, numbers=[1]) }}
      </section>
    {% endblock %}

``base.html`` makes the contents of ``sections``: a list of ``(id, title)`` pairs that every such page passes. Its policy allows the
one style sheet by its digest, and nothing else. Every value is escaped: what people and models wrote is text, never markup. An SVG of our own goes
through ``svg`` alone (``ui.figure`` does). Filters: ``number`` (1,234 or 0.123), ``percent`` (12.3 %), ``interval`` (0.12 to 0.34), ``seconds``
(1 min 40 s), ``moment`` (27 Nov 2026, 21:16 UTC), ``age`` (3 h ago), ``bytes`` (1.2 MB), ``plain`` (control characters shown).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

from tunectl.core.optional import import_optional

FOLDER: Final = Path(__file__).parent
STATIC: Final = FOLDER / "static"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_NO_SVG: Final = "only an SVG of our own, without style and script, is put into a page as it is"


def render(template: str, **values: Any) -> str:
    """Return the HTML of ``template`` filled with ``values``.

    Raises  jinja2.UndefinedError for a value that the template uses and ``values`` lacks.
    """
    text: str = _environment().get_template(template).render(**values)
    return text


def build_environment(*folders: Path, extra: str) -> Any:
    """Return a jinja2 environment with the shared templates and filters.

    Args:
        folders: Folders of templates that are looked into first.
        extra: The package extra that installs jinja2, named in the error where it is absent.
    """
    jinja = import_optional("jinja2", extra=extra)
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader([*folders, FOLDER / "templates"]),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment


@cache
def _environment() -> Any:
    environment = build_environment(extra="data")
    environment.globals.update(style_sheet=mark_trusted(read_style()), style_hash=hash_style())
    return environment


@cache
def read_style() -> str:
    """Return the style sheet ``static/style.css`` as text."""
    return (STATIC / "style.css").read_text(encoding="utf-8")


@cache
def hash_style() -> str:
    """Return ``sha256-BASE64``, by which a Content-Security-Policy allows this style sheet inside a page, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(read_style().encode()).digest()).decode()}"


def number(value: float | None) -> str:
    """Return ``value`` with a comma per thousand, or with four significant digits: ``1,234`` or ``0.123``; ``n/a`` for None."""
    if value is None:
        return "n/a"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}"


def percent(value: float | None) -> str:
    """Return ``value``, a share from 0 to 1, as a percentage: ``12.3 %``."""
    return "n/a" if value is None else f"{value * 100:.1f} %"


def interval(value: tuple[float, float] | None) -> str:
    """Return an interval (low, high) as ``0.12 to 0.34``, formatted as ``number`` does; ``n/a`` for None."""
    return "n/a" if value is None else f"{number(value[0])} to {number(value[1])}"


def format_seconds(value: float | None) -> str:
    """Return a duration ``value`` in seconds in its two largest units: ``1 min 40 s``."""
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
    """Return a time (datetime or ISO 8601) in UTC to the minute: ``27 Nov 2026, 21:16 UTC``."""
    at = _parse_time(value)
    return "n/a" if at is None else f"{at.day} {at:%b %Y, %H:%M} UTC"


def format_age(value: datetime | str | None, now: datetime) -> str:
    """Return the time from ``value`` to ``now`` in its largest unit: ``3 h ago``; ``never`` for None."""
    at = _parse_time(value)
    if at is None:
        return "never"
    past = max(0.0, (now - at).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if past >= size:
            return f"{past / size:.0f} {unit} ago"
    return "just now"


def format_bytes(value: float) -> str:
    """Return a size ``value`` in bytes in its largest decimal unit: ``1.2 MB``."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} bytes"


def show_control(text: str) -> str:
    r"""Return the text with control and bidirectional formatting characters, and what XML cannot hold, made visible, as ``\\u202e``."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def raise_first(text: str) -> str:
    """Return the text with its first letter capitalized; all others stay as they are."""
    return text[:1].upper() + text[1:]


def mark_safe(svg: str) -> Any:
    """Return an SVG that this program made as markup that jinja2 does not escape.

    Raises  ValueError for anything that is no SVG, or carries script or style. What its text says is not looked at: only elements and
            attributes act. What XML and HTML read in two ways (comments, instructions, CDATA, entities) is refused, too.
    """
    parser = expat.ParserCreate()
    parser.StartElementHandler = _check_element
    parser.CommentHandler = parser.ProcessingInstructionHandler = _refuse_markup
    parser.StartCdataSectionHandler = parser.StartDoctypeDeclHandler = _refuse_markup
    try:
        if not svg.startswith("<svg"):
            _refuse_markup()
        parser.Parse(svg.encode(), True)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise ValueError(f"{_NO_SVG}: {error}") from error
    return mark_trusted(svg)


def _check_element(name: str, attributes: dict[str, str]) -> None:
    names = {key.lower().rpartition(":")[2] for key in attributes}
    if (
        name.lower().rpartition(":")[2] in {"script", "style", "foreignobject"}
        or any(key == "style" or key.startswith("on") for key in names)
        or any(key.lower().endswith("href") and value[:1] not in {"#", "/"} for key, value in attributes.items())
    ):
        _refuse_markup()


def _refuse_markup(*_: object) -> None:
    raise ValueError(_NO_SVG)


def mark_trusted(text: str) -> Any:
    """Return HTML that this program made as markup that jinja2 does not escape; never for text of people or models."""
    return import_optional("markupsafe", extra="data").Markup(text)


def _parse_time(value: datetime | str | None) -> datetime | None:
    if not value:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "number": number,
    "percent": percent,
    "interval": interval,
    "seconds": format_seconds,
    "moment": format_moment,
    "age": format_age,
    "bytes": format_bytes,
    "plain": show_control,
    "svg": mark_safe,
    "zip": zip,
    "sentence": raise_first,
}
