"""Write a whole world to a folder, once: the same arguments give the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mmi.config import ConfigError
from mmi_eval.formats.errors import write_json

from .draw import Layout
from .jobs import Progress, WorldPlan, run_jobs
from .layouts.part import no_step
from .majority import majority_rates
from .recipe import PRESETS
from .scene import Split
from .sheet import contact_sheet
from .tokenizer import write_tokenizer
from .vocabulary import VERSION

SCHEMA_VERSION = 1
MAX_SIZE = 500_000
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_MOST_HELD_OUT = 5000
_PICTURE_SUFFIXES = (".png", ".npy")
_NOT_DIGESTED = ("world.json", "contact_sheet.png", "stats.html", "encoder", "judges")


@dataclass(frozen=True)
class WorldArguments:
    """What a world is made from.

    Args:
        size: Stories, pairs, captioned pictures and conversations of the train split, each; val has a tenth,
            test a fifth, at most 5000.
        seed: Another seed draws another world.
        image_size: Height and width of the pictures, a multiple of 16.
        vocab_size: Entries of the tokenizer.
        preset: One of ``PRESETS``.
    """

    size: int = 1500
    seed: int = 0
    image_size: int = 32
    vocab_size: int = 512
    preset: str = "tiny"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f'preset is "{self.preset}"; expected one of {", ".join(PRESETS)}.')
        if not 1 <= self.size <= MAX_SIZE:
            raise ConfigError(f"size is {self.size}; expected 1 to {MAX_SIZE} stories.")
        if self.vocab_size < 259:
            raise ConfigError(
                f"vocab_size is {self.vocab_size}; expected at least 259 (256 bytes and 3 control entries)."
            )
        try:
            Layout.of(self.image_size)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        least = PRESETS[self.preset].least_image_size
        if self.image_size < least:
            raise ConfigError(
                f"image_size is {self.image_size}; the prints of preset {self.preset} need at least {least}."
            )

    def size_of(self, split: Split) -> int:
        """Return the number of stories of a split."""
        if split == "train":
            return self.size
        return min(_MOST_HELD_OUT, -(-self.size // (10 if split == "val" else 5)))


@dataclass(frozen=True)
class WorldSummary:
    """What is in a world's folder.

    Args:
        folder: Where it is.
        written: False if it was there already.
        counts: Items by split and kind.
        majority: Share of the most frequent answer in the train split, by kind of question (such as ``vqa``) and type.
    """

    folder: Path
    written: bool
    counts: Mapping[str, Mapping[str, int]]
    majority: Mapping[str, Mapping[str, float]]

    def __str__(self) -> str:
        parts = [
            f"{split}: " + ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in kinds.items())
            for split, kinds in self.counts.items()
        ]
        done = "wrote" if self.written else "found, unchanged:"
        return f"{done} micro-world in {self.folder} ({'; '.join(parts)})"


def write_world(
    out: str | Path,
    *,
    size: int = 1500,
    seed: int = 0,
    image_size: int = 32,
    vocab_size: int = 512,
    preset: str = "tiny",
    workers: int = 1,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> WorldSummary:
    """Write stories, pairs, captions, questions, conversations and the tokenizer of a world.

    The folder appears when everything is in it; an interrupted call leaves nothing behind. If the same world is there
    already, nothing is done.

    Args:
        out: The folder.
        size: Stories, pairs, captioned pictures and conversations of the train split, each; val has a tenth,
            test a fifth, at most 5000.
        seed: Another seed draws another world.
        image_size: Height and width of the pictures, a multiple of 16.
        vocab_size: Entries of the tokenizer.
        preset: One of ``PRESETS``: ``tiny`` is easy to learn, ``crowded`` asks much of each picture,
            ``detailed`` much of several, ``recalled`` as much of the first as of the second; ``lab`` is rich. These
            three need at least 64 pixels.
        workers: Number of processes that write; the bytes are the same whatever it is.
        progress: Called with the number of items done and of all items.
        overwrite: Replace another world in that folder; never replaces anything that is not a world.

    Raises:
        ConfigError: If an argument is out of range, or the folder holds something else.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}; expected at least 1 process.")
    out = Path(out)
    arguments = WorldArguments(size, seed, image_size, vocab_size, preset)
    found = _existing(out, arguments, overwrite)
    if found is not None:
        return found
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        summary = _write(partial, arguments, workers, progress)
        if out.is_dir():
            shutil.rmtree(out)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return WorldSummary(out, True, summary["counts"], summary["majority"])


def _existing(out: Path, arguments: WorldArguments, overwrite: bool) -> WorldSummary | None:
    """Return the same world if it is there, ``None`` if the folder may be written."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; expected a folder to write the micro-world to.")
    if not out.is_dir() or not any(out.iterdir()):
        return None
    try:
        world = json.loads((out / "world.json").read_bytes())
        version, given = world["version"], WorldArguments(**world["arguments"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{out} holds files but no micro-world; choose an empty or new folder.") from None
    if overwrite:
        return None
    if (version, given) != (VERSION, arguments):
        raise ConfigError(
            f"{out} holds another micro-world (version {version}, size {given.size}, seed {given.seed}, "
            f"{given.image_size} px, {given.vocab_size} tokens, preset {given.preset}); choose another folder or "
            "overwrite it."
        )
    if digests(out) != world["sha256"]:
        raise ConfigError(f"{out} holds this micro-world, but files were changed or lost since; overwrite it.")
    return WorldSummary(out, False, world["counts"], world["majority"])


def _write(folder: Path, arguments: WorldArguments, workers: int, progress: Progress | None) -> dict[str, dict]:
    sizes: dict[Split, int] = {split: arguments.size_of(split) for split in _SPLITS}
    plan = WorldPlan(folder, sizes, arguments.seed, arguments.image_size, PRESETS[arguments.preset])
    write_tokenizer(folder / "tokenizer", arguments.vocab_size)
    counts = run_jobs(plan, workers, progress or (lambda done, total: None))
    summary: dict[str, dict] = {"counts": counts, "majority": majority_rates(folder, "train")}
    contact_sheet(plan.parts(no_step)[0]).save(folder / "contact_sheet.png")
    world = {
        "schema_version": SCHEMA_VERSION,
        "version": VERSION,
        "arguments": asdict(arguments),
        "sha256": digests(folder),
        **summary,
    }
    write_json(folder / "world.json", world, indent=1)
    return summary


def digests(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a world; the pictures of a folder count as one.

    Left out are the contact sheet, whose letters depend on the installed font library, ``world.json``, and what is made
    from the world later.
    """
    folder = Path(folder)
    result: dict[str, str] = {}
    pictures: dict[str, list[str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] in _NOT_DIGESTED:
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix in _PICTURE_SUFFIXES:
            pictures.setdefault(f"{name.rsplit('/', 1)[0]}/", []).append(f"{path.name} {digest}")
        else:
            result[name] = digest
    for name, lines in pictures.items():
        result[name] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return dict(sorted(result.items()))
