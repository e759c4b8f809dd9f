"""The first part of a run's page: in plain words what the run is, what it scored, and which claims hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .claims import Claim, check_claims
from .evaluated import Result, by_task, standing
from .markup import Content, Markup, element, fragment, items, missing, note
from .numbers import count, short
from .page import Section
from .run_record import RunRecord
from .tables import Column, table
from .training import last_value
from .wording import interval, limited_label, number, readable


def lead(run: RunRecord) -> str:
    """Return a few sentences: the network, its training and its last validation losses."""
    sentences = [f"{_network_words(run)} {_training_words(run)}."]
    losses = [
        f"{kind} loss {short(value)}"
        for kind in ("text", "image")
        if (value := last_value(run.log.get(f"val/loss_{kind}"))) is not None
    ]
    if losses:
        sentences.append(f"Its last validation: {' and '.join(losses)}.")
    return " ".join(sentences)


def summary_section(run: RunRecord) -> Section:
    """Return one sentence per task against its baselines, then what was claimed and whether it holds."""
    results = [r for group in by_task(run.evaluations).values() if (r := standing(group)) is not None]
    if not results:
        return Section("summary", "Summary", missing("No score yet.", f"mmi evaluate --run {run.folder}"))
    parts: list[Markup] = []
    if any(result.limited for result in results):
        label = element("span", {"class": "limited"}, "LIMITED")
        warning = fragment("Some scores are marked ", label, ": only the first samples were asked.")
        parts.append(element("p", {"class": "warning"}, warning))
    parts.append(
        note("Scores that are no losses or distances are times 100; in brackets the 95 % interval; n samples.")
    )
    parts.append(items(*(task_sentence(result) for result in results)))
    claims = check_claims(run.evaluations)
    if claims:
        parts += [element("h3", {}, "What holds"), _claims(claims)]
    return Section("summary", "Summary", fragment(*parts))


def task_sentence(result: Result) -> Content:
    """Return the headline score of a task and those of its baselines, in one sentence."""
    name = result.headline
    fraction = result.is_percent(name)
    rivals = [
        f"{number(other.values[name].value, fraction)} for {_rival_words(rival)}"
        for rival, other in result.rivals.items()
        if name in other.values
    ]
    against = f" against {', '.join(rivals)}" if rivals else ""
    better = ", lower is better" if result.lower_is_better(name) else ""
    # Of several splits of one benchmark, those whose label does not say which.
    split = f" {result.split}" if result.task == "refcoco" and result.label == result.task else ""
    said = f"{readable(result.label)}{split}, {readable(name)}: {interval(result.values[name], fraction)}{against}"
    return fragment(f"{said} (n = {result.values[name].n:,}{better}).", limited_label(result))


def _claims(claims: Sequence[Claim]) -> Markup:
    rows: list[list[Content]] = [[claim.text, _state(claim.holds), claim.evidence] for claim in claims]
    return table("Claims about this run", (Column("claim"), Column("state"), Column("evidence")), rows)


def _state(holds: bool | None) -> Markup:
    if holds is None:
        return element("span", {"class": "unknown"}, "\u2013 not measured")
    return element(
        "span", {"class": "holds" if holds else "fails"}, "\u2713 holds" if holds else "\u2717 does not hold"
    )


def _rival_words(rival: str) -> str:
    return {
        "majority": "the majority answer",
        "question_only": "the most frequent answer to the same question",
        "most_frequent_caption": "the most frequent caption",
        "human_leave_one_out": "people, one left out",
        "constant_box": "the best constant box",
        "untrained": "the untrained network",
        "real_pictures": "the judge on real pictures",
    }.get(rival, readable(rival))


def _network_words(run: RunRecord) -> str:
    if run.network is None:
        return "A network without a checkpoint,"
    where = f"checkpoint {run.network.checkpoint} (step {run.network.step:,})"
    return f"A network of {run.network.n_parameters:,} weights, {where},"


def _training_words(run: RunRecord) -> str:
    steps = max((int(points[-1][0]) for points in run.log.values() if points), default=0)
    data: Mapping[str, Any] = run.config.get("data") or {}
    sources = list(data.get("train") or {})
    where = sorted({device for session in run.sessions for device in session.get("devices") or ()})
    words = f"trained for {count(steps, 'step')}"
    words += f" on {', '.join(map(str, sources))}" if sources else ""
    words += f" on {', '.join(map(str, where))}" if where else ""
    seed = run.config.get("seed_everything")
    return words + (f" with seed {seed}" if seed is not None else "")
