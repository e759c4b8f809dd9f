"""Pictures for judges: what is said about them is what they show, and their scenes are in nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import COLOUR_BY_NAME, LAYOUT_CLASSES
from mmi.data.microworld.judging import CELL_CLASSES, PLACE_CLASSES, foil, judged_pictures
from mmi.data.microworld.labels import pretraining_captions, pretraining_pictures
from mmi.data.microworld.language import full_captions
from mmi.data.microworld.recipe import PRESETS
from mmi.data.microworld.scene import draw_scene


@pytest.mark.parametrize(("image_size", "preset"), [(32, "tiny"), (64, "lab")])
def test_cells_and_layout_say_what_pictures_show(image_size, preset):
    known, grid = judged_pictures(60, 3, image_size, PRESETS[preset])
    for i in range(60):
        assert (known.cells[i, :, 0] > 0).sum() > 0
        for cell in range(9):
            top, left = grid.corner(cell, grid.cell)
            inside = np.s_[top : top + grid.cell, left : left + grid.cell]
            shape, colour, texture, size, _ = (
                names[value] for names, value in zip(CELL_CLASSES.values(), known.cells[i, cell], strict=True)
            )
            layout = {LAYOUT_CLASSES[value] for value in np.unique(known.layout[i][inside])}
            assert layout - {PLACE_CLASSES[known.background[i]]} == ({shape} if shape else set())
            if shape:
                pixels = known.pictures[i][:, inside[0], inside[1]].reshape(3, -1).T
                assert (pixels == COLOUR_BY_NAME[colour].rgb).all(1).any()
                assert texture
                assert size


def test_no_two_pictures_are_the_same_and_none_is_the_encoders():
    known, _ = judged_pictures(300)
    again, _ = judged_pictures(300)
    encoders, _ = pretraining_pictures(300, grid=4)
    seen = {picture.tobytes() for picture in known.pictures}
    assert len(seen) >= 299, "two small things of some textures may look alike"
    assert np.array_equal(known.pictures, again.pictures)
    assert (known.captions, known.foils) == (again.captions, again.foils)
    # There are few ways to show a single thing; with more of them no picture comes twice.
    several = (known.cells[:, :, 0] > 0).sum(1) > 1
    assert several.sum() > 200
    assert not {p.tobytes() for p in known.pictures[several]} & {picture.tobytes() for picture in encoders}


def test_a_foil_is_wrong_in_what_it_says():
    for i in range(200):
        scene = draw_scene(Dice("foil", i), "pretraining", n_things=(1, 9))
        text = foil(scene, Dice("foil", "choice", i))
        assert text == foil(scene, Dice("foil", "choice", i))
        assert scene.place in text.lower()
        assert all(sorted(text.split()) != sorted(full.split()) for full in full_captions(scene, Dice(i)))


def test_each_pretraining_picture_has_its_caption():
    captions = pretraining_captions(40, seed=2)
    _, labels = pretraining_pictures(40, seed=2, grid=8)
    for i, caption in enumerate(captions):
        assert PLACE_CLASSES[labels["background"][i, 0, 0] - 1] in caption.lower()
        for digit in set(labels["digit"][i].ravel().tolist()) - {0}:
            assert f"the number {digit - 1}" in caption
