import re
import xml.etree.ElementTree as ET

import pytest

from tunectl.backends.reports import render, svg_plots

DRAWN = {
    "histogram": lambda: svg_plots.histogram({"a": [1, 2, 2, 3], "b": [2, 5]}, xlabel="words", alt="a & b <c>"),
    "histogram_log": lambda: svg_plots.histogram({"a": [0, 1, 10, 100]}, xlabel="words", alt="a", log_x=True),
    "histogram_one_value": lambda: svg_plots.histogram({"a": [3, 3]}, xlabel="words", alt="a"),
    "histogram_empty": lambda: svg_plots.histogram({}, xlabel="words", alt="a"),
    "bars": lambda: svg_plots.bars(
        ["x", "$y$"],
        [0.4, 0.6],
        xlabel="share",
        alt="a",
        intervals=[(0.3, 0.5), (0.5, 0.7)],
        targets=[0.5, None],
        percent=True,
    ),
    "grouped": lambda: svg_plots.grouped_bars(
        ["x"], {"a": [1], "b": [2]}, xlabel="n", alt="a", intervals={"a": [(0.5, 1.5)]}
    ),
    "stacked": lambda: svg_plots.stacked_bars(["x", "y"], {"a": [1, 0], "b": [2, 3]}, xlabel="n", alt="a"),
    "forest": lambda: svg_plots.forest(["x", "y"], [1, -1], [(0, 2), (-2, 0)], xlabel="points", alt="a"),
    "lines": lambda: svg_plots.lines(
        {"a": ([1, 2], [3, 4])}, xlabel="x", ylabel="y", alt="a", bands={"a": [(2, 4), (3, 5)]}, dashed=["a"]
    ),
    "scatter": lambda: svg_plots.scatter({"a": (1, 2)}, xlabel="x", ylabel="y", alt="a", log_x=True),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_plot_is_one_small_svg_that_follows_the_page(name):
    svg = DRAWN[name]()
    root = ET.fromstring(svg)  # well-formed
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == ("a & b <c>" if name == "histogram" else "a")
    assert "width" not in root.attrib
    assert "currentColor" in svg
    assert svg_plots._INK not in svg
    assert "<image" not in svg
    assert render.mark_safe(svg) == svg
    assert len(svg) < 30_000


def test_equal_numbers_give_equal_bytes():
    assert DRAWN["lines"]() == DRAWN["lines"]()


def test_labels_are_text_and_dollars_are_not_mathematics():
    svg = DRAWN["bars"]()
    assert ">$y$<" in svg.replace("\n", "")


def test_long_labels_are_shortened():
    assert svg_plots._short("a" * 40) == "a" * 25 + "…"


def test_a_legend_of_many_names_stays_in_the_picture_and_tells_them_apart():
    names = [f"part number {number} of a step" for number in range(9)]
    svg = svg_plots.stacked_bars(["x"], {name: [1.0] for name in names}, xlabel="share", alt="a")
    places = {found[2]: float(found[1]) for found in re.finditer(r'<text [^>]*?x="([-\d.]+)"[^>]*>([^<]+)</text>', svg)}
    assert [name for name in names if places.get(name, -1) < 0] == []
    assert len(set(re.findall(r'fill="(#\w+|url\(#\w+\))"', svg))) >= 9
    assert "#000000" not in svg  # hatches follow the page, too


def test_alt_may_hold_anything():
    root = ET.fromstring(svg_plots.bars(["x"], [1], xlabel="n", alt=r'a "quoted" \1 \d'))
    assert root.attrib["aria-label"] == r'a "quoted" \1 \d'


@pytest.mark.parametrize(
    "label",
    ["a\x00b", "\x1b[2J", "a\ufffe", "\ud800", 'a style="b:c"', 'a id="x_1"', "a onx=b", "</text><g>", svg_plots._INK],
)
@pytest.mark.filterwarnings("error")
def test_whatever_a_label_holds_the_drawing_shows_it_and_goes_into_a_page(label):
    drawn = [
        svg_plots.bars([label, "b"], [1, 2], xlabel=label, alt=label),
        svg_plots.grouped_bars(["a"], {label: [1], "b": [2]}, xlabel="x", alt="a"),
        svg_plots.stacked_bars(["a"], {label: [1], "b": [2]}, xlabel="x", alt="a"),
        svg_plots.forest([label], [1], [(0, 2)], xlabel="x", alt="a"),
        svg_plots.histogram({label: [1, 2], "b": [2]}, xlabel="x", ylabel=label, alt="a"),
        svg_plots.lines({label: ([1], [2]), "b": ([1], [3])}, xlabel="x", ylabel=label, alt="a"),
        svg_plots.scatter({label: (1, 2)}, xlabel="x", ylabel=label, alt="a"),
    ]
    for svg in drawn:
        assert render.mark_safe(svg) == svg
        assert render.show_control(label) in {"".join(item.itertext()).strip() for item in ET.fromstring(svg).iter()}
