"""Two small ablations that share cells, on the smallest network and a micro-world of a few scenes.

``tokens`` stands for table 5a and ``loss_weights`` for a piece of table 7; the default cell and the one without MMFS
are in both. A cell trains and evaluates in seconds. Tests import it as ``ablation.toy_ablation``.
"""

from __future__ import annotations

from pathlib import Path

WORLD = "w"
"""Folder of the micro-world, relative to the working directory; the recipe's ``prepare`` makes it."""

RECIPE = """\
schema_version: 1
title: Toy cells
hardware: one thread of a CPU
prepare:
  - {makes: w/tokenizer, command: [data, microworld, --out, w, --size, 8]}
warm_start: warm_start.yaml
config: cell.yaml
evaluation: {config: evaluation.yaml, suite: cells, conditions: true, breakdown: true}
stop_after_minutes: 5
columns:
  accuracy: {label: quiz, task: micro_quiz, score: accuracy, paper: okvqa_acc, scale: 100}
  blank: {label: "quiz, blank", task: micro_quiz, score: accuracy, condition: blank, scale: 100}
  cider: {label: CIDEr, task: coco_caption, score: cider, paper: coco_karpathy_cider, scale: 100}
"""

WARM_START = """\
# What every toy cell starts from.
base: [smoke.yaml]
paths: {world: w}
trainer: {max_steps: 4, log_every_n_steps: 2}
data:
  train: {pairs: null, captions: null, stories: null}
  val: null
run: {name: toy-warm-start, save_every: 4, keep: 0, panel_every: 0}
"""

CELL = """\
# A toy cell: four steps from the warm start; resampler and MMFS are new.
base: [smoke.yaml]
paths: {world: w}
trainer: {max_steps: 4, log_every_n_steps: 2}
data:
  train: {pairs: null, captions: null, stories: null}
  val: null
run:
  name: toy-cell
  start_fresh: ["visual_tokenizer.resampler.*", "*mmfs*"]
  save_every: 4
  keep: 0
  panel_every: 0
"""

EVALUATION = """\
paths: {world: w}
suites: {cells: [micro_quiz, coco_caption]}
tasks:
  micro_quiz:
    conversations: ${paths.world}/conversations/test.json
    images: ${paths.world}/conversations/images
    tags: ${paths.world}/tags/conversations_test.jsonl
    train_conversations: ${paths.world}/conversations/train.json
    train_tags: ${paths.world}/tags/conversations_train.jsonl
    split: test
    n: 6
    prompt: "{question}"
    decoding: {max_new_tokens: 2}
    seen: {in_house: true, images: false, annotations: false}
  coco_caption:
    captions: ${paths.world}/coco/annotations/captions_test.json
    images: ${paths.world}/coco/images
    train_captions: ${paths.world}/coco/annotations/captions_train.json
    split: test
    n: 4
    prompt: "{image}"
    decoding: {max_new_tokens: 8}
    tokens_without_java: java-free
    seen: {in_house: true, images: false, annotations: false}
conditions:
  - {control: blank, tasks: [micro_quiz]}
"""

TOKENS = """\
schema_version: 1
title: Visual tokens with and without MMFS
question: Can MMFS replace visual tokens?
paper_table: "5a"
recipe: {small: toy}
seeds: {small: 2}
axes:
  tokens:
    label: visual tokens
    values:
      few:
        label: {small: "2"}
        paper: {num_tokens: 32}
        set: {small: {model.network.vision.resampler.n_tokens: 2}}
      many:
        label: {small: "4"}
        paper: {num_tokens: 256}
        set: {small: {model.network.vision.resampler.n_tokens: 4}}
  mmfs: &mmfs
    label: MMFS
    values:
      "off":
        label: without
        paper: {mmfs: false}
        set: {all: {model.network.language.mmfs.enabled: false, model.network.image_decoder.mmfs.enabled: false}}
      "on": {label: with, paper: {mmfs: true}}
rows: all
columns: [accuracy, blank, cider]
claims:
  - {better: {tokens: few, mmfs: "on"}, than: {tokens: few, mmfs: "off"}, columns: [accuracy], text: "Table 5a: better"}
plots:
  - {title: Token efficiency, x: tokens, line: mmfs, columns: [accuracy]}
"""

LOSS_WEIGHTS = """\
schema_version: 1
title: Weight of the image loss
question: How much should pictures count?
paper_table: null
recipe: {small: toy}
seeds: {small: 1}
axes:
  weight:
    label: weight of the image loss
    values:
      ten: {label: "10", set: {all: {model.loss.image_weight: 10}}}
      one: {label: "1", set: {all: {model.loss.image_weight: 1}}}
  mmfs:
    label: MMFS
    values:
      "on": {label: with}
      "off":
        label: without
        set: {all: {model.network.language.mmfs.enabled: false, model.network.image_decoder.mmfs.enabled: false}}
columns: [accuracy, cider]
claims:
  - {better: {weight: ten, mmfs: "on"}, than: {weight: one, mmfs: "on"}, columns: [cider], text: ten is better than one}
plots:
  - {title: Loss weight, x: weight, columns: [cider]}
"""


def write_toy_ablation(folder: Path) -> Path:
    """Write ``experiments/`` with the recipe ``toy`` and two experiments below a folder, and return it.

    Commands have to be run inside ``folder``: the recipe makes and reads the world ``w`` there.
    """
    root = folder / "experiments"
    for name, text in {
        "recipes/toy/recipe.yaml": RECIPE,
        "recipes/toy/warm_start.yaml": WARM_START,
        "recipes/toy/cell.yaml": CELL,
        "recipes/toy/evaluation.yaml": EVALUATION,
        "tokens/experiment.yaml": TOKENS,
        "loss_weights/experiment.yaml": LOSS_WEIGHTS,
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root
