"""Questions about the pool's pictures that need the world's lore, in the OK-VQA layout.

The picture shows who or what is meant, and lore says the rest. Five people answer, each counted twice; ``raw_answer``
is what they said and ``answer`` its stem. Question types are the official categories.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmi.data.microworld.annotators import answer_type, opinions
from mmi.data.microworld.dice import Dice
from mmi.data.microworld.scene import Scene
from mmi.data.microworld.vocabulary import FACTS, LORE, POSITIONS
from mmi_eval.formats.vqa import VQAAnnotation, VQAAnswer, VQAItem, write_vqa

from .part import WorldPart

_QUESTIONS = {
    "home": "Where does the one {where} live?",
    "food": "What does the one {where} like to eat?",
    "job": "What is the job of the one {where}?",
    "friend": "Who is the best friend of the one {where}?",
    "material": "What are shapes like the one {where} made of?",
    "use": "What are shapes like the one {where} used for?",
}
_CATEGORIES = {"home": "six", "food": "five", "job": "seven", "friend": "seven", "material": "three", "use": "three"}
_STEMS = {"trading": "trade", "giving": "give"}
_N_PEOPLE = 5


@dataclass(frozen=True)
class LoreQuestion:
    """A question whose answer no picture shows.

    Args:
        text: The question.
        answer: As lore has it.
        relation: Which kind of lore.
        subject: Who or what must be recognised.
    """

    text: str
    answer: str
    relation: str
    subject: str

    @property
    def tags(self) -> tuple[str, ...]:
        """What it tests."""
        return (self.relation, "lore", "by position")


def write(part: WorldPart) -> dict[str, int]:
    """Write ``okvqa/questions_<split>.json`` and ``okvqa/annotations_<split>.json``, one question a picture."""
    items: list[VQAItem] = []
    for i in part.items():
        question = lore_question(part.scene("coco", i), part.dice("okvqa", i))
        annotation = _annotation(question, part.dice("okvqa answers", i))
        item = VQAItem(part.image_id(i) * 10 + 5, part.image_id(i), question.text, annotation, part.image_name(i))
        items.append(item)
        part.note_tags("okvqa", {item.question_id: question.tags})
    write_vqa(
        part.folder / "okvqa" / f"questions_{part.split}.json",
        part.folder / "okvqa" / f"annotations_{part.split}.json",
        items,
        description="Questions about the micro-world that need its lore.",
        data_type="microworld",
        data_subtype=part.split,
    )
    return {"okvqa": len(items)}


def lore_question(scene: Scene, dice: Dice) -> LoreQuestion:
    """Ask for a fact about somebody or something that is pointed at by position; never for a place that is in view."""
    asked = []
    for thing in scene.things:
        subject = thing.name or thing.shape
        for relation, text in _QUESTIONS.items():
            answer = FACTS.get((subject, relation))
            if answer is not None and answer != scene.place:
                where = POSITIONS[thing.cell].phrase
                asked.append(LoreQuestion(text.format(where=where), answer, relation, subject))
    relation = dice.pick(sorted({question.relation for question in asked}))
    return dice.pick([question for question in asked if question.relation == relation])


def stem(answer: str) -> str:
    """Return the stem of a word of lore.

    Example:
        >>> stem("plums"), stem("rolling"), stem("giving"), stem("glass")
        ('plum', 'roll', 'give', 'glass')
    """
    if answer in _STEMS:
        return _STEMS[answer]
    if answer.endswith("ing"):
        return answer.removesuffix("ing")
    return answer if answer.endswith("ss") else answer.removesuffix("s")


def _annotation(question: LoreQuestion, dice: Dice) -> VQAAnnotation:
    guesses = sorted({fact.value for fact in LORE if fact.relation == question.relation} - {question.answer})
    people = opinions(question.answer, dice, tags=question.tags, n=_N_PEOPLE, guesses=guesses)
    said = [(dice.pick((person.answer, stem(person.answer))), person.confidence) for person in people]
    answers = tuple(
        VQAAnswer(stem(raw), confidence, 2 * person + again, raw)
        for person, (raw, confidence) in enumerate(said)
        for again in (1, 2)
    )
    truth = stem(question.answer.lower())
    return VQAAnnotation(_CATEGORIES[question.relation], answer_type(truth), truth, answers)
