"""``mmi score``: score answers that are on disk; no model is loaded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments, CommandLine
from mmi.commands.evaluation_tasks import DEFAULT_CONFIG, build_task, evaluation_config
from mmi.config_tree import did_you_mean
from mmi.errors import DONE, UsageError, explain

if TYPE_CHECKING:
    from mmi_eval.results import Evaluation

_DESCRIPTION = f"""\
Score answers again, or answers from anywhere, in one of three forms.

mmi score TASK PREDICTIONS --references FILE [FILE ...] scores a file of anybody's predictions in the benchmark's result
layout; no config and no model is needed. Tasks, their predictions and their references:
{{files}}
With --run every evaluation of a run folder is scored anew from its predictions.jsonl.

With --task and --predictions a file is scored with the questions, references and pictures of that task in --config
(default: {DEFAULT_CONFIG}): the predictions.jsonl of an evaluation, or a result layout as above."""
_EXAMPLE = """\
mmi score coco_caption results.json --references captions_val.json
mmi score captions hypotheses.txt --references first.txt second.txt --tokens none
mmi score vqav2 results.json --references questions.json annotations.json --json
mmi score visdial ranks.json --references dialogs.json dense_annotations.json
mmi score ade20k predicted/ --references annotations/ objectInfo150.csv --breakdown
mmi score fid generated.npy --references real.npy --out score.json
mmi score --run runs/demo
mmi score --run runs/demo --tasks vqav2,refcoco --breakdown
mmi score --task vqav2 --predictions answers.json --tasks.vqav2.n=null --out score.json"""
_FORMS = "give either --run DIR, or --task NAME with --predictions FILE, or TASK PREDICTIONS --references FILE"
_TOKENS = {"ptb": "ptb", "java-free": "java-free", "none": "whitespace"}
"""Protocol by the name that the option has for it."""


def run(command: str, argv: Sequence[str]) -> int:
    """Score and print a table, or JSON."""
    line = _parser(command).read(argv)
    options = line.options
    scores, lost = _scores(line)
    if options.out:
        from mmi_eval.formats.errors import write_json

        write_json(options.out, scores if options.run else scores[0], indent=1)
    if options.json:
        from mmi_eval.formats.errors import dump_json

        print(dump_json(scores if options.run else scores[0], indent=1))
    else:
        from mmi.commands.score_table import print_scores

        print_scores(scores, breakdown=options.breakdown, exact=not options.run)
    if lost:
        for sentence in lost:
            print(f"not scored: {sentence}", file=sys.stderr)
        raise UsageError(f"{len(lost)} of {len(lost) + len(scores)} evaluations were not scored, as said above.")
    return DONE


def _parser(command: str) -> Arguments:
    from mmi_eval.score_files import FILE_SCORERS

    of_layouts: dict[tuple[str, str], list[str]] = {}
    for name, scorer in FILE_SCORERS.items():
        of_layouts.setdefault((scorer.predictions, scorer.references), []).append(name)
    files = "\n".join(
        f"  {', '.join(names)}\n    predictions: {predictions}\n    references: {references}"
        for (predictions, references), names in of_layouts.items()
    )
    parser = Arguments(command, _DESCRIPTION.format(files=files), _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("kind", nargs="?", metavar="TASK", help="task of PREDICTIONS, from the list above")
    add("file", nargs="?", metavar="PREDICTIONS", help="file (or folder) to score against --references")
    add("--references", nargs="+", metavar="FILE", help="with PREDICTIONS: what is right")
    add(
        "--tokens",
        choices=tuple(_TOKENS),
        default="ptb",
        help="with PREDICTIONS: how captions are cut; ptb as the COCO toolkit, by Java; none at spaces (ptb)",
    )
    add("--without-meteor", action="store_true", help="with PREDICTIONS: leave METEOR out, which takes Java a while")
    add("--per-sample", action="store_true", help="with PREDICTIONS: put the scores of each sample into the JSON")
    add("--split", metavar="NAME", help="with PREDICTIONS and refs(...).p: the split, such as testA")
    add("--run", metavar="DIR", help="run folder whose evaluations are scored anew")
    add("--tasks", metavar="LABELS", help="with --run: these tasks only, separated by commas")
    add("--submission", action="store_true", help="with --run: also write submission.json for test servers")
    add("--task", metavar="LABEL", help="task of the config that --predictions answers")
    add("--predictions", metavar="FILE", help="answers to score with the task of the config")
    add("--out", metavar="FILE", help="also write the scores as JSON")
    add("--json", action="store_true", help="print the scores as JSON, with all digits")
    add("--breakdown", action="store_true", help="also print scores by type, by class and by tag")
    return parser


def _scores(line: CommandLine) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the scores, and a sentence for each evaluation of a run that could not be scored."""
    options = line.options
    forms = (bool(options.run), bool(options.task or options.predictions), bool(options.kind))
    if sum(forms) != 1 or bool(options.task) != bool(options.predictions):
        raise UsageError(f"{_FORMS}.")
    if options.submission and not options.run:
        raise UsageError("--submission goes with --run: a submission is written from the answers of an evaluation.")
    if options.run:
        return _score_run(line)
    return [_score_anywhere(options, line) if options.kind else _score_file(line)], []


