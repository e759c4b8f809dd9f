"""``mmi data preview`` and ``mmi data stats --config``: pages show the batches that training gets, and nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from evaluated_run import EVIL

from mmi.cli import main
from mmi.commands.arguments import CommandLine
from mmi.commands.mixture_stats import RowCounter, measure
from mmi.commands.preview import packed_rows
from mmi.commands.settings import check_settings, settings_from_command_line
from mmi.compose import parse_override
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.microworld import write_world
from mmi.models.visibility import image_slots, slot_values, visible_images
from mmi.tokens import IGNORE_LABEL
from mmi_eval.formats.llava import Conversation, Turn, write_conversations
from mmi_eval.report.mixture_page import MixtureStats, SourceStats, render_mixture, share_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("preview") / "world"
    write_world(folder, size=12)
    return folder


@pytest.fixture(scope="module")
def settings_of(world):
    """Checked settings of the smoke config on the world, with changes."""
    from argparse import Namespace

    def make(*changes: str, command: str = "fit"):
        texts = (f"paths.world={world}", "data.seq_length=256", *changes)
        overrides = tuple(parse_override(*text.split("=", 1)) for text in texts)
        return check_settings(settings_from_command_line(CommandLine(Namespace(config=["smoke"]), overrides)), command)

    return make


@pytest.fixture(scope="module")
def batch_and_rows(settings_of):
    settings = settings_of("data.batch_size=6")
    data = InterleavedDataModule(**settings.data)
    batch = next(iter(data.train_dataloader()))
    return batch, packed_rows(batch, data.tokenizer, 256, settings.network.image_decoder), data.tokenizer, settings


def tokens_of(row):
    return [token for document in row.documents for stretch in document.stretches for token in stretch.tokens]


def test_every_token_but_placeholders_is_shown_once_in_order(batch_and_rows):
    batch, rows, tokenizer, _ = batch_and_rows
    for number, row in enumerate(rows):
        real = batch.text_ids[number][batch.attention_mask[number]].tolist()
        shown = tokens_of(row)
        assert [token.id for token in shown] == [i for i in real if i != tokenizer.special.image]
        assert [token.position for token in shown] == [p for p, i in enumerate(real) if i != tokenizer.special.image]
        assert row.length == len(real)


def test_labels_are_those_of_the_batch(batch_and_rows):
    batch, rows, _, _ = batch_and_rows
    for number, row in enumerate(rows):
        labels = (batch.labels[number] != IGNORE_LABEL).tolist()
        assert all(token.learned == labels[token.position] for token in tokens_of(row))
        assert sum(document.n_learned for document in row.documents) == sum(labels)


def test_what_a_token_sees_is_what_the_network_computes(batch_and_rows):
    batch, rows, tokenizer, _ = batch_and_rows
    slots = image_slots(batch.image_row, len(batch.text_ids))
    starts = slot_values(batch.image_start, slots)
    visible = visible_images(batch.text_ids, starts, bos_token_id=tokenizer.special.bos)
    for number, row in enumerate(rows):
        for document in row.documents:
            for stretch in document.stretches:
                for token in stretch.tokens:
                    seen = visible[number, token.position].nonzero().flatten() + 1
                    assert stretch.sees == tuple(seen.tolist())


def test_pictures_are_those_of_the_batch(batch_and_rows):
    import numpy as np

    batch, rows, _, settings = batch_and_rows
    shown = [picture for row in rows for document in row.documents for picture in document.pictures]
    assert len(shown) == batch.n_images > 6
    for picture, pixels in zip(shown, batch.images, strict=True):
        assert torch.equal(torch.from_numpy(np.asarray(picture.image).copy()).permute(2, 0, 1), pixels)
    assert any(picture.drawn for picture in shown)
    nearest = settings.network.image_decoder.mmfs.visible_images
    assert all(len(picture.drawn_from) <= nearest for picture in shown)


def test_a_picture_that_opens_a_document_is_not_drawn(batch_and_rows):
    _, rows, _, _ = batch_and_rows
    firsts = [d.stretches[0] for row in rows for d in row.documents if d.stretches[0].picture is not None]
    opening = [stretch.picture for stretch in firsts if len(stretch.tokens) == 2]
    assert opening
    assert not any(picture.drawn for picture in opening)


class Page(HTMLParser):
    """Reads a page: its tags, and what they load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.loads.append(value)
            if name == "id":
                self.ids.append(value)


def preview(world: Path, *words: object) -> int:
    base = ["--config", "smoke", f"--paths.world={world}", "--data.seq_length=256"]
    return main(["data", "preview", *base, *map(str, words)])


