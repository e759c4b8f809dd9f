"""What every page of ours must be: whole, self-contained, usable without seeing or a mouse."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

_VOID = {"img", "meta", "br", "hr", "link", "col", "input"}


class Page(HTMLParser):
    """Collect what the checks below ask about, and whether every element that opens closes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.headings: list[tuple[int, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.balanced = True
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.balanced &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.headings and self.open and self.open[-1] == f"h{self.headings[-1][0]}":
            level, words = self.headings[-1]
            self.headings[-1] = level, words + data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def is_whole(page: Page) -> None:
    """Check that elements close, ids are unique and links lead somewhere on the page."""
    assert page.balanced
    assert not page.open
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    for _, attributes in page.elements:
        for name in attributes.get("aria-labelledby", "").split():
            assert name in ids
    assert all(a["href"].removeprefix("#") in ids for a in page.all("a"))


def needs_nothing(page: Page) -> None:
    """Check that nothing is fetched or run."""
    assert {"script", "link", "iframe", "object", "base", "form"}.isdisjoint(tag for tag, _ in page.elements)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(name.startswith("on") or name == "srcset" for _, a in page.elements for name in a)
    assert not any("url(" in attributes.get("style", "") for _, attributes in page.elements)


def is_usable(page: Page) -> None:
    """Check texts for pictures, headers of tables, headings in order, and places that scroll by keyboard."""
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"].strip() for image in page.all("img"))
    shown = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert all(svg["role"] == "img" and (svg.get("aria-labelledby") or svg.get("aria-label")) for svg in shown)
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(a.get("tabindex") == "0" for _, a in page.elements if a.get("class") == "scroll")
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
