"""How the paper asked: the prompts of Table 17, steps and guidance, candidates; and where an evaluation differs."""

from __future__ import annotations

from collections.abc import Mapping

from .evaluated import Result
from .paper import Paper

_PROMPTS = {
    "coco_caption": "caption_short",
    "flickr30k": "caption_short",
    "nocaps": "caption_short",
    "image2paragraph": "caption_long",
    "vqav2": "vqa",
    "okvqa": "vqa",
    "gqa": "vqa",
    "textvqa": "vqa",
    "vizwiz": "vizwiz",
    "visdial": "visdial",
}
_PAPER_STEPS, _PAPER_GUIDANCE, _PAPER_CANDIDATES = 250, 3.5, 8


def prompt_of(task: str) -> str | None:
    """Return which prompt of Table 17 a task asks with."""
    return _PROMPTS.get(task)


def differs_from_paper(result: Result, paper: Paper) -> list[str]:
    """Say what of prompt and sampler is not the paper's, so that nobody takes it for a reproduction."""
    settings = result.settings
    found = []
    key, prompt = prompt_of(result.task), settings.get("prompt")
    stages = (paper.prompts.get("zero_shot", {}), paper.prompts.get("sft", {}))
    # Table 17 writes a dialog out; a task fills its rounds in.
    known = {worded(stage[key]) for stage in stages if key not in (None, "visdial") and key in stage}
    if isinstance(prompt, str) and known and worded(prompt) not in known:
        found.append(f"prompt \u201c{prompt}\u201d is none of Table 17")
    candidates = settings.get("n_candidates"), settings.get("n_reranked")
    ranked = result.task == "coco_image" and "karpathy" not in result.split.lower()
    if ranked and candidates != (_PAPER_CANDIDATES, None):
        among = "" if candidates[1] is None else f" for {candidates[1]} captions"
        found.append(f"best of {candidates[0] or 1}{among} (paper: best of {_PAPER_CANDIDATES})")
    drawing = settings.get("drawing")
    if isinstance(drawing, Mapping):
        used = drawing.get("n_steps"), drawing.get("guidance_scale")
        if used != (_PAPER_STEPS, _PAPER_GUIDANCE):
            found.append(
                f"drawn with {used[0]} steps and guidance {used[1]} (paper: {_PAPER_STEPS} and {_PAPER_GUIDANCE})"
            )
    return found


def foreign_prompts(paper: Paper, stage: str) -> frozenset[str]:
    """Return the prompts of Table 17 that the other stage of training has and this one has not.

    Args:
        paper: Its tables.
        stage: ``zero_shot`` or ``sft``.
    """
    own, other = (paper.prompts.get(name, {}) for name in (stage, "sft" if stage == "zero_shot" else "zero_shot"))
    return frozenset(map(worded, other.values())) - frozenset(map(worded, own.values()))


def worded(prompt: str) -> str:
    """Return a prompt as it is compared with those of Table 17: without spaces, in lower case."""
    return "".join(prompt.lower().split()).replace("\u2019", "'")
