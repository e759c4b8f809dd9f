"""A repeated run against the card of a verified one: what is inside its bands and what is not."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .charts import Point
from .numbers import percent, short
from .run_card import CURVE, LEAST_BAND, Band, Card, CardScore
from .wording import interval

SHARE_INSIDE = 0.9
"""Share of the parts of the curve that must lie in their bands."""
_MOST_NAMED = 3
_ABSENT = object()


@dataclass(frozen=True)
class Check:
    """One line of the comparison.

    Args:
        what: What is compared.
        card: What the card says.
        here: What the repeated run says.
        inside: Whether that is close enough; ``None`` is told only and does not decide.
        remark: Why not, in a few words.
    """

    what: str
    card: str
    here: str
    inside: bool | None
    remark: str = ""


def check_run(card: Card, here: Card, log: Mapping[str, Sequence[Point]]) -> list[Check]:
    """Compare a run with a card.

    Args:
        card: Of the verified run.
        here: A card made of the run to be checked.
        log: The columns of its ``metrics.csv``.
    """
    checks = [_config(card, here), _data(card, here), _curve(card, log.get(CURVE, ()))]
    checks += [_final(name, band, log.get(name, ())) for name, band in card.final.items()]
    checks += [_score(name, score, here.after.get(name)) for name, score in card.after.items()]
    told = (
        ("code", code_words),
        ("hardware", _hardware),
        ("training time", _training_time),
        ("peak memory", _memory),
    )
    return checks + [Check(what, said(card), said(here), None) for what, said in told]


def closing_sentence(checks: Sequence[Check], run: str, card: str) -> str:
    """Say in one sentence whether the run repeats the card."""
    decided = [check for check in checks if check.inside is not None]
    outside = [check.what for check in decided if not check.inside]
    if not outside:
        return f"{run} repeats {card}: all {len(decided)} checks are inside."
    return f"{run} does not repeat {card}: OUTSIDE in {len(outside)} of {len(decided)}: {', '.join(outside)}."


def _config(card: Card, here: Card) -> Check:
    named = [f"{key} ({_value(a)} on the card, {_value(b)} here)" for key, a, b in _different(card.config, here.config)]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    remark = "; ".join(named[:_MOST_NAMED]) + more
    return Check("config", card.config_sha256[:12], here.config_sha256[:12], not named, remark)


def _different(card: Any, here: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield settings that differ; one that only one side knows, because it is newer, is the same where it is off."""
    absent = card is _ABSENT or here is _ABSENT
    known, other = (here, card) if card is _ABSENT else (card, here)
    if isinstance(known, Mapping) and (absent or isinstance(other, Mapping)):
        card, here = ({} if side is _ABSENT else side for side in (card, here))
        for key in dict.fromkeys([*card, *here]):
            named = f"{where}.{key}" if where else str(key)
            yield from _different(card.get(key, _ABSENT), here.get(key, _ABSENT), named)
    elif card != here and not (absent and not known):
        yield where, card, here


def _value(value: Any) -> str:
    text = "nothing" if value is None or value is _ABSENT else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _curve(card: Card, points: Sequence[Point]) -> Check:
    means = [_mean(band, points) for band in card.curve]
    inside = [m is not None and b.low <= m <= b.high for b, m in zip(card.curve, means, strict=True)]
    share = sum(inside) / max(len(inside), 1)
    out = [band.step for band, ok in zip(card.curve, inside, strict=True) if not ok]
    remark = f"outside up to step {', '.join(map(str, out[:_MOST_NAMED]))}{', ...' if len(out) > _MOST_NAMED else ''}"
    if lost := sum(mean is None for mean in means):
        remark += f"; {lost} parts have no value here"
    said = f"at least {percent(SHARE_INSIDE)} of {len(inside)} parts"
    return Check(f"curve of {CURVE}", said, percent(share), share >= SHARE_INSIDE, remark if out else "")


def _mean(band: Band, points: Sequence[Point]) -> float | None:
    values = [value for step, value in points if band.first <= step <= band.step]
    return statistics.fmean(values) if values else None


