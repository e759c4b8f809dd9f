"""ADE20K of the scene parsing challenge: photographs, label pictures of 150 classes, and a caption for each.

``images/<phase>/<id>.jpg``; ``annotations/<phase>/<id>.png``, 8 bits a pixel, 0 unlabelled, then the classes in the
order of ``objectInfo150.csv`` (``Idx,Ratio,Train,Val,Stuff,Name``); phases ``training`` and ``validation``
(https://github.com/CSAILVision/sceneparsing). The official system adds ``<phase>.json``, a list of ``image_id`` and
``caption``, and feeds the labels as the colours of ``colour_labels`` (SPEC 3.5, 3.7).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import FormatError, as_object, existing_file, field, load_json, path_inside, write_json
from .png_files import encode_grey

N_CLASSES = 150
CLASS_FILE = "objectInfo150.csv"
_LABEL_MODES = ("L", "P", "I;16", "I;16B", "I")
_COLUMNS = ("Idx", "Ratio", "Train", "Val", "Stuff", "Name")


@dataclass(frozen=True)
class SceneClass:
    """A class of the label pictures.

    Args:
        label: Value in the pictures, from 1.
        name: Synonyms after a semicolon.
        ratio: Share of pixels.
        n_train: Training pictures that show it.
        n_val: Validation pictures that show it.
        stuff: True for sky, floor and the like, false for things.
    """

    label: int
    name: str
    ratio: float = 0.0
    n_train: int = 0
    n_val: int = 0
    stuff: bool = False


@dataclass(frozen=True)
class CaptionedScene:
    """A picture and its caption.

    Args:
        image_id: File name without ending, such as ``ADE_val_00000001``.
        caption: Without a full stop in the official system, which adds it.
    """

    image_id: str
    caption: str

    def image_path(self, root: str | Path, phase: str) -> Path:
        """Return where the photograph lies: a ``.jpg`` as released, or a ``.png``.

        Raises:
            FileNotFoundError: If there is neither.
            FormatError: If the id leads out of the folder.
        """
        photo = path_inside(Path(root, "images", phase), f"{self.image_id}.jpg", "an ADE20K caption")
        drawn = photo.with_name(f"{self.image_id}.png".rsplit("/", 1)[-1])
        if drawn.is_file() and not photo.is_file():
            return drawn
        return existing_file(photo, "a picture of ADE20K")

    def labels_path(self, root: str | Path, phase: str) -> Path:
        """Return where the label picture lies.

        Raises:
            FormatError: If the id leads out of the folder.
        """
        return path_inside(Path(root, "annotations", phase), f"{self.image_id}.png", "an ADE20K caption")


def read_scene_captions(path: str | Path) -> list[CaptionedScene]:
    """Read ``training.json`` or ``validation.json``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is malformed, or a picture repeats.
    """
    content = load_json(path, "a JSON list of ADE20K captions")
    if not isinstance(content, list):
        raise FormatError(f"{path} holds no list; expected a list of image_id and caption.")
    scenes: dict[str, CaptionedScene] = {}
    for number, value in enumerate(content):
        where = f"{path}, entry {number}"
        row = as_object(value, where)
        image_id = field(row, "image_id", str, where)
        if image_id in scenes:
            raise FormatError(f'{where}: image_id "{image_id}" is there twice; remove one of them.')
        scenes[image_id] = CaptionedScene(image_id, field(row, "caption", str, where))
    return list(scenes.values())


def write_scene_captions(path: str | Path, scenes: Iterable[CaptionedScene]) -> int:
    """Write captions and return how many."""
    rows = [{"image_id": scene.image_id, "caption": scene.caption} for scene in scenes]
    write_json(path, rows)
    return len(rows)


def read_classes(path: str | Path) -> list[SceneClass]:
    """Read ``objectInfo150.csv``.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If a column is missing, a number is none, or the labels do not count from 1.
    """
    data = existing_file(path, "the class list of ADE20K").read_bytes()
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        raise FormatError(f"{path} is no CSV file in UTF-8; check the path.") from None
    classes = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number + 1}"
        if missing := [column for column in _COLUMNS if row.get(column) is None]:
            raise FormatError(f'{where} has no column "{missing[0]}"; expected {",".join(_COLUMNS)}.')
        classes.append(_read_class(row, number, where))
    return classes


def _read_class(row: Mapping[str, str], number: int, where: str) -> SceneClass:
    try:
        label, n_train, n_val, stuff = (int(row[column]) for column in ("Idx", "Train", "Val", "Stuff"))
        ratio = float(row["Ratio"])
    except ValueError:
        raise FormatError(f"{where} has something else than numbers before the name; rewrite it.") from None
    if label != number or label > 255:
        raise FormatError(f"{where} has the label {label}; expected {number}, as labels count from 1 to 255 at most.")
    return SceneClass(label, row["Name"], ratio, n_train, n_val, bool(stuff))


def write_classes(path: str | Path, classes: Iterable[SceneClass]) -> int:
    """Write the class list and return how many."""
    classes = list(classes)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([c.label, repr(c.ratio), c.n_train, c.n_val, int(c.stuff), c.name] for c in classes)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue().encode())
    return len(classes)


def read_labels(path: str | Path, n_classes: int = N_CLASSES, *, predicted: bool = False) -> np.ndarray:
    """Return the labels of a picture.

    Args:
        path: A PNG of whole numbers, 8-bit as the challenge's or 16-bit.
        n_classes: Highest label there may be.
        predicted: Labels that somebody's network wrote: what is beyond the classes, such as 255, is no class and
            becomes 0, as the challenge's own code counts it.

    Returns:
        uint8[H, W], 0 where unlabelled.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it has another kind of pixels, or a label beyond ``n_classes``.
    """
    path = existing_file(path, "a label picture of ADE20K")
    try:
        with Image.open(path) as picture:
            kind, labels = picture.mode, np.array(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        said = " ".join(str(error).split())[:80]
        raise FormatError(f"{path} is no readable picture ({said}); fetch it again.") from None
    if kind not in _LABEL_MODES:
        raise FormatError(
            f"{path} has pixels of mode {kind}; expected 8-bit labels (the challenge's annotations, not the colours of "
            "the full data set)."
        )
    if predicted:
        labels = np.where((labels < 0) | (labels > n_classes), 0, labels)
    if labels.size and labels.max() > n_classes:
        raise FormatError(f"{path} has the label {labels.max()}; expected 0 to {n_classes}. Check the class list.")
    return labels.astype(np.uint8)


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write an 8-bit grey PNG whose bytes depend on the labels only.

    Args:
        path: Its folder is created if needed.
        labels: uint8[H, W].

    Raises:
        ValueError: If they are of another type or shape.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels are {labels.dtype}{list(labels.shape)}; expected uint8[H, W].")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_grey(labels))


def label_colours() -> np.ndarray:
    """Return uint8[151, 3]: black for 0, then 150 colours far from each other (SPEC 3.7).

    Example:
        >>> label_colours()[[1, 2, 37]].tolist()
        [[255, 255, 255], [255, 255, 213], [213, 255, 255]]
    """
    place = np.arange(N_CLASSES)
    steps = np.stack([place // 36, place % 36 // 6, place % 6], axis=1)
    return np.concatenate([np.zeros((1, 3)), 255 - 42 * steps]).astype(np.uint8)


def colour_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels uint8[H, W] as colours uint8[H, W, 3].

    Raises:
        ValueError: If a label is beyond 150.
    """
    if labels.size and labels.max() > N_CLASSES:
        raise ValueError(f"label {labels.max()} has no colour; expected 0 to {N_CLASSES}.")
    return label_colours()[labels]


def labels_of_colours(colours: np.ndarray) -> np.ndarray:
    """Return the label of each colour, the reverse of ``colour_labels``.

    Args:
        colours: uint8[H, W, 3].

    Returns:
        uint8[H, W].

    Raises:
        ValueError: If a colour stands for no label.
    """
    key = colours.astype(np.int64) @ np.array([65536, 256, 1])
    table = label_colours().astype(np.int64) @ np.array([65536, 256, 1])
    order = np.argsort(table)
    found = order[np.searchsorted(table[order], key).clip(max=N_CLASSES)]
    if (wrong := table[found] != key).any():
        raise ValueError(f"the colour {colours[wrong][0].tolist()} stands for no label.")
    return found.astype(np.uint8)
