"""What `mkdocs build` does beside its own work: pages from outside docs/, formulas, and what no page may have.

Documents of the project that lie elsewhere (experiments, operator, evaluation) become pages below project/, so that
links in the repository and on the site are the same text. A link to a file that is no document becomes its path in
words. Formulas between dollars become MathML, which browsers draw themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = (
    "CONTRIBUTING.md",
    "THIRD_PARTY.md",
    "ops/README.md",
    "ops/benchmarks/RESULTS.md",
    "evaluation/README.md",
    "experiments/README.md",
    "experiments/*/README.md",
    "experiments/stages/*/README.md",
    "experiments/stages/*/card.md",
)
PLACE = "project"
# A fenced block, code between backticks, a link or picture, the address of a picture in HTML, a formula.
_CODE = r"(?P<code>^(?P<fence> *`{3,}).*?^(?P=fence)$|(?P<ticks>`+)[^`\n]+(?P=ticks))"
_LINK = r"(?P<mark>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<link>[^()\s]+)\)"
_SOURCE = r'(?P<before><img\b(?:[^>"]|"[^"]*")*?\bsrc=")(?P<source>[^"]+)'
_PIECE = re.compile(f"{_CODE}|{_LINK}|{_SOURCE}", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(
    _CODE + r"|\$\$(?P<block>.+?)\$\$|(?<![\w$\\])\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$(?![\w$])",
    re.MULTILINE | re.DOTALL,
)
_WEB = re.compile(r"^(?:[a-z]+:|#)")


def outside_documents(root: Path = ROOT) -> list[Path]:
    """Return the documents that lie outside docs/ and are pages of the site."""
    return [path for pattern in OUTSIDE for path in sorted(root.glob(pattern))]


def on_files(files: Files, config: Any) -> Files:
    """Add the documents from outside and the pictures they show."""
    added: dict[str, Path] = {}
    for document in outside_documents():
        added[site_path(document)] = document
        for piece in _PIECE.finditer(document.read_text(encoding="utf-8")):
            shown = piece["source"] or (piece["link"] if piece["mark"] else None)
            if shown and not _WEB.match(shown):
                picture = Path(os.path.normpath(document.parent / shown))
                added.setdefault(site_path(picture), picture)
    for name, path in added.items():
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links of the repository into links of the site, and formulas into MathML."""
    source = repository_path(page.file.src_uri)
    known = {file.src_uri for file in files}
    return with_formulas(with_site_links(markdown, source, page.file.src_uri, known))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Drop the roles of docstrings, such as :class:, which only Sphinx knows."""
    return re.sub(r":(?:class|func|meth|mod):(?=<code>)", "", html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that shows a picture without a text or fetches something from elsewhere.

    Raises:
        PluginError: Naming the page and what is wrong with it.
    """
    wrong = list(faults(output))
    if wrong:
        raise PluginError(f"{page.file.src_uri}: {'; '.join(wrong)}.")
    return output


def site_path(path: Path) -> str:
    """Return where a file of the repository lies among the site's sources."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"{PLACE}/{path.relative_to(ROOT).as_posix()}"


def repository_path(src_uri: str) -> Path:
    """Return the file of the repository that a page comes from."""
    head, _, rest = src_uri.partition("/")
    return ROOT / rest if head == PLACE else DOCS / src_uri


def with_site_links(markdown: str, source: Path, src_uri: str, known: set[str]) -> str:
    """Rewrite relative links for a page of the site.

    Args:
        markdown: The page.
        source: Its file in the repository, from which links count.
        src_uri: Its place among the site's sources.
        known: What the site has.
    """

    def resolved(link: str) -> tuple[str | None, str]:
        """Return the link on the site, or None, and the path in the repository."""
        place, hash_mark, anchor = link.partition("#")
        target = Path(os.path.normpath(source.parent / place))
        if not target.exists():
            return link, link  # mkdocs refuses it
        if not target.is_relative_to(ROOT):
            return None, link
        # A folder stands for the document in it.
        name = site_path(target / "README.md" if target.is_dir() else target)
        if name not in known:
            return None, target.relative_to(ROOT).as_posix()
        return os.path.relpath(name, os.path.dirname(src_uri) or ".").replace(os.sep, "/") + hash_mark + anchor, name

    def rewritten(piece: re.Match[str]) -> str:
        if piece["code"]:
            return piece[0]
        link = piece["source"] or piece["link"]
        if _WEB.match(link):
            return piece[0]
        found, path = resolved(link)
        if piece["source"]:
            return piece["before"] + (found or link)
        if found:
            return f"{piece['mark']}[{piece['text']}]({found})"
        plain = piece["text"].strip("`")
        return f"`{path}`" if plain in path else f"{piece['text']} (`{path}`)"

    return _PIECE.sub(rewritten, markdown)


def with_formulas(markdown: str) -> str:
    r"""Replace TeX between dollars by MathML.

    Example:
        >>> with_formulas("`$a$` and $a$")
        '`$a$` and <math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>a</mi></mrow></math>'
    """

    def drawn(piece: re.Match[str]) -> str:
        if piece["code"]:
            return piece[0]
        if piece["inline"]:
            return convert(piece["inline"])
        # The converter knows columns from arrays, and fractions from \frac.
        tex = " ".join(piece["block"].split()).replace(r"\big/", "/").replace(r"\textstyle", "")
        tex = tex.replace(r"\begin{aligned}", r"\begin{array}{rll}").replace(r"\end{aligned}", r"\end{array}")
        return f'\n<div class="formula">{convert(tex.replace("&&", "&"), display="block")}</div>\n'

    return _FORMULA.sub(drawn, markdown)


def faults(html: str) -> Iterator[str]:
    """Yield what is wrong with a page: pictures without a text, and what it would fetch from elsewhere.

    Example:
        >>> list(faults('<img src="a.png"><script src="https://x/y.js"></script><a href="https://x">x</a>'))
        ['the picture a.png has no alt text', 'it fetches https://x/y.js']
    """
    parser = _Faults()
    parser.feed(html)
    yield from parser.found


class _Faults(HTMLParser):
    """Collects faults."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        if tag == "img" and not (about.get("alt") or "").strip():
            self.found.append(f"the picture {about.get('src')} has no alt text")
        fetched = about.get("src") if tag != "a" else None
        if tag == "link" and "canonical" not in (about.get("rel") or ""):
            fetched = about.get("href")
        if fetched and re.match(r"(?:https?:)?//", fetched):
            self.found.append(f"it fetches {fetched}")
