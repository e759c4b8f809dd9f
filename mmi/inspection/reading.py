"""What MMFS reads while a task is answered: the share of attention by picture, pyramid level and null slot.

The queries are those that decide the answer: the last token of the prompt, which chooses the first word, and the
answer's own tokens. Weights are averaged over heads and these tokens; with the null slot they add up to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmi.inference import Generator
from mmi.models.text_decoding import TextDecoding
from mmi_eval import model as asked
from mmi_eval.asking import batches_of
from mmi_eval.formats.errors import FormatError
from mmi_eval.sample import Sample
from mmi_eval.tasks.protocol import Answer, Task

from .sampling import LookRecord, MMFSLayer, Wanted, captured_looks

Tell = Callable[[int, int], None]
"""Told the samples read and all samples."""


@dataclass(frozen=True)
class LayerReading:
    """What one layer reads for one answer.

    Args:
        images: float64[N, L], share of each picture and level; the nearest picture first.
        null: Share of the null slot.
        even: float64[L], share of one picture's levels if all points (and the null slot) had the same weight.
        even_null: The same of the null slot; 0 where there is none.
        said: Length of what the layer adds to the hidden states, over the length of these.
    """

    images: np.ndarray
    null: float
    even: np.ndarray
    even_null: float
    said: float


@dataclass(frozen=True)
class Reading:
    """What every layer reads for one sample.

    Args:
        sample: What was asked.
        answer: What was answered.
        n_tokens: Tokens whose weights are averaged.
        layers: By name of the module, in the order of the network.
    """

    sample: Sample
    answer: Answer | None
    n_tokens: int
    layers: dict[str, LayerReading]


class ReadingModel:
    """A model that answers as ever and remembers what its MMFS layers looked at.

    Args:
        generator: Network and tokenizer.

    Attributes:
        found: Number of tokens and layers of each prompt answered with text, in the order of the prompts; whoever reads
            it empties it.
        modules: What is known of each layer, by name.
        level_shapes: ``(height, width)`` of the levels that each layer samples, by its name.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.found: list[tuple[int, dict[str, LayerReading]]] = []
        self.modules: dict[str, MMFSLayer] = {}
        self.level_shapes: dict[str, tuple[tuple[int, int], ...]] = {}

    def generate_text(self, prompts: Sequence[asked.Prompt], decoding: asked.TextDecoding) -> list[str]:
        """Continue each prompt with text, then read prompts and answers again and note down what is looked at.

        The second reading costs as much as the first and keeps nothing but the tokens that answer.

        Raises:
            ConfigError: If the network has no MMFS in its language model.
        """
        if not prompts:
            return []
        generator, special = self.generator, self.generator.tokenizer.special
        state = generator.read(prompts)
        width = state.language.text_ids.shape[1]
        rows = state.write(_settings(decoding))
        ends = (special.eos, special.image_start)
        written = [row[:-1] if row and row[-1] in ends else row for row in rows]
        longest = max(map(len, written))
        wanted = Wanted(tokens=range(width - 1, width + longest), parts=("language",))
        with captured_looks(generator.network, wanted) as looks:
            state = generator.read(prompts)
            if longest:
                ids, real = _padded(written, special.pad, generator.device)
                state.read(ids, real)
        self.modules |= {look.layer.name: look.layer for look in looks}
        self.level_shapes |= {look.layer.name: look.level_shapes for look in looks}
        for row, ids in enumerate(written):
            own = [look for look in looks if look.row == row]
            self.found.append((1 + len(ids), _layers(own, 1 + len(ids), self._has_null)))
        return [generator.tokenizer.decode(row).strip() for row in rows]

    def continue_text(self, prompts: Sequence[asked.Prompt], decoding: asked.TextDecoding) -> list[asked.Continuation]:
        """Refuse: what follows a text is no answer."""
        raise _no_text()

    def generate_image(
        self, prompts: Sequence[asked.Prompt], drawing: asked.Drawing, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Refuse: a picture is no answer in words."""
        raise _no_text()

    def score_continuations(self, prompt: asked.Prompt, continuations: Sequence[str]) -> list[float]:
        """Refuse: options are no answer of its own."""
        raise _no_text()

    def image_losses(
        self, prompts: Sequence[asked.Prompt], images: Sequence[Image.Image], seeds: Sequence[int]
    ) -> list[float]:
        """Refuse: a loss is no answer."""
        raise _no_text()

    def _has_null(self, layer: MMFSLayer) -> bool:
        attention: Any = self.generator.network.get_submodule(layer.name).get_submodule("attention")
        return attention.null_value is not None


def readable_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Return the questions whose prompts show a picture and that have a right answer.

    Raises:
        FormatError: If there are none.
    """
    kept = [s for s in samples if s.pictures and s.request == "text" and s.references and "pair" not in s.meta]
    if not kept:
        raise FormatError("no sample of this task shows a picture and asks for words, so nothing can be read; choose "
                          "another, such as micro_quiz.")  # fmt: skip
    return kept


def read_all(
    task: Task,
    model: ReadingModel,
    samples: Sequence[Sample],
    *,
    batch_size: int = 32,
    tell: Tell = lambda done, total: None,
) -> list[Reading]:
    """Answer all samples and return what was read for each, in the order of the samples.

    Memory holds the looks of one batch; of each sample stay a few numbers per layer.

    Args:
        task: Who asks, and how.
        model: Who answers.
        samples: What ``readable_samples`` returned.
        batch_size: Samples asked at once.
        tell: Told how far it is.

    Raises:
        FormatError: If the task asks the model for something else than one text a sample.
    """
    found: dict[str, Reading] = {}
    for batch in batches_of(samples, batch_size):
        model.found.clear()
        answers = task.answer(model, batch)
        if len(model.found) != len(batch):
            raise _no_text()
        for sample, answer, (n_tokens, layers) in zip(batch, answers, model.found, strict=True):
            found[sample.id] = Reading(sample, answer, n_tokens, layers)
        tell(len(found), len(samples))
    return [found[sample.id] for sample in samples]


def _no_text() -> FormatError:
    return FormatError("this task asks for something else than one text a sample; choose another, such as micro_quiz.")


def _settings(decoding: asked.TextDecoding) -> TextDecoding:
    return TextDecoding(
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens,
        n_beams=decoding.n_beams,
        length_penalty=decoding.length_penalty,
        repetition_penalty=decoding.repetition_penalty,
        do_sample=False,
    )


def _padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return int64[B, T] padded on the right and bool[B, T], True on what is there."""
    ids = pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row) for row in rows])
    return ids.to(device), (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)


def _layers(
    looks: Sequence[LookRecord], n_tokens: int, has_null: Callable[[MMFSLayer], bool]
) -> dict[str, LayerReading]:
    """Average the looks of one row over heads and its first tokens; padding after a short answer is left out."""
    by_layer: dict[str, list[LookRecord]] = {}
    for look in looks:
        by_layer.setdefault(look.layer.name, []).append(look)
    return {name: _layer(records, n_tokens, has_null(records[0].layer)) for name, records in by_layer.items()}


def _layer(records: Sequence[LookRecord], n_tokens: int, has_null: bool) -> LayerReading:
    rows = [row for record in records for row in _tokens(record)][:n_tokens]
    images = np.stack([of_images for of_images, _, _ in rows]).mean(0)
    null, said = float(np.mean([n for _, n, _ in rows])), float(np.mean([s for _, _, s in rows]))
    record = records[0]
    points = np.array([h * w for h, w in record.level_shapes] if record.layer.is_dense else
                      [record.weights.shape[-1]] * len(record.level_shapes), np.float64)  # fmt: skip
    total = float(points.sum()) * len(images) + has_null
    even = points / total if total else points
    return LayerReading(images, null, even, has_null / total if total else 0.0, said)


def _tokens(record: LookRecord) -> Iterator[tuple[np.ndarray, float, float]]:
    """Yield for each query the share of its visible pictures by level, the nearest first, the null slot's, and how much
    was said.
    """
    mass = record.mass().mean(1).double().numpy()  # (Q, N, L)
    null, share = record.null.mean(1).double().numpy(), record.share.double().numpy()
    for query, distances in enumerate(record.distance.numpy()):
        seen = np.flatnonzero(distances)
        images = mass[query, seen[np.argsort(distances[seen])]]
        yield images, float(null[query]), float(share[query])
