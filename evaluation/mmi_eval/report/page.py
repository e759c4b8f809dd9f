"""The frame of a page: head, list of contents, sections, foot; nothing in it is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .markup import Content, Markup, element, fragment
from .style import STYLE

# A second lock beside escaping: even markup that slipped through could run no script and call no server.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"


@dataclass(frozen=True)
class Section:
    """A part of a page with its own heading and entry in the list of contents.

    Args:
        anchor: Its name in links to it: lower-case letters and ``-``.
        title: The heading.
        body: What stands under it.
    """

    anchor: str
    title: str
    body: Markup


def render_page(
    title: str, lead: Sequence[Content], sections: Sequence[Section], footer: str, *, style: str = ""
) -> str:
    """Return a whole HTML document.

    Args:
        title: Heading and window title.
        lead: Paragraphs before the list of contents.
        sections: In reading order.
        footer: The last line: what wrote the page.
        style: Rules of this page alone, written by us; nothing of the data may be in them.
    """
    links = [element("li", {}, element("a", {"href": f"#{s.anchor}"}, s.title)) for s in sections]
    body = fragment(
        element("a", {"class": "skip", "href": "#content"}, "Skip to the content"),
        element(
            "header",
            {},
            element("h1", {}, title),
            *(part if isinstance(part, Markup) else element("p", {"class": "lead"}, part) for part in lead),
            element("nav", {"aria-label": "Contents"}, element("ul", {}, *links)),
        ),
        element("main", {"id": "content"}, *map(_section, sections)),
        element("footer", {}, element("p", {}, footer)),
    )
    head = fragment(
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("title", {}, title),
        element("style", {}, Markup(STYLE + style)),
    )
    document = element("html", {"lang": "en"}, element("head", {}, head), element("body", {}, body))
    return f"<!doctype html>\n{document.text}\n"


def write_page(path: str | Path, document: str) -> None:
    """Write a page beside its place and rename it, so that no half page is ever seen."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(document, encoding="utf-8", newline="\n")
    draft.replace(path)


def _section(section: Section) -> Markup:
    heading = f"{section.anchor}-heading"
    return element(
        "section",
        {"id": section.anchor, "aria-labelledby": heading},
        element("h2", {"id": heading}, section.title),
        section.body,
    )
