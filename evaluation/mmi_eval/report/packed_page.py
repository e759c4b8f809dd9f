"""The page of packed rows: every token with its document, whether it is learned, and which pictures it may see.

Nothing on it needs a script: pointing at a stretch of tokens, or reaching it by keyboard, frames the pictures that it
may see, by style rules; the tables below say the same in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .markup import Content, Markup, element, facts, fold, fragment, note, paragraph, preformatted
from .numbers import count, percent
from .packed_rows import PackedDocument, PackedPicture, PackedRow, PackedToken, Stretch
from .page import Section, render_page
from .pictures import figure, picture
from .tables import Column, table

_MANY_PICTURES = 12

_STYLE = """
.flow { display: flex; flex-wrap: wrap; align-items: flex-end; gap: .15rem .1rem; margin: .4rem 0; }
.document { border-left: 5px solid var(--soft); background: var(--card); border-radius: 6px; padding: .4rem .7rem;
  margin: .6rem 0; }
.document h4 { margin: .1rem 0 .3rem; font-size: .9rem; font-weight: 600; overflow-wrap: anywhere; }
.stretch { display: inline-flex; flex-wrap: wrap; gap: .15rem .1rem; align-items: flex-end; border-radius: 4px; }
.stretch:focus-visible, .stretch:target { outline: 3px solid var(--link); outline-offset: 1px; }
.token { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .78rem;
  padding: 0 .18em; white-space: pre-wrap; overflow-wrap: anywhere; border-bottom: 2px dotted var(--line);
  color: var(--soft); min-width: .45em; }
