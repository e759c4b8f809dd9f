"""What a model returned, as it is kept on disk and as it is scored: texts and numbers as they are, pictures by name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from PIL import Image

from .formats.errors import FormatError, path_inside
from .predictions import PICTURES, Prediction
from .sample import Picture, Sample
from .tasks.protocol import Answer


def saved_output(output: Any, sample: Sample, folder: Path) -> Any:
    """Write the pictures of an output below a folder and return what ``predictions.jsonl`` says of it.

    Args:
        output: A text, named numbers, a picture, or a list of pictures.
        sample: What was asked; ``ID.png`` is its picture, ``ID-1.png``, ``ID-2.png`` are its pictures.
        folder: That of the file of predictions.
    """
    if isinstance(output, Image.Image):
        return _save(output, f"{PICTURES}{file_name(sample.id)}.png", folder)
    if isinstance(output, list) and output and all(isinstance(piece, Image.Image) for piece in output):
        stem = f"{PICTURES}{file_name(sample.id)}"
        return [_save(picture, f"{stem}-{number}.png", folder) for number, picture in enumerate(output, start=1)]
    return output


def opened_output(output: Any, sample: Sample, folder: Path) -> Answer | None:
    """Return an output as it is scored: names of pictures as the pictures.

    Raises:
        FormatError: If a picture's name is none, or leads out of the folder.
    """
    if output is None or sample.request not in ("image", "images"):
        return output
    if sample.request == "image":
        return _picture(output, sample, folder)
    if not isinstance(output, list) or not output:
        raise FormatError(
            f"the prediction of {sample.id} is no list of pictures; expected names such as images/1-1.png."
        )
    return tuple(_picture(name, sample, folder) for name in output)


def opened_answer(prediction: Prediction, sample: Sample, folder: Path) -> Answer | None:
    """Return what a line of ``predictions.jsonl`` answers; ``None`` after an error.

    Raises:
        FormatError: As ``opened_output``.
    """
    return opened_output(None if prediction.error is not None else prediction.output, sample, folder)


def file_name(sample_id: str) -> str:
    """Return an id as the name of a file, unique for each id.

    Example:
        >>> file_name("17"), file_name("story 3/2")
        ('17', 'story_3_2-f45bef8c')
    """
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", sample_id)[:80]
    return safe if safe == sample_id else f"{safe}-{hashlib.sha256(sample_id.encode()).hexdigest()[:8]}"


def _save(picture: Image.Image, name: str, folder: Path) -> str:
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    picture.save(folder / name)
    return name


def _picture(name: object, sample: Sample, folder: Path) -> Picture:
    if not isinstance(name, str):
        raise FormatError(
            f"the prediction of {sample.id} is no file name of a picture; expected one such as images/1.png."
        )
    return Picture(path_inside(folder, name, f"the prediction of {sample.id}"))
