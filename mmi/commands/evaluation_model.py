"""What a benchmark asks, put to a network: ``mmi_eval.model.InterleavedModel`` over a ``Generator``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmi.checkpoints.run_folder import RunFolder, Weights, average_hash, load_network
from mmi.checkpoints.storage import MODEL, read_manifest, sha256
from mmi.inference import Generator, crop_of
from mmi.models.build import build_network
from mmi.models.image_sampling import ImageSampling
from mmi.models.mm_interleaved import MMInterleaved
from mmi.models.text_decoding import TextDecoding
from mmi_eval import model as asked
from mmi_eval.results import Checkpoint, Condition


class EvaluatedModel:
    """A generator as benchmarks see it.

    Args:
        generator: Network and tokenizer.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    @property
    def draws(self) -> bool:
        """Whether it has an image decoder."""
        return self.generator.network.image_decoder is not None

    def generate_text(self, prompts: Sequence[asked.Prompt], decoding: asked.TextDecoding) -> list[str]:
        """Continue each prompt with text up to the next picture or the end."""
        return self.generator.generate_text(prompts, _settings(decoding))

    def continue_text(self, prompts: Sequence[asked.Prompt], decoding: asked.TextDecoding) -> list[asked.Continuation]:
        """Continue each prompt with text up to the next picture or the end, and say which of them it is."""
        tokenizer = self.generator.tokenizer
        then: dict[int, asked.Following] = {tokenizer.special.image_start: "picture", tokenizer.special.eos: "end"}
        rows = self.generator.read(prompts).write(_settings(decoding)) if prompts else []
        return [asked.Continuation(tokenizer.decode(ids).strip(), then.get(ids[-1], "more text")) for ids in rows]

    def generate_image(
        self, prompts: Sequence[asked.Prompt], drawing: asked.Drawing, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """Draw the picture after each prompt."""
        settings = ImageSampling(
            n_steps=drawing.n_steps,
            guidance_scale=drawing.guidance_scale,
            sampler=drawing.sampler,
            spacing=drawing.spacing,
        )
        return self.generator.generate_image(prompts, settings, seeds)

    def score_continuations(self, prompt: asked.Prompt, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability of each continuation."""
        return self.generator.score_continuations(prompt, continuations)

    def image_losses(
        self, prompts: Sequence[asked.Prompt], images: Sequence[Image.Image], seeds: Sequence[int]
    ) -> list[float]:
        """Return the denoising loss of each picture after its prompt."""
        return self.generator.image_losses(prompts, images, seeds)


def _settings(decoding: asked.TextDecoding) -> TextDecoding:
    return TextDecoding(
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens,
        n_beams=decoding.n_beams,
        length_penalty=decoding.length_penalty,
        repetition_penalty=decoding.repetition_penalty,
        do_sample=False,
    )


def find_checkpoint(run: Path, which: str, weights: Weights = "trained") -> tuple[Path, Checkpoint]:
    """Return the folder of a checkpoint and what identifies it.

    Args:
        run: The run folder.
        which: See ``RunFolder.find_checkpoint``.
        weights: ``ema`` identifies its running averages, whose scores are kept apart.

    Raises:
        ConfigError: If the folder is none of a run, or has no such checkpoint or averages.
    """
    folder = RunFolder(run)
    settings = folder.read_config()
    place = folder.find_checkpoint(which)
    manifest = read_manifest(place)
    name = place.name.removesuffix(".old")
    if weights == "ema":
        return place, Checkpoint(f"{name}-ema", manifest.step, average_hash(place), _around(folder, settings))
    return place, Checkpoint(name, manifest.step, manifest.files[MODEL], _around(folder, settings))


def _around(folder: RunFolder, settings: Mapping[str, Any]) -> str:
    """Hash what decides answers beside the weights: network, switches, tokenizer, how pictures are made square."""
    model, crop = settings.get("model") or {}, crop_of(settings)
    decisive = [model.get("network"), model.get("compat"), *([] if crop == "center" else [crop])]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
    for file in sorted(folder.tokenizer.glob("*")):
        digest.update(f"{file.name} {sha256(file)} ".encode())
    return digest.hexdigest()[:16]


def load_model(
    run: Path, checkpoint: Path, condition: Condition, device: str, weights: Weights = "trained"
) -> EvaluatedModel:
    """Rebuild a network and take from it what a condition says; pictures are the runner's affair.

    Raises:
        ConfigError: If the checkpoint is damaged or of another architecture.
    """
    loaded = load_network(run, str(checkpoint), weights=weights)
    network = loaded.network
    if condition.weights == "untrained":
        network = untrained_like(network)
    if not condition.mmfs:
        network.silence_mmfs()
    return EvaluatedModel(Generator(network.to(device), loaded.require_tokenizer(), crop_of(loaded.config)))


def untrained_like(network: MMInterleaved) -> MMInterleaved:
    """Build the same network with fresh weights (seed 0); parts that are never trained keep theirs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = build_network(network.config, network.compat, load_weights=False)
    frozen = {name: p for name, p in network.named_parameters() if not p.requires_grad}
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if name in frozen:
                parameter.copy_(frozen[name])
    return fresh.eval()
