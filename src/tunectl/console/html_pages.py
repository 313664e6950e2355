"""Wrapper of jinja2 for the console: a screen's template filled with its struct, inside the frame.

A template extends ``frame.html`` and fills ``content``; ``screen`` is its struct, and ``ui`` has the parts of ``macros.html``::

    {% extends "frame.html" %}
    {% block content %}
      {{ ui.problems(screen.problems) }}
      {% call ui.section("Runs") %}{{ ui.table(["run", "BLEU"], rows, numbers=[1]) }}{% endcall %}
    {% endblock %}

Frame, style sheet, parts and filters are those of every page of the program: ``backends/reports/render`` has them. Here are what the
console alone needs: addresses of its files, links between screens, the graph of the build, and the filters ``fragment`` and ``shell``.
"""

from __future__ import annotations

import hashlib
import shlex
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

from tunectl.backends.reports import render
from tunectl.console import links, report_fragment

FOLDER: Final = Path(__file__).parent
STATIC: Final = FOLDER / "static"


def render_page(template: str, **values: Any) -> str:
    """Return the HTML of a template filled with ``values``; a name that the template uses and ``values`` lacks is an error."""
    text: str = _environment().get_template(template).render(**values)
    return text


@cache
def _environment() -> Any:
    environment = render.build_environment(FOLDER / "templates", extra="console")
    environment.filters["fragment"] = mark_fragment
    environment.filters["shell"] = shlex.quote
    environment.globals.update(asset=asset_address, link=links.link, graph=_draw_build)
    return environment


def _draw_build(screen: Any) -> str:
    from tunectl.console.stage_graph import draw_graph

    return draw_graph(screen.stages, screen.above)


@cache
def asset_address(name: str) -> str:
    """Return the address of a static file; it contains a digest of the content, so browsers may cache it."""
    file = next(folder / name for folder in (STATIC, render.STATIC) if (folder / name).is_file())
    return f"/static/{name}?v={hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


@lru_cache(maxsize=8)
def mark_fragment(page: str) -> Any:
    """Clean a report's HTML (no scripts, forms or foreign links), and return it as markup that templates do not escape."""
    return render.mark_trusted(report_fragment.clean(page))
