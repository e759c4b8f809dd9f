"""Losses of labelled rows, in chunks: the numbers of the plain formula with a fraction of its memory."""

from __future__ import annotations

import pytest
import torch
from live_memory import peak_bytes
from torch.nn import functional as F

from mmi.models import losses
from mmi.models.losses import label_losses
from mmi.models.text_head import TextHead

D, VOCAB, ROWS = 32, 32_000, 2048


def head_and_states(rows: int, vocab: int = VOCAB) -> tuple[TextHead, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = TextHead(D, vocab, torch.nn.Linear(D, vocab, bias=False))
    return head, torch.randn(rows, D, requires_grad=True), torch.randint(vocab, (rows,))


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 30])
def test_chunks_give_the_numbers_and_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    head, hidden, labels = head_and_states(rows, 50)
    weights = torch.rand(rows)
    found = []
    for budget in (10**9, 8 * 52):
        monkeypatch.setattr(losses, "CHUNK_LOGITS", budget)
        values, correct = label_losses(hidden, labels, head, 52)
        gradients = torch.autograd.grad((values * weights).sum(), [hidden, head.new_weight, head.base.weight])
        found.append((values, correct, *gradients))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)


def test_a_quarter_of_labels_takes_a_fifth_of_the_memory_of_a_dense_head() -> None:
    head, hidden, labels = head_and_states(ROWS)
    labelled = torch.arange(0, ROWS, 4)

    def dense() -> None:
        given = torch.full_like(labels, -100)
        given[labelled] = labels[labelled]
        F.cross_entropy(head(hidden).float(), given).backward()

    def chunked() -> None:
        label_losses(hidden[labelled], labels[labelled], head, VOCAB + 2)[0].mean().backward()

    assert 5 * peak_bytes(chunked) <= peak_bytes(dense)