def _score_run(line: CommandLine) -> tuple[list[dict[str, Any]], list[str]]:
    """Score the evaluations of a run with the settings they were asked with; one that cannot be stops no other."""
    from mmi.commands.score_table import print_submissions
    from mmi_eval.folder_lock import InUseError
    from mmi_eval.formats.errors import FormatError
    from mmi_eval.results import find_evaluations, without_marks
    from mmi_eval.runner import EvaluationError, Runner
    from mmi_eval.submissions import check_submissions, write_submission

    options = line.options
    folder = Path(options.run)
    wanted = None if options.tasks is None else {name.strip() for name in options.tasks.split(",")}
    lost: list[str] = []
    found = [e for e in find_evaluations(folder, lost) if wanted is None or {e.plan.task, e.plan.label} & wanted]
    if lost and not found:
        raise FormatError(lost[0])
    if not found:
        raise UsageError(_why_none(folder, wanted))
    runner = Runner(folder, code_version=version("mmi"))
    tasks = [build_task(e.plan.task, without_marks(dict(e.plan.settings))) for e in found]
    if options.submission:
        check_submissions({e.plan.label: task for e, task in zip(found, tasks, strict=True)})
    scored: list[Evaluation] = []
    for evaluation, task in zip(found, tasks, strict=True):
        try:
            scored.append(runner.score(task, evaluation))
        except (FormatError, OSError, EvaluationError, InUseError) as error:
            if len(found) == 1 and not lost:
                raise
            lost.append(f"{evaluation.plan.label} ({evaluation.plan.condition.label}): {explain(error)[0]}")
            continue
        if options.submission:
            write_submission(task, evaluation)
    print_submissions(scored if options.submission else [])
    return [dict(type(evaluation)(evaluation.folder).score) for evaluation in scored], lost


def _why_none(folder: Path, wanted: set[str] | None) -> str:
    from mmi_eval.results import find_evaluations

    if not folder.is_dir():
        return f"{folder} does not exist; give a run folder."
    there = dict.fromkeys(e.plan.label for e in find_evaluations(folder, []))
    if not there or wanted is None:
        return f"{folder} holds no evaluations; run mmi evaluate --run {folder} first."
    names = ", ".join(sorted(wanted))
    known = did_you_mean(names, there, "tasks with answers")
    return f"{folder} holds no such evaluations ({names}); {known}"


def _score_file(line: CommandLine) -> dict[str, Any]:
    from mmi_eval.runner import score_file

    options = line.options
    label, tasks = options.task, evaluation_config(line).tasks
    if label not in tasks:
        raise UsageError(f'--task: no task "{label}"; {did_you_mean(label, tasks, "tasks of the config")}')
    tasks[label].check()
    return score_file(tasks[label], Path(options.predictions), version("mmi"), label)


def _score_anywhere(options: argparse.Namespace, line: CommandLine) -> dict[str, Any]:
    from mmi_eval.score_files import FILE_SCORERS, FileOptions, score_prediction_file

    if options.kind not in FILE_SCORERS:
        raise UsageError(f'no task "{options.kind}" for files; {did_you_mean(options.kind, FILE_SCORERS, "tasks")}')
    if options.file is None or not options.references:
        wanted = FILE_SCORERS[options.kind].references
        raise UsageError(f"mmi score {options.kind} PREDICTIONS needs --references FILE: {wanted}.")
    if line.overrides or options.config:
        raise UsageError("PREDICTIONS with --references need no config; leave --config and dotted settings out.")
    choices = FileOptions(_TOKENS[options.tokens], not options.without_meteor, options.split, options.per_sample)
    references = [Path(name) for name in options.references]
    return score_prediction_file(options.kind, Path(options.file), references, choices, version("mmi"))
