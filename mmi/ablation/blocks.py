"""Blocks of Markdown that a command writes between markers, in files that are otherwise written by hand."""

from __future__ import annotations

from pathlib import Path

from mmi.ablation.records import write_whole

BEGIN, END = "<!-- results: written by mmi ablate -->", "<!-- end of results -->"


def write_block(path: Path, body: str, head: str) -> None:
    """Put text between the markers of a file; what stands around them stays as it is.

    Args:
        path: A Markdown file; where it is absent it is made, where it has no markers they are put at its end.
        body: What stands between them.
        head: How a new file begins.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else head
    block = f"{BEGIN}\n\n{body.strip()}\n\n{END}"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        new = before + block + after
    else:  # a marker that lost its partner is dropped rather than the words after it
        new = text.replace(BEGIN, "").replace(END, "").rstrip() + f"\n\n{block}\n"
    write_changed(path, new)


def write_changed(path: Path, text: str) -> None:
    """Write what changed; a file that would be the same stays untouched."""
    if not path.is_file() or path.read_bytes() != text.encode():
        write_whole(path, text)
