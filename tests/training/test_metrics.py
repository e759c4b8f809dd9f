"""Values computed by hand, over several batches and over two ranks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from factories import batch, tiny_config

from mmi.batch import Span
from mmi.models.build import build_network
from mmi.models.output import NetworkOutput
from mmi.training.metrics import (
    ImageLoss,
    PackingFill,
    TextLoss,
    Throughput,
    gate_values,
    label_spans,
    score_documents,
)

SPANS = (Span(0, 0, 4, "a", "pairs"), Span(0, 4, 9, "b", "web"), Span(1, 0, 3, "c", "pairs"))


def output(
    labels: list[tuple[int, int, float, bool]] = (),
    images: list[tuple[float, int, int]] = (),
    *,
    n_image_loss: int | None = None,
    n_images: int | None = None,
) -> NetworkOutput:
    """Labels are (row, position, loss, correct), images (loss, timestep, visible)."""
    rows, positions, losses, correct = zip(*labels, strict=True) if labels else ((), (), (), ())
    image_loss, timesteps, visible = zip(*images, strict=True) if images else ((), (), ())
    return NetworkOutput(
        text_loss=torch.tensor(losses, dtype=torch.float32),
        text_correct=torch.tensor(correct, dtype=torch.bool),
        text_row=torch.tensor(rows, dtype=torch.long),
        text_position=torch.tensor(positions, dtype=torch.long),
        image_loss=torch.tensor(image_loss, dtype=torch.float32),
        image_index=torch.arange(len(images)),
        timesteps=torch.tensor(timesteps, dtype=torch.long),
        n_visible=torch.tensor(visible, dtype=torch.long),
        n_image_loss=torch.tensor(len(images) if n_image_loss is None else n_image_loss),
        n_images=torch.tensor(len(images) if n_images is None else n_images),
        n_hidden=torch.tensor(0),
    )


def plain(values: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: pytest.approx(float(value)) for name, value in values.items()}


FIRST = output([(0, 1, 1.0, True), (0, 5, 4.0, False), (1, 2, 3.0, False)])
SECOND = output([(0, 3, 2.0, True), (0, 8, 6.0, True)])
EXPECTED_TEXT = {
    "loss_text": 16 / 5,
    "loss_text/pairs": 6 / 3,
    "loss_text/web": 10 / 2,
    "accuracy_text": 3 / 5,
    "accuracy_text/pairs": 2 / 3,
    "accuracy_text/web": 1 / 2,
}


def test_text_is_averaged_over_labels_not_over_batches() -> None:
    metric = TextLoss(("pairs", "web"))
    metric.update(FIRST, SPANS)
    metric.update(SECOND, SPANS)
    assert plain(metric.compute()) == EXPECTED_TEXT
    metric.reset()
    metric.update(SECOND, SPANS)
    assert float(metric.compute()["loss_text"]) == 4.0


def test_text_over_two_ranks_equals_one_process() -> None:
    ranks = [TextLoss(("pairs", "web")) for _ in range(2)]
    for rank, out in zip(ranks, (FIRST, SECOND), strict=True):
        rank.update(out, SPANS)
    ranks[0].merge_state(ranks[1])
    assert plain(ranks[0].compute()) == EXPECTED_TEXT


def test_labels_of_unnamed_sources_are_counted_as_other() -> None:
    metric = TextLoss(("pairs",))
    metric.update(FIRST, SPANS)
    assert plain(metric.compute())["loss_text/other"] == 4.0
    alone = TextLoss()
    alone.update(FIRST, SPANS)
    assert plain(alone.compute()) == {"loss_text": 8 / 3, "accuracy_text": 1 / 3}


def test_batches_without_labels_or_provenance_are_no_mistake() -> None:
    metric = TextLoss(("pairs",))
    metric.update(output(), ())
    assert metric.compute() == {}
    assert label_spans(SECOND, (), (), 7).tolist() == [7, 7]


def test_a_label_belongs_to_the_span_around_it_and_to_none_outside() -> None:
    out = output([(0, 3, 0.0, True), (0, 4, 0.0, True), (1, 2, 0.0, True), (1, 5, 0.0, True), (4, 40, 0.0, True)])
    assert label_spans(out, SPANS, (10, 11, 12), -1).tolist() == [10, 11, 12, -1, -1]


def test_image_loss_is_split_by_timestep_and_by_visible_images() -> None:
    metric = ImageLoss(n_timesteps=1000, n_bins=4, max_visible=2)
    metric.update(output(images=[(1.0, 0, 0), (2.0, 249, 1)]))
    metric.update(output(images=[(6.0, 250, 5), (3.0, 999, 2)]))
    assert plain(metric.compute()) == {
        "loss_image": 12 / 4,
        "loss_image/t0-249": 3 / 2,
        "loss_image/t250-499": 6.0,
        "loss_image/t750-999": 3.0,
        "loss_image/visible_0": 1.0,
        "loss_image/visible_1": 2.0,
        "loss_image/visible_2+": 9 / 2,
    }


def test_timestep_bins_cover_a_schedule_that_does_not_divide_evenly() -> None:
    metric = ImageLoss(n_timesteps=10, n_bins=4)
    metric.update(output(images=[(float(t), t, 0) for t in range(10)]))
    bins = {name.partition("/t")[2]: float(v) for name, v in metric.compute().items() if "/t" in name}
    assert bins == {"0-2": 1.0, "3-4": 3.5, "5-7": 6.0, "8-9": 8.5}


@pytest.mark.parametrize(("denominator", "expected"), [("corrected", 2.0), ("official", 1.6)])
def test_image_loss_over_ranks_uses_the_denominator_of_the_loss(denominator, expected: float) -> None:
    ranks = [ImageLoss(10, denominator) for _ in range(2)]
    ranks[0].update(output(images=[(1.0, 0, 0)], n_image_loss=2, n_images=3))  # one of two diffused
    ranks[1].update(output(images=[(2.0, 0, 0), (4.0, 0, 0)], n_images=2))
    ranks[0].merge_state(ranks[1])
    assert float(ranks[0].compute()["loss_image"]) == pytest.approx(expected)


def test_fill_is_the_share_of_real_tokens() -> None:
    metric = PackingFill()
    rows = batch([[("abc",)], [("a",)]], length=10)  # <s> abc </s> and <s> a </s>
    metric.update(rows)
    metric.update(batch([[("abcdef",)]], length=10))
    assert float(metric.compute()["fill"]) == pytest.approx((5 + 3 + 8) / 30)


def test_throughput_counts_real_tokens_while_the_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mmi.training.metrics.time.perf_counter", lambda: now[0])
    metric = Throughput()
    for seconds, running in ((2.0, True), (50.0, False), (2.0, True)):
        if running:
            metric.start()
            metric.start()  # does not restart
        now[0] += seconds
        metric.stop()
        if running:
            metric.update(batch([[("abc", 1)]]))
    values = metric.compute()
    assert float(values["tokens_per_second"]) == pytest.approx(2 * 9 / 4)
    assert float(values["images_per_second"]) == pytest.approx(2 / 4)


def test_documents_are_scored_one_by_one() -> None:
    scores = score_documents(FIRST, SPANS)
    assert [(s.document_id, s.source, s.n_labels, s.loss, s.accuracy) for s in scores] == [
        ("a", "pairs", 1, 1.0, 1.0),
        ("b", "web", 1, 4.0, 0.0),
        ("c", "pairs", 1, 3.0, 0.0),
    ]
    empty = score_documents(replace(FIRST), (Span(5, 0, 4, "d", "web"),))[0]
    assert empty.n_labels == 0
    assert math.isnan(empty.loss)


def test_gates_of_both_kinds_start_closed_and_are_named_by_their_place() -> None:
    network = build_network(tiny_config())
    values = gate_values(network)
    assert set(values.values()) == {0.0}
    assert sum(name.startswith("gate/language_model.layers.") for name in values) == 2
    assert sum(name.startswith("gate/image_decoder.unet.mmfs.") for name in values) == len(
        network.image_decoder.unet.mmfs
    )
    with torch.no_grad():
        network.language_model.branches[0].gate.fill_(0.5)
    assert gate_values(network)["gate/language_model.layers.0.mmfs"] == pytest.approx(math.tanh(0.5))
