"""Score files of predictions from anywhere against files of references: no config, no model.

One table, ``FILE_SCORERS``, says for each benchmark how its official result layout is scored, and under which names.
Every value is printed with its variants; the headline is the same as for answers of our own. PyTorch is not needed:
captions, answers, ranks, boxes, label pictures and features are compared by NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .formats.caption_results import named_like
from .formats.errors import FormatError, existing_file
from .formats.nocaps import DOMAINS, read_domains
from .matching import answered_samples
from .metrics.meteor import METEOR_JAR
from .results import SCHEMA_VERSION
from .tasks import TASKS
from .tasks.answer_files import AnswerTask, score_answer_files
from .tasks.captioning import read_references, read_results, score_captions
from .tasks.drawn_sets import score_features
from .tasks.gqa import GQA
from .tasks.label_scores import score_label_folder
from .tasks.protocol import Scored
from .tasks.refcoco import RefCOCO
from .tasks.refcoco import read_results as read_boxes
from .tasks.refcoco import score_results as score_box_file
from .tasks.textvqa import TextVQA
from .tasks.visdial import score_results as score_rank_file
from .tasks.vizwiz import VizWiz
from .tasks.vqav2 import VQAv2

_NOWHERE = Path("pictures")
"""Pictures have names, but are not opened."""
_NOT_ANSWERED = ("not in the file", "not in the folder", "references without a caption")


@dataclass(frozen=True)
class FileOptions:
    """How to score where a layout leaves a choice.

    Args:
        tokens: How captions are cut, a name in ``CAPTION_PROTOCOLS``.
        meteor: Score captions by METEOR too, where Java is there.
        split: Split of ``refs(...).p``.
        per_sample: Return the scores of each sample too.
    """

    tokens: str = "ptb"
    meteor: bool = True
    split: str | None = None
    per_sample: bool = False


@dataclass(frozen=True)
class FileScorer:
    """How one benchmark's files are scored.

    Args:
        score: From the predictions, the references and the options.
        predictions: The layout of predictions, in words.
        references: The files of references, in words.
        protocol: How the headline is computed; ``{tokens}`` stands for how captions are cut.
        raw_units: Values that are no fractions, by the start of their name.
        lower_is_better: Values that fall when predictions get better, by the start of their name.
    """

    score: Callable[[Path, Sequence[Path], FileOptions], Scored]
    predictions: str
    references: str
    protocol: str
    raw_units: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()


def score_prediction_file(
    name: str,
    predictions: Path,
    references: Sequence[Path],
    options: FileOptions | None = None,
    code_version: str = "",
) -> dict[str, Any]:
    """Score a file, or a folder of label pictures.

    Args:
        name: Key of ``FILE_SCORERS``.
        predictions: What a model said.
        references: What is right.
        options: Choices.
        code_version: Noted with the score.

    Returns:
        What ``score.json`` holds, but for what only an evaluation knows; values are fractions.

    Raises:
        KeyError: If the name is unknown.
        FileNotFoundError: If a file is not there.
        FormatError: If one is malformed, the files do not belong together, or Java is needed and missing.
    """
    options, scorer = options or FileOptions(), FILE_SCORERS[name]
    scored = scorer.score(predictions, references, options)
    headline = next(iter(scored.values))
    n_lost = sum(scored.counts.get(reason, 0) for reason in _NOT_ANSWERED)
    n = scored.values[headline].n
    per_sample = {"per_sample": scored.per_sample} if options.per_sample else {}
    return per_sample | {
        "schema_version": SCHEMA_VERSION,
        "task": name,
        "label": name,
        "version": getattr(TASKS.get(name), "version", 1),
        "protocol": scorer.protocol.format(tokens=options.tokens),
        "headline": headline,
        "values": {value: score.record() for value, score in scored.values.items()},
        "units": {value: "raw" if value.startswith(scorer.raw_units) else "percent" for value in scored.values},
        "lower_is_better": [value for value in scored.values if value.startswith(scorer.lower_is_better)],
        "comparisons": {},
        "baselines": {},
        "split": options.split or "",
        "condition_label": f"answers of {predictions.name}",
        "limited": n_lost > 0,
        "limit": n if n_lost else None,
        "counts": {**scored.counts, "n_samples": n, "n_errors": 0},
        "assets": scored.assets,
        "notes": scored.notes,
        "answers_file_hash": _digest(predictions),
        "references": {path.name: _digest(path) for path in references},
        "source": "local",
        "code_version": code_version,
    }


def _score_captions(predictions: Path, references: Sequence[Path], options: FileOptions) -> Scored:
    return _captions(predictions, references, options, {})


def _score_nocaps(predictions: Path, references: Sequence[Path], options: FileOptions) -> Scored:
    domains: dict[str, list[str]] = {f"domain/{domain}": [] for domain in DOMAINS}
    for picture, domain in read_domains(_one(references, "NoCaps", "the file of captions")).items():
        domains[f"domain/{domain}"].append(picture)
    return _captions(predictions, references, options, domains)


def _captions(
    predictions: Path, references: Sequence[Path], options: FileOptions, parts: Mapping[str, Sequence[str]]
) -> Scored:
    right = read_references(references)
    said = named_like(read_results(predictions), right.keys())
    shown = {name: [i for i in ids if i in said] for name, ids in parts.items()}
    shown = {name: ids for name, ids in shown.items() if ids}
    missing = METEOR_JAR.missing() if options.meteor else None
    meteor = options.meteor and missing is None
    scored = score_captions(said, right, tokens=options.tokens, meteor=meteor, first_sentences=True, parts=shown)
    values, notes = dict(scored.values), dict(scored.notes)
    if options.tokens == "ptb":
        values["cider, java-free"] = score_captions(said, right, tokens="java-free").values["cider"]
    if missing is not None:
        notes["left out"] = f"METEOR ({missing})"
    return replace(scored, values=values, notes=notes)


def _answers_of(task: AnswerTask) -> Callable[[Path, Sequence[Path], FileOptions], Scored]:
    def score(predictions: Path, references: Sequence[Path], options: FileOptions) -> Scored:
        return score_answer_files(task, predictions, *_questions_first(references))

    return score


def _score_ranks(predictions: Path, references: Sequence[Path], options: FileOptions) -> Scored:
    if len(references) != 2:
        raise FormatError(f"visdial has {len(references)} files of references; expected dialogs and dense annotations.")
    is_dialogs = [_begins(path, b"{") for path in references]
    if is_dialogs[0] == is_dialogs[1]:
        kind = "objects" if is_dialogs[0] else "lists"
        raise FormatError(
            f"{references[0]} and {references[1]} both hold {kind}; expected dialogs (an object) and dense annotations "
            "(a list)."
        )
    dialogs, dense = references if is_dialogs[0] else reversed(references)
    return score_rank_file(predictions, dialogs, dense)


def _score_boxes(predictions: Path, references: Sequence[Path], options: FileOptions) -> Scored:
    pickled = [path for path in references if path.suffix == ".p"]
    others = [path for path in references if path.suffix != ".p"]
    if not pickled:
        return score_box_file(
            predictions, _one(references, "refcoco", "rows of boxes, or refs(...).p and instances.json")
        )
    if len(pickled) != 1 or len(others) != 1 or options.split is None:
        raise FormatError(
            f"{pickled[0]} needs instances.json beside it and the name of a split; give both files to --references, "
            "and --split."
        )
    task = RefCOCO(pickled[0], others[0], _NOWHERE, split=options.split)
    said, everything = read_boxes(predictions), task.samples()
    asked = f"the split {options.split} of {pickled[0]}"
    samples = answered_samples(everything, said, predictions, asked, "expression", "ids are sent_id")
    scored = task.score(samples, [said[sample.id] for sample in samples])
    return replace(scored, counts={**scored.counts, "not in the file": len(everything) - len(samples)})


def _score_labels(predictions: Path, references: Sequence[Path], options: FileOptions) -> Scored:
    lists = [path for path in references if path.suffix == ".csv"]
    folder = _one([path for path in references if path not in lists], "ade20k", "the folder of annotations")
    return score_label_folder(predictions, folder, lists[0] if lists else None)


def _score_features(predictions: Path, references: Sequence[Path], options: FileOptions) -> Scored:
    return score_features(predictions, _one(references, "fid", "the features of the real pictures"))


def _one(references: Sequence[Path], name: str, what: str) -> Path:
    if len(references) != 1:
        raise FormatError(f"{name} has {len(references)} files of references; expected {what}.")
    return references[0]


def _questions_first(references: Sequence[Path]) -> tuple[Path, Path | None]:
    """Tell a questions file from an annotations file by what it holds."""
    if len(references) == 1:
        return references[0], None
    if len(references) != 2:
        raise FormatError(f"there are {len(references)} files of references; expected questions and annotations.")
    marked = [b'"annotations"' in existing_file(path, "questions or annotations").read_bytes() for path in references]
    if marked[0] == marked[1]:
        raise FormatError(
            f"of {references[0]} and {references[1]} one must hold questions[] and the other annotations[]; give the "
            "questions file and the annotations file of one split."
        )
    first, second = references
    return (second, first) if marked[0] else (first, second)


def _begins(path: Path, mark: bytes) -> bool:
    with existing_file(path, "a file of references").open("rb") as stream:
        return stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(mark)


def _digest(path: Path) -> str:
    """Return a hash of a file, or of the names and contents in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode() + b"\0" if path.is_dir() else b"")
            digest.update(file.read_bytes())
    return digest.hexdigest()


