"""Tiny things for tests: a network of width 32, a byte tokenizer, drawn documents, a batch."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from mmi.batch import InterleavedBatch
from mmi.config import (
    AdapterConfig,
    CodecConfig,
    DiffusionConfig,
    ImageDecoderConfig,
    LanguageConfig,
    MMFSConfig,
    NetworkConfig,
    ResamplerConfig,
    UNetConfig,
    VisionConfig,
    VisionTrunkConfig,
)
from mmi.data.document import Document, ImageItem, TextItem
from mmi.tokens import SpecialTokens, Tokenizer


class ByteCodec:
    """Bytes as ids 3 to 258; 0, 1 and 2 have a role."""

    vocab_size = 259

    def encode(self, text: str) -> list[int]:
        return [b + 3 for b in text.encode()]

    def decode(self, ids: list[int]) -> str:
        return bytes(i - 3 for i in ids).decode(errors="replace")


def byte_tokenizer() -> Tokenizer:
    return Tokenizer(ByteCodec(), SpecialTokens(bos=1, eos=2, pad=0, image_start=259, image=260))


def tiny_config(
    *,
    n_tokens: int = 3,
    language_mmfs: MMFSConfig | None = None,
    decoder_mmfs: MMFSConfig | None = None,
    language: dict | None = None,
    decoder: dict | None = None,
) -> NetworkConfig:
    """A network of a few thousand parameters with every part of the full one."""
    return NetworkConfig(
        vision=VisionConfig(
            image_size=32,
            trunk=VisionTrunkConfig(
                frozen=False, image_size=32, patch_size=8, d_model=32, n_layers=4, n_heads=4, d_mlp=48
            ),
            adapter=AdapterConfig(d_stem=8, n_heads=4, n_points=2, n_extra_extractors=1),
            resampler=ResamplerConfig(n_tokens=n_tokens, d_model=32, n_layers=2, n_heads=4, d_mlp=48, dropout=0.0),
        ),
        language=LanguageConfig(
            **{
                "frozen": False,
                "vocab_size": 259,
                "d_model": 32,
                "n_layers": 4,
                "n_heads": 4,
                "n_kv_heads": 2,
                "d_head": 8,
                "d_mlp": 48,
                "max_positions": 256,
                "pad_token_id": 0,
                "mmfs_every": 2,
                "mmfs": language_mmfs
                or MMFSConfig(n_heads=4, n_points=2, d_inner=32, base_size=4, max_images=8, offset_init=1.0),
            }
            | (language or {})
        ),
        image_decoder=ImageDecoderConfig(
            **{
                "image_size": 32,
                "unet": UNetConfig(
                    sample_size=8,
                    in_channels=48,
                    block_channels=(16, 32),
                    down_blocks=("DownBlock2D", "CrossAttnDownBlock2D"),
                    up_blocks=("CrossAttnUpBlock2D", "UpBlock2D"),
                    layers_per_block=1,
                    attention_heads=(2, 2),
                    d_condition=32,
                    norm_groups=4,
                ),
                "codec": CodecConfig(kind="pixel_unshuffle", factor=4, latent_channels=48, scaling_factor=1.0),
                "diffusion": DiffusionConfig(prediction="sample"),
                "resampler": ResamplerConfig(
                    n_tokens=5,
                    d_model=32,
                    n_layers=1,
                    n_heads=4,
                    d_mlp=48,
                    cross_attention_every=1,
                    qk_norm=False,
                    dropout=0.0,
                ),
                "mmfs": decoder_mmfs
                or MMFSConfig(
                    n_heads=4,
                    n_points=2,
                    d_inner=32,
                    levels=(0, 1, 2, 3),
                    base_size=None,
                    max_images=4,
                    visible_images=1,
                    offset_init=1.0,
                    train_null_value=False,
                ),
                "n_context_positions": 256,
            }
            | (decoder or {})
        ),
    )


def wake_up(network: torch.nn.Module, seed: int = 0) -> None:
    """Let every branch say something that depends on its input.

    Parameters that start at zero or one get random values. Matrices drawn for wide networks (a deviation of 0.02) are
    enlarged to what suits their width, or attention would be uniform and a wrong order of its keys stay unnoticed.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.numel():
                continue
            if bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif parameter.ndim == 2:
                parameter.mul_(max(1.0, float(parameter.shape[1] ** -0.5 / parameter.std())))


def picture(seed: int = 0, size: int = 32) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def image_item(seed: int = 0, size: int = 32) -> ImageItem:
    def open_picture() -> io.BytesIO:
        stream = io.BytesIO()
        picture(seed, size).save(stream, format="PNG")
        stream.seek(0)
        return stream

    return ImageItem(open=open_picture, uri=f"drawn:{seed}", size=(size, size))


def document(*items: str | int, name: str = "doc") -> Document:
    """A document from strings (text) and ints (the picture with that seed)."""
    return Document(name, "test", tuple(TextItem(i) if isinstance(i, str) else image_item(i) for i in items))


def batch(rows: list[list[tuple[str | int, ...]]], *, n_tokens: int = 3, length: int | None = None) -> InterleavedBatch:
    """Pack documents given as tuples of text and picture seeds, one list of documents per row."""
    tok = byte_tokenizer()
    s = tok.special
    all_ids, all_docs, all_pos, images, places = [], [], [], [], []
    for r, documents in enumerate(rows):
        ids: list[int] = []
        docs: list[int] = []
        pos: list[int] = []
        for d, items in enumerate(documents):
            own = [s.bos]
            for item in items:
                if isinstance(item, str):
                    own += tok.encode(item)
                else:
                    places.append((r, len(ids) + len(own)))
                    images.append(torch.from_numpy(np.asarray(picture(item)).copy()).permute(2, 0, 1))
                    own += [s.image_start] + [s.image] * n_tokens
            own.append(s.eos)
            ids += own
            docs += [d] * len(own)
            pos += range(len(own))
        all_ids.append(ids)
        all_docs.append(docs)
        all_pos.append(pos)
    length = length or max(map(len, all_ids))

    def padded(lists: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([x + [fill] * (length - len(x)) for x in lists])

    text_ids = padded(all_ids, s.pad)
    labels = text_ids.clone()
    labels[(labels == s.pad) | (labels == s.bos) | (labels == s.image)] = -100
    labels[:, 1:][(text_ids[:, :-1] == s.bos) & (text_ids[:, 1:] == s.image_start)] = -100
    pixels = torch.stack(images) if images else torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    return InterleavedBatch(
        text_ids=text_ids,
        labels=labels,
        attention_mask=text_ids != s.pad,
        document_ids=padded(all_docs, -1),
        position_ids=padded(all_pos, 0),
        images=pixels,
        target_images=pixels,
        image_row=torch.tensor([p[0] for p in places], dtype=torch.long),
        image_start=torch.tensor([p[1] for p in places], dtype=torch.long),
        image_loss=torch.ones(len(places), dtype=torch.bool),
        tokens_per_image=n_tokens,
    )
