from html.parser import HTMLParser

import pytest
from jinja2 import ChoiceLoader, DictLoader, UndefinedError

from tunectl.backends.reports import render

PAGE = """{% extends "base.html" %}
{% block title %}Of {{ project }}{% endblock %}
{% block content %}<section id="a">{{ ui.figure(svg, "<caption>") }}{{ ui.table(["x", "n"], [("<b>", 1)], numbers=[1]) }}
{% call ui.fold("more") %}inside{% endcall %}{{ ui.tiles([("1", "row")]) }}{{ ui.note("warn", "careful") }}</section>{% endblock %}"""


@pytest.fixture(autouse=True)
def page(monkeypatch):
    environment = render._environment()
    monkeypatch.setattr(environment, "loader", ChoiceLoader([environment.loader, DictLoader({"page.html": PAGE})]))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.outside = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.outside += [value for name, value in attrs if name in {"src", "href"} and not value.startswith("#")]


def test_a_page_is_self_contained_escaped_and_made_for_a_phone():
    text = render.render("page.html", project="<lens>", svg="<svg></svg>", sections=[("a", "First")])
    tags = Tags()
    tags.feed(text)
    assert tags.outside == []
    assert "script" not in tags.open
    assert "<title>Of &lt;lens&gt;</title>" in text
    assert "<figcaption>&lt;caption&gt;</figcaption>" in text
    assert "&lt;b&gt;" in text
    assert "<svg></svg>" in text
    assert '<a href="#a">First</a>' in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


def test_a_value_that_nobody_passed_is_an_error():
    with pytest.raises(UndefinedError, match="'svg' is undefined"):
        render.render("page.html", project="x", sections=[])


def test_filters():
    assert [render.number(value) for value in (1234567, 0.12345, 2.0, None)] == ["1,234,567", "0.1235", "2", "n/a"]
    assert render.percent(0.1234) == "12.3 %"
    assert render.percent(None) == "n/a"
    assert render.interval((1, 2.5)) == "1 to 2.5"
    assert render.interval(None) == "n/a"


@pytest.mark.parametrize(
    "svg",
    [
        "<svg><text>Rome onSale=yes &lt;script style=a</text></svg>",
        '<svg aria-label="a onx=b style=c &lt;script&gt;"><path d="M 0 0"/></svg>',
    ],
)
def test_the_text_of_a_drawing_may_look_like_markup(svg):
    assert render.mark_safe(svg) == svg


@pytest.mark.parametrize(
    "svg",
    [
        "<p>a</p>",
        "<svg><script>a</script></svg>",
        "<svg><SCRIPT>a</SCRIPT></svg>",
        "<svg><x:script>a</x:script></svg>",
        "<svg><style>a</style></svg>",
        "<svg><foreignObject><p>a</p></foreignObject></svg>",
        '<svg onload="a"></svg>',
        "<svg\nonload='a'></svg>",
        '<svg><g OnClick="a"/></svg>',
        '<svg><g style="fill: red"/></svg>',
        "<svg><g onload=a></g></svg>",
        "<svg></svg><img src=a onerror=b>",
        "<svg><?a > <script>b</script> ?></svg>",
        "<svg><!-- > <script>b</script> --></svg>",
        "<svg><![CDATA[<script>b</script>]]></svg>",
        '<svg><a href="javascript:b">c</a></svg>',
        '<svg><a xlink:href=" JavaScript:b">c</a></svg>',
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
        "<svg><text>a</svg>",
        "<svg><text>\x00</text></svg>",
    ],
)
def test_what_is_no_plain_drawing_stays_out_of_a_page(svg):
    with pytest.raises(ValueError, match="only an SVG of our own"):
        render.mark_safe(svg)