_CAPTIONS = FileScorer(
    _score_captions,
    "[{image_id, caption}], {picture: caption}, or text with a caption on each line",
    "COCO captions, {picture: [captions]}, or text files with a reference on each line",
    "{tokens}",
)
_QUESTIONS = "the questions file and the annotations file"
_VQA = FileScorer(_answers_of("vqav2"), "[{question_id, answer}]", _QUESTIONS, VQAv2(_NOWHERE, None, _NOWHERE).protocol)
FILE_SCORERS: dict[str, FileScorer] = {
    "captions": _CAPTIONS,
    "coco_caption": _CAPTIONS,
    "flickr30k": _CAPTIONS,
    "nocaps": replace(_CAPTIONS, score=_score_nocaps, references="nocaps_val_4500_captions.json"),
    "image2paragraph": replace(_CAPTIONS, references="paragraphs_v1.json, or COCO captions"),
    "vqav2": _VQA,
    "okvqa": replace(_VQA, score=_answers_of("okvqa")),
    "textvqa": replace(
        _VQA,
        score=_answers_of("textvqa"),
        references=f"TextVQA_0.5.1_val.json, or {_QUESTIONS}",
        protocol=TextVQA(_NOWHERE, None, _NOWHERE).protocol,
    ),
    "vizwiz": FileScorer(
        _answers_of("vizwiz"), "[{image, answer}]", f"val.json, or {_QUESTIONS}", VizWiz(_NOWHERE, _NOWHERE).protocol
    ),
    "gqa": FileScorer(
        _answers_of("gqa"),
        "[{questionId, prediction}]",
        "the questions file with its answers",
        GQA(_NOWHERE, _NOWHERE).protocol,
    ),
    "visdial": FileScorer(
        _score_ranks,
        "[{image_id, round_id, ranks}]",
        "the dialogs file and the dense annotations",
        "NDCG of the dense annotations",
        raw_units=("mean rank",),
        lower_is_better=("mean rank",),
    ),
    "refcoco": FileScorer(
        _score_boxes,
        "[{id or sent_id, a box in pixels or a text}]",
        "rows of boxes, or refs(unc).p and instances.json with --split",
        "Acc@0.5",
    ),
    "ade20k": FileScorer(
        _score_labels,
        "a folder of label PNGs",
        "the folder of annotations, and objectInfo150.csv for names",
        "sceneparsing, 150 classes",
    ),
    "fid": FileScorer(
        _score_features,
        "features as .npy, a row for each picture, or .npz with mu and sigma",
        "the same of the real pictures",
        "Frechet distance of the given features",
        raw_units=("frechet", "kernel"),
        lower_is_better=("frechet", "kernel"),
    ),
}
"""How each benchmark's files are scored, by name."""
