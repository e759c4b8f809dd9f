"""Which of our scores belongs in which cell of the paper: metric id -> task, split and value, standard and official.

``standard`` is what the benchmark's own scorer gives, ``official`` what the released MM-Interleaved code gives; the
latter is set against the paper's row (PROTOCOLS E and T). Where the two are one number, ``official`` is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

_TEST_DEV = "the paper prints {paper}, whose answers only a test server has; the released code scores this split"
_OTHER_SET = "another split than the paper's"


@dataclass(frozen=True)
class Reading:
    """Where in ``score.json`` a number stands.

    Args:
        value: Its name.
        settings: Settings of the task that it needs, by name.
        protocol: How the protocol of the evaluation begins; empty is any.
        instead: The value it equals where an evaluation does not tell the two apart; empty where it always does.
    """

    value: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = ""
    instead: str = ""

    def name_in(self, values: Mapping[str, object]) -> str:
        """Return the name of the number among those of an evaluation; empty where it is not there."""
        return next((name for name in (self.value, self.instead) if name in values), "")


@dataclass(frozen=True)
class MetricSource:
    """Which evaluations a column of the paper stands for.

    Args:
        task: Name of the task.
        splits: Names of the split that the paper scored.
        standard: The number of the benchmark's own scorer.
        official: The number of the released code; ``None`` where it is the same.
        size: Samples of the split; ``None`` where it is not known.
        times: What the paper multiplies a share with: 100, or 1 where it prints a share or a distance.
        whole_only: Whether the number of fewer samples is another metric (Frechet distances).
        other_splits: Why scores of other splits stay outside, by split; ``{paper}`` is the paper's.
    """

    task: str
    splits: tuple[str, ...]
    standard: Reading
    official: Reading | None = None
    size: int | None = None
    times: float = 100.0
    whole_only: bool = False
    other_splits: Mapping[str, str] = field(default_factory=dict)

    def holds(self, split: str) -> bool:
        """Say whether a split is the paper's; spelling does not count.

        Example:
            >>> PAPER_ROWS["coco_cider"].holds("Karpathy-test"), PAPER_ROWS["coco_cider"].holds("val2014")
            (True, False)
        """
        return spelled(split) in map(spelled, self.splits)

    def why_not(self, split: str, paper_split: str) -> str:
        """Say why scores of another split stay outside the column."""
        reasons = {spelled(name): reason for name, reason in self.other_splits.items()}
        return reasons.get(spelled(split), _OTHER_SET).format(paper=paper_split)


def spelled(split: str) -> str:
    """Return the name of a split without what people spell differently."""
    return "".join(c for c in split.lower() if c.isalnum())


def _caption(task: str, splits: tuple[str, ...], size: int | None = None, **other: str) -> MetricSource:
    return MetricSource(task, splits, Reading("cider", protocol="ptb"), None, size, other_splits=other)


def _box(dataset: str, split: str, size: int) -> MetricSource:
    # The released scorer quantises the truth like the answer; the toolkit of the data set has no grid.
    of_set = {"dataset": dataset}
    return MetricSource(
        "refcoco", (split,), Reading("accuracy", of_set), Reading("accuracy, quantised truth", of_set), size
    )


def _pictures(
    task: str, splits: tuple[str, ...], size: int | None = None, settings: Mapping[str, Any] | None = None
) -> MetricSource:
    standard, official = (Reading(name, settings or {}) for name in ("clean-fid", "official-64px"))
    return MetricSource(task, splits, standard, official, size, times=1.0, whole_only=True)


_WHOLE_STORY = {"context": "multi_modal"}
_EXTRACTED = "accuracy, official extraction"
_COCO = MetricSource(
    "coco_caption",
    ("karpathy test",),
    Reading("cider", protocol="ptb"),
    Reading("cider, first sentence", protocol="ptb"),
    5000,
)

PAPER_ROWS: Mapping[str, MetricSource] = {
    "coco_cider": _COCO,
    "flickr30k_cider": _caption("flickr30k", ("test", "karpathy test", "test1k"), 1000),
    "nocaps_cider": _caption("nocaps", ("test",), 10600, val=_TEST_DEV, val_4500=_TEST_DEV),
    "i2para_cider": _caption("image2paragraph", ("test",), 2489),
    "vqav2_acc": MetricSource(
        "vqav2",
        ("test-dev", "test-dev2015"),
        Reading("accuracy"),
        Reading(_EXTRACTED),
        other_splits={"val2014": _TEST_DEV, "val": _TEST_DEV},
    ),
    "okvqa_acc": MetricSource("okvqa", ("val", "val2014"), Reading("accuracy"), Reading(_EXTRACTED), 5046),
    "gqa_acc": MetricSource("gqa", ("test-dev", "testdev balanced"), Reading("accuracy"), None, 12578),
    "vizwiz_acc": MetricSource(
        "vizwiz",
        ("test-dev",),
        Reading("accuracy"),
        Reading("accuracy, leave one out, official extraction"),
        other_splits={"val": _TEST_DEV},
    ),
    "textvqa_acc": MetricSource(
        "textvqa", ("val",), Reading("accuracy"), Reading("accuracy, vqa-toolkit, official extraction"), 5000
    ),
    "visdial_ndcg": MetricSource(
        "visdial",
        ("val", "val1.0", "val2018"),
        Reading("NDCG", {"history": "full"}),
        Reading("NDCG", {"history": "official"}),
        2064,
    ),
    "refcoco_val": _box("refcoco", "val", 10834),
    "refcoco_testA": _box("refcoco", "testA", 5657),
    "refcoco_testB": _box("refcoco", "testB", 5095),
    "refcoco+_val": _box("refcoco+", "val", 10758),
    "refcoco+_testA": _box("refcoco+", "testA", 5726),
    "refcoco+_testB": _box("refcoco+", "testB", 4889),
    "refcocog_val": _box("refcocog", "val", 4896),
    "refcocog_test": _box("refcocog", "test", 9602),
    "ms_coco_fid": _pictures("coco_image", ("val-30k", "val2014", "val2014-30k"), 30000),
    "ln_coco_fid": _pictures("ln_coco_image", ("val-30k", "val2017", "val2017-30k"), 30000),
    "ade20k_miou": MetricSource(
        "ade20k", ("val", "validation"), Reading("mIoU"), Reading("mIoU, official stretch", instead="mIoU"), 2000
    ),
    "vist_clip_sim": MetricSource("vist", ("val",), Reading("CLIP similarity", _WHOLE_STORY), times=1.0),
    "vist_fid": _pictures("vist", ("val",), settings=_WHOLE_STORY),
    "pororo_fid": _pictures("pororo", ("test",)),
    "flintstones_fid": _pictures("flintstones", ("test",)),
    "coco_karpathy_cider": _COCO,
    "coco_karpathy_fid5k": _pictures("coco_image", ("karpathy test", "karpathy-test-5k"), 5000),
}
"""By metric id of ``paper_tables.yaml``."""

_SHARES = frozenset({("4a", "ade20k_miou")})


def source_of(metric: str, table_id: str) -> MetricSource:
    """Return where the scores of a column come from, in the unit its table prints.

    Raises:
        KeyError: If the paper has no such metric.

    Example:
        >>> source_of("ade20k_miou", "4a").times, source_of("ade20k_miou", "5c").times
        (1.0, 100.0)
    """
    source = PAPER_ROWS[metric]
    return replace(source, times=1.0) if (table_id, metric) in _SHARES else source


DEFAULT_FACTORS: Mapping[str, Any] = {
    "paper_network": True,
    "num_tokens": 32,
    "mmfs": True,
    "input_resolution": 224,
    "cross_attn": "deformable",
    "transition": "none",
    "loss": "L_NTP + 10 L_NIP",
    "resampler": True,
    "multi_scale": False,
    "multi_image": False,
}
"""What a run must be to stand in a row of an ablation that does not say otherwise (section 5 of the paper)."""

_MOOT_WITHOUT_MMFS = ("cross_attn", "transition", "multi_scale", "multi_image", "attn_input")
_OF_THE_EVALUATION = ("shots", "lambda_nip", "lambda_ntp")


def unlike(factors: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Say in what a run differs from a row of an ablation; nothing where it fits.

    Args:
        factors: Of the run, by the names of ``DEFAULT_FACTORS`` and ``attn_input``.
        row: What the row says; everything else is the default. Shots belong to evaluations, and the weights of
            losses are told by ``loss``.

    Example:
        >>> unlike(dict(DEFAULT_FACTORS, mmfs=False), {"mmfs": True})
        ['mmfs is False, expected True']
    """
    expected = {**DEFAULT_FACTORS, **{k: v for k, v in row.items() if k not in _OF_THE_EVALUATION}}
    if not expected["mmfs"]:
        expected = {name: value for name, value in expected.items() if name not in _MOOT_WITHOUT_MMFS}
    found = {name: factors.get(name) for name in expected}
    return [f"{name} is {found[name]}, expected {value}" for name, value in expected.items() if found[name] != value]


def shots_of(settings: Mapping[str, Any]) -> int:
    """Return how many worked examples stood before each question."""
    examples = settings.get("few_shot")
    return int(examples.get("n", 0)) if isinstance(examples, Mapping) else 0


def says(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Say whether an evaluation has the settings a number needs; a setting that is not there is another one."""
    return all(settings.get(name) == value for name, value in wanted.items())


def metrics_of_task(task: str) -> Sequence[str]:
    """Return the metric ids that a task can fill."""
    return [name for name, source in PAPER_ROWS.items() if source.task == task]
