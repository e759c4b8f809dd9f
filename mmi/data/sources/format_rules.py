"""The layouts a source may have, and what holds for each where the configuration says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Format = Literal[
    "mmc4",
    "obelics",
    "pair_tars",
    "pair_jsonl",
    "folder",
    "coco_captions",
    "karpathy",
    "flickr30k",
    "nocaps",
    "textcaps",
    "paragraphs",
    "narratives",
    "conversations",
    "vqa",
    "textvqa",
    "vizwiz",
    "gqa",
    "chartqa",
    "docvqa",
    "infovqa",
    "estvqa",
    "stvqa",
    "ocrvqa",
    "dvqa",
    "refcoco",
    "grounding_rows",
    "ade20k",
    "vist",
    "pororo",
    "flintstones",
]

CONVERSATION_TEMPLATE = "Question: {question} Short answer: {answer}."
QUESTION_TEMPLATE = "Based on the image, please answer the question. {image}{question}. The answer is: {answer}"
"""Paper, Appendix B.2."""
GROUNDING_TEMPLATE = (
    "{image}Provide the bounding box coordinate of the region this sentence describes. {question}<box>{answer}</box>"
)
"""SPEC 3.6, as the official code has it; the paper prints another wording."""
REGION_TEMPLATE = "{image}Provide a short description for this <ref>region</ref><box>{question}</box>. {answer}"
"""SPEC 3.6, referring: the box is given and the expression is learned."""
VIZWIZ_TEMPLATE = (
    "Based on the image, please answer the question. {image}{question} When the provided information is insufficient, "
    "respond with 'Unanswerable'. Please provide an accurate answer within one word. The answer is: {answer}"
)
"""Paper, Table 17; the other question sets are trained without such a sentence (Appendix B.2)."""

_PAIR_MARKS = ("image", "answer")
_QUESTION_MARKS = ("image", "question", "answer")


@dataclass(frozen=True)
class FormatRules:
    """What holds for a layout.

    Args:
        images_learned: Whether drawing the pictures is learned.
        text_learned: Whether the text is learned (questions and prompts never are).
        image_first: How often a picture comes before its text; ``None`` where the layout says where it stands.
        lowercase: Whether text is lower-cased; ``None`` where it is left alone whatever is asked.
        template: How a question and its answer are worded; ``None`` where nothing is asked.
        marks: What a template may hold; none where the layout takes no template.
        takes_split: Whether one file or folder holds several splits, of which ``split`` names one.
        takes_annotations: Whether a second file belongs to ``path``, which ``annotations`` names.
        takes_filters: Whether a record has scores that ``filters`` looks at.
        takes_images: Whether pictures may lie apart, where ``images`` says.
        drops: Which of ``min_similarity``, ``max_images``, ``drop_single_image_probability`` and ``min_caption_chars``
            its records are held to.
        mirrors: Whether what is said of a picture can be said of its mirror image; not where writing in pictures is
            read, or places are told by plain numbers.
        cuts: Whether a part of a picture may stand for it.
        boxes: Whether texts name boxes in numbers of the whole picture.
        turns: Whether a document is a row of sentences and pictures, of which the first may be given.
    """

    images_learned: bool = True
    text_learned: bool = True
    image_first: float | None = 0.5
    lowercase: bool | None = False
    template: str | None = None
    marks: tuple[str, ...] = ()
    takes_split: bool = False
    takes_annotations: bool = False
    takes_filters: bool = False
    takes_images: bool = True
    drops: tuple[str, ...] = ()
    mirrors: bool = True
    cuts: bool = False
    boxes: bool = False
    turns: bool = False


_WEB = FormatRules(drops=("max_images", "drop_single_image_probability"))
_PAIR = FormatRules(lowercase=True, marks=_PAIR_MARKS, drops=("min_caption_chars",), cuts=True)
_SHARD = replace(_PAIR, takes_filters=True)
# SPEC 3.5: captions are lower-cased, but for paragraphs and narratives; nor is what spells the text in a picture.
_SPELLED = replace(_PAIR, lowercase=False)
_ASKED = FormatRules(
    images_learned=False, image_first=None, lowercase=None, template=QUESTION_TEMPLATE, marks=_QUESTION_MARKS
)
_READ = replace(_ASKED, mirrors=False)
_POINTED = replace(_ASKED, template=GROUNDING_TEMPLATE, cuts=True, boxes=True)
# Generation fine-tuning learns pictures, its texts are given (paper, Appendix B.2).
_DRAWN = FormatRules(text_learned=False, image_first=0.0, lowercase=None)
_STORY = replace(_DRAWN, takes_split=True, turns=True)

FORMAT_RULES: Mapping[Format, FormatRules] = {
    "mmc4": replace(_WEB, drops=("min_similarity", *_WEB.drops)),
    "obelics": replace(_WEB, image_first=None),
    "pair_tars": replace(_SHARD, takes_images=False),
    "pair_jsonl": _SHARD,
    "folder": replace(_PAIR, takes_images=False),
    "coco_captions": _PAIR,
    "karpathy": replace(_PAIR, takes_split=True),
    "flickr30k": _PAIR,
    "nocaps": _PAIR,
    "textcaps": replace(_SPELLED, mirrors=False, cuts=False),
    "paragraphs": replace(_SPELLED, takes_annotations=True),
    "narratives": _SPELLED,
    "conversations": replace(_READ, template=CONVERSATION_TEMPLATE, marks=("question", "answer")),
    "vqa": replace(_ASKED, takes_annotations=True, takes_split=True),
    "textvqa": _READ,
    "vizwiz": replace(_READ, template=VIZWIZ_TEMPLATE),
    "gqa": _ASKED,
    "chartqa": _READ,
    "docvqa": _READ,
    "infovqa": _READ,
    "estvqa": _READ,
    "stvqa": _READ,
    "ocrvqa": replace(_READ, takes_split=True),
    "dvqa": _READ,
    "refcoco": replace(_POINTED, takes_annotations=True, takes_split=True),
    "grounding_rows": _POINTED,
    "ade20k": replace(_DRAWN, image_first=1.0, takes_split=True, cuts=True),
    "vist": _STORY,
    "pororo": _STORY,
    "flintstones": _STORY,
}
