"""The timeline as one HTML page that needs nothing else, light and dark."""

from __future__ import annotations

import html

from loop_demo.layout import WIDE, Drawing, drawing
from loop_demo.timeline import Timeline, length

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22241f; --dim: #74776d; --line: #dcdad2;
  --calm: #a9b0a4; --moved: #e0a100; --work: #2f7fb8; --good: #1f9d63; --bad: #cc4b37; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #e9e8e2; --dim: #989b92; --line: #33373a;
  --calm: #6b736c; --moved: #e9b53a; --work: #58a6dc; --good: #42c486; --bad: #ea7360; } }
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
svg .calm { fill: var(--calm); } svg .moved { fill: var(--moved); } svg .work { fill: var(--work); }
svg .good { fill: var(--good); } svg .bad { fill: var(--bad); } svg .in { fill: #fff; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.at { font-variant-numeric: tabular-nums; white-space: nowrap; color: var(--dim); }
.yes::before { content: "✓ "; color: var(--good); } .no::before { content: "✗ "; color: var(--bad); }
"""


def page(timeline: Timeline, links: tuple[tuple[str, str], ...] = ()) -> str:
    """The page; ``links`` are names and addresses of what there is to read on."""
    tiles = "".join(
        f"<div class=tile><b>{_safe(number)}</b><span>{_safe(what)}</span></div>" for number, what in timeline.figures
    )
    promises = "".join(
        f"<tr><td class={'yes' if promise.held else 'no'}>{_safe(promise.words)}</td><td class=dim>{_safe(promise.evidence)}</td></tr>"
        for promise in timeline.promises
    )
    moments = "".join(
        f"<tr><td class=at>{length(one.at)}</td><td>{_safe(one.lane)}</td><td>{_safe(one.label)}</td><td>{_safe(one.note)}</td></tr>"
        for one in sorted(timeline.marks, key=lambda mark: mark.at)
    )
    read_on = " · ".join(f'<a href="{_safe(address)}">{_safe(name)}</a>' for name, address in links)
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{_safe(timeline.title)}</title><style>{STYLE}</style>
<h1>{_safe(timeline.title)}</h1>
<p class=dim>{timeline.began:%Y-%m-%d %H:%M} UTC, {length(timeline.seconds)} from beginning to end; {timeline.score}. All times are measured, out of the
records that the programs left. {read_on}</p>
<div class=tiles>{tiles}</div>
<div class=scroll>{svg(drawing(timeline), timeline.title)}</div>
<h2>What was promised</h2>
<div class=scroll><table>{promises}</table></div>
<h2>What happened</h2>
<div class=scroll><table><tr><th>at<th>where<th>what<th></tr>{moments}</table></div>
</html>
"""


def svg(result: Drawing, title: str) -> str:
    """The drawing alone; what is under the pointer tells more."""
    bottom = result.high - 26
    parts = [f'<svg viewBox="0 0 {WIDE} {result.high:.0f}" role=img aria-label="{_safe(title)}">']
    for text, x in result.ticks:
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom:.0f}"/>')
        parts.append(f'<text class=axis x="{x:.1f}" y="{bottom + 18:.0f}" text-anchor=middle>{text}</text>')
    parts += [f'<text class=axis x="4" y="{y + 4:.1f}">{_safe(lane)}</text>' for lane, y in result.lanes]
    for box in result.boxes:
        parts.append(
            f'<g><title>{_safe(box.note)}</title><rect class={box.tone} x="{box.x:.1f}" y="{box.y:.1f}" width="{box.wide:.1f}" '
            f'height="{box.high}" rx="4"/>{_inside(box.label, box.x + 7, box.y + 16)}</g>'
        )
    for dot in result.dots:
        label = (
            f'<text x="{dot.label_x:.1f}" y="{dot.y - 12:.1f}" text-anchor=middle>{_safe(dot.label)}</text>'
            if dot.label
            else ""
        )
        parts.append(
            f'<g><title>{_safe(dot.note)}</title><circle class={dot.tone} cx="{dot.x:.1f}" cy="{dot.y:.1f}" r="6"/>{label}</g>'
        )
    return "".join([*parts, "</svg>"])


def _inside(label: str, x: float, y: float) -> str:
    return f'<text class=in x="{x:.1f}" y="{y:.1f}">{_safe(label)}</text>' if label else ""


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
