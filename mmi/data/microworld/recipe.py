"""How much of everything a world has: shares of names, prints, textures and of questions about fine detail."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Recipe:
    """Shares that scenes and questions are drawn with; all are probabilities unless said otherwise.

    Args:
        size: Number of stories, of pictures with captions and so on, each, where none is asked for.
        image_size: Height and width of pictures, where none is asked for.
        n_things: Fewest and most things of a scene, each count equally often.
        name_share: A thing is a character.
        print_share: A thing that is nobody is large and carries a print.
        word_share: The print of a square or circle is a word; the other shapes carry digits.
        large_print_share: The digit of a square or circle is large.
        very_small_print_share: A print that is not large is very small; needs pictures of 64 pixels.
        word_letters: Fewest and most letters of words; three or four need pictures of 64 pixels.
        texture_share: A thing without print is striped or dotted.
        printed_texture_share: A thing with a print is striped or dotted.
        similar_share: A thing is like one before it but for one attribute.
        small_print_share: One of the questions about a picture reads small or very small print, where there is any.
        yes_no_share: One of the questions about a picture is answered by yes or no.
        earlier_share: Some of the questions after a later picture are about earlier ones.
        earlier_questions: How many these are, where so many are asked.
        position_share: A thing that could be pointed at by its look is pointed at by its position.
        quiz_pictures: Numbers of pictures of a quiz, each equally often.
        quiz_questions: Fewest and most questions after a picture of a quiz.
    """

    size: int = 1500
    image_size: int = 32
    n_things: tuple[int, int] = (1, 3)
    name_share: float = 0.3
    print_share: float = 0.6
    word_share: float = 0.4
    large_print_share: float = 0.5
    very_small_print_share: float = 0.0
    word_letters: tuple[int, int] = (2, 2)
    texture_share: float = 0.5
    printed_texture_share: float = 0.0
    similar_share: float = 0.0
    small_print_share: float = 0.5
    yes_no_share: float = 0.0
    earlier_share: float = 0.8
    earlier_questions: int = 2
    position_share: float = 0.8
    quiz_pictures: tuple[int, ...] = (1, 2, 2, 3)
    quiz_questions: tuple[int, int] = (5, 8)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{field.name} is {value}; expected a probability between 0 and 1.")
        for name in ("print_share", "word_share", "texture_share"):
            if not getattr(self, name):
                raise ValueError(f"{name} is 0; expected more, as some questions ask for such things until they occur.")
        if not 1 <= self.n_things[0] <= self.n_things[1] <= 9:
            raise ValueError(f"n_things is {self.n_things}; expected two counts between 1 and 9, the lower one first.")
        if not 1 <= self.quiz_questions[0] <= self.quiz_questions[1]:
            raise ValueError(f"quiz_questions is {self.quiz_questions}; expected two counts, the lower one first.")
        if self.earlier_questions < 1:
            raise ValueError(f"earlier_questions is {self.earlier_questions}; expected at least 1.")
        if not self.quiz_pictures or not {1, 2, 3}.issuperset(self.quiz_pictures):
            raise ValueError(f"quiz_pictures is {self.quiz_pictures}; expected numbers from 1 to 3.")
        if not 2 <= self.word_letters[0] <= self.word_letters[1] <= 4:
            raise ValueError(f"word_letters is {self.word_letters}; expected two lengths between 2 and 4.")

    @property
    def least_image_size(self) -> int:
        """Height and width of the smallest picture that has room for its prints."""
        return 64 if self.very_small_print_share or self.word_letters[1] > 2 else 32


_DETAILED = Recipe(
    size=4000,
    image_size=64,
    n_things=(3, 5),
    name_share=0.1,
    print_share=0.8,
    word_share=0.1,
    large_print_share=0.0,
    very_small_print_share=0.5,
    texture_share=0.1,
    similar_share=0.3,
    small_print_share=1.0,
    position_share=1.0,
    quiz_pictures=(1, 2, 2, 3),
    quiz_questions=(8, 10),
)

PRESETS = {
    "tiny": Recipe(word_share=0.2, large_print_share=0.3, texture_share=0.2),
    "crowded": Recipe(
        size=6000,
        n_things=(4, 6),
        name_share=0.1,
        word_share=0.1,
        large_print_share=0.0,
        texture_share=0.1,
        small_print_share=1.0,
        position_share=1.0,
        quiz_pictures=(1,),
        quiz_questions=(12, 14),
    ),
    "detailed": _DETAILED,
    "recalled": replace(_DETAILED, earlier_share=1.0, earlier_questions=5, quiz_pictures=(2,)),
    "lab": Recipe(
        size=100_000,
        image_size=64,
        n_things=(2, 6),
        print_share=0.7,
        large_print_share=0.3,
        very_small_print_share=0.5,
        word_letters=(2, 4),
        printed_texture_share=0.1,
        similar_share=0.4,
        yes_no_share=0.2,
    ),
}
"""``tiny`` is easy to learn within minutes at 32 pixels; ``crowded`` asks much of each small picture, so that a few
visual tokens are a bottleneck; ``detailed`` asks as much of several pictures in a row, with print that is lost where
pictures of 64 pixels are seen at 32; ``recalled`` has the pictures of ``detailed`` and asks of two in a row as much
about the first as about the second; ``lab`` is rich and needs pictures of 64 to 128 pixels."""
