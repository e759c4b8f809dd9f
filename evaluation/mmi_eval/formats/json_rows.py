"""Rows of a result file: a JSON list of objects, or an object on each line, as many systems write their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import FormatError, as_object, existing_file, parse_json


def read_rows(path: str | Path, what: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where each row stands, for messages, and the row.

    Args:
        path: The file.
        what: What it should be, for the message where it is not there.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or neither a list nor lines of objects.
    """
    data = existing_file(path, what).read_bytes().removeprefix(b"\xef\xbb\xbf").lstrip()
    if data.startswith(b"["):
        for number, value in enumerate(parse_json(data, str(path))):
            yield f"{path}, entry {number}", as_object(value, f"{path}, entry {number}")
        return
    if not data.startswith(b"{"):
        raise FormatError(f"{path} holds neither a JSON list nor an object on each line; expected {what}.")
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            yield (
                f"{path}, line {number}",
                as_object(parse_json(line, f"{path}, line {number}"), f"{path}, line {number}"),
            )


def has_object_lines(path: str | Path) -> bool:
    """Say whether the first line of a file is a whole JSON object; that of one object over many lines is not.

    Raises:
        FileNotFoundError: If the file is not there.
    """
    with existing_file(path, "JSON").open("rb") as stream:
        first = stream.readline().removeprefix(b"\xef\xbb\xbf").strip()
        has_more = bool(stream.read(64).strip())
    if not has_more or not first.startswith(b"{"):
        return False
    try:
        return isinstance(parse_json(first, str(path)), dict)
    except FormatError:
        return False
