"""Commands written in documents, config comments and help texts exist, with those options and configs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mmi.cli import COMMANDS, main
from mmi.compose import CONFIG_ROOTS, EVALUATION_ROOTS, PATHS, find_config

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "evaluation" / "README.md",
    *sorted((ROOT / "ops").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "Makefile",
    *sorted((ROOT / "configs").rglob("*.yaml")),
    *sorted((ROOT / "mmi" / "commands").glob("*.py")),
    *sorted((ROOT / "experiments").rglob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.yaml")),
]
SUBCOMMANDS = {
    "data": (("microworld",), ("prepare",), ("check",), ("stats",), ("preview",), ("caption",)),
    "checkpoint": (("convert",), ("export",), ("verify",), ("migrate",)),
    "bench": (("ops",), ("data",), ("train",), ("options",), ("generate",)),
}
# Made by commands, not packaged.
OWN_CONFIGS = re.compile(r"runs/|FILE|experiments/|photos\.yaml")


def commands_in(file: Path) -> list[list[str]]:
    """Command lines such as ``mmi fit --config x``, joined over continuation lines."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ").replace('"""', "\n")
    found = []
    for match in re.finditer(r"(?:^|[`#(]|\s|/)mmi ((?:" + "|".join(COMMANDS) + r")\b[^\n`]*)", text, re.MULTILINE):
        line = re.split(r"\s{2,}[^-]|-->|&&|\)\s|[;|>]| writes| and | then ", match.group(1).replace("$$", ""))[0]
        try:
            found.append(shlex.split(line, comments=True))
        except ValueError:
            continue  # a quotation that the split has cut
    return found


CASES = [("mmi/cli.py", shlex.split(command.example)[1:]) for command in COMMANDS.values()]
CASES += [(file.relative_to(ROOT).as_posix(), words) for file in FILES for words in commands_in(file) if len(words) > 1]


def test_documents_mention_every_command():
    assert {words[0] for _, words in CASES if words[0].isalpha()} >= set(COMMANDS)


@pytest.fixture(scope="module")
def options():
    """Every option of every command, read from its help."""
    import contextlib
    import io

    known = {}
    for name in COMMANDS:
        for inner in SUBCOMMANDS.get(name, ((),)):
            stream = io.StringIO()
            with contextlib.redirect_stdout(stream):
                main([name, *inner, "--help"])
            known[name, *inner] = set(re.findall(r"--[a-z][a-z_-]*", stream.getvalue()))
            # Where a sentence leaves the second word out, any of them will do.
            known[(name,)] = known.get((name,), set()) | known[name, *inner]
    return known


@pytest.mark.parametrize(("file", "words"), CASES, ids=[f"{file}: {' '.join(words)[:60]}" for file, words in CASES])
def test_written_command_is_right(options, file, words):
    for word, value in zip(words, [*words[1:], ""], strict=True):
        name = word.partition("=")[0]
        if not name.startswith("--"):
            continue
        if "." in name:
            assert name[2:].partition(".")[0] in (*CONFIG_ROOTS, *EVALUATION_ROOTS, PATHS), f"{file}: {name}"
            continue
        command = tuple(words[:2]) if tuple(words[:2]) in options else (words[0],)
        assert name in options[command], f"{file}: mmi {' '.join(command)} has no {name}"
        if name == "--config" and not OWN_CONFIGS.search(value):
            assert find_config(value).is_file()
