"""Options of the views of ``mmi inspect`` that ask all samples of a task: ``--mass`` and ``--counterfactual``."""

from __future__ import annotations

import argparse

from mmi.errors import UsageError

CHANGES = ("swap", "blur", "drop")


def add_sample_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``--mass`` and ``--counterfactual`` take beside ``--task``."""
    add = parser.add_argument_group("with --mass and --counterfactual").add_argument
    add("--limit", type=int, metavar="N", help="only the first N samples with pictures; results are marked LIMITED")
    add("--batch-size", type=int, default=32, metavar="N", help="samples asked at once (32)")
    add = parser.add_argument_group("with --counterfactual").add_argument
    add("--changes", metavar="LIST", help=f"what is done to a picture ({','.join(CHANGES)}); --seed chooses swaps")
    add("--distances", metavar="LIST", help="which pictures, such as 1,2: 1 is the nearest; default: each in turn")
    add("--blur", type=float, metavar="SHARE", help="deviation of the blur as a share of the longer side (0.1)")


def check_sample_options(options: argparse.Namespace, view: str) -> None:
    """Refuse what cannot be asked.

    Args:
        options: Of the command line.
        view: Such as ``--mass``, for messages.

    Raises:
        UsageError: If the task is missing or a number makes no sense.
    """
    if not options.task:
        raise UsageError(f"{view} asks all samples of a task; add --task LABEL, such as --task micro_quiz.")
    if options.wandb != "off":
        raise UsageError(f"--wandb takes looks and --gates; {view} writes JSON, Markdown and HTML; leave it out.")
    for name in ("limit", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; expected at least 1.")


def chosen_changes(text: str | None) -> tuple[str, ...]:
    """Read ``--changes``.

    Raises:
        UsageError: If a word is none of them.

    Example:
        >>> chosen_changes("drop, swap"), chosen_changes(None)
        (('drop', 'swap'), ('swap', 'blur', 'drop'))
    """
    if text is None:
        return CHANGES
    words = _words(text, "--changes", ",".join(CHANGES))
    odd = next((word for word in words if word not in CHANGES), None)
    if odd is not None:
        raise UsageError(f'--changes: no change "{odd}"; expected some of {", ".join(CHANGES)}.')
    return words


def chosen_distances(text: str | None) -> tuple[int, ...] | None:
    """Read ``--distances``.

    Raises:
        UsageError: If a word is no number from 1.

    Example:
        >>> chosen_distances("2,1,2"), chosen_distances(None)
        ((2, 1), None)
    """
    if text is None:
        return None
    words = _words(text, "--distances", "1,2")
    odd = next((word for word in words if not (word.isascii() and word.isdigit() and int(word) > 0)), None)
    if odd is not None:
        raise UsageError(f'--distances: "{odd}" is no number of a picture; expected such as 1,2 (1 is the nearest).')
    return tuple(dict.fromkeys(int(word) for word in words))


def _words(text: str, option: str, example: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise UsageError(f"{option} is empty; expected such as {example}.")
    return words
