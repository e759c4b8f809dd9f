"""Reading a command line: known options by argparse, dotted settings as overrides, mistakes as one sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mmi.compose import CONFIG_ROOTS, PATHS, Override, parse_override
from mmi.config_tree import did_you_mean, nearest
from mmi.errors import DONE, UsageError


@dataclass(frozen=True)
class CommandLine:
    """What was written after a command.

    Args:
        options: Values of the command's own options.
        overrides: Settings such as ``--data.batch_size=4``, left to right.
    """

    options: argparse.Namespace
    overrides: tuple[Override, ...]


class Arguments(argparse.ArgumentParser):
    """An argument parser whose errors are sentences with the nearest valid name.

    Args:
        command: Full name, such as ``data microworld``.
        description: What the command does and writes.
        example: One or more complete command lines.
        takes_configs: Adds ``--config`` and lets dotted settings through.
    """

    def __init__(self, command: str, description: str, example: str, *, takes_configs: bool = False) -> None:
        super().__init__(
            prog=f"mmi {command}",
            description=description,
            epilog="example:\n" + "\n".join(f"  {line}" for line in example.splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.takes_configs = takes_configs
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if takes_configs:
            self.add_argument(
                "-c",
                "--config",
                action="append",
                default=[],
                metavar="FILE",
                help="config file, one of your own or a packaged one; repeat it to merge several, later wins",
            )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse complains about.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{message}; see {self.prog} --help.")

    def read(self, argv: Sequence[str]) -> CommandLine:
        """Split a command line into options and overrides.

        Raises:
            UsageError: On an unknown option, a stray word or a missing value.
        """
        own, settings = self._apart(argv)
        options, rest = self.parse_known_args(own)
        rest = settings + rest
        overrides: list[Override] = []
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if not word.startswith("--"):
                raise UsageError(self._stray(word))
            if not self._is_setting(name[2:]):
                raise UsageError(self._unknown(name))
            if not equals:
                if not rest or rest[0].startswith("--"):
                    raise UsageError(f"{name} needs a value, as in {name}=VALUE.")
                value = rest.pop(0)
            overrides.append(parse_override(name[2:], value))
        return CommandLine(options, tuple(overrides))

    def _apart(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the command's own words and those of settings.

        The library takes a word with a space in it, such as ``--data.train.x={format: mmc4}``, for a place.
        """
        own: list[str] = []
        settings: list[str] = []
        words = list(argv)
        while words:
            word = words.pop(0)
            name, equals, _ = word.partition("=")
            if not word.startswith("--") or name in self._option_names() or not self._is_setting(name[2:]):
                own.append(word)
                continue
            settings.append(word)
            if not equals and words and not words[0].startswith("--"):
                settings.append(words.pop(0))
        return own, settings

    def _is_setting(self, name: str) -> bool:
        return self.takes_configs and ("." in name or name in (*CONFIG_ROOTS, PATHS))

    def _option_names(self) -> list[str]:
        return [o for action in self._actions for o in action.option_strings if o.startswith("--")]

    def _unknown(self, name: str) -> str:
        roots = [f"--{root}" for root in CONFIG_ROOTS] if self.takes_configs else []
        close = nearest(name.replace("-", "_"), [o.replace("-", "_") for o in self._option_names()] + roots)
        names = {o.replace("-", "_"): o for o in self._option_names() + roots}
        if close:
            return f"unknown option {name}; did you mean {' or '.join(names[c] for c in close)}?"
        return f"unknown option {name}; see {self.prog} --help."

    def _stray(self, word: str) -> str:
        if self.takes_configs and word.endswith((".yaml", ".yml")):
            return f"unexpected {word}; did you mean --config {word}?"
        if self.takes_configs and "=" in word and self._is_setting(word.partition("=")[0]):
            return f"unexpected {word}; did you mean --{word}?"
        return f'unexpected "{word}"; see {self.prog} --help.'


def run_one_of(
    group: str, argv: Sequence[str], commands: Mapping[str, Callable[[Sequence[str]], int]], help_page: str
) -> int:
    """Run the command that the first word names, or print what the group offers.

    Args:
        group: Name of the group, such as ``data``.
        argv: What stands after it.
        commands: The commands by name.
        help_page: Printed for ``--help`` and where nothing is named.

    Returns:
        The exit code.

    Raises:
        UsageError: If there is no such command; names the nearest.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(help_page)
        return DONE
    if argv[0] not in commands:
        raise UsageError(f'unknown command "{group} {argv[0]}"; {did_you_mean(argv[0], commands, "commands")}')
    return commands[argv[0]](argv[1:])
