"""What using a trained network costs: seconds to the first token, seconds for a picture; and what a step computes.

``python -m mmi.ablation.measuring RUN`` writes ``RUN/measured.json``. Prompts are those of the run's own evaluations,
one at a time; times are medians after one call that is not counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mmi.checkpoints.run_folder import RunFolder, compat_config, network_config
from mmi.checkpoints.storage import write_json

if TYPE_CHECKING:
    from mmi.inference import Generator
    from mmi_eval.sample import Sample

FILE = "measured.json"
_N_TEXTS, _N_PICTURES = 7, 3
_SECONDS = 6.0
"""No further call of a kind begins after so long."""


@dataclass(frozen=True)
class Load:
    """What an average step of training works on.

    Args:
        rows: Packed rows of one batch on one device.
        length: Tokens of a row.
        images: Pictures of a row, rounded.
        batches: Batches of an optimizer step, over devices and accumulation.
    """

    rows: int
    length: int
    images: int
    batches: int = 1


def measure(folder: Path, load: Load) -> dict[str, float | int | None]:
    """Return ``parameters``, ``trained_parameters``, ``flops_per_step``, ``first_token_seconds``, ``image_seconds``.

    Args:
        folder: A trained run with evaluations.
        load: Of a step; shapes alone are rehearsed, no values.
    """
    import torch

    from mmi.inference import Generator

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = Generator.load(folder, "last", device=device)
    parameters = list(generator.network.parameters())
    texts, drawings = _asked(folder)
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "flops_per_step": flops_per_step(RunFolder(folder).read_config(), load),
        "first_token_seconds": _first_token(generator, texts),
        "image_seconds": _picture(generator, drawings),
    }


def flops_per_step(config: Mapping[str, Any], load: Load) -> int | None:
    """Return the operations of an optimizer step, forward and backward; ``None`` where no row can hold the load."""
    from mmi.config import ConfigError
    from mmi.models.build import build_network
    from mmi.planning import Workload, run_step, without_values

    network = network_config(config)
    work = Workload(load.rows, load.length, load.images)
    while work.images:
        try:
            work.check(network)
            break
        except ConfigError:  # an average row holds several short documents, one document would need more room
            work = replace(work, images=work.images - 1)
    with without_values():
        built = build_network(network, compat_config(config), load_weights=False)
    cost = run_step(built.train(), work.batch(network, "meta"), work.draws(network, "meta"), by_part=False)
    return cost.flops * load.batches


def _asked(folder: Path) -> tuple[list[Sample], list[tuple[Sample, Any]]]:
    """Return samples that are answered with text, and those that are drawn with how, of the first task of each kind."""
    from mmi.config_tree import from_tree
    from mmi_eval.results import Condition, find_evaluations, without_marks
    from mmi_eval.sample import spread
    from mmi_eval.tasks import TASKS

    texts: list[Sample] = []
    drawings: list[tuple[Sample, Any]] = []
    for evaluation in find_evaluations(folder, damaged=[]):
        plan = evaluation.plan
        if plan.condition != Condition() or plan.task not in TASKS:
            continue
        task: Any = from_tree(TASKS[plan.task], without_marks(dict(plan.settings)), f"tasks.{plan.label}")
        if texts and (drawings or not hasattr(task, "drawing")):
            continue  # reading samples can take seconds
        samples = task.samples()[: plan.limit]
        if not texts:
            texts = spread([s for s in samples if s.request == "text"], _N_TEXTS + 1)
        if not drawings and hasattr(task, "drawing"):
            drawn = [s for s in samples if s.request == "image"]
            drawings = [(s, task.drawing) for s in spread(drawn, _N_PICTURES + 1)]
    return texts, drawings


def _first_token(generator: Generator, samples: Sequence[Sample]) -> float | None:
    from mmi.models.text_decoding import TextDecoding

    one = TextDecoding(max_new_tokens=1, min_new_tokens=1, n_beams=1, do_sample=False)
    prompts = [sample.opened() for sample in samples]
    return _median_seconds([lambda p=p: generator.generate_text([p], one) for p in prompts])


def _picture(generator: Generator, samples: Sequence[tuple[Sample, Any]]) -> float | None:
    from mmi.models.image_sampling import ImageSampling

    if generator.network.image_decoder is None:
        return None
    calls: list[Callable[[], object]] = []
    for sample, drawing in samples:
        how = ImageSampling(
            n_steps=drawing.n_steps,
            guidance_scale=drawing.guidance_scale,
            sampler=drawing.sampler,
            spacing=drawing.spacing,
        )
        prompt = sample.opened()
        calls.append(lambda p=prompt, how=how, seed=sample.seed: generator.generate_image([p], how, [seed]))
    return _median_seconds(calls)


def _median_seconds(calls: Sequence[Callable[[], object]]) -> float | None:
    """Time all calls but the first, which warms up, as long as there is time."""
    import torch

    began, times = time.perf_counter(), list[float]()
    for number, call in enumerate(calls):
        if number > 1 and time.perf_counter() - began > _SECONDS:
            break
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        since = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - since)
    return median(times[1:]) if len(times) > 1 else None


def _main(folder: str, rows: str, length: str, images: str, batches: str) -> None:
    load = Load(int(rows), int(length), int(images), int(batches))
    write_json(Path(folder) / FILE, measure(Path(folder), load))


if __name__ == "__main__":
    _main(*sys.argv[1:])
