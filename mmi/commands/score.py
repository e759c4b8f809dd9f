"""``mmi score``: score answers that are on disk; no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments, CommandLine
from mmi.commands.evaluation_tasks import DEFAULT_CONFIG, build_task, evaluation_config
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi_eval.results import Evaluation

_DESCRIPTION = f"""\
Score answers again, or answers from anywhere. With --run every evaluation of a run folder is scored anew from its
predictions.jsonl. With --task and --predictions a file is scored: the predictions.jsonl of an evaluation, or the
official result layout, a JSON list such as [{{"question_id": 1, "answer": "red"}}] or [{{"image_id": 1, "caption":
"..."}}]. The questions, references and pictures are those of the task in --config (default: {DEFAULT_CONFIG})."""
_EXAMPLE = """\
mmi score --run runs/demo
mmi score --run runs/demo --tasks vqav2,refcoco --breakdown
mmi score --task vqav2 --predictions answers.json --tasks.vqav2.n=null --out score.json"""


def run(command: str, argv: Sequence[str]) -> int:
    """Score and print a table."""
    line = _parser(command).read(argv)
    options = line.options
    if bool(options.run) == bool(options.task and options.predictions):
        raise UsageError("give either --run DIR, or --task NAME with --predictions FILE.")
    from mmi.commands.score_table import print_scores

    scores = _score_run(line) if options.run else [_score_file(line)]
    print_scores(scores, breakdown=options.breakdown)
    return DONE


def _parser(command: str) -> Arguments:
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--run", metavar="DIR", help="run folder whose evaluations are scored anew")
    add("--tasks", metavar="NAMES", help="with --run: these tasks only, separated by commas")
    add("--task", metavar="NAME", help="task that --predictions answers")
    add("--predictions", metavar="FILE", help="answers to score")
    add("--out", metavar="FILE", help="with --predictions: also write the scores as JSON")
    add("--breakdown", action="store_true", help="also print scores by type and by tag")
    return parser


def _score_run(line: CommandLine) -> list[dict[str, Any]]:
    """Score the evaluations of a run with the settings they were asked with."""
    from mmi_eval.results import find_evaluations, without_marks
    from mmi_eval.runner import Runner

    options = line.options
    folder = Path(options.run)
    wanted = None if options.tasks is None else {name.strip() for name in options.tasks.split(",")}
    found = [e for e in find_evaluations(folder) if wanted is None or e.plan.task in wanted]
    if not found:
        raise UsageError(f"{folder} holds no such evaluations; run mmi evaluate --run {folder} first.")
    runner = Runner(folder, code_version=version("mmi"))
    scored: list[Evaluation] = []
    for evaluation in found:
        task = build_task(evaluation.plan.task, without_marks(dict(evaluation.plan.settings)))
        scored.append(runner.score(task, evaluation))
    return [dict(type(evaluation)(evaluation.folder).score) for evaluation in scored]


def _score_file(line: CommandLine) -> dict[str, Any]:
    from mmi_eval.formats.errors import write_json
    from mmi_eval.runner import score_file

    options = line.options
    (task,) = evaluation_config(line).chosen(options.task)
    task.check()
    record = score_file(task, Path(options.predictions), version("mmi"))
    if options.out:
        write_json(options.out, record, indent=1)
    return record
