"""Score a hundred answers to a question in three ways that give the same numbers, and time them side by side.

``shared prefix`` is ``mmi.inference.Generator.score_continuations``. ``one full pass each`` reads picture, dialog and
one option again for every option. ``four at a time`` is the official way (SPEC 9.3): the picture is encoded, and the
dialog read, once for every four options.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from mmfs.benchmark.timing import clock_for
from mmi.config import LanguageConfig
from mmi.data.document import ImageItem, TextItem
from mmi.data.encode import encode_items
from mmi.data.images import to_pixels, to_rgb, to_square
from mmi.data.microworld.layouts.part import WorldPart
from mmi.data.microworld.layouts.visdial import dialog_of
from mmi.inference import Generator
from mmi.models.language_model import ImageContext
from mmi.models.visibility import visible_images
from mmi.tokens import SpecialTokens, Tokenizer
from mmi_eval.metrics.visdial import ranks_of_scores
from mmi_eval.sample import Picture
from mmi_eval.tasks.visdial import dialog_prompt

WAYS = ("shared prefix", "one full pass each", "four at a time")


@dataclass(frozen=True)
class Question:
    """A question of a dialog.

    Args:
        picture: What it is about.
        text: The dialog up to the question.
        options: Answers to rank.
    """

    picture: Image.Image
    text: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """What one way took, and how its numbers differ from those of one full pass each.

    Args:
        way: Its name.
        seconds: Of each question: of the processors, added over threads, or of the GPU.
        ratio: Seconds of one full pass each over its own, all questions together.
        largest_difference: Between log-probabilities of an option.
        same_ranks: Questions whose options come in the same order.
    """

    way: str
    seconds: tuple[float, ...]
    ratio: float
    largest_difference: float
    same_ranks: int


class WordCodec:
    """Every word an id, in the order they come up; stands in for a tokenizer where nothing is trained.

    Args:
        config: Its vocabulary and the ids that have a role.
    """

    def __init__(self, config: LanguageConfig) -> None:
        self.vocab_size = config.vocab_size
        taken = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
        self._free = (i for i in range(config.vocab_size) if i not in taken)
        self._ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words.

        Raises:
            ValueError: If there are more different words than entries.
        """
        return [self._id(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        """Return the words of ids that came up."""
        words = {i: word for word, i in self._ids.items()}
        return " ".join(words[i] for i in ids)

    def _id(self, word: str) -> int:
        if word not in self._ids:
            try:
                self._ids[word] = next(self._free)
            except StopIteration:
                raise ValueError(f"the dialogs have more than {len(self._ids)} words, as many as entries.") from None
        return self._ids[word]


def word_tokenizer(config: LanguageConfig) -> Tokenizer:
    """Return a tokenizer of whole words for a network that was never trained."""
    special = SpecialTokens(
        config.bos_token_id,
        config.eos_token_id,
        config.pad_token_id,
        config.image_start_token_id,
        config.image_token_id,
    )
    return Tokenizer(WordCodec(config), special)


def drawn_questions(n: int) -> list[Question]:
    """Draw pictures of the micro-world and ask the last question of the dialog about each, a hundred options."""
    part = WorldPart(Path(), "test", {"test": n})
    questions = []
    for i in range(n):
        dialog, _, _ = dialog_of(part, i)
        _, text = dialog_prompt(dialog, len(dialog.rounds), Picture(Path()))
        picture = Image.open(io.BytesIO(part.png(part.scene("coco", i)))).convert("RGB")
        questions.append(Question(picture, str(text), dialog.rounds[-1].options))
    return questions


def time_ways(generator: Generator, questions: Sequence[Question]) -> list[Timing]:
    """Score all options of all questions in every way, the ways in turn, after one round that does not count.

    Args:
        generator: Network and tokenizer.
        questions: At least one.
    """
    ways: dict[str, Callable[[Question], list[float]]] = {
        "shared prefix": lambda q: generator.score_continuations([q.picture, q.text], q.options),
        "one full pass each": lambda q: full_passes(generator, q, 1),
        "four at a time": lambda q: full_passes(generator, q, 4),
    }
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    scores: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    clock = clock_for(generator.device)
    warm_up = Question(questions[0].picture, questions[0].text, questions[0].options[:4])
    for way in WAYS:
        ways[way](warm_up)
    for question in questions:
        for way in WAYS:
            sample = clock(lambda way=way, question=question: scores[way].append(ways[way](question)))
            seconds[way].append(sample.seconds)
    plain = WAYS[1]
    found = []
    for way in WAYS:
        pairs = list(zip(scores[way], scores[plain], strict=True))
        difference = max(abs(a - b) for own, other in pairs for a, b in zip(own, other, strict=True))
        same = sum((ranks_of_scores([own]) == ranks_of_scores([other])).all() for own, other in pairs)
        ratio = sum(seconds[plain]) / sum(seconds[way])
        found.append(Timing(way, tuple(seconds[way]), ratio, difference, int(same)))
    return found


@torch.no_grad()
def full_passes(generator: Generator, question: Question, n_together: int) -> list[float]:
    """Return the summed log-probability of each option, everything read again for every ``n_together`` options."""
    network, tokenizer = generator.network, generator.tokenizer
    items = [ImageItem(_in_memory, "picture"), TextItem(question.text)]
    encoded = encode_items(items, tokenizer, network.config.tokens_per_image)
    prompt = [tokenizer.special.bos, *encoded.ids]
    starts = torch.tensor([start + 1 for start in encoded.image_starts], device=generator.device)
    size = network.config.vision.image_size
    pixels = to_pixels(to_square(to_rgb(question.picture), size, generator.crop))[None].to(generator.device)
    language, scores = network.language_model, []
    for options in _dealt([tokenizer.encode(option) for option in question.options], n_together):
        width, n = max(map(len, options)), len(options)
        # Nobody looks right, so padding there changes nothing.
        rows = [prompt + option + [tokenizer.special.pad] * (width - len(option)) for option in options]
        ids = torch.tensor(rows, device=generator.device)
        features = network.visual_tokenizer(pixels)
        tokens = features.tokens.expand(n, -1, -1)
        embeddings = language.embed(ids, tokens, torch.arange(n, device=generator.device), starts.expand(n))
        visible = visible_images(ids, starts.expand(n, 1), bos_token_id=tokenizer.special.bos)
        values = language.project_pyramid(features.pyramid)
        hidden = language(embeddings, images=ImageContext(values, starts.new_zeros(n, 1), visible))
        # Only what is asked for goes through the head, here too.
        logits = language.head(hidden[:, len(prompt) - 1 : -1])
        picked = logits.log_softmax(-1).gather(2, ids[:, len(prompt) :, None])[..., 0]
        scores += [float(row[: len(option)].sum()) for row, option in zip(picked, options, strict=True)]
    return scores


def _dealt(options: Sequence[list[int]], n: int) -> Iterator[Sequence[list[int]]]:
    for start in range(0, len(options), n):
        yield options[start : start + n]


def _in_memory() -> io.BytesIO:
    raise AssertionError("the picture of a question is already in memory")