def test_the_page_needs_neither_network_nor_scripts(world, tmp_path, capsys):
    out = tmp_path / "pages" / "preview.html"
    assert preview(world, "--out", out, "--rows", 5) == 0
    assert "look at" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert all(load.startswith(("data:image/png", "#")) for load in page.loads)
    assert len(page.ids) == len(set(page.ids))
    assert text.count('class="document"') > 5
    assert all(f"Row {n}" in text for n in range(1, 6))
    assert "Row 6" not in text


def test_every_frame_rule_points_at_something_on_the_page(world, tmp_path):
    out = tmp_path / "preview.html"
    preview(world, "--out", out)
    text = out.read_text(encoding="utf-8")
    named = set(re.findall(r"#(r\d+-[\w-]+)", text.split("</style>")[0]))
    assert named
    assert named <= set(Page(text).ids)


def test_pictures_and_evaluation_data_are_shown_too(world, tmp_path, capsys):
    assert preview(world, "--out", tmp_path / "p.png") == 0
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert preview(world, "--out", tmp_path / "val.html", "--val", "--rows", 2) == 0
    assert "val-" in capsys.readouterr().out


def test_text_of_the_data_cannot_become_markup(world, tmp_path):
    turns = (Turn("human", f"what is {EVIL}?"), Turn("gpt", f"{EVIL} </style><script>alert(1)</script>"))
    write_conversations(tmp_path / "c.json", [Conversation(EVIL, (), turns)] * 3)
    source = f"{{format: conversations, path: {tmp_path}/c.json, images: {tmp_path}}}"
    words = ["--data.train=null", f"--data.train.evil={source}"]
    for name in ("stories", "pairs", "captions", "conversations"):
        words.append(f"--data.train.{name}=null")
    assert preview(world, *words[1:], "--out", tmp_path / "p.html", "--rows", 1) == 0
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "script" not in Page(text).tags
    assert text.count("</style>") == 1


def test_statistics_are_sums_over_the_same_batches(settings_of):
    settings = settings_of("data.batch_size=2")
    found = measure(settings, 10, evaluation=False)
    data = InterleavedDataModule(**settings.data)
    spans, learned, n_images = [], 0, 0
    batches = iter(data.train_dataloader())
    for _ in range(5):
        batch = next(batches)
        spans += batch.provenance
        learned += int((batch.labels != IGNORE_LABEL).sum())
        n_images += batch.n_images
    assert found.n_rows == 10
    assert sum(source.n_tokens for source in found.sources) == sum(span.stop - span.start for span in spans)
    assert sum(source.lengths.total() for source in found.sources) == len(spans)
    assert sum(source.learned for source in found.sources) == learned
    assert sum(source.n_pictures for source in found.sources) == n_images


def test_evaluation_rows_are_counted_once(settings_of):
    found = measure(settings_of(command="validate"), 10_000, evaluation=True)
    stories = next(source for source in found.sources if source.name == "stories")
    assert stories.lengths.total() + stories.left_out.total() >= 1
    assert found.n_empty == 0
    assert all(source.weight is None for source in found.sources)


def test_drops_are_told_by_reason(world, tmp_path, capsys):
    words = ["--config", "smoke", f"--paths.world={world}", "--data.train.captions.min_caption_chars=60"]
    assert main(["data", "stats", *words, "--rows", "40", "--out", str(tmp_path / "s.html")]) == 0
    assert "shorter than 60" in capsys.readouterr().out
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "shorter than 60" in page
    assert "script" not in Page(page).tags
    assert all(load.startswith("#") for load in Page(page).loads)


def test_the_page_of_hand_made_counts():
    first, second = SourceStats("a", 1.0), SourceStats("b", 3.0)
    first.fill, second.fill = [50], [100, 100, 90]
    first.lengths[50], second.lengths[100], second.lengths[90] = 1, 2, 1
    second.pictures[2] = 3
    second.left_out["too short"] = 7
    stats = MixtureStats([first, second], 100, {"packing": "best_fit"})
    assert stats.fill == pytest.approx(340 / 400)
    assert share_rows(stats)[0][:4] == ("a", "25.0%", "25.0%", "1")
    assert share_rows(stats)[1][7:] == ("6", "96.7%")
    page = render_mixture(stats, "test")
    assert "too short" in page
    assert "85.0% full" in page


def test_a_row_without_documents_counts_as_empty_in_training_only(batch_and_rows):
    batch, _, _, _ = batch_and_rows
    from dataclasses import replace

    bare = replace(batch, provenance=())
    training, evaluation = RowCounter({"a": 1.0}), RowCounter({"a": None})
    training.add(bare, 100)
    evaluation.add(bare, 100)
    assert (training.n_empty, evaluation.n_empty) == (6, 0)
