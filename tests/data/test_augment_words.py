"""What becomes of words when a picture is mirrored or cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmi.data.augment_words import mirrored_text, says_where


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("man on the left", "man on the right"),
        ("Left of the RIGHT one", "Right of the LEFT one"),
        ("left-most, leftmost and left most", "right-most, rightmost and right most"),
        ("right-hand side, lefthand, Right-handed", "left-hand side, righthand, Left-handed"),
        ("rightside, leftward and rightwards", "leftside, rightward and leftwards"),
        ("lft guy, rt side guy", "rgt guy, lt side guy"),
        ("guy on rt", "guy on lt"),
        ("top lt, ltmost, rt-hand, Rt of the car", "top rt, rtmost, lt-hand, Lt of the car"),
        ("second dog from left", "second dog from right"),
        ("the last two on the right", "the last two on the left"),
        ("bright upright copyright leftovers cleft frighten", "bright upright copyright leftovers cleft frighten"),
        ("alright, fright and a wheelwright's rights", "alright, fright and a wheelwright's rights"),
        ("the bottom", "the bottom"),
        ("the right answer", "the left answer"),
        ("", ""),
    ],
)
def test_left_and_right_change_places_as_whole_words(text: str, mirrored: str) -> None:
    assert mirrored_text(text) == mirrored
    assert mirrored_text(mirrored) == text


@pytest.mark.parametrize(
    "text",
    [
        *("guy on r", "L", "at 4 o'clock", "turning clockwise", "anti-clockwise", "east wing"),
        *("bottomleft", "Topright", "leftcorner", "midleft guy", "leftish", "lefty", "righty", "rightest", "2left"),
        *("lhs", "guy RHS", "rigth guy", "brightleft", "left guy, not the topright one"),
        *("lt blue shirt", "rt guy", "the car on rt 66", "on the lt sofa"),
        *("second dog", "third from", "3rd row", "last one", "22nd from the top"),
    ],
)
def test_a_direction_without_a_known_mirror_image_prevents_mirroring(text: str) -> None:
    assert mirrored_text(text) is None
    assert says_where(text)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["left", "Right", "LEFT", "rt corner", "rightmost", "a", "bright", "-", ","]), max_size=8)
)
def test_mirroring_twice_gives_the_text_back(words: list[str]) -> None:
    text = " ".join(words)
    once = mirrored_text(text)
    assert once is not None
    assert mirrored_text(once) == text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("second dog", True),
        ("3rd from the top", True),
        ("upper bunk", True),
        ("dog in the centre", True),
        ("rightmost", True),
        ("red car", False),
        ("a stopped truck by the bridge", False),
        ("laptop on a desktop", False),
    ],
)
def test_words_that_tell_a_place_in_the_whole_picture_are_known(text: str, place: bool) -> None:
    assert says_where(text) is place
