"""``mmi bench generate``: how fast texts are written and pictures drawn, and what keeping everything saves."""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmi.commands.arguments import Arguments, CommandLine
from mmi.errors import DONE, UsageError

if TYPE_CHECKING:
    from mmi.inference import Generator

DEFAULT_CONFIG = "model/micro.yaml"
PARTS = ("story", "turn", "drawing")
_DESCRIPTION = f"""\
Measure generation and what a session saves by computing nothing twice, against every request reading the whole document
again, against the released code, which projects the pictures again for every token and sampling step as well, and
against keeping nothing at all. The ways take turns in one process and must give the same tokens and pictures.

  story    five turns, each a text and a picture: the whole story, and outside the sampling loop of the U-Net
  turn     a question after five pictures that were asked about, to the last token of its answer
  drawing  30 steps of Stable Diffusion's U-Net, widths divided by --divide, for 512 and 256 pixels: projections of the
           picture looked at kept, made at every step, or at every step for both halves of guidance

Without --run the network of --config (default: {DEFAULT_CONFIG}) has random weights and every word is a token. Texts
have exactly --tokens tokens, chosen greedily. Times are CPU seconds over all threads, or seconds of a GPU."""
_EXAMPLE = """\
mmi bench generate --run runs/demo
mmi bench generate --config model/mid.yaml --parts story,turn --repeats 2
mmi bench generate --parts drawing --divide 8 --repeats 1"""
_MEANING = {
    "session": "nothing computed twice",
    "again": "everything read again for each request",
    "released": "the same, and projected again for each token and step",
    "nothing": "the same, and everything read again for each token",
}


def bench_generate(argv: Sequence[str]) -> int:
    """Measure, print tables, and write ``results.json`` and ``results.md``."""
    line = _parser().read(argv)
    options = line.options
    parts = _words(options.parts, PARTS, "parts")
    options.ways = list(dict.fromkeys(["session", *_words(options.ways, tuple(_MEANING), "ways")]))
    tokens = _numbers(options.tokens, "tokens")
    for name in ("turns", "repeats", "threads"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} is {getattr(options, name)}; expected at least 1.")
    for name in ("steps", "drawing_steps"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(options, name)}; expected at least 1.")
    if options.run and (options.config or line.overrides):
        raise UsageError("--run has its own config; leave out --config and settings, or --run.")
    if options.checkpoint and not options.run:
        raise UsageError("--checkpoint belongs to a run folder; add --run DIR.")

    import torch

    from mmfs.benchmark.machine import describe_machine
    from mmi.commands.generate_options import choose_device

    torch.set_num_threads(options.threads)
    device = torch.device(choose_device(options.device))
    report: dict[str, Any] = {
        "schema_version": 1,
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["mmi", "bench", "generate", *argv]),
        "machine": describe_machine(device),
        "threads": options.threads,
    }
    if parts != ["drawing"]:
        generator = _generator(line, str(device))
        _check_room(generator, options, tokens)
        report["network"] = _described(generator, options)
        for part in parts:
            if part == "story":
                report["story"] = [_story(generator, options, n) for n in tokens]
            elif part == "turn":
                report["turn"] = [_turn(generator, options, n) for n in tokens]
    if "drawing" in parts:
        report["drawing"] = _drawing(options, device)
    _finish(report, options)
    return DONE


def _parser() -> Arguments:
    parser = Arguments("bench generate", _DESCRIPTION, _EXAMPLE, takes_configs=True)
    add = parser.add_argument
    add("--run", metavar="DIR", help="take network and tokenizer of a run folder")
    add("--checkpoint", metavar="NAME", help="with --run: best, last, step-N or a folder; default: best, else last")
    add("--parts", default=",".join(PARTS), metavar="LIST", help=f"any of {', '.join(PARTS)} (all)")
    add(
        "--ways",
        default=",".join(_MEANING),
        metavar="LIST",
        help=f"session and any of {', '.join(list(_MEANING)[1:])} (all)",
    )
    add("--turns", type=int, default=5, metavar="N", help="turns of the story, pictures before the question (5)")
    add("--tokens", default="8", metavar="LIST", help="tokens of each text, one run for each number (8)")
    add("--steps", type=int, default=8, metavar="N", help="sampling steps of the story's pictures (8)")
    add("--drawing-steps", type=int, default=30, metavar="N", help="sampling steps of the part drawing (30)")
    add("--divide", type=int, default=4, choices=(1, 2, 4, 8, 16), help="of widths in the part drawing (4)")
    add("--repeats", type=int, default=3, metavar="N", help="rounds in which the ways take turns (3)")
    add("--threads", type=int, default=1, metavar="N", help="threads of torch on a CPU (1)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (cpu)")
    add("--out", metavar="DIR", help="also write results.json and results.md there")
    add("--json", action="store_true", help="print JSON")
    return parser


