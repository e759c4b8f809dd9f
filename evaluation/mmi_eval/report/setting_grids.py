"""Tables beside the scores: hyper-parameters (11 to 15), benchmarks (16), prompts (17), runs, the micro-world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .evaluated import Result, by_task, standing
from .filled import EvaluatedRun, is_own_world, paper_results, unknown_tasks
from .grid import Grid, GridCell, Marked, Part
from .paper import Paper, factors_in_words
from .paper_grids import DASH, NOT_RUN
from .paper_protocol import prompt_of, worded
from .paper_rows import PAPER_ROWS, metrics_of_task, shots_of
from .tables import Column
from .wording import interval, readable

_STAGES = {
    "11_pretraining": "11: pre-training",
    "12_vqa_caption_sft": "12: questions, captions",
    "13_rec_sft": "13: boxes",
    "14_seg2img_sft": "14: ADE20K",
    "15_story_sft": "15: stories",
}
_BENCHMARKS = {
    "COCO": ("coco_cider",),
    "Flickr30k": ("flickr30k_cider",),
    "NoCaps": ("nocaps_cider",),
    "Image2Paragraph": ("i2para_cider",),
    "VQAv2": ("vqav2_acc",),
    "OKVQA": ("okvqa_acc",),
    "GQA": ("gqa_acc",),
    "VizWiz": ("vizwiz_acc",),
    "TextVQA": ("textvqa_acc",),
    "VisDial": ("visdial_ndcg",),
    "RefCOCO": ("refcoco_val",),
    "RefCOCO+": ("refcoco+_val",),
    "RefCOCOg": ("refcocog_val",),
    "MS-COCO": ("ms_coco_fid",),
    "LN-COCO": ("ln_coco_fid",),
    "ADE20k": ("ade20k_miou",),
    "VIST": ("vist_fid",),
    "PororoSV": ("pororo_fid",),
    "FlintstonesSV": ("flintstones_fid",),
}


def settings_part(paper: Paper, runs: Sequence[EvaluatedRun]) -> Part:
    """Return Tables 11 to 17 with what the runs did."""
    grids = [_hyperparameters(paper, runs), _benchmarks(paper, runs), _prompts(paper, runs)]
    lead = ["What was trained and asked, so that no score is compared without it."]
    return Part("settings", "Tables 11 to 17: settings", grids, lead)


def runs_part(runs: Sequence[EvaluatedRun]) -> Part:
    """Return which runs are shown, from which weights, and what of them is in no table."""
    rows: list[list[GridCell]] = []
    for run in runs:
        weights = dict.fromkeys(
            f"{plan.checkpoint.name}, step {plan.checkpoint.step:,}"
            for plan in (r.evaluation.plan for r in run.results)
        )
        outside = ", ".join(dict.fromkeys(readable(result.label) for result in unknown_tasks(run))) or DASH
        known = {name: value for name, value in run.factors.items() if name != "paper_network"}
        rows.append([run.name, run.folder, "; ".join(weights) or DASH, factors_in_words(known) or DASH, outside])
    names = ("run", "folder", "weights evaluated", "network", "real data in no table of the paper")
    notes = [f"{run.name}: {remark}" for run in runs for remark in run.remarks]
    if not runs:
        notes.append("No run was named: the tables hold the paper's numbers alone. mmi report --tables RUN adds one.")
    return Part("runs", "Runs", [Grid("runs-table", "Runs", [Column(n) for n in names], rows, notes)])


def own_world_part(runs: Sequence[EvaluatedRun]) -> Part | None:
    """Return the scores of this project's own data, which stand in no table of the paper; None where there are none."""
    scored = [(run, found) for run in runs if (found := _own_world(run))]
    if not scored:
        return None
    numbers: dict[tuple[str, str], Result] = {}
    for _, results in scored:
        for result in results.values():
            for name in _told(result):
                numbers.setdefault((result.label, name), result)
    columns = [Column(name) for name in ("task", "in the place of", "value")]
    columns += [Column(run.name, True) for run, _ in scored]
    columns += [Column("split, protocol")]
    rows: list[list[GridCell]] = []
    for (label, name), result in numbers.items():
        twins = ", ".join(_twins(result)) or DASH
        words = readable(name) + (", lower is better" if result.lower_is_better(name) else "")
        cells = [_own_cell(found.get(label), name) for _, found in scored]
        rows.append([readable(label), twins, words, *cells, f"{result.split}, {result.protocol}"])
    notes = [
        "Drawn scenes asked in the layouts of the benchmarks. These numbers say whether the system works at small "
        "size; they are on other data than the paper's and are set against nothing in it.",
        "Values named micro-* come from networks taught on the same scenes. Variants and kinds: mmi report RUN.",
    ]
    grid = Grid("micro-world-table", "Micro-world", columns, rows, notes)
    return Part("micro-world", "Micro-world: the same tasks on drawn scenes", [grid])


def _own_world(run: EvaluatedRun) -> dict[str, Result]:
    """Return what stands for each entry of the evaluation config that asks about this project's own data."""
    groups = by_task([result for result in run.results if is_own_world(result)])
    chosen = {label: standing(results) for label, results in groups.items()}
    return {label: result for label, result in chosen.items() if result is not None}


