"""NoCaps: captions of Open Images pictures, most of them of things that COCO captions do not name.

``nocaps_val_4500_captions.json``: the COCO caption layout; each of ``images[]`` adds ``open_images_id`` and ``domain``
(``in-domain``: only things that COCO names; ``out-domain``: none of them; ``near-domain``: both), and there are ten
captions for each. ``nocaps_{val,test}_image_info.json`` have no ``annotations``; the test captions are not public, and
answers go to a server as a COCO result list (https://nocaps.org/download).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .coco_captions import captions_by_image
from .errors import FormatError, as_object, field, load_json, optional_field, path_inside, write_json

Domain = Literal["in-domain", "near-domain", "out-domain"]
DOMAINS: tuple[Domain, ...] = ("in-domain", "near-domain", "out-domain")


@dataclass(frozen=True)
class NocapsImage:
    """A picture and its captions.

    Args:
        image_id: Running number in the file.
        file_name: Path below the picture folder.
        open_images_id: Sixteen hexadecimal digits.
        domain: Which things it shows; ``None`` in the files of the test split.
        captions: Ten; ``None`` where the file has no ``annotations``.
        size: ``(height, width)`` in pixels where the file says so.
    """

    image_id: int
    file_name: str
    open_images_id: str
    domain: Domain | None = None
    captions: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None

    def path(self, images: str | Path) -> Path:
        """Return where the picture lies below the picture folder.

        Raises:
            FormatError: If the name leads out of it.
        """
        return path_inside(images, self.file_name, f"image {self.image_id}")


def read_nocaps(path: str | Path) -> list[NocapsImage]:
    """Read a file with or without captions, in file order.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is malformed, an id repeats, a domain is unknown, or an annotation names no picture.
    """
    content = as_object(load_json(path, "a NoCaps file"), str(path))
    known = "annotations" in content
    captions = captions_by_image(content if known else {"annotations": [], **content}, str(path))
    images: list[NocapsImage] = []
    for number, texts in enumerate(captions.values()):
        where = f'{path}, "images" {number}'
        images.append(_read_image(content["images"][number], texts if known else None, where))
    return images


def read_domains(path: str | Path) -> dict[str, str]:
    """Return the domain of each picture by id; copies of the file for scoring alone may say none, or hold no pictures.

    Raises:
        FileNotFoundError: If it is not there.
        FormatError: If it is malformed, or a domain is unknown.
    """
    content = load_json(path, "a NoCaps file")
    images = optional_field(content, "images", list, str(path)) if isinstance(content, dict) else None
    found = {}
    for number, value in enumerate(images or ()):
        where = f'{path}, "images" {number}'
        row = as_object(value, where)
        if (domain := _domain(row, where)) is not None:
            found[str(field(row, "id", (int, str), where))] = domain
    return found


def _domain(row: Mapping[str, Any], where: str) -> Domain | None:
    domain = optional_field(row, "domain", str, where)
    if domain is not None and domain not in DOMAINS:
        raise FormatError(f'{where}: "domain" is "{domain}"; expected one of {", ".join(DOMAINS)}.')
    return domain


def _read_image(row: Mapping[str, Any], captions: tuple[str, ...] | None, where: str) -> NocapsImage:
    domain = _domain(row, where)
    height, width = (optional_field(row, side, int, where) for side in ("height", "width"))
    return NocapsImage(
        field(row, "id", int, where),
        field(row, "file_name", str, where),
        field(row, "open_images_id", str, where),
        domain,
        captions,
        None if height is None or width is None else (height, width),
    )


def write_nocaps(path: str | Path, images: Iterable[NocapsImage]) -> int:
    """Write a file and return its number of pictures; without ``annotations`` if no picture has captions.

    Raises:
        FormatError: If some pictures have captions and others have none to give.
    """
    rows = list(images)
    silent = [image.image_id for image in rows if image.captions is None]
    if silent and len(silent) < len(rows):
        raise FormatError(
            f"{path}: image {silent[0]} has no captions but others have; write them to a file of their own."
        )
    content: dict[str, object] = {"info": {}, "licenses": [], "images": [_image_record(image) for image in rows]}
    if not silent:
        pairs = [(image.image_id, caption) for image in rows for caption in image.captions or ()]
        content["annotations"] = [{"id": n, "image_id": i, "caption": text} for n, (i, text) in enumerate(pairs)]
    write_json(path, content)
    return len(rows)


def _image_record(image: NocapsImage) -> dict[str, object]:
    row: dict[str, object] = {
        "id": image.image_id,
        "file_name": image.file_name,
        "open_images_id": image.open_images_id,
    }
    if image.domain is not None:
        row["domain"] = image.domain
    if image.size is not None:
        row |= {"height": image.size[0], "width": image.size[1]}
    return row
