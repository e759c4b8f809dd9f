"""What every reader says when a file is not what it should be, and the checks that say it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

T = TypeVar("T")

_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}


class FormatError(ValueError):
    """Say in one sentence which file, row and key is wrong, what was expected and the way out."""


def existing_file(path: str | Path, what: str) -> Path:
    """Return the path of a file that is there.

    Raises:
        FileNotFoundError: If it is not.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {kind}; expected {what}. Check the path.")
    return path


def parse_json(data: bytes | str, where: str) -> Any:
    """Return parsed JSON; ``where`` names file and row in the message.

    Raises:
        FormatError: If the bytes are not UTF-8 or not JSON.
    """
    try:
        return json.loads(data.decode("utf-8") if isinstance(data, bytes) else data)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where} is not UTF-8 (byte {error.start}); convert the file to UTF-8.") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{where} is not JSON ({error.msg} at column {error.colno}); rewrite or remove it.") from None
    except RecursionError:
        raise FormatError(f"{where} is nested too deeply to be a record; rewrite or remove it.") from None


def load_json(path: str | Path, what: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it does not parse.
    """
    return parse_json(existing_file(path, what).read_bytes().removeprefix(b"\xef\xbb\xbf"), str(path))


def dump_json(value: object, *, indent: int | None = None) -> str:
    """Return JSON with sorted keys, the same bytes for the same content."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=indent, separators=separators, allow_nan=False)


def write_json(path: str | Path, value: object, *, indent: int | None = None) -> None:
    """Write sorted JSON with a final newline, creating the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump_json(value, indent=indent).encode() + b"\n")


def as_object(value: object, where: str) -> Mapping[str, Any]:
    """Return ``value`` if it is a JSON object.

    Raises:
        FormatError: If it is anything else.
    """
    if not isinstance(value, dict):
        raise FormatError(f"{where} holds {_describe(value)}; expected an object with named keys.")
    return value


def field(record: Mapping[str, Any], key: str, kind: type[T] | tuple[type[T], ...], where: str) -> T:
    """Return ``record[key]`` of the expected type; true and false do not count as numbers.

    Raises:
        FormatError: If the key is absent or its value is of another type.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join(_TYPE_NAMES.get(k, k.__name__) for k in kinds)
    if key not in record:
        present = ", ".join(sorted(map(str, record))) or "none"
        raise FormatError(f'{where} has no key "{key}" ({expected}); its keys are: {present}.')
    value = record[key]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise FormatError(f'{where}: "{key}" is {_describe(value)}; expected {expected}.')
    return value


def optional_field(record: Mapping[str, Any], key: str, kind: type[T] | tuple[type[T], ...], where: str) -> T | None:
    """Return ``record[key]``, or ``None`` where it is absent or null.

    Raises:
        FormatError: If the value is of another type.
    """
    return None if record.get(key) is None else field(record, key, kind, where)


def text_list(value: object, where: str) -> tuple[str, ...]:
    """Return a list of strings as a tuple.

    Raises:
        FormatError: If it is not a list, or an entry is not text.
    """
    if not isinstance(value, list):
        raise FormatError(f"{where} is {_describe(value)}; expected a list of texts.")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise FormatError(f"{where}, entry {index} is {_describe(item)}; expected text.")
    return tuple(value)


def path_inside(root: str | Path, name: str, where: str) -> Path:
    """Return ``root / name`` for a relative name that stays inside ``root``.

    Raises:
        FormatError: If the name is absolute or climbs out, so that no record reads a file elsewhere.

    Example:
        >>> path_inside("photos", "a/1.jpg", "row 1").as_posix()
        'photos/a/1.jpg'
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    drive = len(name) > 1 and name[1] == ":"
    if not parts or drive or parts[0] == "/" or ".." in parts or "\0" in name:
        raise FormatError(f'{where} names the file "{name}"; expected a relative path below {root}. Rewrite the path.')
    return Path(root, *parts)


def _describe(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:40]}..."