def _told(result: Result) -> list[str]:
    """Return the names of the main values, and of those the paper's columns read on real data."""
    sources = [PAPER_ROWS[metric] for metric in metrics_of_task(result.task)]
    read = {reading.value for s in sources for reading in (s.standard, s.official) if reading is not None}
    return [name for name in result.plain_values() if name in read or name in result.main_values()]


def _own_cell(result: Result | None, name: str) -> GridCell:
    if result is None or name not in result.values:
        return NOT_RUN
    score = result.values[name]
    text = f"{interval(score, result.is_percent(name))}, n = {score.n:,}"
    return Marked(f"{text} LIMITED", "limited") if result.limited else Marked(text, "ours")


def _twins(result: Result) -> list[str]:
    """Return the columns of the paper that the same task fills on real data."""
    split, data_set = result.split, result.settings.get("dataset")
    found = metrics_of_task(result.task)
    if data_set is not None:
        found = [m for m in found if PAPER_ROWS[m].standard.settings.get("dataset") == data_set]
        found = [m for m in found if split in PAPER_ROWS[m].splits] or found
    return [m for m in found if not m.startswith("coco_karpathy")]


def _hyperparameters(paper: Paper, runs: Sequence[EvaluatedRun]) -> Grid:
    stages = {key: paper.hyperparameters.get(key, {}) for key in _STAGES}
    names = dict.fromkeys(name for stage in stages.values() for name in stage if not name.endswith("_note"))
    columns = [Column("setting"), *(Column(f"Table {title}") for title in _STAGES.values())]
    columns += [Column(run.name) for run in runs]
    rows: list[list[GridCell]] = []
    for name in names:
        ours = [Marked(_written(run.training[name]), "ours") if name in run.training else DASH for run in runs]
        told = [_written(stage[name]) if name in stage else DASH for stage in stages.values()]
        rows.append([name.replace("_", " "), *told, *ours])
    notes = [
        f"Table {_STAGES[key].partition(':')[0]}, {name.removesuffix('_note').replace('_', ' ')}: {text}."
        for key, stage in stages.items()
        for name, text in stage.items()
        if name.endswith("_note")
    ]
    return Grid("hyperparameters", "Tables 11 to 15: hyper-parameters", columns, rows, notes)


def _written(value: Any) -> str:
    """Return a setting as text.

    Example:
        >>> _written({"image_decoder": 1e-5, "others": 0.0001}), _written([2, 3]), _written(None)
        ('image decoder 1e-05, others 0.0001', '2, 3', 'not told')
    """
    if value is None:
        return "not told"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_written(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _benchmarks(paper: Paper, runs: Sequence[EvaluatedRun]) -> Grid:
    columns = [Column(name) for name in ("data set", "what it asks", "paper's split", "metric")]
    columns += [Column(run.name) for run in runs]
    rows: list[list[GridCell]] = []
    for line in paper.benchmarks:
        name, about, split, metric = (str(part) if part is not None else DASH for part in line)
        rows.append([name, about, split, metric, *(_scored(run, _BENCHMARKS.get(name, ())) for run in runs)])
    return Grid("benchmarks", "Table 16: benchmarks", columns, rows)


def _scored(run: EvaluatedRun, metrics: Sequence[str]) -> GridCell:
    found = []
    for metric in metrics:
        source = PAPER_ROWS[metric]
        wanted = source.standard.settings.get("dataset")
        for result in paper_results(run):
            settings = result.settings
            if result.task != source.task or (wanted is not None and settings.get("dataset") != wanted):
                continue
            shots = shots_of(settings)
            said = f"{result.split} (n = {result.values[result.headline].n:,}"
            found.append(said + (f", {shots} examples)" if shots else ")") + (" LIMITED" if result.limited else ""))
    return Marked("; ".join(dict.fromkeys(found)), "ours") if found else NOT_RUN


def _prompts(paper: Paper, runs: Sequence[EvaluatedRun]) -> Grid:
    zero, tuned = paper.prompts.get("zero_shot", {}), paper.prompts.get("sft", {})
    columns = [Column(name) for name in ("use", "zero-shot", "fine-tuned")] + [Column(run.name) for run in runs]
    rows: list[list[GridCell]] = []
    for use in dict.fromkeys((*zero, *tuned)):
        ours = [_asked(run, use, zero.get(use), tuned.get(use)) for run in runs]
        rows.append([use.replace("_", " "), zero.get(use, DASH), tuned.get(use, DASH), *ours])
    return Grid("prompts", "Table 17: prompts", columns, rows)


def _asked(run: EvaluatedRun, use: str, zero: str | None, tuned: str | None) -> GridCell:
    found = []
    for result in paper_results(run):
        prompt = result.settings.get("prompt")
        if isinstance(prompt, str) and prompt_of(result.task) == use:
            known = {worded(text): name for name, text in (("fine-tuned", tuned), ("zero-shot", zero)) if text}
            found.append(f"{result.task}: {known.get(worded(prompt), prompt)}")
    return Marked("; ".join(dict.fromkeys(found)), "ours") if found else NOT_RUN
