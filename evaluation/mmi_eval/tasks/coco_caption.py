"""COCO captions: one sentence about a picture, against what people wrote.

Data: captions in COCO's layout, or Karpathy's test split as BLIP publishes it (5,000 pictures, 5 captions each).
Prompt: SPEC 3.6; decoding: SPEC 5.1 (20 new tokens, at least 7, 5 beams).
Metric: CIDEr of the COCO toolkit on PTB tokens (PROTOCOLS T), document frequencies from the pictures scored; BLEU-4
beside it. The official system cuts captions at the first full stop: that value stands beside the headline.
Baselines: the most frequent training caption (most_frequent_caption), people against each other with one left out
(human_leave_one_out).
Paper: 129.0 zero-shot, 140.5 after fine-tuning; ablation model 110.6 (all times 100).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from mmi_eval.formats.coco_captions import CaptionedImage, read_coco_captions
from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.bleu import bleu_score
from mmi_eval.metrics.caption_tokens import CaptionTokenizerError, first_sentence, tokenize_corpora, tokenize_ptb
from mmi_eval.metrics.cider import cider, leave_one_out_cider
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.sample import Picture, Sample, spread

from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged

Tokens = Literal["ptb", "java-free"]
_CUT = "cider, first sentence"


@dataclass(frozen=True)
class COCOCaption:
    """Settings of the benchmark.

    Args:
        captions: Captions of the split, in any layout that ``read_coco_captions`` knows.
        images: Folder of the pictures.
        train_captions: Training captions, for the most frequent one; without them it is that of the split itself.
        split: Name of the split.
        n: Only so many pictures, evenly spread.
        prompt: With ``{image}``.
        decoding: How captions are chosen.
        tokens: How captions are cut; ``ptb`` needs Java.
        tokens_without_java: What to use instead where Java is not there; ``None`` stops. The score names what was used.
        seen: What was trained on.
    """

    captions: Path
    images: Path
    train_captions: Path | None = None
    split: str = "karpathy test"
    n: int | None = None
    prompt: str = "{image}a photo of"
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(20, 7, n_beams=5))
    tokens: Tokens = "ptb"
    tokens_without_java: Tokens | None = None
    seen: Seen = field(default_factory=Seen)

    name: ClassVar[str] = "coco_caption"
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("image_id", "caption")

    @property
    def protocol(self) -> str:
        """How captions are cut."""
        if self.tokens == "ptb" and self.tokens_without_java is not None and not _has_java():
            return self.tokens_without_java
        return self.tokens

    def check(self) -> None:
        """Look for Java where it is needed.

        Raises:
            FormatError: If it is not there.
        """
        if self.protocol == "ptb" and not _has_java():
            try:
                tokenize_ptb([""])
            except CaptionTokenizerError as error:
                raise FormatError(f"tasks.{self.name}.tokens is ptb: {error}") from error

    def samples(self) -> list[Sample]:
        """Read the pictures in file order; rows of one picture are put together."""
        samples = []
        for image in spread(merged(read_coco_captions(self.captions)), self.n):
            if not image.captions:
                raise FormatError(
                    f"{self.captions}: picture {image.image_id} has no caption; score an annotated split."
                )
            picture = Picture(image.path(self.images))
            samples.append(Sample(str(image.image_id), fill(self.prompt, {"image": picture}), image.captions))
        return samples

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for captions."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score by CIDEr; a caption that could not be had is empty."""
        texts = [answer if isinstance(answer, str) else "" for answer in answers]
        captions: dict[Hashable, str] = {s.id: text for s, text in zip(samples, texts, strict=True)}
        cut: dict[Hashable, str] = {sample_id: first_sentence(text) for sample_id, text in captions.items()}
        references: dict[Hashable, Sequence[str]] = {s.id: s.references for s in samples}
        corpora = tokenize_corpora({"cider": captions, _CUT: cut}, references, protocol=self.protocol)
        ids = [sample.id for sample in samples]
        per_sample: PerSample = {
            name: dict(zip(ids, cider(corpus).tolist(), strict=True)) for name, corpus in corpora.items()
        }
        values = averaged(per_sample, samples) | {"BLEU-4": bleu_score(corpora["cider"])}
        counts = {"empty captions": sum(not text.strip() for text in texts)}
        return Scored(values, per_sample, counts=counts)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent caption, and people."""
        source = self.captions if self.train_captions is None else self.train_captions
        counted = Counter(caption for image in read_coco_captions(source) for caption in image.captions)
        most_frequent = min(counted, key=lambda caption: (-counted[caption], caption))
        ids = [sample.id for sample in samples]
        same: dict[Hashable, str] = dict.fromkeys(ids, most_frequent)
        references: dict[Hashable, Sequence[str]] = {sample.id: sample.references for sample in samples}
        corpus = tokenize_corpora({"same": same}, references, protocol=self.protocol)["same"]
        columns: PerSample = {"cider": dict(zip(ids, cider(corpus).tolist(), strict=True))}
        notes = {"caption": most_frequent, "times": counted[most_frequent]}
        found = {"most_frequent_caption": Scored(averaged(columns, samples), columns, notes=notes)}
        if all(len(sample.references) > 1 for sample in samples):
            people: PerSample = {"cider": dict(zip(ids, leave_one_out_cider(corpus).tolist(), strict=True))}
            found["human_leave_one_out"] = Scored(averaged(people, samples), people)
        return found


@cache
def _has_java() -> bool:
    """Whether the tokenizer of the COCO toolkit runs here."""
    try:
        tokenize_ptb([""])
    except CaptionTokenizerError:
        return False
    return True


def merged(images: Sequence[CaptionedImage]) -> list[CaptionedImage]:
    """Put the captions of rows of one picture together, in the order of first rows."""
    found: dict[int | str, CaptionedImage] = {}
    for image in images:
        first = found.get(image.image_id)
        captions = image.captions if first is None else (*first.captions, *image.captions)
        found[image.image_id] = CaptionedImage(image.image_id, image.file_name, captions, image.size)
    return list(found.values())
