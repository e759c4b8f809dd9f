"""The families of layouts in a world's folder, each read by the reader of its layout into items to count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmi_eval.formats.ade20k import read_scene_captions
from mmi_eval.formats.coco_captions import CaptionedImage, read_coco_captions
from mmi_eval.formats.errors import path_inside
from mmi_eval.formats.flickr30k import read_flickr30k
from mmi_eval.formats.flintstones import read_flintstones
from mmi_eval.formats.frame_strips import ClipStories
from mmi_eval.formats.gqa import read_gqa
from mmi_eval.formats.karpathy import read_blip_captions
from mmi_eval.formats.llava import IMAGE_MARK, read_conversations
from mmi_eval.formats.mmc4 import MMC4Shards
from mmi_eval.formats.narratives import Narratives
from mmi_eval.formats.nocaps import read_nocaps
from mmi_eval.formats.obelics import ObelicsShards
from mmi_eval.formats.pair_tars import PairTars
from mmi_eval.formats.paragraphs import paragraphs_of, read_paragraph_split, read_paragraphs
from mmi_eval.formats.pororo import read_pororo
from mmi_eval.formats.refcoco import read_refcoco
from mmi_eval.formats.visdial import read_visdial
from mmi_eval.formats.vist import read_vist
from mmi_eval.formats.vizwiz import read_vizwiz
from mmi_eval.formats.vqa import read_vqa

from .dataset import Item, OpenPicture, Question

Tags = Mapping[str, Sequence[str]]
"""What each item tests, by id; the first is its type."""
Reader = Callable[[Path, str, Tags], Iterable[Item] | None]
"""Reads a split of a family below a world's folder; None where it is not there."""

SPLITS = ("train", "val", "test")


def _file(path: Path) -> OpenPicture:
    return partial(open, path, "rb")