.token.learned { color: var(--ink); border-bottom: 3px solid var(--s0); background: var(--paper); }
.token.mark { font-weight: 700; border-radius: 3px; }
.shown { margin: 0 .15rem; display: inline-block; border: 4px solid transparent; border-radius: 6px; }
.shown figure { margin: 0; }
.shown figcaption { font-size: .72rem; max-width: 9rem; }
.shown.drawn img { border-bottom: 5px solid var(--s1); }
.triangle { max-width: 15rem; } .triangle polygon { fill: var(--s0); opacity: .55; }
.triangle rect.picture { fill: var(--s1); opacity: .5; } .triangle rect.frame { fill: none; stroke: var(--soft); }
td.sees { text-align: center; padding: .05rem .35rem; }
"""


def render_packed(
    title: str,
    rows: Sequence[PackedRow],
    about: Mapping[str, str],
    *,
    across_documents: bool,
    left_out: str,
    written_by: str,
) -> str:
    """Return the page as HTML.

    Args:
        title: Heading of the page.
        rows: What is shown.
        about: Settings by name.
        across_documents: Whether tokens attend to earlier documents of their row.
        left_out: What was not used, as lines.
        written_by: The program and its version, for the last line.
    """
    sections = [Section("key", "How to read this", _key(across_documents))]
    sections += [
        Section(f"row-{n}", f"Row {n + 1}", _row(n, row, across_documents=across_documents))
        for n, row in enumerate(rows)
    ]
    sections += [
        Section("left-out", "What was not used", preformatted(left_out, "What was not used, by source and reason")),
        Section("settings", "Settings", facts(dict(about))),
    ]
    n_documents = sum(len(row.documents) for row in rows)
    lead = f"{count(len(rows), 'packed row')} with {count(n_documents, 'document')}, as training gets them."
    style = _STYLE + "\n".join(rule for n, row in enumerate(rows) for rule in _rules(n, row))
    return render_page(title, [lead], sections, f"Written by {written_by}.", style=style)


def _key(across_documents: bool) -> Markup:
    learned = element("span", {"class": "token learned"}, "learned")
    given = element("span", {"class": "token"}, "given")
    reach = "all earlier tokens of the row" if across_documents else "earlier tokens of their own document only"
    return fragment(
        paragraph(
            learned,
            " tokens have a solid line below them and are labels; ",
            given,
            " ones have a dotted line and are only read. A picture with a thick line below is learned to be drawn. ",
            "Spaces are written as \u00b7, line ends as \u23ce.",
        ),
        paragraph(
            f"Tokens attend to {reach}. Point at tokens, or step through them with the Tab key: the pictures that ",
            "they may look at through MMFS get a frame. A token's own tip says position, id and the same in words.",
        ),
    )


def _row(number: int, row: PackedRow, *, across_documents: bool) -> Markup:
    pictures = [picture for document in row.documents for picture in document.pictures]
    learned = sum(document.n_learned for document in row.documents)
    drawn = sum(picture.drawn for picture in pictures)
    told = paragraph(
        f"{count(len(row.documents), 'document')}; {row.length:,} of {row.capacity:,} tokens "
        f"({percent(row.length / row.capacity)} full); {learned:,} labels; {count(len(pictures), 'picture')}, "
        f"{drawn} of them to draw."
    )
    documents = [_document(number, n, document) for n, document in enumerate(row.documents)]
    matrix = _matrix(row, pictures)
    if len(pictures) > _MANY_PICTURES:
        matrix = fold("Which pictures each stretch may see, as a table", matrix)
    return fragment(told, *documents, *([matrix] if pictures else []), _triangles(number, row, across_documents))


def _document(row: int, number: int, document: PackedDocument) -> Markup:
    told = (
        f"{number + 1}. {document.source}/{document.id}: tokens {document.start} to {document.stop - 1}, "
        f"{document.n_learned} learned"
    )
    flow = [_stretch(row, number, n, stretch) for n, stretch in enumerate(document.stretches)]
    return element("div", {"class": "document"}, element("h4", {}, told), element("div", {"class": "flow"}, *flow))


def _stretch(row: int, document: int, number: int, stretch: Stretch) -> Markup:
    sees = _sees(stretch.sees)
    tokens = [_token(token, sees) for token in stretch.tokens]
    attributes = {"class": "stretch", "id": _stretch_name(row, document, number), "tabindex": "0"}
    content: list[Content] = [element("span", attributes, *tokens)] if tokens else []
    if stretch.picture is not None:
        content.append(_picture(row, stretch.picture))
    return fragment(*content)


def _token(token: PackedToken, sees: str) -> Markup:
    said = token.text.replace(" ", "\u00b7").replace("\n", "\u23ce") or "\u2205"
    kinds = ["token", *(["learned"] if token.learned else []), *(["mark"] if token.kind == "mark" else [])]
    tip = f"position {token.position}, id {token.id}, {'learned' if token.learned else 'not learned'}; {sees}"
    return element("span", {"class": " ".join(kinds), "title": tip}, said)


def _picture(row: int, shown: PackedPicture) -> Markup:
    learned = "drawing it is learned" if shown.drawn else "not drawn"
    start = f" from {_numbers(shown.drawn_from)}" if shown.drawn and shown.drawn_from else ""
    words = f"picture {shown.number} ({shown.tokens} slots): {learned}{start}"
    content = figure(picture(shown.image, words, 88), words)
    name = "shown drawn" if shown.drawn else "shown"
    return element("div", {"class": name, "id": f"r{row}-p{shown.number}"}, content)


def _rules(row: int, packed: PackedRow) -> list[str]:
    """Return the style rules that frame what a stretch may see while it is pointed at."""
    rules = []
    for d, document in enumerate(packed.documents):
        for n, stretch in enumerate(document.stretches):
            name = _stretch_name(row, d, n)
            for state in ("hover", "focus", "target") if stretch.tokens else ():
                chosen = [f"#row-{row}:has(#{name}:{state}) #r{row}-p{number}" for number in stretch.sees]
                if chosen:
                    rules.append(f"{', '.join(chosen)} {{ border-color: var(--s2); }}")
    return rules


def _matrix(row: PackedRow, pictures: Sequence[PackedPicture]) -> Markup:
    columns = [Column("stretch"), *(Column(str(shown.number)) for shown in pictures)]
    rows: list[list[Content]] = []
    for d, document in enumerate(row.documents):
        for stretch in document.stretches:
            if stretch.tokens:
                first, last = stretch.tokens[0].position, stretch.tokens[-1].position
                marks = ["\u25cf sees" if shown.number in stretch.sees else "\u00b7" for shown in pictures]
                span = f"{first} to {last}" if last > first else str(first)
                rows.append([f"document {d + 1}, tokens {span}", *(mark[:1] for mark in marks)])
    said = "Which pictures (columns) each stretch of tokens may look at: \u25cf yes, \u00b7 no"
    return table(said, columns, rows)


def _triangles(number: int, row: PackedRow, across_documents: bool) -> Markup:
    """Return who attends to whom: a triangle for each document, or one for the row."""
    size = max(row.length, 1)
    spans = [(0, row.length)] if across_documents else [(d.start, d.stop) for d in row.documents]
    shapes = [element("polygon", {"points": f"{a},{a} {a},{b} {b},{b}"}) for a, b in spans]
    for document in row.documents:
        for stretch in document.stretches:
            if stretch.picture is not None and stretch.tokens:
                left = stretch.tokens[-1].position + 1
                bottom = row.length if across_documents else document.stop
                place = {"x": str(left), "y": str(left), "width": str(stretch.picture.tokens)}
                shapes.append(element("rect", {**place, "height": str(bottom - left), "class": "picture"}))
    frame = element("rect", {"x": "0", "y": "0", "width": str(size), "height": str(size), "class": "frame"})
    words = f"{count(len(spans), 'triangle')}: each token attends to itself and to what is above it in its triangle."
    attributes = {
        "viewBox": f"0 0 {size} {size}",
        "role": "img",
        "class": "triangle",
        "aria-labelledby": f"attention-{number}",
    }
    drawn = element("svg", attributes, element("title", {"id": f"attention-{number}"}, words), *shapes, frame)
    return fold(
        "Which token attends to which",
        figure(drawn, "Down: the token; across: the tokens it attends to; slots of pictures in another colour."),
        note(words),
    )


def _sees(numbers: Sequence[int]) -> str:
    return f"may see {_numbers(numbers)}" if numbers else "sees no picture"


def _numbers(numbers: Sequence[int]) -> str:
    return f"picture{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _stretch_name(row: int, document: int, number: int) -> str:
    return f"r{row}-d{document}-s{number}"
