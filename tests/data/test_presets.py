"""The shipped data configs say what the paper says, agree with each other, and read data laid out as they expect."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from factories import image_item

from mmi.compose import compose, packaged_configs, parse_override
from mmi.config_tree import from_tree
from mmi.data.datamodule import InterleavedDataModule
from mmi.data.sources import SourceConfig, open_source
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, write_mmc4
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar

PRESETS = sorted(path.stem for path in (packaged_configs() / "data").glob("*.yaml"))
SFT_SETS = {
    "llava_mix_665k": "conversations",
    "coco_caption": "karpathy",
    "vqav2": "vqa",
    "chartqa": "chartqa",
    "docvqa": "docvqa",
    "est_vqa": "estvqa",
    "infovqa": "infovqa",
    "st_vqa": "stvqa",
    "textcaps": "textcaps",
    "llavar": "conversations",
    "ocr_vqa": "ocrvqa",
    "dvqa": "dvqa",
}


def sources(name: str, *overrides: str) -> dict[str, SourceConfig]:
    settings = [parse_override(*text.split("=", 1)) for text in overrides]
    train = compose([f"data/{name}.yaml"], settings)["data"]["train"]
    return {key: from_tree(SourceConfig, tree, f"data.train.{key}") for key, tree in train.items()}


@pytest.mark.parametrize("name", PRESETS)
def test_every_source_of_a_preset_is_valid(name: str) -> None:
    assert sources(name)


def test_the_paper_s_recipe_is_one_config() -> None:
    data = compose(["data/pretrain_paper.yaml"])["data"]
    paper = sources("pretrain_paper")
    assert {name: config.weight for name, config in paper.items()} == {
        "mmc4": 4,
        "laion_en": 1,
        "laion_coco": 1,
        "cc12m_objects365": 1,
    }
    mmc4 = paper["mmc4"]
    assert (mmc4.min_similarity, mmc4.max_images, mmc4.drop_single_image_probability) == (0.24, 6, 0.5)
    assert (data["seq_length"], data["max_images_per_row"], mmc4.max_images_per_row) == (2048, 30, 15)
    assert {name: config.min_caption_chars for name, config in paper.items() if config.min_caption_chars > 1} == {
        "laion_en": 10,
        "laion_coco": 10,
    }
    assert {name for name, config in paper.items() if config.ignore_caption_before_image} == {"laion_en", "laion_coco"}
    assert all(config.image_first == 0.5 for config in paper.values())
    assert not paper["mmc4"].lowercases
    assert all(config.lowercases for name, config in paper.items() if name != "mmc4")


def rules(config: SourceConfig) -> dict[str, Any]:
    names = ("format", "image_first", "ignore_caption_before_image", "min_caption_chars", "filters", "lowercases")
    return {name: getattr(config, name) for name in names}


def test_single_presets_have_the_rules_of_the_whole_recipe() -> None:
    paper = sources("pretrain_paper")
    pairs = paper["cc12m_objects365"]
    for name, whole in {
        "laion_2b": paper["laion_en"],
        "laion_coco": paper["laion_coco"],
        "cc12m": pairs,
        "objects365": pairs,
    }.items():
        (single,) = sources(name).values()
        assert rules(single) == rules(whole)


def test_the_open_mixture_is_the_paper_s_with_other_data() -> None:
    paper, free = sources("pretrain_paper"), sources("pretrain_open")
    assert [config.weight for config in free.values()] == [config.weight for config in paper.values()]
    stand_ins = zip(("laion_en", "laion_coco"), ("relaion_en", "relaion_coco"), strict=True)
    for old, new in stand_ins:
        before, after = rules(paper[old]), rules(free[new])
        before.pop("filters"), after.pop("filters")
        assert before == after
    assert free["obelics"].max_images == paper["mmc4"].max_images
    assert free["obelics"].max_images_per_row == paper["mmc4"].max_images_per_row


def test_all_twelve_fine_tuning_sets_are_there_by_name() -> None:
    sft = sources("sft_vqa_caption")
    assert {name: config.format for name, config in sft.items()} == SFT_SETS
    assert all(config.wording is not None and not config.images_learned for config in sft.values())


def test_a_nested_filter_can_be_set_and_taken_away_on_the_command_line() -> None:
    changed = sources("pretrain_paper", "data.train.laion_en.filters.min_aesthetic=5.5")["laion_en"].filters
    assert (changed.min_aesthetic, changed.max_nsfw) == (5.5, 0.5)
    assert sources("pretrain_paper", "data.train.laion_en.filters={}")["laion_en"].filters.active == {}
    other = sources("laion_coco", "data.train.laion_coco.format=pair_jsonl")["laion_coco"]
    assert other.format == "pair_jsonl"


@pytest.mark.parametrize(
    "name", ["sft_grounding", "sft_ade20k", "sft_vist", "sft_pororo", "sft_flintstones", "sft_joint_stories"]
)
def test_generation_and_grounding_presets_read_the_micro_world(name: str, microworld: Path, tmp_path: Path) -> None:
    shutil.copytree(microworld, tmp_path / "data")
    for key, config in sources(name, f"paths.data={tmp_path / 'data'}").items():
        opened = open_source(key, config, 0, where=f"data.train.{key}")
        assert len(opened) > 0
        assert opened[0].n_images >= 1


@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith(("pretrain", "sft"))])
def test_the_document_names_every_source_of_a_preset(name: str) -> None:
    document = packaged_configs().parent / "docs" / "data.md"
    if not document.is_file():
        pytest.skip(f"docs are not part of this installation: no {document}")
    text = document.read_text(encoding="utf-8")
    assert f"data/{name}.yaml" in text
    for key in sources(name):
        assert f"`{key}`" in text, key


@pytest.mark.parametrize("name", ["pretrain_paper", "pretrain_open"])
def test_the_pretraining_mixtures_stream(name: str) -> None:
    assert all(config.streaming for config in sources(name).values())


def stand_in(root: Path, name: str) -> None:
    """The folders of ``data/pretrain_paper.yaml``, two tiny shards each; scores are in the pairs' own records."""
    png = image_item().open().read()
    about = {"aesthetic_score": 6.0, "punsafe": 0.0, "pwatermark": 0.0, "NSFW": "UNLIKELY"}
    for place in (name, "laion-coco", "cc12m", "objects365"):
        for shard in range(2):
            pairs = (TarPair(f"{i}", f"a caption of number {i}", "png", about) for i in range(8))
            write_pair_tar(root / place / f"{shard:05d}.tar", ((pair, png) for pair in pairs))
    for shard in range(2):
        images = [MMC4Image(f"{shard}-{i}.png", 0, 0.5) for i in range(8)]
        pages = [MMC4Document((f"Page {i} is long enough.",), (image, image)) for i, image in enumerate(images)]
        write_mmc4(root / "mmc4" / "shards" / f"{shard}.jsonl.zip", pages)
        (root / "mmc4" / "images").mkdir(exist_ok=True)
        with tarfile.open(root / "mmc4" / "images" / f"{shard}.tar", "w") as archive:
            for image in images:
                member = tarfile.TarInfo(image.image_name)
                member.size = len(png)
                archive.addfile(member, io.BytesIO(png))


