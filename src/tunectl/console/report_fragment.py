"""Prepare a report for the console's frame: the body of a page that a stage wrote, cleaned and without inline style.

Reports are files of the project, and a project may come from somebody else: unknown markup is left out, so no script, form,
link to another host or frame gets through. Style attributes of our SVG become attributes of the same name, because the console's
policy allows no inline style.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from html.parser import HTMLParser
from typing import Final

_TEXT: Final = [
    "section",
    "h2",
    "h3",
    "h4",
    "p",
    "b",
    "i",
    "em",
    "strong",
    "span",
    "div",
    "ul",
    "ol",
    "li",
    "dl",
    "dt",
    "dd",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "pre",
    "code",
    "blockquote",
    "figure",
    "figcaption",
    "details",
    "summary",
    "a",
    "br",
    "small",
]
_DRAWING: Final = [
    "svg",
    "g",
    "path",
    "use",
    "text",
    "tspan",
    "defs",
    "clippath",
    "rect",
    "line",
    "circle",
    "polyline",
    "polygon",
    "ellipse",
    "title",
    "desc",
]
TAGS: Final = frozenset((*_TEXT, *_DRAWING))
VOID: Final = frozenset(("br",))
DROPPED: Final = frozenset(
    ("script", "style", "head", "template", "iframe", "object", "header", "nav", "footer", "form")
)
"""Elements that are removed with their content."""
_STYLES: Final = [
    "fill",
    "fill-opacity",
    "stroke",
    "stroke-width",
    "stroke-opacity",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-dasharray",
    "stroke-dashoffset",
    "opacity",
    "font-size",
    "font-family",
    "font-weight",
    "text-anchor",
]
STYLES: Final = frozenset(_STYLES)
"""CSS properties that are attributes of SVG as well."""
ATTRIBUTES: Final = frozenset(
    (
        "class id x y x1 x2 y1 y2 cx cy r rx ry d points width height transform clip-path viewbox role aria-label colspan rowspan scope open tabindex "
        + " ".join(_STYLES)
    ).split()
)
_LOCAL: Final = re.compile(r"#[\w.:-]+")
_CAMEL: Final = {"viewbox": "viewBox", "clippath": "clipPath"}
"""HTML parsers lower the case of names; these of SVG have capitals."""
# A backslash begins an escape of CSS, which can write each of these words: u\72l(
_REMOTE: Final = re.compile(r"url\((?!#)|expression|javascript|\\", re.IGNORECASE)


def clean(page: str) -> str:
    """Return the body of the HTML report ``page`` without header, navigation and footer, and without markup that this module does not list.

    A tag or comment without an end is left out, with all that follows it, as in a browser. Takes linear time.
    """
    parser = _Cleaner()
    try:
        parser.feed(page)
    except (AssertionError, ValueError):  # html.parser: a declaration such as <![1, a character number of 5000 digits
        parser.reset()
    parser.close()
    return "".join(parser.parts)


class _Cleaner(HTMLParser):
    """Writes the known markup again, and nothing else."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._open: list[str] = []
        self._open_counts = Counter[str]()
        """How often each name is in ``_open``: a search in the list for each end tag would be quadratic."""
        self._dropped: list[str] = []
        self._ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Write a known element with its known attributes."""
        if self._dropped:
            if tag == self._dropped[-1]:
                self._dropped.append(tag)
            return
        if tag in DROPPED:
            self._dropped.append(tag)
            return
        if tag in TAGS:
            self.parts.append(f"<{_CAMEL.get(tag, tag)}{self._write_attributes(tag, attrs)}>")
            if tag not in VOID:
                self._open.append(tag)
                self._open_counts[tag] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Write an empty element."""
        if self._dropped or tag not in TAGS:
            return
        end = "" if tag in VOID else f"</{_CAMEL.get(tag, tag)}>"
        self.parts.append(f"<{_CAMEL.get(tag, tag)}{self._write_attributes(tag, attrs)}>{end}")

    def handle_endtag(self, tag: str) -> None:
        """Close an open element; an end tag without a start tag is left out."""
        if self._dropped:
            if tag == self._dropped[-1]:
                self._dropped.pop()
            return
        if not self._open_counts[tag]:
            return
        while self._close_last() != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Write text, escaped."""
        if not self._dropped:
            self.parts.append(escape(data, quote=False))

    def close(self) -> None:
        """Close whatever is still open.

        What ``feed`` has left is text, or begins with a tag that does not end. The library would look for the end of that tag again at
        each ``<`` behind it, in quadratic time.
        """
        if "<" in self.rawdata:
            self.reset()
        super().close()
        while self._open:
            self._close_last()

    def _close_last(self) -> str:
        last = self._open.pop()
        self._open_counts[last] -= 1
        self.parts.append(f"</{_CAMEL.get(last, last)}>")
        return last

    def _write_attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> str:
        attributes: dict[str, str] = {}
        for name, value in attrs:
            text = value or ""
            if name in {"href", "xlink:href"}:
                if _LOCAL.fullmatch(text):
                    attributes["href"] = text
            elif name == "style":
                attributes |= _split_style(text)
            elif name in ATTRIBUTES and not _REMOTE.search(text):
                attributes[_CAMEL.get(name, name)] = text
        if (
            "id" in attributes and attributes["id"] in self._ids
        ):  # figures repeat the markers of other figures, which are the same
            del attributes["id"]
        self._ids.add(attributes.get("id", ""))
        if tag == "div" and "scroll" in attributes.get("class", "").split():  # a keyboard has to reach what scrolls
            attributes |= {"tabindex": "0", "role": "region", "aria-label": "Table"}
        return "".join(f' {name}="{escape(text)}"' for name, text in attributes.items())


def _split_style(text: str) -> dict[str, str]:
    pairs = (part.partition(":") for part in text.split(";"))
    plain = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return {name: value for name, value in plain.items() if name in STYLES and value and not _REMOTE.search(value)}
