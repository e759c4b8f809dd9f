"""One sample on a card: what was shown and asked, the truth, and answers of any kind, from one run or from two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from mmi_eval.formats.errors import FormatError, path_inside
from mmi_eval.metrics.grounding import parse_box, scale_box
from mmi_eval.predictions import Prediction
from mmi_eval.sample import Picture, Sample

from .markup import Content, Markup, element, fragment, missing
from .pictures import figure, picture, row

LONGEST = 400
_TRUTH, _EDGE = (255, 255, 255), (0, 0, 0)
_ANSWERS = ((255, 0, 190), (0, 190, 255))
COLOURS = ("pink", "blue")
"""What the boxes of the first and second answer are drawn in."""
_PICTURE_FILES = (".png", ".jpg", ".jpeg", ".webp")
DRAWN = ("image", "images")


def asked(sample: Sample) -> str:
    """Return the question in words: the one of the data where there is one, else the prompt."""
    for key in ("question", "expression", "caption"):
        if isinstance(sample.meta.get(key), str):
            return sample.meta[key]
    return " ".join(piece.strip() if isinstance(piece, str) else "[picture]" for piece in sample.prompt)


def truth(sample: Sample) -> str:
    """Return the references, the most frequent first, with how many people gave each."""
    counted = Counter(sample.references).most_common(4)
    if len(sample.references) > len(counted) and counted[0][1] > 1:
        return ", ".join(f"{text} ({n} of {len(sample.references)})" for text, n in counted)
    return " / ".join(text for text, _ in counted)


def cut(text: str) -> str:
    """Return a text that is not longer than a card."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\u2026"


def opened(shown: Picture, alt: str, width: int = 128) -> Content:
    """Return a picture of the data, or one line that says it cannot be read."""
    try:
        return picture(shown.open(), alt, width)
    except (OSError, FormatError, ValueError):
        return missing(f"The picture {Path(shown.path).name} cannot be read.")


def said(prediction: Prediction) -> str:
    """Return an answer as a text; empty where it is made of pictures."""
    if prediction.error is not None:
        return f"failed: {prediction.error}"
    output = prediction.output
    if isinstance(output, dict):
        numbers = {name: value for name, value in output.items() if isinstance(value, int | float)}
        return f"highest score: {max(numbers, key=numbers.__getitem__)}" if numbers else ""
    pieces = output if isinstance(output, list) else [output]
    return " ".join(str(piece) for piece in pieces if piece is not None and not _names_picture(piece))


def drawn(folder: Path, prediction: Prediction, what: str, width: int = 128) -> Markup:
    """Return an answer piece by piece, its pictures shown.

    Args:
        folder: Of the evaluation; a name that leads out of it is not followed.
        prediction: The answer: a name, a list of names and texts, or an error.
        what: What was asked for, in words, for those who do not see it.
        width: Of each picture on the page.
    """
    if prediction.error is not None:
        return missing(f"Not drawn: {prediction.error}.")
    output = prediction.output
    pieces = output if isinstance(output, list) else [output]
    shown = [_piece(folder, piece, f"Drawn for: {cut(what)}", width) for piece in pieces if piece is not None]
    return fragment(*shown) if shown else missing("Not drawn: no picture in the answer.")


def _piece(folder: Path, piece: Any, alt: str, width: int) -> Content:
    if not isinstance(piece, str):
        return missing("Not drawn: no picture in the answer.")
    if not _names_picture(piece):
        return element("p", {}, cut(piece))
    try:
        return opened(Picture(path_inside(folder, piece, "the answer")), alt, width)
    except FormatError:
        return missing("The answer names a file outside the folder of the evaluation.")


def _names_picture(piece: object) -> bool:
    return isinstance(piece, str) and "\n" not in piece and piece.lower().endswith(_PICTURE_FILES)


def real(sample: Sample, width: int = 128) -> list[Content]:
    """Return the real pictures that belong after a prompt."""
    if sample.target is not None:
        return [opened(sample.target, "The real picture", width)]
    if "frame_draws" in sample.meta:
        # Strips of frames: only their task knows which frame was meant.
        from mmi_eval.tasks.story_frames import real_frames

        return [opened(frame, f"Real frame {n}", width) for n, frame in enumerate(real_frames(sample), start=2)]
    targets = sample.meta.get("targets")
    names = targets if isinstance(targets, list) else []
    return [opened(Picture(Path(name)), f"Real picture {n}", width) for n, name in enumerate(names, start=1)]


def context(sample: Sample, width: int = 64) -> Markup:
    """Return the prompt in reading order, its pictures small: a story as it was told so far."""
    shown: list[Content] = []
    for piece in sample.prompt:
        if isinstance(piece, Picture):
            shown.append(opened(piece, "A picture of the prompt", width))
        elif piece.strip():
            shown.append(element("span", {}, cut(piece.strip())))
    return row(*shown)


def boxes(sample: Sample, predictions: Sequence[Prediction], names: Sequence[str] = ("the answer",)) -> Markup | None:
    """Draw the true box in white and each answered one in its colour; None where the sample is about no box.

    Args:
        sample: ``meta`` holds ``box`` (x1, y1, x2, y2) and ``size`` (height, width).
        predictions: At most two answers.
        names: What they are called.
    """
    box, size = sample.meta.get("box"), sample.meta.get("size")
    if not (isinstance(box, list) and isinstance(size, list) and sample.pictures):
        return None
    try:
        image = sample.pictures[0].open()
    except (OSError, FormatError) as error:
        return missing(str(error))
    scale = max(1, round(256 / max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    pen.rectangle([scale * v for v in box], outline=_EDGE, width=6)
    pen.rectangle([scale * v for v in box], outline=_TRUTH, width=4)
    for prediction, colour in zip(predictions, _ANSWERS, strict=False):
        parsed = parse_box(prediction.output) if isinstance(prediction.output, str) else None
        if parsed is not None:
            x1, y1, x2, y2 = (scale * v for v in scale_box(parsed, (int(size[0]), int(size[1]))))
            pen.rectangle([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], outline=colour, width=2)
    told = ", ".join(f"{c}: {name}" for c, name in zip(COLOURS, names, strict=False))
    return row(picture(image, f"White: the box that is meant; {told}, where a box could be read.", 160))


def lines(pairs: Sequence[tuple[str, str]]) -> list[Markup]:
    """Return named texts, one paragraph each; empty ones are left out."""
    return [element("p", {}, element("b", {}, f"{name}: "), cut(text)) for name, text in pairs if text]


def named(content: Markup, name: str) -> Markup:
    """Return pictures with the name of what made them."""
    return figure(row(content), name)
