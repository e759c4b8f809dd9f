"""HTML as values: every text is escaped when it becomes markup, so no caption or answer can change a page."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9:-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_TAG = re.compile(r"<[^>]*>")
_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})


@dataclass(frozen=True)
class Markup:
    """A piece of HTML or SVG that is safe as it stands; built by ``element`` and ``fragment`` only.

    Args:
        text: The source.
    """

    text: str

    def __bool__(self) -> bool:
        return bool(self.text)


Content = str | Markup
Attributes = Mapping[str, str]
NOTHING = Markup("")


def escape(text: str) -> str:
    """Return text as it may stand in HTML, in an attribute too; what no page can hold, or what turns
    the direction of writing around, becomes a replacement sign.

    Example:
        >>> escape("<b>a & 'b'")
        '&lt;b&gt;a &amp; &#x27;b&#x27;'
    """
    return html.escape(_UNPRINTABLE.sub("\ufffd", text), quote=True)


def element(name: str, attributes: Attributes, *children: Content) -> Markup:
    """Return one element with escaped attributes and children.

    Args:
        name: Such as ``td``.
        attributes: By name; values are escaped.
        children: Texts, which are escaped, and markup, which is not.

    Example:
        >>> element("p", {"class": "note"}, "1 < 2 ", element("b", {}, "so")).text
        '<p class="note">1 &lt; 2 <b>so</b></p>'
    """
    assert all(_NAME.fullmatch(word) for word in (name, *attributes)), (name, attributes)
    head = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    if name in _VOID:
        assert not children, name
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{fragment(*children).text}</{name}>")


def fragment(*children: Content) -> Markup:
    """Return several pieces as one, texts escaped."""
    return Markup("".join(child.text if isinstance(child, Markup) else escape(child) for child in children))


def text_of(content: Content) -> str:
    """Return the words of a piece, as an attribute may hold them.

    Example:
        >>> text_of(element("b", {}, "1 < 2"))
        '1 < 2'
    """
    return content if isinstance(content, str) else html.unescape(_TAG.sub("", content.text))


def paragraph(*children: Content) -> Markup:
    """Return a paragraph."""
    return element("p", {}, *children)


def note(*children: Content) -> Markup:
    """Return a paragraph in small print: what a table or chart does not say itself."""
    return element("p", {"class": "note"}, *children)


def missing(what: str, command: str = "") -> Markup:
    """Return the one line that stands where a run has nothing to show, with the command that would make it."""
    way_out = (" Run: ", code(command)) if command else ()
    return element("p", {"class": "missing"}, what, *way_out)


def code(text: str) -> Markup:
    """Return text to be typed or compared letter by letter."""
    return element("code", {}, text)


def preformatted(text: str, label: str) -> Markup:
    """Return lines as they are in a file or terminal; scrolls by keyboard where it is too wide.

    Args:
        text: The lines.
        label: What they are, for screen readers.
    """
    attributes = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label}
    return element("div", attributes, element("pre", {}, text))


def items(*children: Content) -> Markup:
    """Return a list with one bullet per child."""
    return element("ul", {}, *(element("li", {}, child) for child in children))


def facts(pairs: Mapping[str, Content]) -> Markup:
    """Return names and values in two columns."""
    rows = [part for name, value in pairs.items() for part in (element("dt", {}, name), element("dd", {}, value))]
    return element("dl", {}, *rows)


def fold(summary: str, *children: Content) -> Markup:
    """Return content that opens when its summary is chosen, without scripts."""
    return element("details", {}, element("summary", {}, summary), *children)
