"""How a question about pictures and its answer are worded: what is given, where the pictures stand, what is learned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmi.config import ConfigError
from mmi.data.document import ImageItem, TextItem

_MARK = re.compile(r"\{(image|question|answer)\}")


@dataclass(frozen=True)
class Wording:
    """A template with ``{answer}``, and ``{question}`` and ``{image}`` before it.

    Args:
        template: Such as ``{image}{question} Short answer: {answer}``.
    """

    template: str

    @classmethod
    def checked(cls, template: str, marks: Sequence[str], what: str) -> Wording:
        """Return a wording whose marks are those a layout has; ``{image}`` may be left out.

        Raises:
            ConfigError: If one is missing, repeated, unknown or behind ``{answer}``.
        """
        found = [match[1] for match in _MARK.finditer(template)]
        needed = [mark for mark in marks if mark != "image"]
        if [mark for mark in found if mark != "image"] != needed or found.count("image") > ("image" in marks):
            told = " and then ".join(f"{{{mark}}}" for mark in needed)
            also = ", {image} at most once before it" if "image" in marks else ""
            raise ConfigError(f'{what} is "{template}"; expected {told}, once each{also}.')
        if "image" in found and found.index("image") > found.index("answer"):
            raise ConfigError(f'{what} is "{template}"; expected {{image}} before {{answer}}.')
        return cls(template)

    @property
    def asked(self) -> str:
        """What stands before the answer."""
        return self.template.partition("{answer}")[0]

    @property
    def after_answer(self) -> str:
        """What follows the answer and is learned with it."""
        return self.template.partition("{answer}")[2]

    def items(self, image: ImageItem, question: str, answer: str) -> Iterator[ImageItem | TextItem]:
        """Yield a picture, what is asked and the answer; without ``{image}`` the picture comes first.

        The answer ends in ``</s>``, learned with it.
        """
        before, mark, behind = self.asked.partition("{image}")
        if not mark:
            before, behind = "", before
        for part, follows in ((before, True), (behind, False)):
            text = part.replace("{question}", question).strip()
            if text:
                yield TextItem(text, loss=False)
            if follows:
                yield image
        yield TextItem(answer + self.after_answer, closes=True)