def _final(name: str, band: Band, points: Sequence[Point]) -> Check:
    mean = _mean(band, points)
    said = f"{short(band.loss)} [{short(band.low)}, {short(band.high)}]"
    where = f"final {name}"
    if mean is None:
        return Check(where, said, "none", False, f"not logged at steps {band.first} to {band.step}")
    remark = "lower" if mean < band.low else "higher" if mean > band.high else ""
    return Check(where, said, short(mean), not remark, remark)


def _score(name: str, card: CardScore, here: CardScore | None) -> Check:
    said = interval(card.score, card.percent)
    if here is None:
        return Check(name, said, "none", False, "not evaluated here")
    found = interval(here.score, here.percent)
    if card.asked != here.asked:
        return Check(name, said, found, False, "other samples, prompt or decoding")
    (low, high), (lowest, highest) = _ends(card), _ends(here)
    if low <= highest and lowest <= high:
        return Check(name, said, found, True)
    better = (lowest > high) != card.lower_is_better
    return Check(name, said, found, False, "better" if better else "worse")


def _ends(score: CardScore) -> tuple[float, float]:
    """Return the interval, or the least band where resampling could not tell one."""
    value, low, high = score.score.value, score.score.low, score.score.high
    half = LEAST_BAND * abs(value) if low == high else 0.0
    return low - half, high + half


def _data(card: Card, here: Card) -> Check:
    """Compare the sources that both sides took a fingerprint of; without one there is nothing to decide.

    The fingerprint of files at addresses is of the addresses too, and another place may hold the same files.
    """
    both = [name for name in card.data if name in here.data]
    both = [name for name in both if not any("address" in side.data[name] for side in (card, here))]
    others = [name for name in both if card.data[name] != here.data[name]]
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    remark = f"other files in {', '.join(others[:_MOST_NAMED])}{more}" if others else ""
    return Check("data", _data_words(card), _data_words(here), not others if both else None, remark)


def _data_words(card: Card) -> str:
    said = sorted(f"{name} {files}" for name, files in card.data.items())
    return hashlib.sha256("|".join(said).encode()).hexdigest()[:12] if said else "not recorded"


def code_words(card: Card) -> str:
    """Return the commit and whether files were changed; older runs noted an installed package and a failure alike."""
    commit = card.code.get("commit")
    if not commit:
        return "installed package" if card.code.get("installed") else "not recorded"
    changed = card.code.get("changed")
    return commit[:10] + (", changes not recorded" if changed is None else " with changes" if changed else "")


def _hardware(card: Card) -> str:
    return hardware_words(card.hardware)


def hardware_words(hardware: Mapping[str, Any]) -> str:
    """Return processor, cores, memory and devices in a few words."""
    memory = hardware.get("memory_bytes")
    said = [str(hardware.get("processor") or "processor not recorded")]
    said += [f"{hardware['cores']} cores"] if hardware.get("cores") else []
    said += [f"{memory / 2**30:.0f} GiB"] if memory else []
    said += [str(device) for device in hardware.get("devices") or () if device != "cpu"]
    return ", ".join(said)


def seconds_words(seconds: float | None) -> str:
    """Return a time as people say it.

    Example:
        >>> seconds_words(42.0), seconds_words(600.0), seconds_words(9000.0), seconds_words(None)
        ('42 s', '10.0 min', '2.5 h', 'not recorded')
    """
    if seconds is None:
        return "not recorded"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def memory_words(memory: Mapping[str, int | None]) -> str:
    """Return the peak memory of the process and of its device."""
    places = {"": memory.get("process"), " on the device": memory.get("device")}
    said = [f"{size / 2**30:.2f} GiB{place}" for place, size in places.items() if size]
    return ", ".join(said) or "not recorded"


def _training_time(card: Card) -> str:
    return seconds_words(card.seconds.get("training"))


def _memory(card: Card) -> str:
    return memory_words(card.peak_memory)
