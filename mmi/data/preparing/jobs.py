"""Shards written by one or several processes, so that a killed run goes on: what is finished is checked, not repeated.

Every shard is written under a temporary name, synced and renamed; then a record with its hashes appears in
``prepared/NAME.json``. A later run trusts a record only if every file it names still has its hash. ``prepared.json``
says what the folder is made from; another input or other settings are refused instead of mixed.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmi.config import ConfigError
from mmi_eval.formats.errors import FormatError, as_object, dump_json, load_json, write_json

RECORD = "prepared.json"
RECORDS = "prepared"
SKIPPED = "skipped.jsonl"
SCHEMA_VERSION = 1
Progress = Callable[[int, int], None]
"""Told finished shards and all shards."""


@dataclass(frozen=True)
class LeftOut:
    """A record, or a part of one, that is not in the shards.

    Args:
        id: Which record.
        reason: A short phrase that is the same for every such case.
        detail: What a person needs to find and mend it.
        whole: False where the rest of the record was kept.
    """

    id: str
    reason: str
    detail: str = ""
    whole: bool = True


@dataclass(frozen=True)
class ShardRecord:
    """What one shard became.

    Args:
        name: Name of the shard.
        files: SHA-256 in hexadecimal of every file, by its path below the folder.
        records: Records in it.
        images: Pictures in it.
        left_out: What is not in it.
    """

    name: str
    files: Mapping[str, str]
    records: int
    images: int = 0
    left_out: Sequence[LeftOut] = field(default_factory=tuple)


class ShardWork(Protocol):
    """One data set cut into shards, each of which can be written alone and in any order."""

    def identity(self) -> dict[str, Any]:
        """Return in plain types everything that decides the bytes of the shards."""
        ...

    def names(self) -> Sequence[str]:
        """Return the name of each shard."""
        ...

    def folder(self, out: Path) -> Path:
        """Return the folder that the files of a record lie below."""
        ...

    def write(self, number: int, out: Path) -> ShardRecord:
        """Write one shard below ``out`` by ``finished_file`` and say what it became."""
        ...

    def finish(self, out: Path) -> None:
        """Do what needs all shards, such as joining them; may be called again."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What a run did.

    Args:
        out: The folder.
        shards: All shards.
        kept: Those that an earlier run had finished.
        records: Records in all shards.
        images: Pictures in all shards.
        left_out: How many records, and parts of records, are not in them, by reason.
    """

    out: Path
    shards: int
    kept: int
    records: int
    images: int
    left_out: Mapping[str, int]


def prepare(
    work: ShardWork, out: str | Path, *, name: str, workers: int = 1, progress: Progress | None = None
) -> Prepared:
    """Write all shards that are not there yet.

    Args:
        work: What makes them.
        out: An empty or new folder, or that of a run of the same work.
        name: Name of the data card, for the record.
        workers: Processes; one is this process itself.
        progress: Told finished shards and all shards, in this process.

    Raises:
        ConfigError: If the folder holds something else.
    """
    out = Path(out)
    names = list(work.names())
    _claim(out, {"schema_version": SCHEMA_VERSION, "card": name, **work.identity()}, len(names))
    tell = progress or (lambda done, total: None)
    done: dict[int, ShardRecord] = {}
    for number, shard in enumerate(names):
        record = read_record(out, shard)
        if record is not None and is_whole(work.folder(out), record):
            done[number] = record
            tell(len(done), len(names))
    kept = len(done)
    waiting = [number for number in range(len(names)) if number not in done]
    for number, record in _written(work, out, waiting, workers):
        write_synced(out / RECORDS / f"{record.name}.json", dump_json(asdict(record)).encode() + b"\n")
        done[number] = record
        tell(len(done), len(names))
    work.finish(out)
    records = [done[number] for number in range(len(names))]
    _write_skipped(out, name, records)
    left_out = Counter(part.reason for record in records for part in record.left_out)
    found = Prepared(
        out, len(names), kept, sum(r.records for r in records), sum(r.images for r in records), dict(left_out)
    )
    result = {"records": found.records, "images": found.images, "left_out": found.left_out}
    _note(out, {"complete": True, "result": result})
    return found


def is_whole(folder: Path, record: ShardRecord) -> bool:
    """Say whether every file of a record is there and has its hash."""
    return all((folder / file).is_file() and sha256_of(folder / file) == h for file, h in record.files.items())


def read_record(out: Path, shard: str) -> ShardRecord | None:
    """Return the record of a shard, or None where there is none that can be read."""
    path = out / RECORDS / f"{shard}.json"
    try:
        tree = as_object(json.loads(path.read_bytes()), str(path))
        left_out = tuple(LeftOut(**part) for part in tree["left_out"])
        return ShardRecord(tree["name"], dict(tree["files"]), int(tree["records"]), int(tree["images"]), left_out)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def finished_file(path: Path) -> Iterator[Path]:
    """Give a name to write to; afterwards the file is synced and renamed, so that no half file has its real name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    yield draft
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    with finished_file(path) as draft:
        draft.write_bytes(data)


def _claim(out: Path, identity: Mapping[str, Any], n_shards: int) -> None:
    """Write down what the folder is for, or compare with what is written there."""
    path = out / RECORD
    if path.is_file():
        try:
            there = as_object(load_json(path, "the record of a prepared data set"), str(path))
        except FormatError as error:
            raise ConfigError(f"{error} Remove {out} to start again.") from None
        changed = sorted(key for key, value in identity.items() if there.get(key) != value)
        if changed:
            raise ConfigError(
                f"{out} was prepared from something else ({', '.join(changed)} changed); choose another --out, or "
                "remove that folder."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} holds files but no {RECORD}; choose an empty or new folder for --out.")
    else:
        write_json(path, {**identity, "shards": n_shards, "complete": False}, indent=1)


def _note(out: Path, facts: Mapping[str, Any]) -> None:
    tree = dict(as_object(load_json(out / RECORD, "the record of a prepared data set"), RECORD))
    write_synced(out / RECORD, dump_json({**tree, **facts}, indent=1).encode() + b"\n")


def _write_skipped(out: Path, name: str, records: Sequence[ShardRecord]) -> None:
    lines = [
        dump_json(
            {
                "schema_version": SCHEMA_VERSION,
                "source": name,
                "document_id": part.id,
                "reason": part.reason,
                "detail": part.detail,
                "whole": part.whole,
                "count": 1,
            }
        )
        for record in records
        for part in record.left_out
    ]
    write_synced(out / SKIPPED, "".join(f"{line}\n" for line in lines).encode())


def _written(work: ShardWork, out: Path, waiting: Sequence[int], workers: int) -> Iterator[tuple[int, ShardRecord]]:
    if workers <= 1 or len(waiting) <= 1:
        for number in waiting:
            yield number, work.write(number, out)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(waiting)), context, _begin, (work, out))
    try:
        running: dict[Future[ShardRecord], int] = {pool.submit(_write_here, number): number for number in waiting}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_here: list[tuple[ShardWork, Path]] = []


def _begin(work: ShardWork, out: Path) -> None:
    """Keep the work in a process of the pool: it is sent once, not with every shard."""
    _here[:] = [(work, out)]


def _write_here(number: int) -> ShardRecord:
    work, out = _here[0]
    return work.write(number, out)