def test_the_streamed_mixture_has_the_paper_s_weights(tokenizer_folder: str, tmp_path: Path) -> None:
    """Batches are drawn 1 : 1 : 1 : 2, and the rows of an MMC4 batch are twice as many (Table 11)."""
    stand_in(tmp_path, "laion2b-en")
    settings = {"paths.data": tmp_path, "data.tokenizer": tokenizer_folder, "data.seq_length": 96}
    small = {"batch_size": 7, "num_workers": 0, "image_size": 8, "target_size": None, "tokens_per_image": 3}
    settings |= {f"data.{key}": "null" if value is None else value for key, value in small.items()}
    tree = compose(["data/pretrain_paper.yaml"], [parse_override(key, str(value)) for key, value in settings.items()])
    train = {key: from_tree(SourceConfig, source, key) for key, source in tree["data"].pop("train").items()}
    module = InterleavedDataModule(train=train, **tree["data"])
    n_rows: Counter[str] = Counter()
    for plan in islice(module.training_plans(), 200):
        n_rows.update(row.documents[0].source for row in plan.rows)
        assert not plan.skipped or {skip.reason for skip in plan.skipped} <= {"picture beyond the first 6"}
    shares = {name: count / n_rows.total() for name, count in n_rows.items()}
    paper = dict(zip(("laion_en", "laion_coco", "cc12m_objects365", "mmc4"), (1, 1, 1, 2), strict=True))
    rows_of_batch = dict.fromkeys(paper, 2) | {"mmc4": 4}
    total = sum(paper[name] * rows_of_batch[name] for name in paper)
    expected = {name: paper[name] * rows_of_batch[name] / total for name in paper}
    assert shares == pytest.approx(expected, abs=0.05)
