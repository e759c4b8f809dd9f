"""Letters and digits in pixels: a font of 3x5 for words and small digits, one of 5x7 for large digits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Each digit has 8 pixels of ink and each letter 10: seen too small to be read, they are equally dark.
_SMALL = {
    "0": ".#.|#.#|#.#|#.#|.#.",
    "1": ".#.|##.|.#.|.#.|###",
    "2": "##.|..#|.#.|#..|###",
    "3": "##.|..#|##.|..#|##.",
    "4": "#..|#.#|###|..#|..#",
    "5": "##.|#..|##.|..#|##.",
    "6": ".##|#..|##.|#.#|.#.",
    "7": "###|..#|.##|.#.|.#.",
    "8": "##.|#.#|.#.|#.#|.#.",
    "9": ".#.|#.#|.##|..#|##.",
    "a": ".#.|#.#|###|#.#|#.#",
    "b": "##.|#.#|##.|#.#|##.",
    "d": "##.|#.#|#.#|#.#|##.",
    "e": "###|#..|##.|#..|###",
    "g": ".##|#..|#.#|#.#|###",
    "k": "#.#|#.#|##.|#.#|#.#",
    "n": "##.|#.#|#.#|#.#|#.#",
    "o": ".##|#.#|#.#|#.#|##.",
    "p": "###|#.#|###|#..|#..",
    "r": "##.|#.#|##.|#.#|#.#",
    "s": "###|#..|###|..#|##.",
    "u": "#.#|#.#|#.#|#.#|.##",
}
_LARGE = {
    "0": ".###.|#...#|#..##|#.#.#|##..#|#...#|.###.",
    "1": "..#..|.##..|..#..|..#..|..#..|..#..|.###.",
    "2": ".###.|#...#|....#|...#.|..#..|.#...|#####",
    "3": "#####|...#.|..#..|...#.|....#|#...#|.###.",
    "4": "...#.|..##.|.#.#.|#..#.|#####|...#.|...#.",
    "5": "#####|#....|####.|....#|....#|#...#|.###.",
    "6": "..##.|.#...|#....|####.|#...#|#...#|.###.",
    "7": "#####|....#|...#.|..#..|.#...|.#...|.#...",
    "8": ".###.|#...#|#...#|.###.|#...#|#...#|.###.",
    "9": ".###.|#...#|#...#|.####|....#|...#.|.##..",
}


@lru_cache(maxsize=512)
def text_mask(text: str, scale: int = 1, *, large: bool = False) -> np.ndarray:
    """Return bool[height, width], true where a text has ink.

    Args:
        text: Digits or letters; words are printed in capitals.
        scale: Pixels a stroke is wide.
        large: Print digits with the larger font.

    Raises:
        ValueError: If the font has no such letter.
    """
    font = _LARGE if large and text.isdigit() else _SMALL
    unknown = sorted(set(text) - set(font))
    if unknown or not text:
        raise ValueError(f'"{text}" cannot be printed; the letters of this world are {"".join(sorted(font))}.')
    letters = [np.array([[pixel == "#" for pixel in row] for row in font[letter].split("|")]) for letter in text]
    gap = np.zeros((len(letters[0]), 1), bool)
    row = [part for letter in letters for part in (letter, gap)][:-1]
    mask = np.kron(np.concatenate(row, axis=1), np.ones((scale, scale), bool)).astype(bool)
    mask.flags.writeable = False
    return mask
