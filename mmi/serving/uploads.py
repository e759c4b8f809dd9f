"""Pictures from strangers: looked at before they are decoded, made plain, kept no longer than their session."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from mmi.config import ConfigError
from mmi.data.document import ImageItem
from mmi.data.images import ImageError, open_rgb
from mmi.serving.pngs import PictureRecord, write_png

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "MPO", "AVIF")
"""Formats that are read; of several frames the first."""
# Scaled so that its short side fits the encoder, a picture must not get larger than it may be when it comes in.
_LONGEST_TO_SHORTEST = 20
# Decoders need many times the bytes of a file: one picture at a time, whatever number of requests there is.
_one_at_a_time = threading.Lock()


class UploadError(ConfigError):
    """Say in one sentence why an upload is no picture that can be used."""


@dataclass(frozen=True)
class Picture:
    """A picture that was decoded completely.

    Args:
        image: RGB, upright, without EXIF or any other data of its file.
        digest: SHA-256 of its size and pixels: equal for equal pictures, whatever file they came in.
    """

    image: Image.Image
    digest: str

    @classmethod
    def of(cls, image: Image.Image) -> Picture:
        """Make a picture of one in memory; of what it knows of its file nothing is kept."""
        data = image.convert("RGB").tobytes()
        plain = Image.frombytes("RGB", image.size, data)
        return cls(plain, hashlib.sha256(repr(plain.size).encode() + data).hexdigest())


def read_picture(data: bytes, name: str, max_pixels: int) -> Picture:
    """Decode the bytes of a picture file; nothing of it is kept but its pixels.

    Args:
        data: What was sent.
        name: What to call it in messages.
        max_pixels: Most pixels it may have; what has more is refused by its header alone.

    Raises:
        UploadError: If it is no picture, damaged, too large or too long and thin.
    """
    width, height = _size_of(data, name, max_pixels)
    if width * height > max_pixels:
        raise UploadError(
            f"{name} has {width} x {height} = {width * height / 1e6:.0f} million pixels; "
            f"at most {max_pixels / 1e6:.0f} million are read, make it smaller."
        )
    if max(width, height) > _LONGEST_TO_SHORTEST * min(width, height):
        raise UploadError(
            f"{name} is {width} x {height} pixels, too long and thin; "
            f"expected sides of at most {_LONGEST_TO_SHORTEST} to 1."
        )
    try:
        with _one_at_a_time:
            return Picture.of(open_rgb(ImageItem(lambda: BytesIO(data), name)))
    except ImageError as error:
        raise UploadError(str(error)) from None


def _size_of(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Read the header of a picture."""
    Image.init()
    known = tuple(form for form in FORMATS if form in Image.OPEN)
    try:
        with Image.open(BytesIO(data), formats=known) as image:
            return image.size
    except Image.DecompressionBombError:
        # The library's own bound; it does not say the size.
        many = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UploadError(
            f"{name} has more than {many:.0f} million pixels; at most {max_pixels / 1e6:.0f} million are read, make it "
            "smaller."
        ) from None
    except Exception:  # readers of damaged headers fail in nearly every way
        raise UploadError(f"{name} is no picture that can be read; expected {', '.join(known)}.") from None


class UploadFolders:
    """One folder per session below a private one; gone with the session, or some time after its last use.

    Args:
        root: Where they lie; deleted with everything in it by :meth:`close`.
        keep_seconds: How long what is not used any more is kept at most: not every page says good-bye.
    """

    def __init__(self, root: Path, keep_seconds: float = 6 * 3600.0) -> None:
        self._root = root
        self._keep_seconds = keep_seconds
        self._last_use: dict[str, float] = {}
        self._folders: dict[str, Path] = {}
        self._uploads: dict[Path, set[str]] = {}
        self._lock = threading.Lock()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def take_in(self, session: str, upload: Path, max_pixels: int) -> Picture:
        """Read a file that was uploaded and leave nothing of it but a plain picture in its place.

        Equal files of two sessions may be one file, so it goes with the last of them.

        Args:
            session: Whose upload it is.
            upload: The file, below the private folder.
            max_pixels: See :func:`read_picture`.

        Raises:
            UploadError: If it is no picture that can be used; the file is gone then.
        """
        self._use(session)
        name = f'"{upload.name[:80]}"'
        if not upload.resolve().is_relative_to(self._root.resolve()) or not upload.is_file():
            raise UploadError(f"{name} is not there any more; upload it again.")
        try:
            picture = read_picture(upload.read_bytes(), name, max_pixels)
        except UploadError:
            upload.unlink(missing_ok=True)
            raise
        plain = upload.with_name(f".{secrets.token_hex(8)}")
        _write_plain(picture.image, plain)
        plain.replace(upload)
        with self._lock:
            self._uploads.setdefault(upload, set()).add(session)
        return picture

    def save(self, session: str, image: Image.Image, record: PictureRecord | None = None) -> Path:
        """Write a picture as PNG under a name that cannot be guessed.

        Args:
            session: Whose picture it is.
            image: Of what was sent only pixels are written.
            record: How it was drawn, if the model did; its file then says so.
        """
        folder = self._use(session)
        path = folder / f"{secrets.token_hex(8)}.png"
        if record is None:
            _write_plain(image, path)
        else:
            write_png(image, path, record)
        return path

    def delete(self, session: str) -> None:
        """Delete everything of a session; it may begin anew."""
        with self._lock:
            folder = self._folders.pop(session, None)
            self._last_use.pop(session, None)
            mine = [path for path, owners in self._uploads.items() if session in owners]
            for path in mine:
                self._uploads[path].discard(session)
            gone = [path for path in mine if not self._uploads[path]]
            for path in gone:
                del self._uploads[path]
        for path in gone:
            path.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what has not been used for long, uploads that nobody took in among it."""
        before = time.monotonic() - self._keep_seconds
        for session in [session for session, used in list(self._last_use.items()) if used < before]:
            self.delete(session)
        with self._lock:
            known, uploads = set(self._folders.values()), set(self._uploads)
        # Folders may go away meanwhile, when another visitor leaves; os.walk passes over them.
        for folder, _, names in os.walk(self._root):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(OSError):
                    old = time.time() - path.stat().st_mtime > self._keep_seconds
                    if old and path not in uploads and path.parent not in known:
                        path.unlink()

    def discard(self, path: Path) -> None:
        """Delete an upload that nobody takes in, if it is one."""
        with self._lock:
            taken = path in self._uploads
        if not taken and path.resolve().is_relative_to(self._root.resolve()):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _use(self, session: str) -> Path:
        """Note that a session is alive; return its folder."""
        self.sweep()
        with self._lock:
            if session not in self._folders:
                # The folder's name is not the session's, which other pages may learn of.
                self._folders[session] = self._root / secrets.token_hex(16)
                self._folders[session].mkdir(mode=0o700)
            self._last_use[session] = time.monotonic()
            return self._folders[session]


def _write_plain(image: Image.Image, path: Path) -> None:
    plain = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    plain.save(path, "PNG")
