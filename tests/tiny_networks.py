"""Judging networks of the real kinds, tiny or with random weights, in the files and folders they come in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    SwinConfig,
)

from mmi_eval.networks.inception_trunk import InceptionTrunk

N_CLASSES = 5
TASK_LENGTH = 30


def random_trunk() -> InceptionTrunk:
    """A trunk of random weights through which pictures stay different, with batch statistics unlike a fresh one's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = InceptionTrunk()
        for name, value in trunk.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(std=0.1)
            elif name.endswith(("running_var", "bn.weight")):
                value.uniform_(0.5, 1.5)
            elif name.endswith("conv.weight"):
                torch.nn.init.kaiming_normal_(value)
    return trunk.eval()


def write_inception(folder: Path) -> tuple[Path, str]:
    """Write weights as pytorch-fid has them: with a classifier, without counters; return file and hash."""
    state = {k: v for k, v in random_trunk().state_dict().items() if not k.endswith("num_batches_tracked")}
    path = folder / "pt_inception.pth"
    torch.save({**state, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def write_clip(folder: Path) -> Path:
    """Write a CLIP of two layers that reads letters."""
    tokenizer = _tokenizer()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    first, last = (tokenizer.convert_tokens_to_ids(t) for t in ("<|startoftext|>", "<|endoftext|>"))
    marks = {"bos_token_id": first, "eos_token_id": last, "pad_token_id": last}
    config = CLIPConfig(
        text_config={**size, **marks, "vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sides = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=sides).save_pretrained(folder)
    return folder


def write_oneformer(folder: Path) -> Path:
    """Write a OneFormer with a Swin backbone that tells five classes apart."""
    tokenizer = _tokenizer()
    backbone = SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
    )
    backbone.out_features = ["stage1", "stage2", "stage3", "stage4"]
    config = OneFormerConfig(
        backbone_config=backbone,
        num_queries=6,
        task_seq_len=TASK_LENGTH,
        text_encoder_width=16,
        text_encoder_context_length=TASK_LENGTH,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=len(tokenizer),
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        init_std=1.0,
    )
    config.num_labels = N_CLASSES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OneFormerForUniversalSegmentation(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_()  # so that one picture has several classes
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    names = {str(number): {"name": f"class {number}", "isthing": 0} for number in range(N_CLASSES)}
    (folder / "classes.json").write_text(json.dumps(names))
    record = {"size": {"shortest_edge": 32, "longest_edge": 64}, "class_info_file": "ade20k_panoptic.json"}
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    return folder


def _tokenizer() -> CLIPTokenizer:
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])
