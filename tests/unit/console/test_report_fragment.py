"""A report is cleaned before it stands in the console's frame: nothing in it runs, loads or leads elsewhere."""

from __future__ import annotations

from html import escape, unescape

import pytest

from tunectl.console import report_fragment

PAGE = """<!doctype html><html><head><title>x</title><style>p{}</style></head><body><header><h1>Report</h1></header>
<nav><a href="#s">S</a></nav><main>%s</main><footer>end</footer></body></html>"""


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ('<section id="s"><h2>Scores</h2></section>', '<section id="s"><h2>Scores</h2></section>'),
        ("<script>alert(1)</script><p>a</p>", "<p>a</p>"),
        ('<p onclick="x()" style="color: red">a</p>', "<p>a</p>"),
        (
            '<a href="https://x.invalid">a</a><a href="javascript:x()">b</a><a href="#s">c</a>',
            '<a>a</a><a>b</a><a href="#s">c</a>',
        ),
        ('<form action="/x"><input name="a"><button>go</button></form><p>a</p>', "<p>a</p>"),
        ('<iframe src="/x"></iframe><img src=x onerror=y><p>a</p>', "<p>a</p>"),
        ("<p>&lt;script&gt; &amp;</p>", "<p>&lt;script&gt; &amp;</p>"),
        ("<p><b>open", "<p><b>open</b></p>"),
        ("</section><p>a</p>", "<p>a</p>"),
        ("<svg><foreignObject><p>a</p></foreignObject></svg>", "<svg><p>a</p></svg>"),
    ],
)
def test_only_what_is_known_is_written_again(markup: str, expected: str) -> None:
    assert report_fragment.clean(PAGE % markup).strip() == expected


def test_inline_style_of_a_drawing_becomes_attributes() -> None:
    drawing = '<svg viewBox="0 0 9 9"><defs><clipPath id="c"><rect width="9"/></clipPath></defs><path d="M 0 0" style="fill: none; stroke: #123; behavior: url(x)" clip-path="url(#c)"/><use xlink:href="#m" style="stroke: url(http://x)"/></svg>'
    assert report_fragment.clean(PAGE % drawing).strip() == (
        '<svg viewBox="0 0 9 9"><defs><clipPath id="c"><rect width="9"></rect></clipPath></defs>'
        '<path d="M 0 0" fill="none" stroke="#123" clip-path="url(#c)"></path><use href="#m"></use></svg>'
    )


@pytest.mark.parametrize(
    "address", [r"u\72l(http://x.invalid/a)", r"\75 rl(//x.invalid)", r"ur\l(//x.invalid)", "URL( //x.invalid)"]
)
def test_escapes_of_css_hide_no_address(address: str) -> None:
    drawing = f'<svg><path style="fill: {address}; stroke: #123" clip-path="{address}"/></svg>'
    assert report_fragment.clean(PAGE % drawing).strip() == '<svg><path stroke="#123"></path></svg>'


def test_a_table_that_scrolls_can_be_reached_with_the_keyboard() -> None:
    cleaned = report_fragment.clean('<div class="scroll"><table></table></div>')
    assert cleaned == '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table></table></div>'


def test_cleaning_twice_changes_nothing() -> None:
    once = report_fragment.clean(PAGE % '<p class="x">a &amp; b</p><svg viewBox="0 0 1 1"><g fill="none"></g></svg>')
    assert report_fragment.clean(once) == once


def test_markers_that_figures_repeat_have_one_id() -> None:
    marker = '<path id="m1" d="M 0 0"></path>'
    cleaned = report_fragment.clean(f"<svg>{marker}</svg><svg>{marker}</svg>")
    assert cleaned == f'<svg>{marker}</svg><svg><path d="M 0 0"></path></svg>'


@pytest.mark.parametrize("end", ["<a href='#s", "<b", "</b", "<!-- <p>b</p>", "<![CDATA[ b", "<?b", "<", "<script>b"])
def test_markup_without_an_end_is_left_out_with_what_follows(end: str) -> None:
    assert report_fragment.clean(f"<main><ul><li>a{end}") == "<ul><li>a</li></ul>"


@pytest.mark.parametrize("fault", ["<![1", "<![unknown[", "<p title='&#" + "9" * 5000 + "'>", "&#" + "9" * 5000 + ";"])
def test_what_the_parser_cannot_read_ends_the_report(fault: str) -> None:
    cleaned = report_fragment.clean(f"<p>a</p><ul><li>{fault}<script>alert(1)</script>")
    assert cleaned.startswith("<p>a</p><ul><li>")
    assert cleaned.endswith("</li></ul>")
    assert "script" not in cleaned


@pytest.mark.parametrize("text", ["a &amp", "a &", "a &lt", "1 < 2 & 3"])
def test_text_at_the_end_is_kept(text: str) -> None:
    assert report_fragment.clean(f"<p>{text}") == f"<p>{escape(unescape(text), quote=False)}</p>"


def test_end_tags_close_what_is_open_inside_and_nothing_twice() -> None:
    assert report_fragment.clean("<b><i>a</b>b</i></b><i>c</i>") == "<b><i>a</i></b>b<i>c</i>"
