"""Find and run the jars that the COCO caption toolkit (package pycocoevalcap) ships; Java is looked for, not assumed.

Texts go in and come out as UTF-8 and Java is told its language, so that results do not depend on the locale: METEOR
would lower a Turkish "I" to a letter that its tables of stems and function words do not have.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_LOCALE = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")


class CaptionToolError(RuntimeError):
    """Say what of Java or the toolkit is missing or fails, and what does without it."""


@dataclass(frozen=True)
class ToolkitJar:
    """A jar of the toolkit and what to say where it cannot run.

    Args:
        what: What needs it, as a message begins.
        path: Where it lies in the package.
        instead: What to do without it, as a message ends.
    """

    what: str
    path: str
    instead: str

    def locate(self) -> tuple[str, Path]:
        """Return the Java program and the jar; nothing is started.

        Raises:
            CaptionToolError: If one of them is not there.
        """
        java = shutil.which("java")
        if java is None:
            raise CaptionToolError(f"{self.what} needs Java; install it, or {self.instead}.")
        spec = find_spec("pycocoevalcap")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            jar = Path(folder) / self.path
            if jar.is_file():
                return java, jar
        raise CaptionToolError(
            f'{self.what} needs the package pycocoevalcap; pip install "mmi[eval]", or {self.instead}.'
        )

    def missing(self) -> str | None:
        """Return the sentence that says what is not there, or ``None``; nothing is started."""
        try:
            self.locate()
        except CaptionToolError as error:
            return str(error)
        return None

    def run(self, java_options: Sequence[str], options: Sequence[str], lines: Sequence[str]) -> list[str]:
        """Give lines to the jar and return as many lines of its answer.

        Args:
            java_options: What Java gets; ``JAR`` stands for the path of the jar.
            options: What the program gets.
            lines: Without line ends.

        Raises:
            CaptionToolError: If something is missing, the program fails, or answers fewer lines.
        """
        java, jar = self.locate()
        command = [java, *_LOCALE, *(str(jar) if option == "JAR" else option for option in java_options), *options]
        sent = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        done = subprocess.run(command, input=sent, capture_output=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
            raise CaptionToolError(f"{self.what} ran {java}, which failed: {last}; mend Java, or {self.instead}.")
        answer = done.stdout.decode("utf-8", "replace").split("\n")[: len(lines)]
        if len(answer) != len(lines):
            raise CaptionToolError(
                f"{self.what} got {len(answer)} lines for {len(lines)} from {java}; mend Java, or {self.instead}."
            )
        return answer
