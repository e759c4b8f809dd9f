"""A captioning model of transformers, and the file that keeps what it said of each picture."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmi.config import ConfigError
from mmi.data.document import ImageItem
from mmi.data.images import ImageError, open_rgb
from mmi_eval.formats.errors import FormatError, dump_json, parse_json
from mmi_eval.formats.pair_tars import PairTars

Progress = Callable[[int, int], None]
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
MODELS = {"blip": "BlipForConditionalGeneration", "blip-2": "Blip2ForConditionalGeneration"}
"""``model_type`` of a folder's ``config.json`` and the class of transformers that reads it."""
_WEIGHTS = (".safetensors", ".bin", ".json", ".txt", ".model")


@dataclass(frozen=True)
class Captioner:
    """A model with the way it is asked.

    Args:
        name: What tells its captions from those of another model or way of asking.
        model: The network, in evaluation mode.
        processor: Turns pictures and words into its inputs, and ids into text.
        prompt: Words the caption begins with.
        max_new_tokens: Longest caption.
        n_beams: Beams of the search.
    """

    name: str
    model: Any
    processor: Any
    prompt: str
    max_new_tokens: int
    n_beams: int

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Return a caption for each picture.

        Args:
            images: In RGB.
        """
        words = {"text": [self.prompt] * len(images), "padding": True} if self.prompt else {}
        inputs = self.processor(images=list(images), return_tensors="pt", **words)
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            ids = self.model.generate(
                **inputs, max_new_tokens=self.max_new_tokens, num_beams=self.n_beams, do_sample=False
            )
        return [" ".join(text.split()) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]


def load_captioner(model: str, *, device: str, prompt: str, max_new_tokens: int, n_beams: int) -> Captioner:
    """Load a BLIP or BLIP-2 model.

    Args:
        model: A folder, or a name on the hub.
        device: Such as ``cpu``; ``auto`` takes a GPU where there is one.
        prompt: Words the caption begins with.
        max_new_tokens: Longest caption.
        n_beams: Beams of the search.

    Raises:
        FileNotFoundError: If a folder holds no model.
        ConfigError: If it is a model of another kind, or cannot be loaded.
    """
    import transformers

    place = Path(model).expanduser()
    if not place.is_dir() and (model.startswith((".", "/", "~")) or model.count("/") != 1):
        raise FileNotFoundError(f"{model} is no folder of a captioning model and no hub name (OWNER/NAME).")
    folder = place if place.is_dir() else _fetched(model)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json; give the folder of a BLIP or BLIP-2 model.")
    try:
        config = parse_json((folder / "config.json").read_bytes(), str(folder / "config.json"))
    except FormatError as error:
        raise ConfigError(str(error)) from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in MODELS:
        raise ConfigError(f"{folder} holds a model of type {kind}; expected {' or '.join(MODELS)}.")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        where = torch.device(chosen)
        dtype = torch.float16 if where.type == "cuda" else torch.float32
        network = getattr(transformers, MODELS[kind]).from_pretrained(folder, dtype=dtype, local_files_only=True)
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        network = network.to(where).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the captioning model in {folder} cannot be loaded on {chosen}: {error}") from error
    asked = f"{_fingerprint(folder)[:16]}-{n_beams}beams-{max_new_tokens}tokens" + (f"-{prompt}" if prompt else "")
    return Captioner(f"{kind}-{asked}", network, processor, prompt, max_new_tokens, n_beams)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        patterns = ["*.json", "*.txt", "*.safetensors", "*.model"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"{name} could not be had from the hub ({type(error).__name__}); fetch it by hand and give its folder."
        ) from None


def _fingerprint(folder: Path) -> str:
    """Return a hash of the model's files: the same weights have the same name wherever they lie."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _WEIGHTS:
            with path.open("rb") as file:
                whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


