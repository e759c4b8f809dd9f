"""From a world's folder to its counts: every family is read on its own, and what cannot be read is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmi_eval.formats.errors import FormatError, as_object, load_json, parse_json
from mmi_eval.tasks.answer_tables import read_tags

from .dataset import Dataset, Part, SceneCounts, count_items
from .world_families import FAMILIES, SPLITS

Progress = Callable[[int, int], None]
_PROPERTIES = ("shape", "colour", "size", "texture", "cell", "name")


def read_world(folder: str | Path, progress: Progress | None = None) -> Dataset:
    """Count what is in a folder of the micro-world; families that are not there are left out.

    Args:
        folder: Where ``world.json`` is.
        progress: Called with the families done and all families.

    Raises:
        FileNotFoundError: If there is no ``world.json``.
        FormatError: If it is malformed, or no family can be read.
    """
    root = Path(folder)
    path = root / "world.json"
    world = as_object(load_json(path, "the record of a micro-world; make one with mmi data microworld"), str(path))
    remarks: list[str] = []
    tags = {_kind_and_split(file): _tags(file, remarks) for file in sorted((root / "tags").glob("*_*.jsonl"))}
    parts: list[Part] = []
    jobs = [(family, split) for family in FAMILIES for split in SPLITS]
    for done, (family, split) in enumerate(jobs, start=1):
        try:
            items = FAMILIES[family](root, split, tags.get((family, split), {}))
            if items is not None and (part := count_items(family, split, items)).n_items:
                parts.append(part)
        except (FormatError, OSError, ModuleNotFoundError) as error:
            remarks.append(f"{family}, {split}: {error}")
        if progress is not None:
            progress(done, len(jobs))
    if not parts:
        raise FormatError(f"{folder} holds no family that can be read; make the world anew with mmi data microworld.")
    files = sorted((root / "scenes").glob("*_*.jsonl"))
    arguments = as_object(world.get("arguments") or {}, f"{path}, arguments")
    facts = {"version": str(world.get("version"))} | {name: str(value) for name, value in arguments.items()}
    return Dataset(
        Path(folder).as_posix(),
        facts,
        parts,
        [counts for file in files if (counts := _scenes(file, remarks)) is not None],
        {key: Counter(tag for of_item in found.values() for tag in of_item) for key, found in tags.items() if found},
        remarks,
    )


def _kind_and_split(file: Path) -> tuple[str, str]:
    kind, _, split = file.stem.rpartition("_")
    return kind, split


def _tags(file: Path, remarks: list[str]) -> dict[str, tuple[str, ...]]:
    try:
        return read_tags(file)
    except FormatError as error:
        remarks.append(str(error))
        return {}


def _scenes(file: Path, remarks: list[str]) -> SceneCounts | None:
    kind, split = _kind_and_split(file)
    n_things: Counter[int] = Counter()
    values: dict[str, Counter[str]] = {}
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{file}, line {number}"
                scene = as_object(parse_json(line, where), where)
                things = [as_object(thing, where) for thing in scene.get("things") or ()]
                n_things[len(things)] += 1
                values.setdefault("place", Counter())[str(scene.get("place"))] += 1
                for thing in things:
                    _count_thing(thing, values)
    except FormatError as error:
        remarks.append(str(error))
        return None
    return SceneCounts(kind, split, n_things.total(), n_things, values)


def _count_thing(thing: object, values: dict[str, Counter[str]]) -> None:
    row = as_object(thing, "a thing of a scene")
    for name in _PROPERTIES:
        if row.get(name) is not None:
            values.setdefault(name, Counter())[str(row[name])] += 1
    printed = row.get("print")
    size = str(printed.get("size")) if isinstance(printed, dict) else "no print"
    values.setdefault("print size", Counter())[size] += 1