def _words(words: str, known: Sequence[str], option: str) -> list[str]:
    found = [word.strip() for word in words.split(",")]
    for word in found:
        if word not in known:
            raise UsageError(f'--{option}: no "{word}"; expected any of {", ".join(known)}.')
    return list(dict.fromkeys(found))


def _numbers(words: str, option: str) -> list[int]:
    try:
        found = [int(word) for word in words.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise UsageError(f"--{option} is {words}; expected numbers of at least 1, separated by commas.")
    return list(dict.fromkeys(found))


def _generator(line: CommandLine, device: str) -> Generator:
    import torch

    from mmi.inference import Generator

    options = line.options
    if options.run:
        from mmi.checkpoints.run_folder import BEST_OR_LAST

        return Generator.load(options.run, options.checkpoint or BEST_OR_LAST, device=device)
    from mmi.commands.generation_timing import number_tokenizer
    from mmi.commands.settings import network_settings
    from mmi.compose import compose
    from mmi.models.build import build_network

    config, compat = network_settings(compose(options.config or [DEFAULT_CONFIG], line.overrides))
    torch.manual_seed(0)
    network = build_network(config, compat, load_weights=False)
    return Generator(network.to(device), number_tokenizer(config.language))


def _check_room(generator: Generator, options: argparse.Namespace, tokens: Sequence[int]) -> None:
    """Refuse a story that would not fit, before anything is measured."""
    network = generator.network
    if network.image_decoder is None:
        raise UsageError("this network has no image decoder, so it tells no stories; measure --parts drawing alone.")
    room = min(network.config.language.max_positions, len(network.image_decoder.positions))
    needed = 24 + (options.turns + 1) * (max(tokens) + network.config.tokens_per_image + 12)
    if needed > room:
        raise UsageError(
            f"--turns {options.turns} with --tokens {max(tokens)} take about {needed} tokens, but the network has room "
            f"for {room}; ask for less."
        )


def _described(generator: Generator, options: argparse.Namespace) -> dict[str, Any]:
    config = generator.network.config
    return {
        "name": str(options.run or ", ".join(map(str, options.config)) or DEFAULT_CONFIG),
        "parameters": sum(p.numel() for p in generator.network.parameters()),
        "tokens_per_image": config.tokens_per_image,
        "image_size": config.image_decoder.image_size,
    }


def _story(generator: Generator, options: argparse.Namespace, n_tokens: int) -> dict[str, Any]:
    """Tell the story in every way, in turns."""
    from mmi.commands.generation_timing import Story, counting, tell_story
    from mmi.models.image_sampling import ImageSampling

    sampling = ImageSampling(n_steps=options.steps, guidance_scale=2.5, sampler="ddim", spacing="trailing")
    told: dict[str, list[Story]] = {way: [] for way in options.ways}
    passes: dict[str, Any] = {}
    for way in options.ways:  # does not count: warms up, and says how much goes through the network
        with counting(generator) as counts:
            tell_story(generator, way, options.turns, n_tokens, sampling)
        passes[way] = asdict(counts[0])
    for number in range(options.repeats):
        for way in options.ways:
            _say(f"story, {n_tokens} tokens a text: round {number + 1} of {options.repeats}, {way}")
            told[way].append(tell_story(generator, way, options.turns, n_tokens, sampling))
    ways = {}
    for way in options.ways:
        requests = [request for story in told[way] for request in story.requests]
        texts = [r.seconds for r in requests if r.kind == "text"]
        pictures = [r.seconds for r in requests if r.kind == "picture"]
        ways[way] = {
            "whole": _spread([story.seconds for story in told[way]]),
            "outside_loop": _spread([story.outside for story in told[way]]),
            "last_text": _spread([story.requests[-2].seconds for story in told[way]]),
            "tokens_per_second": n_tokens * len(texts) / sum(texts),
            "seconds_per_picture": statistics.mean(pictures),
            "passes": passes[way],
            "largest_pixel_difference": max(
                mine.difference(other) for mine, other in zip(told[way], told["session"], strict=True)
            ),
            "ratio_whole": _ratio([(a.seconds, b.seconds) for a, b in zip(told[way], told["session"], strict=True)]),
            "ratio_outside": _ratio([(a.outside, b.outside) for a, b in zip(told[way], told["session"], strict=True)]),
        }
    return {"turns": options.turns, "tokens": n_tokens, "steps": options.steps, "ways": ways}


def _turn(generator: Generator, options: argparse.Namespace, n_tokens: int) -> dict[str, Any]:
    """Ask one more question in every way, in turns."""
    from mmi.commands.generation_timing import conversation, time_text_turn

    before = conversation(generator, options.turns, n_tokens)
    ways: list[str] = options.ways
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers = {tuple(time_text_turn(before, way, n_tokens)[1]) for way in ways}
    for number in range(options.repeats * 3):
        if number % 3 == 0:
            _say(f"turn, {n_tokens} tokens a text: round {number // 3 + 1} of {options.repeats}")
        for way in ways:
            taken, ids = time_text_turn(before, way, n_tokens)
            seconds[way].append(taken)
            answers.add(tuple(ids))
    if len(answers) > 1:
        raise ValueError("two ways gave different answers")
    return {
        "pictures": options.turns,
        "tokens": n_tokens,
        "context": before.n_tokens,
        "ways": {
            way: {
                "seconds": _spread(seconds[way]),
                "ratio": _ratio(list(zip(seconds[way], seconds["session"], strict=True))),
            }
            for way in ways
        },
    }


def _drawing(options: argparse.Namespace, device: Any) -> list[dict[str, Any]]:
    """Draw in every way, in turns, for both sizes."""
    from mmi.commands.drawing_timing import SIZES, WAYS, build_drawing, draw_once
    from mmi.models.image_sampling import ImageSampling

    sampling = ImageSampling(n_steps=options.drawing_steps)
    found = []
    for size in SIZES:
        setup = build_drawing(size, options.divide, device)
        draw_once(setup, WAYS[0], ImageSampling(n_steps=1))
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        difference = dict.fromkeys(WAYS, 0.0)
        for number in range(options.repeats):
            drawn = {}
            for way in WAYS:
                _say(f"drawing, {size} pixels: round {number + 1} of {options.repeats}, {way}")
                taken, drawn[way] = draw_once(setup, way, sampling)
                seconds[way].append(taken)
                difference[way] = max(difference[way], float((drawn[way] - drawn[WAYS[0]]).abs().max()))
        scale = float(drawn[WAYS[0]].abs().max())
        found.append(
            {
                "image_size": size,
                "divide": options.divide,
                "steps": options.drawing_steps,
                "ways": {
                    way: {
                        "seconds": _spread(seconds[way]),
                        "ratio": _ratio(list(zip(seconds[way], seconds[WAYS[0]], strict=True))),
                        "largest_relative_difference": difference[way] / scale,
                    }
                    for way in WAYS
                },
            }
        )
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _ratio(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Summarise how many times as long the first of each pair took, which were measured one after the other."""
    return _spread([first / second for first, second in pairs])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _finish(report: dict[str, Any], options: argparse.Namespace) -> None:
    from mmi.commands.bench_generate_tables import tables

    markdown = tables(report, _MEANING)
    print(json.dumps(report, indent=1) if options.json else markdown)
    if options.out:
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (out / "results.md").write_text(markdown + "\n", encoding="utf-8")
        _say(f"look at {out / 'results.json'}, {out / 'results.md'}")
