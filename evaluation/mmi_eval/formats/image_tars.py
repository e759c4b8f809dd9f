"""Pictures inside uncompressed tar files, found by name and read at their place; nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from .errors import FormatError
from .random_access import FileRange
from .shards import PathsLike, shard_files


class ImageTars:
    """The files of one or more tars by name.

    A name is found as it stands in the tar, or by its last part where no other member has that.

    Args:
        paths: Tar, folder of tars, name with ``{000..123}`` or ``*``, or a list of these.

    Raises:
        FileNotFoundError: If there is no tar.
        FormatError: If one is cut off, compressed or holds links.
    """

    def __init__(self, paths: PathsLike) -> None:
        self._places: dict[str, FileRange] = {}
        self._bare: dict[str, str | None] = {}
        for path in shard_files(paths, (".tar",)):
            self._add(path)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, name: str) -> FileRange | None:
        """Return where a file lies, or None if it is in none of the tars."""
        place = self._places.get(name)
        if place is None and (whole := self._bare.get(PurePosixPath(name).name)) is not None:
            place = self._places[whole]
        return place

    def _add(self, path: Path) -> None:
        size = path.stat().st_size
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    where = f'{path}, member "{member.name}"'
                    if not member.isreg() or member.issparse():
                        raise FormatError(f"{where} is a link or special file; expected plain files. Pack it again.")
                    if member.offset_data + member.size > size:
                        raise FormatError(f"{where} is cut off; fetch the tar again.")
                    self._note(member.name.removeprefix("./"), FileRange(path, member.offset_data, member.size))
        except (tarfile.TarError, EOFError) as error:
            raise FormatError(
                f"{path} is not a complete, uncompressed tar file ({error}); fetch or decompress it again."
            ) from None

    def _note(self, name: str, place: FileRange) -> None:
        bare = PurePosixPath(name).name
        # Two members of one bare name are only found by their whole names.
        self._bare[bare] = None if bare in self._bare and self._bare[bare] != name else name
        self._places[name] = place
