"""The world in the layouts of the official data sets: stories and quizzes as MMC4 shards, captions as pair tars and
COCO files, questions in VQA v2 files. Beside each lies what a judge may look up: scene graphs and tags.

Item ``i`` of a split depends on the seed, the split and ``i`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mmi_eval.formats.coco_captions import CaptionedImage, write_coco_captions
from mmi_eval.formats.errors import dump_json
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar
from mmi_eval.formats.vqa import VQAAnnotation, VQAAnswer, VQAItem, write_vqa

from .dice import Dice
from .draw import PALETTE, draw
from .language import captions
from .png import encode_png
from .questions import Question, Quiz, ask_several, draw_quiz
from .scene import Scene, Split, draw_scene
from .story import Story, tell_story

PAIRS_PER_SHARD = 1000
QUESTIONS_PER_PICTURE = 3
FIRST_IMAGE_ID = {"train": 1, "val": 1_000_001, "test": 2_000_001}

# What CLIP would say of a picture and its own sentence, or another one; SPEC 3.2 keeps pictures from 0.24 on.
_SIMILAR, _DISSIMILAR = 0.32, 0.12

Step = Callable[[], None]


class WorldPart:
    """One split of a world on its way to disk.

    Args:
        folder: The world's folder.
        split: Which scenes.
        size: Number of stories, pairs, captioned pictures and quizzes, each.
        seed: Another seed draws other items.
        image_size: Height and width of the pictures.
        step: Called after each item.
    """

    def __init__(self, folder: Path, split: Split, size: int, seed: int, image_size: int, step: Step) -> None:
        self.folder = folder
        self.split: Split = split
        self.size = size
        self._seed = seed
        self._image_size = image_size
        self._step = step

    def write(self) -> dict[str, int]:
        """Write everything and return how many of each there are."""
        return {
            "stories": self._stories(),
            "pairs": self._pairs(),
            **self._captions_and_questions(),
            "quizzes": self._quizzes(),
        }

    def story(self, i: int) -> Story:
        """Return story ``i``."""
        return tell_story(self._dice("story", i), self.split)

    def quiz(self, i: int) -> Quiz:
        """Return quiz ``i``."""
        return draw_quiz(self._dice("quiz", i), self.split)

    def captioned(self, i: int) -> tuple[Scene, tuple[str, ...], tuple[Question, ...]]:
        """Return picture ``i`` of the COCO and VQA files with its captions and questions."""
        dice = self._dice("captions", i)
        scene = draw_scene(dice, self.split)
        return scene, captions(scene, dice), ask_several(scene, QUESTIONS_PER_PICTURE, dice)

    def _dice(self, kind: str, i: int) -> Dice:
        return Dice(kind, self.split, self._seed, i)

    def _png(self, scene: Scene) -> bytes:
        return encode_png(draw(scene, self._image_size).indices, PALETTE)

    def _items(self) -> Iterator[int]:
        for i in range(self.size):
            yield i
            self._step()

    def _stories(self) -> int:
        def documents() -> Iterator[MMC4Document]:
            for i in self._items():
                frames = self.story(i).frames
                names = [f"{self.split}-{i:06d}-{k}.png" for k in range(len(frames))]
                self._save("stories", names, [frame.scene for frame in frames], scenes)
                matches = [(name, k) for k, name in enumerate(names)]
                yield _document(f"story/{self.split}/{i}", [frame.text for frame in frames], matches)

        scenes: list[str] = []
        count = write_mmc4(self.folder / "stories" / f"{self.split}.jsonl.zip", documents())
        self._note("scenes/stories", scenes)
        return count

    def _quizzes(self) -> int:
        def documents() -> Iterator[MMC4Document]:
            for i in self._items():
                quiz = self.quiz(i)
                names = [f"{self.split}-{i:06d}-{k}.png" for k in range(len(quiz.scenes))]
                self._save("quizzes", names, quiz.scenes, scenes)
                starts = [sum(map(len, quiz.questions[:k])) for k in range(len(names))]
                asked = [question for questions in quiz.questions for question in questions]
                tags.append(dump_json({"quiz": i, "questions": [_question_record(q) for q in asked]}))
                sentences = [question.prompted for question in asked]
                yield _document(f"quiz/{self.split}/{i}", sentences, list(zip(names, starts, strict=True)))

        scenes: list[str] = []
        tags: list[str] = []
        count = write_mmc4(self.folder / "quizzes" / f"{self.split}.jsonl.zip", documents())
        self._note("scenes/quizzes", scenes)
        self._note("tags/quizzes", tags)
        return count

    def _pairs(self) -> int:
        def pairs(numbers: Sequence[int]) -> Iterator[tuple[TarPair, bytes]]:
            for i in numbers:
                dice = self._dice("pair", i)
                scene = draw_scene(dice, self.split)
                caption, key = captions(scene, dice, 1)[0], f"{i:09d}"
                scenes.append(dump_json({"image": key} | scene.record()))
                about = {"key": key, "caption": caption, "status": "success"}
                sides = {"width": self._image_size, "height": self._image_size}
                yield TarPair(key, caption, "png", about | sides), self._png(scene)
                self._step()

        scenes: list[str] = []
        for start in range(0, self.size, PAIRS_PER_SHARD):
            shard = self.folder / "pairs" / self.split / f"{start // PAIRS_PER_SHARD:05d}.tar"
            write_pair_tar(shard, pairs(range(start, min(start + PAIRS_PER_SHARD, self.size))))
        self._note("scenes/pairs", scenes)
        return self.size

    def _captions_and_questions(self) -> dict[str, int]:
        images: list[CaptionedImage] = []
        items: list[VQAItem] = []
        scenes: list[str] = []
        tags: dict[str, list[str]] = {}
        for i in self._items():
            scene, texts, questions = self.captioned(i)
            image_id = FIRST_IMAGE_ID[self.split] + i
            name = f"{image_id:012d}.png"
            self._save("coco", [name], [scene], scenes)
            images.append(CaptionedImage(image_id, name, texts, (self._image_size, self._image_size)))
            for number, question in enumerate(questions):
                item = _vqa_item(image_id * 1000 + number, image_id, question, name)
                items.append(item)
                tags[str(item.question_id)] = list(question.tags)
        self._note("scenes/coco", scenes)
        write_coco_captions(self.folder / "coco" / "annotations" / f"captions_{self.split}.json", images)
        write_vqa(
            self.folder / "vqa" / f"questions_{self.split}.json",
            self.folder / "vqa" / f"annotations_{self.split}.json",
            items,
            description="Questions about the micro-world.",
            data_type="microworld",
            data_subtype=self.split,
        )
        self._note("tags/vqa", [dump_json({"question_id": int(key), "tags": value}) for key, value in tags.items()])
        return {"captioned_pictures": len(images), "captions": sum(len(i.captions) for i in images), "vqa": len(items)}

    def _save(self, kind: str, names: Sequence[str], scenes: Sequence[Scene], records: list[str]) -> None:
        folder = self.folder / kind / "images"
        folder.mkdir(parents=True, exist_ok=True)
        for name, scene in zip(names, scenes, strict=True):
            (folder / name).write_bytes(self._png(scene))
            records.append(dump_json({"image": name} | scene.record()))

    def _note(self, name: str, lines: Sequence[str]) -> None:
        path = self.folder / f"{name}_{self.split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _document(name: str, sentences: Sequence[str], matches: Sequence[tuple[str, int]]) -> MMC4Document:
    images = tuple(MMC4Image(image, sentence, _SIMILAR) for image, sentence in matches)
    matrix = tuple(
        tuple(_SIMILAR if column == sentence else _DISSIMILAR for column in range(len(sentences)))
        for _, sentence in matches
    )
    return MMC4Document(tuple(sentences), images, matrix, f"microworld://{name}")


def _vqa_item(question_id: int, image_id: int, question: Question, image: str) -> VQAItem:
    # Ten people who all see well.
    answers = tuple(VQAAnswer(question.answer, "yes", i) for i in range(1, 11))
    kind = "number" if question.answer.isdigit() else "other"
    annotation = VQAAnnotation(question.type, kind, question.answer, answers)
    return VQAItem(question_id, image_id, question.text, annotation, image)


def _question_record(question: Question) -> dict[str, object]:
    return {
        "question": question.text,
        "answer": question.answer,
        "type": question.type,
        "tags": list(question.tags),
        "steps_back": question.steps_back,
    }