def _mmc4(name: str, root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / name / f"{split}.jsonl.zip"
    if not path.is_file():
        return None
    shards = MMC4Shards(path, root / name / "images")
    return (
        Item(d.sentences, len(d.images), (), _file(shards.image_path(d.images[0])) if d.images else None)
        for d in shards
    )


def _obelics(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    paths = sorted((root / "obelics").glob(f"{split}[.-]*"))
    if not paths:
        return None
    shards = ObelicsShards(paths, root / "obelics" / "images")
    return (
        Item(
            tuple(item for item in d.items if isinstance(item, str)),
            len(d.images),
            (),
            _file(shards.image_path(d.images[0])) if d.images else None,
        )
        for d in shards
    )


def _pairs(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    folder = root / "pairs" / split
    if not folder.is_dir():
        return None
    tars = PairTars(folder)
    return (Item((pair.caption,), 1, (), partial(tars.open_image, i)) for i, pair in enumerate(tars))


def _conversations(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "conversations" / f"{split}.json"
    if not path.is_file():
        return None

    def items() -> Iterator[Item]:
        for conversation in read_conversations(path):
            asked = [t.text.replace(IMAGE_MARK, "").strip() for t in conversation.turns if t.speaker == "human"]
            answers = [t.text for t in conversation.turns if t.speaker != "human"]
            rounds = enumerate(zip(asked, answers, strict=False))
            questions = tuple(
                Question(_type(tags, f"{conversation.id}/{n}"), text, answer) for n, (text, answer) in rounds
            )
            names = conversation.images
            picture = path_inside(path.parent / "images", names[0], f"{path}") if names else None
            yield Item((), len(names), questions, _file(picture) if picture else None)

    return items()


def _captioned(images: Iterable[CaptionedImage], folder: Path) -> Iterator[Item]:
    return (Item(image.captions, 1, (), _file(image.path(folder))) for image in images)


def _coco(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "coco" / "annotations" / f"captions_{split}.json"
    return _captioned(read_coco_captions(path), root / "coco" / "images") if path.is_file() else None


def _karpathy(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "coco" / "karpathy" / f"coco_karpathy_{split}.json"
    return _captioned(read_blip_captions(path), root / "coco") if path.is_file() else None


def _flickr30k(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "flickr30k" / f"{split}1k.token.coco_format"
    return _captioned(read_flickr30k(path), root / "flickr30k" / "images") if path.is_file() else None


def _nocaps(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    names = {"val": "nocaps_val_4500_captions.json", "test": "nocaps_test_image_info.json"}
    path = root / "nocaps" / names.get(split, "none")
    if not path.is_file():
        return None
    images = root / "nocaps" / "images"
    return (Item(image.captions or (), 1, (), _file(image.path(images))) for image in read_nocaps(path))


def _paragraphs(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    folder = root / "paragraphs"
    if not (folder / f"{split}_split.json").is_file():
        return None
    ids = read_paragraph_split(folder / f"{split}_split.json")
    rows = paragraphs_of(read_paragraphs(folder / "paragraphs_v1.json"), ids)
    return (Item((row.text,), 1, (), _file(row.path(folder))) for row in rows)


def _narratives(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "narratives" / f"coco_{split}_captions.jsonl"
    if not path.is_file():
        return None
    images = root / "coco" / "images"
    return (Item((row.caption,), 1, (), _file(images / row.coco_name(".png"))) for row in Narratives(path))


def _vqa(name: str, root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    questions, annotations = (root / name / f"{kind}_{split}.json" for kind in ("questions", "annotations"))
    if not questions.is_file():
        return None
    own = root / name / "images"
    images = own if own.is_dir() else root / "coco" / "images"

    def items() -> Iterator[Item]:
        for item in read_vqa(questions, annotations if annotations.is_file() else None):
            found = item.annotation
            kind = (found.question_type if found else None) or _type(tags, str(item.question_id))
            asked = Question(kind, item.question, found.multiple_choice_answer if found else None)
            picture = _file(path_inside(images, item.image, f"{questions}")) if item.image else None
            yield Item((), 1, (asked,), picture)

    return items()


def _gqa(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "gqa" / f"{split}_balanced_questions.json"
    if not path.is_file():
        return None

    def items() -> Iterator[Item]:
        for item in read_gqa(path):
            kind = (item.types.detailed if item.types else None) or _type(tags, item.question_id)
            picture = path_inside(root / "gqa" / "images", f"{item.image_id}.png", f"{path}")
            yield Item((), 1, (Question(kind, item.question, item.answer),), _file(picture))

    return items()


def _vizwiz(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "vizwiz" / f"{split}.json"
    if not path.is_file():
        return None

    def items() -> Iterator[Item]:
        for item in read_vizwiz(path):
            given = [answer.answer for answer in item.answers]
            answer = max(given, key=given.count) if given else None
            asked = Question(item.answer_type or "", item.question, answer)
            yield Item((), 1, (asked,), _file(item.path(root / "vizwiz" / "images")))

    return items()


def _visdial(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "visdial" / f"visdial_1.0_{split}.json"
    if not path.is_file():
        return None
    images = root / "coco" / "images"

    def items() -> Iterator[Item]:
        for dialog in read_visdial(path):
            questions = tuple(
                Question(_type(tags, f"{dialog.image_id}/{n}"), r.question, r.answer)
                for n, r in enumerate(dialog.rounds, start=1)
            )
            yield Item((dialog.caption,), 1, questions, _file(images / f"{dialog.image_id:012d}.png"))

    return items()


def _refcoco(name: str, root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    folder = root / "refcoco" / name
    refs = next((path for path in sorted(folder.glob("refs(*).p"))), None)
    if refs is None:
        return None
    return (
        Item(tuple(e.text for e in row.expressions), 1, (), _file(row.image.path(root / "coco" / "images")))
        for row in read_refcoco(refs, folder / "instances.json")
        if row.split.startswith(split)
    )


def _ade20k(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    phase = {"train": "training", "val": "validation"}.get(split, split)
    path = root / "ade20k" / f"{phase}.json"
    if not path.is_file():
        return None
    scenes = read_scene_captions(path)
    return (Item((scene.caption,), 1, (), _file(scene.image_path(root / "ade20k", phase))) for scene in scenes)


def _vist(root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    path = root / "vist" / "annotations" / f"{split}.story-in-sequence.json"
    if not path.is_file():
        return None
    images = root / "vist" / "images" / f"{split}_images"
    return (
        Item(
            tuple(sentence.text for sentence in story.sentences),
            len(story.sentences),
            (),
            _file(path_inside(images, f"{story.sentences[0].photo_id}.png", f"{path}")) if story.sentences else None,
        )
        for story in read_vist(path).stories
    )


def _clips(name: str, read: Callable[[Path], ClipStories], root: Path, split: str, tags: Tags) -> Iterator[Item] | None:
    folder = root / name
    if not folder.is_dir():
        return None
    return (
        Item(tuple(clip.captions[0] for clip in s.clips), len(s.clips), (), _file(s.clips[0].path(folder)))
        for s in read(folder).splits.get(split, ())
    )


def _type(tags: Tags, key: str) -> str:
    return (tags.get(key) or ("",))[0]


FAMILIES: Mapping[str, Reader] = {
    "stories": partial(_mmc4, "stories"),
    "obelics": _obelics,
    "pairs": _pairs,
    "conversations": _conversations,
    "coco": _coco,
    "karpathy": _karpathy,
    "flickr30k": _flickr30k,
    "nocaps": _nocaps,
    "paragraphs": _paragraphs,
    "narratives": _narratives,
    "vqa": partial(_vqa, "vqa"),
    "okvqa": partial(_vqa, "okvqa"),
    "gqa": _gqa,
    "vizwiz": _vizwiz,
    "textvqa": partial(_vqa, "textvqa"),
    "visdial": _visdial,
    "refcoco": partial(_refcoco, "refcoco"),
    "refcoco+": partial(_refcoco, "refcoco+"),
    "refcocog": partial(_refcoco, "refcocog"),
    "ade20k": _ade20k,
    "vist": _vist,
    "pororo": partial(_clips, "pororo", read_pororo),
    "flintstones": partial(_clips, "flintstones", read_flintstones),
}
"""How each family is read, by name, in the order of the page."""
