"""What all caption benchmarks share: settings, questions, and scores of the COCO toolkit for texts about pictures.

``score_captions`` is the whole scorer and needs no task: CIDEr first, then BLEU-1 to 4, ROUGE-L and, where asked for,
METEOR (PROTOCOLS T). Document frequencies come from the references of the pictures scored. A benchmark is a
``Captioning`` with its own defaults and, where its files are unlike COCO's, its own ``pictures``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from mmi_eval.formats.caption_files import merged, read_caption_references, read_captioned_pictures
from mmi_eval.formats.caption_results import read_caption_results
from mmi_eval.formats.coco_captions import CaptionedImage
from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.bleu import bleu_scores
from mmi_eval.metrics.caption_tokens import PTB_JAR, CaptionCorpus, first_sentence, tokenize_corpora
from mmi_eval.metrics.cider import cider, leave_one_out_cider
from mmi_eval.metrics.intervals import Score
from mmi_eval.metrics.meteor import METEOR_JAR, meteor_score
from mmi_eval.metrics.rouge import rouge_l
from mmi_eval.metrics.toolkit_jars import CaptionToolError
from mmi_eval.model import InterleavedModel, TextDecoding
from mmi_eval.networks import Networks, check_networks
from mmi_eval.sample import Picture, Sample, spread

from .few_shot import Example, FewShot, with_examples
from .prompts import fill
from .protocol import Answer, PerSample, Scored, Seen, averaged

__all__ = ["Captioning", "Tokens", "merged", "read_references", "read_results", "score_captions"]

Tokens = Literal["ptb", "java-free", "whitespace"]
CIDER, CIDER_FIRST_SENTENCE, ROUGE, METEOR = "cider", "cider, first sentence", "ROUGE-L", "METEOR"

read_results = read_caption_results
read_references = read_caption_references


@dataclass(frozen=True)
class Captioning:
    """Settings of a caption benchmark.

    Args:
        captions: Captions of the split, in any layout that ``read_captioned_pictures`` knows.
        images: Folder of the pictures.
        train_captions: Training captions in the same layouts: for the most frequent one, which is that of the split
            itself without them, and for examples before the question.
        split: Name of the split.
        n: Only so many pictures, evenly spread.
        prompt: With ``{image}``.
        decoding: How captions are chosen.
        tokens: How captions are cut; ``ptb`` needs Java.
        tokens_without_java: What to use instead where Java or the toolkit is not there; ``None`` stops. The score
            names what was used.
        seen: What was trained on.
        meteor: Score METEOR too, which needs Java and some seconds.
        train_images: Folder of the training pictures, if it is another one; for examples.
        few_shot: Examples before the question, worded by ``example``.
        example: What stands after an example's picture, with ``{caption}``; end ``prompt`` alike.
        networks: Where the matching network lies, for examples by similarity.
    """

    captions: Path
    images: Path
    train_captions: Path | None = None
    split: str = "test"
    n: int | None = None
    prompt: str = "{image}a photo of"
    decoding: TextDecoding = field(default_factory=lambda: TextDecoding(20, 7, n_beams=5))
    tokens: Tokens = "ptb"
    tokens_without_java: Tokens | None = None
    seen: Seen = field(default_factory=Seen)
    meteor: bool = False
    train_images: Path | None = None
    few_shot: FewShot = field(default_factory=FewShot)
    example: str = "Caption: {caption}"
    networks: Networks = field(default_factory=Networks)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    raw_units: ClassVar[tuple[str, ...]] = ()
    lower_is_better: ClassVar[tuple[str, ...]] = ()
    result_keys: ClassVar[tuple[str, str] | None] = ("image_id", "caption")
    cut_at_full_stop: ClassVar[bool] = False
    """Whether the official system scores captions up to their first full stop only."""

    @property
    def protocol(self) -> str:
        """How captions are cut; Java is looked for, not started."""
        instead = self.tokens_without_java
        return instead if self.tokens == "ptb" and instead is not None and PTB_JAR.missing() else self.tokens

    @property
    def has_training(self) -> bool:
        """Whether the settings name training captions."""
        return self.train_captions is not None

    def check(self) -> None:
        """Look for Java and the toolkit where they are needed, and for training captions and what compares pictures.

        Raises:
            FileNotFoundError: If a network is not where the settings say.
            FormatError: If something is not there.
        """
        needs = (("tokens is ptb", self.protocol == "ptb", PTB_JAR), ("meteor is true", self.meteor, METEOR_JAR))
        for setting, is_set, jar in needs:
            if is_set and (missing := jar.missing()):
                raise FormatError(f"tasks.{self.name}.{setting}: {missing}")
        if self.few_shot.n and not self.has_training:
            raise FormatError(f"tasks.{self.name}.few_shot takes examples from train_captions; name their file.")
        if self.few_shot.n and self.few_shot.similar:
            check_networks(self.networks, {"matcher"})

    def pictures(self) -> list[CaptionedImage]:
        """Read the pictures of the split in file order, each once."""
        return read_captioned_pictures(self.captions)

    def training(self) -> list[CaptionedImage]:
        """Read the pictures of the training split; none where no file is given."""
        return [] if self.train_captions is None else read_captioned_pictures(self.train_captions, "train")

    def samples(self) -> list[Sample]:
        """Ask about each picture once.

        Raises:
            FileNotFoundError: If a file is not there.
            FormatError: If one is malformed, or a picture has no caption.
        """
        pictures = self.pictures()
        for picture in pictures:
            if not picture.captions:
                raise FormatError(
                    f"{self.captions}: picture {picture.image_id} has no caption; score an annotated split."
                )
        return self.asked(pictures)

    def asked(self, pictures: Sequence[CaptionedImage]) -> list[Sample]:
        """Return the questions on pictures, with examples before them where the settings say so."""
        samples = []
        for image in spread(pictures, self.n):
            prompt = fill(self.prompt, {"image": Picture(image.path(self.images))})
            samples.append(Sample(str(image.image_id), prompt, image.captions))
        return with_examples(samples, self._examples(), self.few_shot, self.networks) if self.few_shot.n else samples

    def answer(self, model: InterleavedModel, batch: Sequence[Sample]) -> list[str]:
        """Ask for captions."""
        return model.generate_text([sample.opened() for sample in batch], self.decoding)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score the captions; one that could not be had is empty.

        Raises:
            FormatError: If Java or the toolkit fails.
        """
        texts = [answer if isinstance(answer, str) else "" for answer in answers]
        return score_captions(
            {s.id: text for s, text in zip(samples, texts, strict=True)},
            {s.id: s.references for s in samples},
            tokens=self.protocol,
            meteor=self.meteor,
            first_sentences=self.cut_at_full_stop,
            parts=self.parts(samples),
        )

    def parts(self, samples: Sequence[Sample]) -> dict[str, list[str]]:
        """Return ids of samples that are scored as sets of their own, by the name of the value."""
        return {}

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent caption, and people against each other where all pictures have several captions.

        Raises:
            FormatError: If the training file has no caption, or Java or the toolkit fails.
        """
        source = self.training() if self.has_training else self.pictures()
        counted = Counter(text for image in source for text in image.captions)
        if not counted:
            raise FormatError(f"{self.train_captions} holds no caption; name a file of training captions that does.")
        most_frequent = min(counted, key=lambda caption: (-counted[caption], caption))
        references = {sample.id: sample.references for sample in samples}
        same = dict.fromkeys(references, most_frequent)
        corpus = _cut({CIDER: same}, references, self.protocol)[CIDER]
        notes = {"caption": most_frequent, "times": counted[most_frequent]}
        found = {"most_frequent_caption": _cider_only(corpus, cider(corpus).tolist(), notes)}
        if all(len(sample.references) > 1 for sample in samples):
            found["human_leave_one_out"] = _cider_only(corpus, leave_one_out_cider(corpus).tolist(), {})
        return found

    def _examples(self) -> list[Example]:
        folder = self.images if self.train_images is None else self.train_images
        pairs = [(image, caption) for image in self.training() for caption in image.captions]
        found = []
        for image, caption in spread(pairs, self.few_shot.pool):
            text = "".join(map(str, fill(self.example, {"caption": caption})))
            found.append(Example(Picture(image.path(folder)), text, str(image.image_id)))
        return found


def score_captions(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    tokens: str = "ptb",
    meteor: bool = False,
    first_sentences: bool = False,
    parts: Mapping[str, Sequence[str]] | None = None,
) -> Scored:
    """Score captions as the COCO toolkit does; PyTorch is not needed.

    Args:
        predictions: A caption for each picture, by id.
        references: Captions of each picture by id; pictures without a prediction play no part, as in the toolkit.
        tokens: How captions are cut, a name in ``CAPTION_PROTOCOLS``; ``ptb`` needs Java.
        meteor: Score METEOR too, which needs Java.
        first_sentences: Score captions up to their first full stop too, as the official system does on COCO.
        parts: Ids of pictures that are scored as a set of their own, by the name of the value.

    Returns:
        Fractions (CIDEr 1.0 is what papers print as 100); CIDEr and ROUGE-L also for each picture.

    Raises:
        FormatError: If there is no prediction, one is about a picture without references, or Java or the toolkit fails.
        KeyError: If ``tokens`` is unknown.
    """
    if not predictions:
        raise FormatError("there are no captions to score; check the file of predictions.")
    if lost := [picture for picture in predictions if not references.get(picture)]:
        raise FormatError(
            f"{len(lost)} of {len(predictions)} captions are about pictures without references, such as {lost[0]}; "
            "score them against the split they were made for."
        )
    sets = {CIDER: predictions}
    if first_sentences:
        sets[CIDER_FIRST_SENTENCE] = {picture: first_sentence(text) for picture, text in predictions.items()}
    corpora = _cut(sets, references, tokens)
    corpus, ids = corpora[CIDER], list(predictions)
    per_sample: PerSample = {name: _column(ids, cider(one).tolist()) for name, one in corpora.items()}
    per_sample[ROUGE] = _column(ids, rouge_l(corpus).tolist())
    for name, members in (parts or {}).items():
        per_sample[name] = _column(members, cider(corpus.part(members)).tolist())
    means = averaged(per_sample, [Sample(picture, ()) for picture in ids], hits=False)
    values = {name: means.pop(name) for name in corpora}
    values |= {f"BLEU-{n}": score for n, score in enumerate(bleu_scores(corpus), start=1)}
    values[ROUGE] = means.pop(ROUGE)
    if meteor:
        values[METEOR] = _meteor(corpus)
    counts = {"empty captions": sum(not text.strip() for text in predictions.values())}
    if corpus.n_without_prediction:
        counts["references without a caption"] = corpus.n_without_prediction
    return Scored(values | means, per_sample, counts=counts)


def _cut(
    sets: Mapping[str, Mapping[str, str]], references: Mapping[str, Sequence[str]], tokens: str
) -> dict[str, CaptionCorpus]:
    try:
        return tokenize_corpora(sets, references, protocol=tokens)
    except CaptionToolError as error:
        raise FormatError(str(error)) from error


def _meteor(corpus: CaptionCorpus) -> Score:
    try:
        return meteor_score(corpus)
    except CaptionToolError as error:
        raise FormatError(str(error)) from error


def _cider_only(corpus: CaptionCorpus, values: Sequence[float], notes: Mapping[str, object]) -> Scored:
    ids = [str(picture) for picture in corpus.image_ids]
    columns: PerSample = {CIDER: _column(ids, values)}
    return Scored(averaged(columns, [Sample(picture, ()) for picture in ids], hits=False), columns, notes=dict(notes))


def _column(ids: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return dict(zip(ids, values, strict=True))
