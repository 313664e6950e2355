"""The timeline as one self-contained HTML page, light and dark."""

from __future__ import annotations

import html

from loop_demo.layout import WIDTH, Drawing, compute_layout
from loop_demo.timeline import Timeline, format_duration

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22241f; --dim: #74776d; --line: #dcdad2;
  --normal: #a9b0a4; --changed: #e0a100; --active: #2f7fb8; --good: #1f9d63; --bad: #cc4b37; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #e9e8e2; --dim: #989b92; --line: #33373a;
  --normal: #6b736c; --changed: #e9b53a; --active: #58a6dc; --good: #42c486; --bad: #ea7360; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: clamp(1.6rem, 4vw, 2.4rem); line-height: 1.15; margin: 0 0 .25rem; letter-spacing: -.02em; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
.dim { color: var(--dim); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
.tile { border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--dim); font-size: .85rem; }
.scroll { overflow-x: auto; }
svg { display: block; min-width: 900px; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .axis { fill: var(--dim); } svg line { stroke: var(--line); }
svg .normal { fill: var(--normal); } svg .changed { fill: var(--changed); } svg .active { fill: var(--active); }
svg .good { fill: var(--good); } svg .bad { fill: var(--bad); } svg .in { fill: #fff; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.at { font-variant-numeric: tabular-nums; white-space: nowrap; color: var(--dim); }
.yes::before { content: "✓ "; color: var(--good); } .no::before { content: "✗ "; color: var(--bad); }
"""


def render_page(timeline: Timeline, links: tuple[tuple[str, str], ...] = ()) -> str:
    """Render the page; ``links`` are names and URLs of further pages."""
    tiles = "".join(
        f"<div class=tile><b>{_escape(number)}</b><span>{_escape(what)}</span></div>"
        for number, what in timeline.figures
    )
    checks = "".join(
        f"<tr><td class={'yes' if check.passed else 'no'}>{_escape(check.statement)}</td><td class=dim>{_escape(check.evidence)}</td></tr>"
        for check in timeline.checks
    )
    events = "".join(
        f"<tr><td class=at>{format_duration(mark.at)}</td><td>{_escape(mark.lane)}</td><td>{_escape(mark.label)}</td><td>{_escape(mark.note)}</td></tr>"
        for mark in sorted(timeline.marks, key=lambda mark: mark.at)
    )
    further_pages = " · ".join(f'<a href="{_escape(address)}">{_escape(name)}</a>' for name, address in links)
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{_escape(timeline.title)}</title><style>{STYLE}</style>
<h1>{_escape(timeline.title)}</h1>
<p class=dim>{timeline.began:%Y-%m-%d %H:%M} UTC, {format_duration(timeline.seconds)} from start to end; {timeline.score}. All times are measured, from the
records of the programs. {further_pages}</p>
<div class=tiles>{tiles}</div>
<div class=scroll>{render_svg(compute_layout(timeline), timeline.title)}</div>
<h2>Checks</h2>
<div class=scroll><table>{checks}</table></div>
<h2>Events</h2>
<div class=scroll><table><tr><th>time<th>lane<th>event<th></tr>{events}</table></div>
</html>
"""


def render_svg(result: Drawing, title: str) -> str:
    """Render the drawing alone, with tooltips."""
    bottom = result.height - 26
    parts = [f'<svg viewBox="0 0 {WIDTH} {result.height:.0f}" role=img aria-label="{_escape(title)}">']
    for text, x in result.ticks:
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom:.0f}"/>')
        parts.append(f'<text class=axis x="{x:.1f}" y="{bottom + 18:.0f}" text-anchor=middle>{text}</text>')
    parts += [f'<text class=axis x="4" y="{y + 4:.1f}">{_escape(lane)}</text>' for lane, y in result.lanes]
    for box in result.boxes:
        parts.append(
            f'<g><title>{_escape(box.note)}</title><rect class={box.category} x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
            f'height="{box.height}" rx="4"/>{_render_label(box.label, box.x + 7, box.y + 16)}</g>'
        )
    for dot in result.dots:
        label = (
            f'<text x="{dot.label_x:.1f}" y="{dot.y - 12:.1f}" text-anchor=middle>{_escape(dot.label)}</text>'
            if dot.label
            else ""
        )
        parts.append(
            f'<g><title>{_escape(dot.note)}</title><circle class={dot.category} cx="{dot.x:.1f}" cy="{dot.y:.1f}" r="6"/>{label}</g>'
        )
    return "".join([*parts, "</svg>"])


def _render_label(label: str, x: float, y: float) -> str:
    return f'<text class=in x="{x:.1f}" y="{y:.1f}">{_escape(label)}</text>' if label else ""


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
