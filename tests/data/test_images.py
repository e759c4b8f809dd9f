"""Pictures to views."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared_data import shared_path

from mmi.data import images
from mmi.data.document import ImageItem
from mmi.data.images import ImageError, ImageViews, center_crop, open_rgb, to_rgb


def item(image: Image.Image, format: str = "PNG", **options: object) -> ImageItem:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return ImageItem(open=partial(io.BytesIO, stream.getvalue()), uri="folder/a.png")


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    x = np.linspace(0, 255, width)[None].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([x, y, 0 * x], -1).round().astype(np.uint8))


@pytest.mark.parametrize(("size", "halvings"), [((500, 333), 1), ((100, 70), 0), ((448, 900), 2), ((30, 20), 0)])
def test_center_crop_follows_the_specification_step_by_step(size: tuple[int, int], halvings: int) -> None:
    image = gradient(*size)
    expected = image
    for _ in range(halvings):
        expected = expected.resize((expected.width // 2, expected.height // 2), Image.Resampling.BOX)
    assert min(expected.size) < 112 * 2
    scale = 112 / min(expected.size)
    resized = expected.resize((round(expected.width * scale), round(expected.height * scale)), Image.Resampling.BICUBIC)
    top, left = (resized.height - 112) // 2, (resized.width - 112) // 2
    pixels = np.asarray(resized)[top : top + 112, left : left + 112]
    assert np.array_equal(np.asarray(center_crop(image, 112)), pixels)


@pytest.mark.parametrize("crop", ["center", "resize"])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (301, 300)])
def test_both_views_show_the_same_part(size: tuple[int, int], crop: images.Crop) -> None:
    small, large = ImageViews(28, 64, crop)(item(gradient(*size)))
    assert large is not None
    assert (small.shape, large.shape) == ((3, 28, 28), (3, 64, 64))
    resized = torch.nn.functional.interpolate(large[None].float(), size=28, mode="area")[0]
    assert (resized - small.float()).abs().mean() < 3


def test_center_keeps_the_middle_and_resize_keeps_everything() -> None:
    wide = item(gradient(300, 100))
    center, _ = ImageViews(50, None, "center")(wide)
    whole, target = ImageViews(50, None, "resize")(wide)
    assert target is None
    assert (int(center[0].min()), int(center[0].max())) == pytest.approx((85, 170), abs=4)
    assert (int(whole[0].min()), int(whole[0].max())) == pytest.approx((0, 255), abs=4)


def test_pixels_are_read_once_for_both_views() -> None:
    opened: list[int] = []
    source = item(gradient(20, 20))

    def count() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(source.open().read())

    ImageViews(8, 16)(ImageItem(open=count, uri="x"))
    assert len(opened) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "YCbCr", "RGBA", "LA", "I;16", "I"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.full((4, 4), 200, dtype=np.uint8))
    if mode.startswith("I"):
        image = Image.fromarray(np.full((4, 4), 200 * 257, dtype=np.uint16 if mode == "I;16" else np.int32))
    else:
        image = grey.convert(mode)
    pixel = to_rgb(image).getpixel((1, 1))
    assert pixel == pytest.approx((200, 200, 200), abs=2)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_parts_lie_over_white(mode: str) -> None:
    if mode == "RGBA":
        image = item(Image.new("RGBA", (3, 3), (10, 20, 30, 0)))
    else:
        image = item(Image.new("P", (3, 3), 0), transparency=0)
    assert open_rgb(image).getpixel((1, 1)) == (255, 255, 255)


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    assert open_rgb(item(gradient(40, 20), "JPEG", exif=exif)).size == (20, 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (item(gradient(64, 64), "JPEG", quality=95).open().read()[:900], r"folder/a.png is damaged or truncated"),
        (item(gradient(64, 64)).open().read()[:120], r"folder/a.png is damaged or truncated"),
        (b"", r"folder/a.png is not a picture"),
        (b"<html>404</html>", r"folder/a.png is not a picture"),
    ],
    ids=["truncated-jpeg", "truncated-png", "empty", "html"],
)
def test_unusable_bytes_are_named(content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_rgb(ImageItem(open=partial(io.BytesIO, content), uri="folder/a.png"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        open_rgb(ImageItem(open=partial(open, tmp_path / "gone.png", "rb"), uri=str(tmp_path / "gone.png")))


@pytest.mark.parametrize("limit", [3000, 1000], ids=["above-limit", "far-above-limit"])
def test_a_decompression_bomb_is_refused_unread(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", limit)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match=r"folder/a.png has (70x70 pixels, )?more than"):
        open_rgb(item(gradient(70, 70)))


def test_a_thread_of_a_picture_is_refused() -> None:
    with pytest.raises(ImageError, match="20000x1, too long and thin"):
        ImageViews(224)(item(Image.new("RGB", (20000, 1))))


def test_real_photographs_are_all_read() -> None:
    photos = sorted(shared_path("evaldata/photos").rglob("*.jpg"))
    assert photos
    for path in photos:
        view, target = ImageViews(56, 64)(ImageItem(open=partial(open, path, "rb"), uri=str(path)))
        assert target is not None
        assert view.float().std() > 5
