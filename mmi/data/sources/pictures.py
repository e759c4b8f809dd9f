"""Where the pictures of a source lie: in folders, in tars, or at an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from mmi.data.document import ImageItem
from mmi.data.skips import NO_FILE, SkipError
from mmi.data.sources.places import expanded, is_url, read_remote
from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.formats.image_tars import ImageTars
from mmi_eval.formats.random_access import FileRange

# More than a mixture has sources: shards of a source that streams are opened all the time, each asking for its store.
_STORES_KEPT = 256
_SPLIT = re.compile(r"(train|val|test)\d{4}")


@dataclass(frozen=True)
class Picture:
    """A picture that was found.

    Args:
        open: Returns a binary stream of the encoded picture; small enough to send to another process.
        uri: Where it lies, for messages.
        path: Its file, where it is one.
    """

    open: Callable[[], BinaryIO]
    uri: str
    path: Path | None = None

    def item(self, *, loss: bool, size: tuple[int, int] | None = None) -> ImageItem:
        """Return it as an item of a document."""
        return ImageItem(self.open, self.uri, size, loss)


class PictureStore(Protocol):
    """Finds pictures by the names a record gives them."""

    told: str
    """Where it looks, for messages."""

    def find(self, *names: str) -> Picture | None:
        """Return the first of the names that is there."""
        ...


class PictureFolders:
    """Folders in which the pictures of an annotation file may lie.

    Below the given folder (or beside the annotation file, in ``images`` beside it, or the same one level up) a picture
    is looked for under its whole name, its last two parts, its bare name, and its bare name in the folder of its split,
    such as ``val2014``; the place of the last find is tried first.

    Args:
        annotations: The annotation file.
        images: The folder the user named, if any.
    """

    def __init__(self, annotations: Path, images: Path | None = None) -> None:
        folder = annotations.parent
        beside = (folder, folder / "images", folder.parent, folder.parent / "images")
        self._roots = [images] if images is not None else [root for root in beside if root.is_dir()]
        self._split = _SPLIT.search(annotations.name)
        self._last = 0
        self.told = " or ".join(map(str, self._roots))

    def find(self, *names: str) -> Picture | None:
        """Return the first of the names that is there."""
        places = [(root, place) for name in names for root in self._roots for place in self._places(name)]
        for i in sorted(range(len(places)), key=lambda i: i != self._last):
            path = places[i][0] / places[i][1]
            if path.is_file():
                self._last = i
                return Picture(partial(open, path, "rb"), str(path), path)
        return None

    def _places(self, file_name: str) -> Iterable[str]:
        """Return the names below a folder under which a picture may lie; none for a name that leads out of it."""
        try:
            parts = path_inside(".", file_name, "a record").parts
        except FormatError:
            return []
        split = _SPLIT.search(file_name) or self._split
        names = ["/".join(parts), "/".join(parts[-2:]), parts[-1], *([f"{split[0]}/{parts[-1]}"] if split else [])]
        return dict.fromkeys(names)


class ExactFolder:
    """One folder in which a name is a path, as web documents have it.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.told = str(folder)

    def find(self, *names: str) -> Picture | None:
        """Return the first of the names that is there."""
        for name in names:
            try:
                path = path_inside(self._folder, name, "a record")
                if path.is_file():
                    return Picture(partial(open, path, "rb"), str(path), path)
            except (FormatError, OSError):
                continue
        return None


class PictureTars:
    """Tars of pictures.

    Args:
        tars: Tar, or name with ``{00..99}`` or ``*``, or a list of these.
    """

    def __init__(self, tars: str | Sequence[Path]) -> None:
        self._tars = ImageTars(tars)
        self.told = tars if isinstance(tars, str) else " and ".join(map(str, tars))

    def find(self, *names: str) -> Picture | None:
        """Return the first of the names that is there."""
        for name in names:
            place = self._tars.find(name)
            if place is not None:
                return Picture(partial(read_range, place), f"{place.path}/{name}")
        return None


class RemotePictures:
    """A folder at an address; whether a picture is there shows when it is opened.

    Args:
        url: The folder.
    """

    def __init__(self, url: str) -> None:
        self.told = url.rstrip("/")

    def find(self, *names: str) -> Picture | None:
        """Return the first name."""
        try:
            path_inside(".", names[0], "a record")
        except FormatError:
            return None
        return Picture(partial(read_remote, f"{self.told}/{names[0]}"), f"{self.told}/{names[0]}")


def picture_stores(images: str | None, annotations: Iterable[Path]) -> list[PictureStore]:
    """Return where the pictures of each annotation file are looked for.

    Args:
        images: Folder, tars or address; ``None`` looks beside the files.
        annotations: The files.

    Raises:
        FileNotFoundError: If there is no such tar.
        FormatError: If a tar is damaged.
    """
    files = list(annotations)
    if images is not None and is_url(images):
        return [RemotePictures(images)] * len(files)
    if images is not None and images.endswith(".tar"):
        return [_tars(expanded(images))] * len(files)
    return [PictureFolders(file, None if images is None else Path(expanded(images))) for file in files]


@lru_cache(maxsize=_STORES_KEPT)
def folder_or_tars(folder: Path) -> PictureStore:
    """Return the tars of a folder, or the folder itself where it holds none.

    Raises:
        FormatError: If a tar is damaged.
    """
    return PictureTars(str(folder)) if any(folder.glob("*.tar")) else ExactFolder(folder)


@lru_cache(maxsize=_STORES_KEPT)
def _tars(pattern: str) -> PictureTars:
    """Index tars once, though every shard of a source asks for them."""
    return PictureTars(pattern)


def found(store: PictureStore, document_id: str, *names: str) -> Picture:
    """Return a picture.

    Raises:
        SkipError: If it is not there.
    """
    picture = store.find(*names)
    if picture is None:
        raise SkipError(document_id, NO_FILE, f"{names[0]} is not in {store.told}")
    return picture


def read_range(place: FileRange) -> BinaryIO:
    """Return a stretch of a file as a stream."""
    return BytesIO(place.read(0, place.size))
