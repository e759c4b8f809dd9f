"""How often the most frequent answer is right: what one reaches who sees the question only."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from mmi_eval.formats.gqa import read_gqa
from mmi_eval.formats.vizwiz import read_vizwiz
from mmi_eval.formats.vqa import read_vqa

_VQA_KINDS = ("vqa", "okvqa", "textvqa")
_Asked = tuple[str, str, str]  # type, what the question itself proposes, answer


def majority_rates(folder: str | Path, split: str) -> dict[str, dict[str, float]]:
    """Return the share of the most frequent answer, by kind of question and type, over the files of a split.

    Where a question proposes its answers ("red or blue"), the most frequent answer is taken for each proposal.

    Args:
        folder: A world's folder.
        split: ``train``, ``val`` or ``test``.
    """
    folder = Path(folder)
    kinds = {kind: _vqa(folder, kind, split) for kind in _VQA_KINDS}
    kinds["gqa"] = [
        (item.types.detailed or "", item.groups.narrow or "", item.answer or "")
        for item in read_gqa(folder / "gqa" / f"{split}_balanced_questions.json")
        if item.types is not None and item.groups is not None
    ]
    types = _types(folder, "vizwiz", split)
    kinds["vizwiz"] = [
        (types[item.image], "", Counter(answer.answer for answer in item.answers).most_common(1)[0][0])
        for item in read_vizwiz(folder / "vizwiz" / f"{split}.json")
    ]
    return {kind: _rates(asked) for kind, asked in kinds.items()}


def _vqa(folder: Path, kind: str, split: str) -> list[_Asked]:
    types = _types(folder, kind, split)
    items = read_vqa(folder / kind / f"questions_{split}.json", folder / kind / f"annotations_{split}.json")
    return [(types[i.question_id], "", i.annotation.multiple_choice_answer) for i in items if i.annotation is not None]


def _types(folder: Path, kind: str, split: str) -> dict[int | str, str]:
    """Return the type of each item: its first tag."""
    lines = (folder / "tags" / f"{kind}_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["id"]: record["tags"][0] for record in map(json.loads, lines)}


def _rates(asked: Iterable[_Asked]) -> dict[str, float]:
    answers: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for kind, proposed, answer in asked:
        answers[kind][proposed][answer] += 1
    return {
        kind: round(sum(max(c.values()) for c in groups.values()) / sum(c.total() for c in groups.values()), 4)
        for kind, groups in sorted(answers.items())
    }
