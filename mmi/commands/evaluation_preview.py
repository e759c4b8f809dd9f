"""What ``mmi evaluate --dry-run`` prints: what would be asked, how, and what is answered already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.evaluation_jobs import Job, check_jobs
from mmi.errors import UsageError, explain
from mmi_eval.formats.errors import FormatError
from mmi_eval.results import plain
from mmi_eval.runner import EvaluationError, Runner
from mmi_eval.sample import Picture, Sample, controlled

if TYPE_CHECKING:
    from mmi_eval.results import Checkpoint

_LONGEST = 2000
_MOST_PICTURES = 10


def print_previews(runner: Runner, jobs: Sequence[Job], checkpoint: Checkpoint) -> None:
    """Print each task: samples, first prompt, decoding, output folder, answers that are there, and what is missing.

    Raises:
        UsageError: After the last one, if a file of one of them is missing or malformed.
    """
    lost = 0
    for job in jobs:
        print(job.label)
        try:
            rows = missing_files(job, runner.limit)
            if not rows:
                check_jobs([job], runner.limit)
                rows = [*_preview(runner, job, checkpoint).items()]
        except (FileNotFoundError, FormatError, EvaluationError) as error:
            rows = [("missing", explain(error)[0])]
        lost += any(name == "missing" for name, _ in rows)
        for name, text in rows:
            print(f"  {name:<9} {text}")
    if lost:
        raise UsageError(f"{lost} of {len(jobs)} tasks cannot be run here; what they lack stands above as missing.")


def missing_files(job: Job, limit: int | None) -> list[tuple[str, str]]:
    """Return a row for each file or folder that a task names and that is not there, and for what its scoring lacks.

    Where all of them are there, a row for each picture that is not; of many the first ones and how many more.

    Raises:
        FormatError: If a file is malformed.
    """
    marked = [value["path"] for value in plain(job.task).values() if isinstance(value, dict) and set(value) == {"path"}]
    rows = [("missing", f"{path} does not exist") for path in marked if not Path(path).exists()]
    try:
        job.task.check()
    except (FileNotFoundError, FormatError) as error:
        sentence = explain(error)[0]
        # Said already where it is about a file of the list.
        rows += [] if any(text.split()[0] in sentence for _, text in rows) else [("missing", sentence)]
    if rows:
        return rows
    paths = [p.path for sample in job.samples[:limit] for p in (*sample.pictures, *sample.targets)]
    lost = [str(path) for path in dict.fromkeys(paths) if not path.is_file()]
    rows = [("missing", path) for path in lost[:_MOST_PICTURES]]
    return rows + ([("missing", f"and {len(lost) - len(rows)} more pictures")] if len(lost) > len(rows) else [])


def _preview(runner: Runner, job: Job, checkpoint: Checkpoint) -> dict[str, str]:
    plan = runner.plan(job.task, checkpoint, job.condition, job.label)
    asked = controlled(job.samples, job.condition.control)[: runner.limit]
    evaluation = runner.evaluation(plan)
    known = evaluation.predictions.read_all()
    there = sum(s.id in known and known[s.id].is_usable(evaluation.folder) for s in asked)
    limited = "" if runner.limit is None else f" (LIMITED, of {len(job.samples)})"
    return {
        "task": f"{plan.task} version {plan.version}, split {job.task.split}, {job.condition.label}",
        "samples": f"{len(asked)}{limited}",
        "asks for": asked[0].request,
        "first": f"{asked[0].id}: {written_prompt(asked[0])}",
        "decoding": _settings(plan.settings.get("decoding") or plan.settings.get("drawing")),
        "folder": str(evaluation.folder),
        "answered": f"{there} of {len(asked)}" + (", scored" if evaluation.is_scored else ""),
    }


def written_prompt(sample: Sample) -> str:
    """Return a prompt as text, pictures as ``[picture NAME WIDTHxHEIGHT]``; very long ones are cut in the middle.

    Raises:
        FileNotFoundError: If a picture is not there.
        FormatError: If one cannot be read.
    """
    text = "".join(_picture(p) if isinstance(p, Picture) else p.replace("\n", "\\n") for p in sample.prompt)
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]} [... {len(text) - _LONGEST} characters ...] {text[-_LONGEST // 2 :]}"


def _picture(picture: Picture) -> str:
    width, height = picture.size()
    return f"[picture {picture.path.name} {width}x{height}{', grey' if picture.blank else ''}]"


def _settings(settings: Mapping[str, Any] | None) -> str:
    return "as the task does it" if not settings else ", ".join(f"{key} {value}" for key, value in settings.items())
