"""MMC4 documents and a folder of their pictures to shards: documents as they were, pictures checked and in tars.

``shards/NAME.jsonl.zip`` holds the documents with the pictures that are there, ``images/NAME.tar`` these pictures under
their ``image_name``. Everything else a record says stays as it is.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmi.config import ConfigError
from mmi.data.filters import NO_PICTURE_LEFT
from mmi.data.images import ImageError
from mmi.data.preparing.jobs import LeftOut, ShardRecord, finished_file, sha256_of
from mmi.data.preparing.pictures import check_picture
from mmi.data.skips import BROKEN, NO_FILE, UNREADABLE
from mmi_eval.formats.errors import FormatError, as_object, dump_json, parse_json, path_inside
from mmi_eval.formats.mmc4 import SUFFIXES, parse_mmc4
from mmi_eval.formats.random_access import IndexedLines
from mmi_eval.formats.shards import shard_files, shard_names, write_lines


@dataclass(frozen=True)
class StoryWork:
    """One prepared shard for every file of documents.

    Args:
        documents: File or folder of ``.jsonl`` or ``.jsonl.zip``.
        images: Folder of the pictures by ``image_name``.
        short_side: Larger pictures are shrunk to it.
        packed: Put pictures into tars; otherwise into one folder, as files.
    """

    documents: str
    images: str
    short_side: int | None = None
    packed: bool = True

    def __post_init__(self) -> None:
        if not Path(self.images).is_dir():
            raise FileNotFoundError(f"{self.images} is no folder; give the folder of the pictures with --images.")
        if not self._files:
            raise ConfigError(f"{self.documents} holds no {' or '.join(SUFFIXES)}.")

    @cached_property
    def _files(self) -> list[Path]:
        return shard_files(self.documents, SUFFIXES)

    def identity(self) -> dict[str, Any]:
        """Return names, sizes and settings; documents may be terabytes, so they are not hashed."""
        told = "\n".join(f"{file.name} {file.stat().st_size}" for file in self._files)
        return {
            "recipe": "mmc4",
            "documents": sha256(told.encode()).hexdigest(),
            "files": len(self._files),
            "short_side": self.short_side,
            "packed": self.packed,
        }

    def names(self) -> Sequence[str]:
        """Return the names of the files without ending, folders as ``_``."""
        return [n.replace("/", "_") for n in shard_names(self._files, lambda file: file.name.split(".jsonl")[0])]

    def folder(self, out: Path) -> Path:
        """Return ``out``."""
        return out

    def finish(self, out: Path) -> None:
        """Do nothing: shards stand alone."""

    def write(self, number: int, out: Path) -> ShardRecord:
        """Write the documents of one file and their pictures."""
        name = self.names()[number]
        left_out: list[LeftOut] = []
        pictures: dict[str, str] = {}
        shard, tar = f"shards/{name}.jsonl.zip", f"images/{name}.tar"
        rows: list[str] = []
        (out / "images").mkdir(parents=True, exist_ok=True)
        with finished_file(out / tar) as draft, tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as archive:
            for row in self._documents(number, left_out, pictures, archive if self.packed else None, out):
                rows.append(row)
        files = {}
        if self.packed:
            files[tar] = sha256_of(out / tar)
        else:
            (out / tar).unlink()
            files |= {f"images/{picture}": digest for picture, digest in pictures.items()}
        with finished_file(out / shard) as draft:
            # The ending decides how lines are packed, so the draft needs it too.
            packed = draft.with_name(f"{name}.draft.jsonl.zip")
            write_lines(packed, rows)
            packed.replace(draft)
        files[shard] = sha256_of(out / shard)
        return ShardRecord(name, files, len(rows), len(pictures), tuple(left_out))

    def _documents(
        self,
        number: int,
        left_out: list[LeftOut],
        pictures: dict[str, str],
        archive: tarfile.TarFile | None,
        out: Path,
    ) -> Iterator[str]:
        lines = IndexedLines(self._files[number])
        for index in range(len(lines)):
            name, where = f"{self.names()[number]}/{lines.row(index)}", lines.where(index)
            try:
                record = dict(as_object(parse_json(lines[index], where), where))
                images = parse_mmc4(lines[index], where).images
            except FormatError as error:
                left_out.append(LeftOut(name, BROKEN, str(error)))
                continue
            kept = []
            for place, image in enumerate(images):
                fault = self._take(image.image_name, pictures, archive, out)
                if fault is None:
                    kept.append(place)
                else:
                    left_out.append(LeftOut(name, fault[0], fault[1], whole=False))
            if not kept:
                left_out.append(LeftOut(name, NO_PICTURE_LEFT, f"of {len(images)}"))
                continue
            yield dump_json(_with_pictures(record, kept))

    def _take(
        self, name: str, pictures: dict[str, str], archive: tarfile.TarFile | None, out: Path
    ) -> tuple[str, str] | None:
        """Put a picture where it goes and return None, or say what is wrong with it."""
        if name in pictures:
            return None
        try:
            path = path_inside(self.images, name, "an MMC4 record")
            picture = check_picture(path.read_bytes(), name, short_side=self.short_side)
            target = path_inside(out / "images", name, "an MMC4 record")
        except FormatError as error:
            return BROKEN, str(error)
        except ImageError as error:
            return UNREADABLE, str(error)
        except OSError as error:
            return NO_FILE, f"{name} ({error.strerror})"
        if archive is None:
            with finished_file(target) as draft:
                draft.write_bytes(picture.data)
        else:
            member = tarfile.TarInfo(name)
            member.size = len(picture.data)
            archive.addfile(member, io.BytesIO(picture.data))
        pictures[name] = picture.sha256
        return None


def _with_pictures(record: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return a record with some of its pictures; the similarity matrix has a row for each."""
    changed = {**record, "image_info": [record["image_info"][place] for place in kept]}
    if isinstance(record.get("similarity_matrix"), list):
        changed["similarity_matrix"] = [record["similarity_matrix"][place] for place in kept]
    return changed
