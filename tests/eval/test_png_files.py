"""PNG files written without a packer of the system: read back equal, small for drawings."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmi_eval.formats.png_files import encode_grey, encode_rgb

shapes = st.tuples(st.integers(1, 12), st.integers(1, 40))


def decoded(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@settings(deadline=None, max_examples=60)
@given(shapes, st.sampled_from([1, 2, 16, 17, 256, 4000]), st.integers(0, 2**32 - 1))
def test_colours_are_read_back_equal(shape, n_colours, seed):
    numbers = np.random.default_rng(seed)
    palette = numbers.integers(0, 256, (n_colours, 3)).astype(np.uint8)
    pixels = palette[numbers.integers(0, n_colours, shape)]
    assert np.array_equal(np.asarray(decoded(encode_rgb(pixels)).convert("RGB")), pixels)


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(1, 256), st.integers(0, 2**32 - 1))
def test_grey_values_are_read_back_equal(shape, n_values, seed):
    pixels = np.random.default_rng(seed).integers(0, n_values, shape).astype(np.uint8)
    picture = decoded(encode_grey(pixels))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 10, 11, 13, 34, 130, 131, 257, 258, 259, 260, 261, 262, 516, 519, 5000])
def test_runs_of_any_length_are_unpacked(length):
    for value in (0, 5, 143, 144, 255):
        row = np.array([[7] + [value] * length + [9]], np.uint8)
        assert np.array_equal(np.asarray(decoded(encode_grey(row))), row)


def test_every_colour_of_a_full_palette_has_its_place():
    pixels = np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 3)], axis=1).astype(np.uint8)[None]
    assert np.array_equal(np.asarray(decoded(encode_rgb(pixels)).convert("RGB")), pixels)


def test_a_flat_drawing_is_small():
    drawing = np.repeat(np.repeat(np.eye(32, dtype=np.uint8), 4, 0), 4, 1)[:, :, None] * np.array(
        [9, 99, 200], np.uint8
    )
    assert len(encode_rgb(drawing)) < len(zlib.compress(drawing.tobytes())) + 800
    assert len(encode_rgb(drawing)) < drawing.size / 30
