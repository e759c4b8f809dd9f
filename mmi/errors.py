"""What a user is told when something goes wrong, and with which exit code.

One sentence on stderr: what, where, what was expected, what to do. Exit code 2 means the command, the configuration
or the input is wrong; 1 means that the run itself failed; 130 that it was stopped from the keyboard.
"""

from __future__ import annotations

import sys

from mmi.config import ConfigError

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 130

EXTRA_OF_PACKAGE = {
    "wandb": "tracking",
    "tensorboard": "tracking",
    "open_clip": "openclip",
    "pycocoevalcap": "eval",
    "pycocotools": "eval",
    "cleanfid": "eval",
    "pyarrow": "parquet",
    "bitsandbytes": "quant",
    "nbformat": "notebooks",
    "nbclient": "notebooks",
    "ipykernel": "notebooks",
    "matplotlib": "notebooks",
    "deepspeed": "deepspeed",
    "starlette": "serve",
    "uvicorn": "serve",
    "gradio": "demo",
    "pytest": "dev",
}
"""Import name of each optional package and the extra of ``pyproject.toml`` that installs it."""


class UsageError(ConfigError):
    """Say in one sentence what is wrong with a command line."""


class MissingExtraError(ConfigError):
    """Say which extra to install for an optional package that is not there."""

    def __init__(self, package: str, needed_for: str) -> None:
        extra = EXTRA_OF_PACKAGE[package]
        super().__init__(
            f'{needed_for} needs the package {package}, which is not installed; run: pip install "mmi[{extra}]".'
        )


def require_package(package: str, needed_for: str) -> None:
    """Refuse early when an optional package is absent, without importing it.

    Args:
        package: Import name, one of ``EXTRA_OF_PACKAGE``.
        needed_for: What the user asked for, such as ``run.loggers: wandb``.

    Raises:
        MissingExtraError: If the package cannot be found.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingExtraError(package, needed_for)


def explain(error: BaseException) -> tuple[str, int]:
    """Return the sentence for an error and the exit code that goes with it.

    Example:
        >>> explain(ConfigError("unknown key model.x."))
        ('unknown key model.x.', 2)
        >>> explain(RuntimeError("out of memory"))
        ('RuntimeError: out of memory (--debug shows where).', 1)
    """
    # Readers of data import this module; whoever raised its error has it loaded.
    formats = sys.modules.get("mmi_eval.formats.errors")
    if isinstance(error, ConfigError) or (formats is not None and isinstance(error, formats.FormatError)):
        return _one_line(error), WRONG_INPUT
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return _file_sentence(error), WRONG_INPUT
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in EXTRA_OF_PACKAGE:
            return _one_line(MissingExtraError(package, "this command")), WRONG_INPUT
    return f"{type(error).__name__}: {_one_line(error).rstrip('.')} (--debug shows where).", FAILED


def _file_sentence(error: OSError) -> str:
    if error.filename is None:
        return _one_line(error)
    return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}; check the path."


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no further message"
    return text if len(text) <= 600 else text[:597] + "..."
