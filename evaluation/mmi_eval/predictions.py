"""The file of a model's answers: one JSON line each, written before anything is scored, readable after a crash.

Several processes write a file each, ``predictions.rank-K.jsonl``; they become one in the order of the samples once
all are answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .formats.errors import FormatError, as_object, dump_json, existing_file, field, optional_field, parse_json
from .formats.json_rows import read_rows

PICTURES = "images/"
"""Where drawn pictures lie, below the folder of the file."""


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Args:
        task: Name of the task.
        version: Version of the task.
        id: Sample id.
        output: The text, named numbers, a picture's path below the folder of the file, or a list of such paths;
            ``None`` after an error.
        seconds: Time the model took, its batch's divided by the samples of the batch.
        error: Why there is no answer.
    """

    task: str
    version: int
    id: str
    output: Any
    seconds: float
    error: str | None = None

    @property
    def picture_names(self) -> tuple[str, ...]:
        """The paths of drawn pictures; none where the output is anything else."""
        names = self.output if isinstance(self.output, list) else [self.output]
        pictures = all(isinstance(name, str) and name.startswith(PICTURES) for name in names)
        return tuple(names) if names and pictures else ()

    def is_usable(self, folder: Path) -> bool:
        """Say whether it is an answer whose pictures are there, so that the sample need not be asked again."""
        return self.error is None and all((folder / name).is_file() for name in self.picture_names)


class PredictionFile:
    """Answers on disk; an id asked again has several lines, of which the last counts.

    Args:
        path: ``predictions.jsonl``; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Prediction]:
        """Return the answers by sample id; a last line that was cut off in the middle does not count.

        Raises:
            FormatError: If another line is malformed.
        """
        found: dict[str, Prediction] = {}
        for number, line in enumerate(self._lines(), start=1):
            prediction = parse_prediction(line, f"{self.path}, line {number}")
            found[prediction.id] = prediction
        return found

    def repair(self) -> int:
        """Cut off a last line that a killed process left unfinished; return its number of bytes, or 0."""
        data = self.path.read_bytes() if self.path.is_file() else b""
        whole = data.rfind(b"\n") + 1
        if whole == len(data):
            return 0
        if _is_json(data[whole:]):
            with self.path.open("ab") as stream:
                stream.write(b"\n")
            return 0
        with self.path.open("r+b") as stream:
            stream.truncate(whole)
        return len(data) - whole

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write lines and hand them to the system, so that they survive the end of this process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            stream.write("".join(map(_line, predictions)).encode())

    def part(self, rank: int) -> PredictionFile:
        """Return the file that one of several processes writes."""
        return PredictionFile(self.path.with_name(f"{self.path.stem}.rank-{rank}{self.path.suffix}"))

    def read_all(self) -> dict[str, Prediction]:
        """Return the answers of this file and of all parts beside it, however many processes wrote them.

        Raises:
            FormatError: As ``read``.
        """
        found: dict[str, Prediction] = {}
        for file in (self, *self._parts()):
            for sample_id, prediction in file.read().items():
                earlier = found.get(sample_id)
                # A process that stopped may have left the error behind which another one has mended.
                if earlier is None or prediction.error is None or not earlier.is_usable(self.path.parent):
                    found[sample_id] = prediction
        return found

    def settle(self, order: Sequence[str]) -> None:
        """Make this file and its parts one, a line for each answer: the same lines whoever wrote them, in order.

        Args:
            order: Ids of the samples; answers to others go.

        Raises:
            FormatError: As ``read``.
        """
        found = self.read_all()
        lines = "".join(_line(found[sample_id]) for sample_id in order if sample_id in found).encode()
        if not self.path.is_file() or self.path.read_bytes() != lines:
            draft = self.path.with_name(f"{self.path.name}.tmp")
            draft.write_bytes(lines)
            draft.replace(self.path)
        for part in self._parts():
            part.path.unlink()

    def _parts(self) -> list[PredictionFile]:
        pattern = f"{self.path.stem}.rank-*{self.path.suffix}"
        return [PredictionFile(path) for path in sorted(self.path.parent.glob(pattern))]

    def _lines(self) -> list[bytes]:
        if not self.path.is_file():
            return []
        *lines, last = self.path.read_bytes().split(b"\n")
        return [*lines, last] if last and _is_json(last) else lines


def _line(prediction: Prediction) -> str:
    return f"{dump_json(asdict(prediction))}\n"


def parse_prediction(line: bytes, where: str) -> Prediction:
    """Read one line.

    Raises:
        FormatError: If it is no prediction.
    """
    row = as_object(parse_json(line, where), where)
    return Prediction(
        field(row, "task", str, where),
        field(row, "version", int, where),
        field(row, "id", str, where),
        row.get("output"),
        float(optional_field(row, "seconds", (int, float), where) or 0),
        optional_field(row, "error", str, where),
    )


def read_answers(path: str | Path, task: str, keys: tuple[str, str] | None) -> dict[str, Any]:
    """Read answers from anywhere: our JSON lines, or the task's official result layout.

    Args:
        path: The file.
        task: Name of the task, which lines of ours must name.
        keys: Id and answer in the official layout, a JSON list of objects or an object on each line, such as
            ``question_id`` and ``answer``; ``None`` if it has none. Other names of the two are known (``_SYNONYMS``).

    Returns:
        Outputs by sample id; ``None`` where a line of ours records an error.

    Raises:
        FileNotFoundError: If the file is not there.
        FormatError: If it is neither, or answers another task.
    """
    path = existing_file(path, "a file of predictions")
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf").lstrip()
    is_list = data.startswith(b"[")
    if keys is None and is_list:
        raise FormatError(
            f"{path} is a JSON list; expected the predictions.jsonl of an evaluation for the task {task}."
        )
    if keys is not None and (is_list or _is_foreign(data, keys)):
        return _read_results(path, keys)
    predictions = PredictionFile(path).read()
    other = next((p.task for p in predictions.values() if p.task != task), None)
    if other is not None:
        raise FormatError(f"{path} answers the task {other}; expected {task}.")
    return {p.id: None if p.error is not None else p.output for p in predictions.values()}


_SYNONYMS = (("question_id", "questionId"), ("answer", "prediction", "text"))
"""What ids and answers are called in results of questions."""


def _read_results(path: Path, keys: tuple[str, str]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for where, row in read_rows(path, "a file of predictions"):
        id_key, answer_key = (_key(row, key) for key in keys)
        sample_id = str(field(row, id_key, (int, str), where))
        if sample_id in answers:
            raise FormatError(f"{where}: {id_key} {sample_id} is there twice; remove one of them.")
        answers[sample_id] = field(row, answer_key, str, where)
    return answers


def _key(row: Mapping[str, Any], key: str) -> str:
    """Return the key of a row, or the one other name of it that the row has."""
    others = [name for names in _SYNONYMS if key in names for name in names if name in row]
    return others[0] if key not in row and len(others) == 1 else key


def _is_foreign(data: bytes, keys: tuple[str, str]) -> bool:
    """Say whether the first line is somebody's result, not a prediction of ours."""
    first = data.split(b"\n", 1)[0]
    row = parse_json(first, "") if _is_json(first) else None
    return isinstance(row, dict) and "task" not in row and all(_key(row, key) in row for key in keys)


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line, "")
    except FormatError:
        return False
    return True
