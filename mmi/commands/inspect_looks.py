"""``mmi inspect`` of one prompt: where MMFS looks for a token, or for a pixel of the drawn picture."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmi.commands.arguments import CommandLine
from mmi.config_tree import did_you_mean, from_tree, nearest
from mmi.errors import DONE, UsageError, require_package

if TYPE_CHECKING:
    from PIL import Image

    from mmi.inference import Generator
    from mmi.inspection import Looks
    from mmi.models.text_decoding import TextDecoding
    from mmi_eval.sample import Sample
    from mmi_eval.tasks import Task

_PIXEL = re.compile(r"(\d+),(\d+)")


def inspect_looks(line: CommandLine) -> int:
    """Run the model once, write a page and pictures.

    Raises:
        UsageError: If the prompt, the token or another choice is not there or makes no sense.
        ConfigError: If the run or a file cannot be used, or the network has no MMFS.
    """
    options = line.options
    pixel = read_pixel(options)
    if options.wandb != "off":
        require_package("wandb", "mmi inspect --wandb")
    asked = _sample(line) if options.task else None
    prompt = asked[1].opened() if asked else _own_prompt(options)

    from mmi.checkpoints.run_folder import BEST_OR_LAST, RunFolder
    from mmi.commands.generate import choose_device
    from mmi.inference import Generator
    from mmi.inspection import look, look_from_pixel
    from mmi.inspection.looking import SHORT_ANSWER
    from mmi.models.generation import GenerationSettings

    folder = RunFolder(Path(options.run))
    checkpoint = folder.find_checkpoint(options.checkpoint or BEST_OR_LAST)
    chosen = (folder.read_config().get("run") or {}).get("generation") or {}
    settings = from_tree(GenerationSettings, chosen, "run.generation")
    device = choose_device(options.device)
    generator = Generator.load(options.run, str(checkpoint), device=device, weights=options.weights)
    if pixel is None and asked is not None and asked[1].request in ("image", "images") and options.token is None:
        pixel = _middle(generator)
    if pixel is None:
        decoding = _decoding(settings.text if "text" in chosen else SHORT_ANSWER, asked[0] if asked else None)
        looks = look(generator, prompt, options.token, settings=decoding, seed=options.seed)
    else:
        steps = None if options.step is None else [options.step]
        looks = look_from_pixel(generator, prompt, pixel, settings=settings.image, steps=steps, seed=options.seed)
    looks = looks.with_facts(_facts(options, checkpoint.name, asked[1] if asked else None, looks))
    return _write(looks, options, asked[1].id if asked else None)


def read_pixel(options: argparse.Namespace) -> tuple[int, int] | None:
    """Return the pixel asked for.

    Raises:
        UsageError: If it is no pair of numbers, or goes with another option that excludes it.
    """
    if options.pixel is None:
        if options.step is not None:
            raise UsageError("--step is a diffusion step of a drawn picture; add --pixel X,Y.")
        return None
    found = _PIXEL.fullmatch(options.pixel.replace(" ", ""))
    if found is None:
        raise UsageError(f'--pixel is "{options.pixel}"; expected column and row from the top left, as in 10,12.')
    if options.token is not None:
        raise UsageError("--token and --pixel are both given; one of them looks.")
    return int(found[1]), int(found[2])


def _own_prompt(options: argparse.Namespace) -> list[str | Image.Image]:
    """Return the prompt of the command line."""
    from mmi.commands.prompt_documents import read_documents, read_items

    if options.sample is not None or options.tag is not None:
        raise UsageError("--sample and --tag choose from a benchmark; add --task LABEL, such as --task micro_quiz.")
    documents = read_documents(Path(options.document)) if options.document else []
    if len(documents) > 1:
        raise UsageError(f"{options.document} holds {len(documents)} prompts; give a file with one.")
    given = [piece for document in documents for piece in document.pieces] + read_items(options.items)
    if not given:
        raise UsageError(
            "there is nothing to look at; add --image FILE and --text TEXT, or --task with --sample or --tag."
        )
    return given


def _sample(line: CommandLine) -> tuple[Task, Sample]:
    """Return a task and the sample of it that is asked for."""
    from mmi.commands.inspect_task import read_task

    options = line.options
    if options.items or options.document:
        raise UsageError("--task brings its own prompt; leave --text, --image and --document out.")
    task, samples = read_task(line)
    if options.sample is None and options.tag is None:
        raise UsageError(f"{options.task} has {len(samples):,} samples; choose one by --sample ID or --tag TAG.")
    return task, find_sample(samples, options.sample, options.tag)


def find_sample(samples: Sequence[Sample], wanted: str | None, tag: str | None) -> Sample:
    """Return the sample of an id, or the first with a tag.

    Raises:
        UsageError: If there is none; names the nearest.
    """
    if wanted is not None:
        found = next((sample for sample in samples if sample.id == wanted), None)
        if found is None:
            ids = [sample.id for sample in samples]
            near = nearest(wanted, ids) or ids[:3]
            raise UsageError(f'--sample: no sample "{wanted}"; there are {len(ids):,}, such as {", ".join(near)}.')
        return found
    tagged = next((sample for sample in samples if tag in sample.meta.get("tags", ())), None)
    if tagged is None:
        tags = sorted({name for sample in samples for name in sample.meta.get("tags", ())})
        hint = did_you_mean(str(tag), tags, "tags") if tags else "this task has no tags; use --sample."
        raise UsageError(f'--tag: no sample has the tag "{tag}"; {hint}')
    return tagged


def _decoding(usual: TextDecoding, task: Task | None) -> TextDecoding:
    """Return how the answer is chosen: as the benchmark does it, if it asks for texts."""
    decoding = getattr(task, "decoding", None)
    if decoding is None:
        return usual
    return type(usual)(
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens,
        n_beams=decoding.n_beams,
        length_penalty=decoding.length_penalty,
        repetition_penalty=decoding.repetition_penalty,
    )


def _middle(generator: Generator) -> tuple[int, int]:
    side = generator.network.config.image_decoder.image_size
    return side // 2, side // 2


def _facts(options: argparse.Namespace, checkpoint: str, sample: Sample | None, looks: Looks) -> dict[str, str]:
    """Say what was asked of whom and what came out."""
    facts: dict[str, str] = {}
    if sample is not None:
        question = str(sample.meta.get("question") or " ".join(p for p in sample.prompt if isinstance(p, str)))
        facts["question"] = question
    if looks.answer:
        facts["the model's answer"] = looks.answer
    if sample is not None and sample.references:
        facts["right answer"] = " or ".join(dict.fromkeys(sample.references))
    where = f"{Path(options.run).name}, checkpoint {checkpoint}"
    if sample is not None:
        tags = ", ".join(sample.meta.get("tags", ()))
        where += f"; {options.task} {sample.id}" + (f" ({tags})" if tags else "")
    return facts | {"model": where}


def _write(looks: Looks, options: argparse.Namespace, sample: str | None) -> int:
    if options.layer is not None:
        looks.record(options.layer)  # refuses a layer that is not there
        looks = replace(looks, records=tuple(r for r in looks.records if r.layer.number == options.layer))
    name = _folder_name(sample or "prompt") + ("-pixel" if looks.pixel is not None else "")
    folder = Path(options.out) if options.out else Path(options.run) / "inspection" / name
    if options.head is not None or options.level is not None:
        looks.picture(head=options.head, level=options.level)  # refuses what is not there before anything is written
    page = looks.save(folder)
    chosen = "-".join(f"{n}-{v}" for n, v in (("head", options.head), ("level", options.level)) if v is not None)
    for layer in looks.layers if chosen else ():
        looks.picture(layer, options.head, options.level).save(folder / f"layer-{layer}-{chosen}.png")
    print("\n".join(summary(looks)))
    if options.wandb != "off":
        from mmi.commands.inspect_tracking import log_looks

        print(log_looks(looks, name, project=options.wandb_project, online=options.wandb == "online"))
    pictures = "1 picture" if len(looks.layers) == 1 else f"{len(looks.layers)} pictures"
    print(f"{pictures} in {folder}. Open {page}")
    return DONE


def summary(looks: Looks) -> list[str]:
    """Return what a terminal shows: who looks, and the weight of every picture by layer."""
    from mmi.inspection.looks import mass

    lines = [f"{name}: {text}" for name, text in looks.facts.items()]
    lines.append(f"{looks.moment}; weight of each picture, oldest first, and of the null slot:")
    records = [looks.record(layer) for layer in looks.layers]
    for record in records:
        shares = " ".join(f"{float(share):6.1%}" for share in mass(record).sum(-1))
        null = float(record.null[0].mean())
        lines.append(f"  {record.layer.title:<22} {shares}  null {null:5.1%}  gate {record.layer.gate:+.3f}")
    return lines


def _folder_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "sample"
