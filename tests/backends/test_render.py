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
