"""Which part of a picture is shown, and whether it is mirrored: for pixels and for boxes alike."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from mmi_eval.formats.boxes import Box

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Geometry:
    """What is done to an upright picture: cut, then turned. It acts alike on every view and on boxes.

    Args:
        part: x1, y1, x2, y2 of what is shown, as shares of the picture's width and height.
        mirrored: Left and right change places.
        upside_down: Top and bottom change places, which only the official system's mistake asks for (D4).

    Example:
        A box in the left half of what is kept, the lower right quarter:

        >>> Geometry((0.5, 0.5, 1.0, 1.0), mirrored=True).of_box((0.5, 0.5, 0.75, 1.0))
        (0.5, 0.0, 1.0, 1.0)
    """

    part: Box = WHOLE
    mirrored: bool = False
    upside_down: bool = False

    def __post_init__(self) -> None:
        left, top, right, bottom = self.part
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(f"part is {self.part}; expected x1 < x2 and y1 < y2, all from 0 to 1.")

    def of_box(self, box: Box) -> Box:
        """Return where a box lies in what is shown.

        Args:
            box: x1, y1, x2, y2 as shares of the picture.

        Returns:
            x1, y1, x2, y2 as shares of what is shown; outside of 0 to 1 where the box is cut.
        """
        left, top, right, bottom = self.part
        x1, x2 = ((x - left) / (right - left) for x in (box[0], box[2]))
        y1, y2 = ((y - top) / (bottom - top) for y in (box[1], box[3]))
        if self.mirrored:
            x1, x2 = 1 - x2, 1 - x1
        if self.upside_down:
            y1, y2 = 1 - y2, 1 - y1
        return x1, y1, x2, y2

    def pixels(self, size: tuple[int, int]) -> Box:
        """Return the shown part of a picture of (width, height) in pixels, not rounded."""
        width, height = size
        left, top, right, bottom = self.part
        return left * width, top * height, right * width, bottom * height

    def cut(self, image: Image.Image) -> Image.Image:
        """Return the shown part, to the nearest pixel and never empty."""
        if self.part == WHOLE:
            return image
        left, top, right, bottom = map(round, self.pixels(image.size))
        left, top = min(left, image.width - 1), min(top, image.height - 1)
        return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))

    def turned(self, image: Image.Image) -> Image.Image:
        """Return a picture mirrored, or upside down, as this says."""
        if self.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if self.upside_down else image


AS_IT_IS = Geometry()
