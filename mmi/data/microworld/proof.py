"""What shows that the world is what it claims: what oracles reach, and the digests of a small world's files.

``python -m mmi.data.microworld.proof FOLDER`` measures, prints and stores both; the project keeps them in
``tests/data`` and its tests compare. Run it whenever ``VERSION`` is raised or a family of layouts is added.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mmi_eval.formats.errors import write_json

from .dice import Dice
from .oracles import answer_from_scenes, asked, guess
from .print_reader import NOISE, Legibility, legibility
from .questions import draw_quiz
from .recipe import PRESETS
from .vocabulary import VERSION
from .write import digests, write_world

N_SCENES = (6000, 2000)
"""Scenes whose questions the guesses are learned from, and tried on."""

MANIFEST_SEED, MANIFEST_SIZE = 5, 14
"""Of the world whose digests are kept."""

_PRINTS = (
    ("tiny", 32, "number", ("large", "small")),
    ("tiny", 32, "word", ("small",)),
    ("lab", 64, "number", ("large", "small", "very small")),
    ("lab", 64, "word", ("small", "very small")),
    ("lab", 128, "number", ("very small",)),
)


def scene_graph_table(n: int = 1000) -> dict[str, dict[str, dict[str, float]]]:
    """Let the oracle that sees the scene graphs answer ``n`` quizzes; return number and accuracy by preset and type."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for preset, recipe in PRESETS.items():
        answers: dict[str, list[bool]] = {}
        for i in range(n):
            quiz = draw_quiz(Dice("proof", preset, i), "test", recipe)
            for latest, questions in enumerate(quiz.questions, start=1):
                for question in questions:
                    right = answer_from_scenes(quiz.scenes[:latest], question.text) == question.answer
                    for key in (question.type, *(["earlier"] if question.steps_back else [])):
                        answers.setdefault(key, []).append(right)
        table[preset] = {k: {"accuracy": sum(v) / len(v), "n": len(v)} for k, v in sorted(answers.items())}
    return table


def guessing_table() -> dict[str, dict[str, dict[str, float]]]:
    """Return what guessing reaches by preset and question type."""
    train, test = N_SCENES
    return {
        preset: {
            kind: asdict(row) for kind, row in guess(asked(preset, "train", train), asked(preset, "test", test)).items()
        }
        for preset in PRESETS
    }


def print_table(n: int = 300) -> Iterator[Legibility]:
    """Yield how often each kind of print is read in full and at a quarter of the resolution, with noise and without."""
    for preset, image_size, kind, sizes in _PRINTS:
        for size in sizes:
            for coarseness in (1, 4):
                for noise in (0.0, NOISE):
                    yield legibility(preset, image_size, kind, size, coarseness, noise=noise, n=n)


def manifest() -> dict[str, object]:
    """Return the digests of a small tiny world and what it was made from."""
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder, "world"), size=MANIFEST_SIZE, seed=MANIFEST_SEED)
        arguments = {"seed": MANIFEST_SEED, "size": MANIFEST_SIZE}
        return {"arguments": arguments, "sha256": digests(Path(folder, "world")), "version": VERSION}


def main(folder: str) -> None:
    """Measure everything, print it, and store it as JSON."""
    write_json(Path(folder, "microworld_tiny.sha256.json"), manifest(), indent=1)
    graph, guesses, prints = scene_graph_table(), guessing_table(), [asdict(row) for row in print_table()]
    for preset, rows in guesses.items():
        print(f"{preset:8}{'question type':14}{'scene graph':>12}{'majority':>10}{'template':>10}{'text':>8}{'n':>7}")
        for kind, row in rows.items():
            seen = graph[preset].get(kind, {"accuracy": float("nan")})["accuracy"]
            print(
                f"{'':8}{kind:14}{seen:12.3f}{row['majority']:10.3f}{row['by_template']:10.3f}{row['by_text']:8.3f}"
                f"{row['n']:7}"
            )
    print(f"{'print':32}{'1/':>4}{'noise':>7}{'read':>8}{'chance':>8}")
    for row in prints:
        name = f"{row['preset']} {row['image_size']} px, {row['print_size']} {row['kind']}"
        print(f"{name:32}{row['coarseness']:4}{row['noise']:7.0f}{row['accuracy']:8.3f}{row['chance']:8.3f}")
    write_json(
        Path(folder, "microworld_oracles.json"),
        {"guessing": guesses, "prints": prints, "scene_graph": graph, "version": VERSION},
        indent=1,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
