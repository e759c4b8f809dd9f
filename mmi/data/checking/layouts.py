"""Which layout a folder or file has, from its names and first records, so that it can be checked without a config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from mmi.config import ConfigError
from mmi.data.sources.config import Format, SourceConfig
from mmi_eval.formats.caption_folder import LISTS, captions_beside, pictures_below
from mmi_eval.formats.errors import FormatError, load_json, parse_json
from mmi_eval.formats.random_access import IndexedLines

_LINES = (".jsonl", ".jsonl.zip", ".jsonl.gz", ".txt")
_PREPARED = {"pairs": "pair_tars", "mmc4": "mmc4", "conversations": "conversations"}


def guess_sources(place: str | Path, images: str | None = None) -> dict[str, SourceConfig]:
    """Return the sources that a folder or file holds, by name; none if it holds pictures only.

    Args:
        place: A folder that ``mmi data prepare`` wrote, a folder of tars or line files, or one file.
        images: Folder of the pictures, where they do not lie beside it.

    Raises:
        FileNotFoundError: If there is no such place.
        ConfigError: If it holds a layout that is not known.
    """
    place = Path(place).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist; give a folder, a file or --config.")
    if place.is_file():
        return {place.name.split(".")[0]: _source(_layout_of(place), place, images)}
    record = place / "prepared.json"
    if record.is_file():
        told = load_json(record, "the record of a prepared data set")
        return _prepared(place, told if isinstance(told, Mapping) else {})
    if any(place.glob("*.tar")):
        return {place.name: _source("pair_tars", place, images)}
    files = sorted(
        f for f in place.iterdir() if f.is_file() and f.name.lower().endswith((*_LINES, ".json", ".parquet"))
    )
    pictures = [place / name for name in pictures_below(place)]
    stems = {picture.with_suffix("") for picture in pictures}
    found = {}
    for file in files:
        if file.suffix in (".txt", ".json") and file.with_suffix("") in stems:
            continue
        layout = _layout_of(file, strict=False)
        if layout is not None:
            found[file.name.split(".")[0] if len(files) == 1 else file.name] = _source(layout, file, images)
    captioned = any((place / name).is_file() for name in LISTS) or any(map(_is_captioned, pictures))
    return {place.name: SourceConfig("folder", str(place))} if pictures and captioned and not found else found


def _is_captioned(picture: Path) -> bool:
    try:
        return bool(captions_beside(picture)) or picture.with_suffix(".txt").is_file()
    except FormatError:
        return True


def _prepared(place: Path, told: Mapping[str, Any]) -> dict[str, SourceConfig]:
    recipe, name = told.get("recipe"), str(told.get("card", place.name))
    if recipe not in _PREPARED:
        raise ConfigError(
            f"{place} is the record of a release that is read as it is; check the release, by --config or its file."
        )
    if recipe == "mmc4":
        images = place / "images" / "*.tar" if told.get("packed") else place / "images"
        return {name: SourceConfig("mmc4", str(place / "shards"), str(images))}
    if recipe == "conversations":
        return {name: SourceConfig("conversations", str(place / "conversations.json"), str(place / "images"))}
    return {name: SourceConfig("pair_tars", str(place))}


def _source(layout: str | None, place: Path, images: str | None) -> SourceConfig:
    known = get_args(Format)
    if layout not in known:
        raise ConfigError(f"{place} has no layout that is known here; say it in a config: data.train.NAME.format.")
    if layout == "pair_tars":
        return SourceConfig(layout, str(place))
    return SourceConfig(layout, str(place), images)  # type: ignore[arg-type]


def _layout_of(file: Path, *, strict: bool = True) -> str | None:
    """Return the format of a file, or None."""
    name = file.name.lower()
    try:
        if name.endswith(".tar"):
            return "pair_tars"
        if name.endswith(".parquet"):
            return "obelics"
        if name.endswith(_LINES):
            lines = IndexedLines(file)
            return _layout_of_line(lines[0]) if len(lines) else None
        if name.endswith(".json"):
            return _layout_of_tree(load_json(file, "a data file"))
    except FormatError:
        if strict:
            raise
    return None


def _layout_of_line(line: bytes) -> str | None:
    if line.lstrip().startswith(b"{'"):
        return "pair_jsonl"
    try:
        row = parse_json(line, "the first line")
    except FormatError:
        return None
    keys = set(row) if isinstance(row, dict) else set()
    for layout, needed in (
        ("mmc4", {"text_list", "image_info"}),
        ("obelics", {"images", "texts"}),
        ("pair_jsonl", {"image", "caption"}),
    ):
        if needed <= keys:
            return layout
    return None


def _layout_of_tree(tree: object) -> str | None:
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        if "conversations" in tree[0]:
            return "conversations"
        return "coco_captions" if {"image", "caption"} <= set(tree[0]) else None
    if isinstance(tree, dict) and {"images", "annotations"} <= set(tree):
        first = next(iter(tree["annotations"]), {})
        return "coco_captions" if isinstance(first, dict) and "caption" in json.dumps(list(first)) else None
    return None