@dataclass
class CaptionCache:
    """What models said of pictures, as lines that are only ever added to.

    Args:
        path: The file.
        known: Captions by SHA-256 of the picture and name of the model.
        lines: Which picture, under which path, already has its line for a model.
    """

    path: Path
    known: dict[tuple[str, str], str] = field(default_factory=dict)
    lines: set[tuple[str, str, str]] = field(default_factory=set)

    @classmethod
    def read(cls, path: str | Path) -> CaptionCache:
        """Read a file, or begin one; a last line that a stopped run left unfinished is cut off.

        Raises:
            FormatError: If a line is no caption of this command.
        """
        cache = cls(Path(path))
        if not cache.path.is_file():
            return cache
        data = cache.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            row = parse_json(line, f"{path}, row {number}")
            row = row if isinstance(row, dict) else {}
            values = [row.get(key) for key in ("image", "sha256", "model", "caption")]
            if not all(isinstance(value, str) for value in values):
                raise FormatError(
                    f"{path}, row {number} is no line of mmi data caption (image, caption, sha256, model); choose "
                    "another --out."
                )
            image, digest, model, caption = map(str, values)
            cache.known[digest, model] = caption
            cache.lines.add((image, digest, model))
        if len(whole) < len(data):
            with cache.path.open("r+b") as file:
                file.truncate(len(whole))
        return cache

    def add(self, image: str, digest: str, model: str, caption: str) -> None:
        """Append a line and keep it; it is on disk when this returns."""
        line = dump_json({"image": image, "caption": caption, "sha256": digest, "model": model})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.known[digest, model] = caption
        self.lines.add((image, digest, model))


@dataclass
class Captioned:
    """What a run did.

    Args:
        written: Lines added.
        kept: Lines that were there.
        unreadable: A sentence for each picture that cannot be read.
    """

    written: int = 0
    kept: int = 0
    unreadable: list[str] = field(default_factory=list)


def pictures_below(folder: str | Path) -> list[ImageItem]:
    """Return the pictures below a folder, or in its pair tars, in a fixed order; ``uri`` is the name below the folder.

    Raises:
        FileNotFoundError: If it is no folder, or holds none.
        FormatError: If a tar is damaged.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the pictures with --images.")
    if any(root.glob("*.tar")):
        tars = PairTars(root)
        return [ImageItem(partial(tars.open_image, index), tars.name(index)) for index in range(len(tars))]
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise FileNotFoundError(f"{root} holds no pictures ({', '.join(PICTURES)}) and no tars; check --images.")
    return [ImageItem(partial(open, path, "rb"), path.relative_to(root).as_posix()) for path in found]


def caption_pictures(
    pictures: Sequence[ImageItem],
    captioner: Captioner,
    cache: CaptionCache,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> Captioned:
    """Caption what has no caption yet.

    Args:
        pictures: What to caption; ``uri`` is what the lines call them.
        captioner: The model.
        cache: What is known; grows with every batch.
        batch_size: Pictures captioned at once.
        progress: Told pictures done and all pictures.
    """
    done = Captioned()
    waiting: list[tuple[str, str, Image.Image]] = []

    def flush() -> None:
        if waiting:
            for (name, digest, _), text in zip(waiting, captioner.caption([w[2] for w in waiting]), strict=True):
                cache.add(name, digest, captioner.name, text)
                done.written += 1
            waiting.clear()

    for number, item in enumerate(pictures, start=1):
        try:
            with item.open() as stream:
                data = stream.read()
        except (OSError, FormatError) as error:
            done.unreadable.append(f"picture {item.uri} cannot be read ({error}).")
            continue
        digest = hashlib.sha256(data).hexdigest()
        if (item.uri, digest, captioner.name) in cache.lines:
            done.kept += 1
        elif (digest, captioner.name) in cache.known:
            cache.add(item.uri, digest, captioner.name, cache.known[digest, captioner.name])
            done.written += 1
        elif data:
            try:
                waiting.append((item.uri, digest, open_rgb(ImageItem(partial(io.BytesIO, data), item.uri))))
            except ImageError as error:
                done.unreadable.append(str(error))
        else:
            done.unreadable.append(f"picture {item.uri} is empty.")
        if len(waiting) >= batch_size:
            flush()
        if progress is not None:
            progress(number, len(pictures))
    flush()
    return done
