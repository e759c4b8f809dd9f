"""Who sees which image: the example of SPEC Appendix A, and rules against plain loops on random rows."""

import pytest
import torch

from mmi.models.visibility import (
    context_starts,
    document_starts,
    gather_contexts,
    image_slots,
    previous_images,
    slot_values,
    visible_images,
)

BOS, EOS, PAD, START, IMAGE = 1, 2, 0, 8, 9
APPENDIX_A = torch.tensor([[BOS, 4, 5, START, IMAGE, IMAGE, EOS, BOS, START, IMAGE, IMAGE, 6, 7, EOS, PAD]])
A_ROW, A_START = torch.tensor([0, 0]), torch.tensor([3, 8])


def random_rows(seed, n_rows=4, n_tokens=2):
    """Rows of random documents, some cut at their start, and where their images are."""
    generator = torch.Generator().manual_seed(seed)
    rows, places = [], []
    for r in range(n_rows):
        row = []
        while len(row) < 30:
            kind = int(torch.randint(0, 5, (), generator=generator))
            if kind == 0:
                row.append(BOS)
            elif kind == 1:
                places.append((r, len(row)))
                row += [START] + [IMAGE] * n_tokens
            else:
                row.append(5)
        rows.append((row + [PAD] * 5)[:35])
    row, start = torch.tensor(places).T
    return torch.tensor(rows), row, start


def test_appendix_a_visibility():
    visible = visible_images(APPENDIX_A, slot_values(A_START, image_slots(A_ROW, 1)), bos_token_id=BOS)[0]
    assert visible[:, 0].nonzero().flatten().tolist() == [4, 5, 6]
    assert visible[:, 1].nonzero().flatten().tolist() == [9, 10, 11, 12, 13, 14]


def test_appendix_a_contexts_are_reversed_and_end_at_their_document():
    starts = context_starts(APPENDIX_A, A_ROW, A_START, bos_token_id=BOS)
    assert starts.tolist() == [0, 7]
    contexts, mask = gather_contexts(torch.arange(15.0).view(1, 15, 1), A_ROW, A_START, starts)
    assert contexts[..., 0].tolist() == [[3, 2, 1, 0], [8, 7, 0, 0]]
    assert mask.sum(1).tolist() == [4, 2]


def test_appendix_a_has_no_previous_image():
    starts = context_starts(APPENDIX_A, A_ROW, A_START, bos_token_id=BOS)
    table, visible = previous_images(A_ROW, A_START, starts, n_nearest=1)
    assert table.tolist() == [[-1], [-1]]
    assert not visible.any()


@pytest.mark.parametrize("seed", range(3))
def test_visibility_equals_its_definition_on_random_rows(seed):
    ids, row, start = random_rows(seed)
    table = image_slots(row, len(ids))
    visible = visible_images(ids, slot_values(start, table), bos_token_id=BOS)
    for b in range(len(ids)):
        for t in range(ids.shape[1]):
            latest = max([p for p in range(t + 1) if ids[b, p] == BOS], default=-1)
            assert int(document_starts(ids, bos_token_id=BOS)[b, t]) == latest
            expected = {m for m in range(len(row)) if row[m] == b and latest < start[m] + 1 <= t}
            assert {int(m) for m in table[b][visible[b, t]]} == expected


@pytest.mark.parametrize("n_nearest", [1, 3, None])
def test_previous_images_equal_their_definition_on_random_rows(n_nearest):
    ids, row, start = random_rows(7)
    begin = context_starts(ids, row, start, bos_token_id=BOS)
    table, visible = previous_images(row, start, begin, n_nearest)
    for m in range(len(row)):
        expected = [k for k in range(m) if row[k] == row[m] and start[k] >= begin[m]]
        assert table[m][visible[m]].tolist() == expected[-n_nearest if n_nearest else 0 :]
        assert (table[m] >= 0).equal(visible[m])
    if n_nearest is None:
        assert visible.any(dim=0).all(), "no slot is empty for every image"


def test_left_padding_moves_everything_and_changes_nothing():
    padded = torch.cat([torch.full((1, 4), PAD), APPENDIX_A], dim=1)
    starts = slot_values(A_START, image_slots(A_ROW, 1))
    moved = visible_images(padded, torch.where(starts >= 0, starts + 4, -1), bos_token_id=BOS)
    assert torch.equal(moved[:, 4:], visible_images(APPENDIX_A, starts, bos_token_id=BOS))
    assert not moved[:, :4].any()


def test_a_context_without_document_start_begins_at_the_first_real_token():
    ids = torch.tensor([[PAD, PAD, 5, START, IMAGE], [BOS, 5, 5, START, IMAGE]])
    row, start = torch.tensor([0, 1]), torch.tensor([3, 3])
    starts = context_starts(ids, row, start, bos_token_id=BOS, attention_mask=ids != PAD)
    assert starts.tolist() == [2, 0]


def test_gradients_reach_the_hidden_states_of_a_context_only():
    hidden = torch.zeros(1, 15, 2, requires_grad=True)
    contexts, _ = gather_contexts(hidden, A_ROW[1:], A_START[1:], torch.tensor([7]))
    assert contexts.shape == (1, 2, 2)
    contexts.sum().backward()
    assert hidden.grad[0, :, 0].nonzero().flatten().tolist() == [7, 8]


def test_a_batch_without_images_gives_empty_tables():
    none = torch.zeros(0, dtype=torch.int64)
    table = image_slots(none, 2)
    assert table.shape == (2, 0)
    assert slot_values(none, table).shape == (2, 0)
    assert slot_values(none, torch.full((2, 1), -1)).tolist() == [[-1], [-1]]
    assert visible_images(APPENDIX_A, torch.zeros(1, 0, dtype=torch.int64), bos_token_id=BOS).shape == (1, 15, 0)
    begin = context_starts(APPENDIX_A, none, none, bos_token_id=BOS)
    contexts, mask = gather_contexts(torch.zeros(1, 15, 3), none, none, begin)
    assert contexts.shape == (0, 0, 3)
    assert mask.shape == (0, 0)
    assert previous_images(none, none, begin, 2)[0].shape == (0, 2)
    assert previous_images(none, none, begin, None)[0].shape == (0, 0)
