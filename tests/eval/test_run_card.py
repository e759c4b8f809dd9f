"""Cards of verified runs: bands around a curve, what counts as the same settings, what is inside and what is not."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mmi_eval.formats.errors import FormatError
from mmi_eval.metrics.intervals import Score
from mmi_eval.report.run_card import Band, Card, CardScore, banded, counted_settings, final_bands, read_card, write_card
from mmi_eval.report.run_card_check import Check, check_run, closing_sentence
from mmi_eval.report.run_card_page import write_card_page

Points = list[tuple[float, float]]
CONFIG = {"model": {"width": 32}, "trainer": {"max_steps": 1000}, "data": {"path": "a.json"}}


def noisy_curve(seed: int, n: int = 200, noise: float = 0.1, end: float = 1.0) -> Points:
    draw = random.Random(seed)
    return [(10.0 * i, end + 8 / i + draw.gauss(0, noise)) for i in range(1, n + 1)]


def score(value: float, half: float = 0.02, **fields: object) -> CardScore:
    return replace(CardScore(Score(value, value - half, value + half, 100), asked="same"), **fields)


def card(points: Points, **fields: object) -> Card:
    final = {"train/loss": banded(points)[-1]}
    made = Card(
        "sft", "runs/sft", "mmi fit", CONFIG, {"train.a": "sha"}, {"commit": "abc"}, {"cores": 2}, "today",
        {"training": 3.0, "evaluation": None}, {"process": 10, "device": None}, banded(points), final,
    )  # fmt: skip
    return replace(made, **fields)


def outside(checks: list[Check]) -> list[str]:
    return [check.what for check in checks if check.inside is False]


def test_a_curve_has_at_most_fifty_parts_that_hold_every_step_once() -> None:
    for n in (1, 7, 50, 51, 333):
        bands = banded(noisy_curve(0, n))
        assert len(bands) == min(n, 50)
        assert (bands[0].first, bands[-1].step) == (10, 10 * n)
        assert all(before.step + 10 == after.first for before, after in pairwise(bands))
    assert banded([]) == []


def test_a_band_is_five_percent_at_least_and_grows_with_scatter_but_not_with_slope() -> None:
    falling = banded([(step, 10 - step / 100) for step in range(100)])
    assert all(band.high - band.loss == pytest.approx(0.05 * band.loss) for band in falling)
    (quiet, loud) = (banded(noisy_curve(1, 200, noise))[25] for noise in (0.01, 0.5))
    assert quiet.high - quiet.low == pytest.approx(0.1 * quiet.loss)
    assert loud.high - loud.low > 3 * (quiet.high - quiet.low)
    assert 2 * 3 * 0.2 < loud.high - loud.low < 2 * 3 * 0.9


def test_a_part_of_a_loss_that_is_next_to_nothing_decides_nothing() -> None:
    log = {"train/loss": noisy_curve(0, 60), "train/loss_text": [(10.0 * i, 1e-5) for i in range(1, 61)]}
    final = final_bands(log | {"val/loss": [(100, 4.0), (200, 2.0), (300, 1.0)]})
    assert list(final) == ["train/loss", "train/loss_text", "val/loss"]
    text, validation = final["train/loss_text"], final["val/loss"]
    assert text.high - text.loss == pytest.approx(0.005 * final["train/loss"].loss)
    assert validation.high == pytest.approx(1.05)


def test_other_draws_of_the_same_noise_are_inside() -> None:
    for seed in range(1, 30):
        points = noisy_curve(seed)
        checks = check_run(card(noisy_curve(0)), card(points), {"train/loss": points})
        assert outside(checks) == [], seed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda points: [(s, v * 1.5) for s, v in points], ["curve of train/loss", "final train/loss"]),
        (lambda points: [(s, v if s < 1900 else v + 1) for s, v in points], ["final train/loss"]),
        (lambda points: points[:100], ["curve of train/loss", "final train/loss"]),
        (lambda points: [(s, v) for s, v in points if s % 20 == 0], []),
    ],
    ids=["higher", "leaps at the end", "stopped half way", "logged less often"],
)
def test_another_curve_is_told(change: Callable[[Points], Points], expected: list[str]) -> None:
    points = change(noisy_curve(0))
    checks = check_run(card(noisy_curve(0)), card(points), {"train/loss": points})
    assert outside(checks) == expected


@pytest.mark.parametrize(
    ("here", "remark"),
    [
        (score(0.53), None),
        (score(0.60), "better"),
        (score(0.40), "worse"),
        (score(0.60, lower_is_better=True), "worse"),
        (score(0.50, asked="other"), "other samples, prompt or decoding"),
        (None, "not evaluated here"),
    ],
    ids=["overlap", "better", "worse", "lower is better", "other questions", "missing"],
)
def test_a_score_repeats_where_intervals_overlap(here: CardScore | None, remark: str | None) -> None:
    points = noisy_curve(0)
    lower = here is not None and here.lower_is_better
    made = card(points, after={"vqa/accuracy": score(0.5, lower_is_better=lower)})
    checks = check_run(made, replace(made, after={"vqa/accuracy": here} if here else {}), {"train/loss": points})
    told = {check.what: check for check in checks}["vqa/accuracy"]
    assert (told.inside, told.remark) == (remark is None, remark or "")
    sentence = closing_sentence(checks, "runs/mine", "card.json")
    assert ("all 5 checks are inside" if remark is None else "OUTSIDE in 1 of 5: vqa/accuracy") in sentence


def test_other_settings_are_named_but_not_where_files_lie_or_what_is_off() -> None:
    points = noisy_curve(0)
    made = card(points)
    other = {**CONFIG, "trainer": {"max_steps": 500}, "run": {"ema": None}}
    checks = check_run(made, card(points, config=other), {"train/loss": points})
    assert outside(checks) == ["config"]
    assert checks[0].remark == "trainer.max_steps (1000 on the card, 500 here)"
    here = {"data": {**files("/elsewhere"), "num_workers": 4}, "run": {"name": "x", "folder": "y"}}
    there = {"data": {**files("data"), "num_workers": 0}, "run": {"name": "z", "ema": None}}
    same = check_run(card(points, config=counted_settings(here)), card(points, config=counted_settings(there)), {})
    assert "config" not in outside(same)


def files(root: str, refs: str = "refcoco") -> dict[str, object]:
    source = {"path": f"{root}/{refs}/refs(unc).p", "images": f"{root}/coco/images", "turn_template": "left/right?"}
    return {"tokenizer": f"{root}/tokenizer", "train": {"boxes": source}}


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ({"data": files("a")}, {"data": files("a", "refcoco+")}, "data.train.boxes.path (refcoco/refs(unc).p on the c"),
        ({"data": {"path": "a/refcoco/r.p"}}, {"data": {"path": "a/refcoco+/r.p"}}, "data.path (refcoco/r.p on the ca"),
        ({"monitor": "coco/cider"}, {"monitor": "nocaps/cider"}, "monitor (coco/cider on the card, nocaps/cider here)"),
        ({"rates": {"unet": None}}, {"rates": {"unet": 0.0}}, "rates.unet (nothing on the card, 0.0 here)"),
        ({"learn_images": None}, {"learn_images": False}, "learn_images (nothing on the card, False here)"),
        ({"augment": None}, {"augment": {"flip": 0.0}}, "augment (nothing on the card, {'flip': 0.0} here)"),
        ({}, {"ema": {"decay": 0.9}}, "ema.decay (nothing on the card, 0.9 here)"),
    ],
    ids=["folder among all", "folder of one file", "no path", "zero", "false", "settings that are off", "newer"],
)
def test_what_both_sides_know_is_told_apart(one: dict, other: dict, named: str) -> None:
    points = noisy_curve(0)
    cards = [card(points, config=counted_settings(config)) for config in (one, other)]
    check, *_ = check_run(cards[0], cards[1], {})
    assert check.inside is False
    assert check.remark.startswith(named)


def test_what_only_one_side_knows_is_the_same_where_it_is_off() -> None:
    points = noisy_curve(0)
    newer = card(points, config={**CONFIG, "ema": None, "augment": {"flip": 0.0, "more": {"crop": False}}})
    for pair in ((newer, card(points)), (card(points), newer)):
        assert check_run(*pair, {})[0].inside is True


@pytest.mark.parametrize(
    ("data", "inside", "remark"),
    [
        ({"train.a": "sha", "train.b": "more"}, True, ""),
        ({"train.a": "other"}, False, "other files in train.a"),
        ({"train.a": "sha256:1 (3 addresses, no size told)"}, None, ""),
        ({}, None, ""),
    ],
    ids=["same", "other", "at addresses", "not recorded"],
)
def test_other_data_are_told_where_both_sides_took_fingerprints(
    data: dict[str, str], inside: bool | None, remark: str
) -> None:
    points = noisy_curve(0)
    told = {check.what: check for check in check_run(card(points), card(points, data=data), {"train/loss": points})}
    assert (told["data"].inside, told["data"].remark) == (inside, remark)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ({"commit": "0123456789abcdef", "changed": False}, "commit 0123456789"),
        ({"commit": "0123456789abcdef", "changed": True}, "commit 0123456789 with changes"),
        ({"commit": "0123456789abcdef", "changed": None}, "commit 0123456789, changes not recorded"),
        ({"commit": None, "changed": None}, "not recorded"),
        ({"installed": True}, "installed package"),
        ({}, "not recorded"),
    ],
)
def test_a_page_says_of_the_code_no_more_than_was_recorded(tmp_path: Path, code: dict, said: str) -> None:
    page, _ = write_card_page(tmp_path / "card.json", card(noisy_curve(0), code=code))
    assert f"| code | {said} |" in page.read_text()


def test_a_card_survives_its_file_and_tells_when_it_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    made = card(noisy_curve(0), before={"a/b": score(0.1)}, after={"a/b": score(0.2, limit=64, percent=False)})
    write_card(path, made)
    assert read_card(path) == made
    row = json.loads(path.read_text())
    for change, message in (
        ({"schema_version": 99}, "schema_version 99"),
        ({"config": {}}, "config does not belong"),
        ({"curve": [{"first": 1}]}, "curve has no key"),
    ):
        path.write_text(json.dumps(row | change))
        with pytest.raises(FormatError, match=message):
            read_card(path)


def test_the_page_shows_before_and_after_and_a_whole_picture(tmp_path: Path) -> None:
    made = card(noisy_curve(0), before={"a/b": score(0.1)}, after={"a/b": score(0.2, limit=64)})
    page, picture = write_card_page(tmp_path / "card.json", made)
    text = page.read_text()
    assert "| a/b LIMITED | 10.0 [8.0, 12.0] | 20.0 [18.0, 22.0] | 100 |" in text
    assert "![train/loss over steps](card.svg)" in text
    root = ElementTree.fromstring(picture.read_text())
    (line,) = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(line.attrib["points"].split()) == 50
    assert all(math.isfinite(float(x)) for pair in line.attrib["points"].split() for x in pair.split(","))


def test_a_band_that_reaches_below_zero_can_be_drawn(tmp_path: Path) -> None:
    made = card([(1, 0.0)], curve=[Band(1, 1, 0.0, -1.0, 1.0), Band(2, 2, -0.5, -1.0, 1.0)])
    _, picture = write_card_page(tmp_path / "card.json", made)
    assert "polyline" in picture.read_text()
