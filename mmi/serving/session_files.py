"""Sessions on disk: what was said and seen, from which everything else is computed again.

A folder holds ``session.json`` (texts, token ids, settings) and ``session.safetensors`` (pictures as uint8[H, W, 3],
the state of the random numbers). Keys and values are not kept: with a large model they take about a megabyte per token
and belong to one device and type, while reading all tokens and pictures once more takes one pass and gives the same
up to rounding. No code is loaded; the folder is written beside its place and renamed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmi.config_tree import from_tree, to_tree
from mmi.inference import Generator
from mmi.models.generation import GenerationSettings
from mmi.serving.items import SessionError, SessionItem

SCHEMA_VERSION = 1
JSON, TENSORS = "session.json", "session.safetensors"
_RANDOM = "random_state"


@dataclass(frozen=True)
class SavedSession:
    """A session without what can be computed from it.

    Args:
        settings: Its settings.
        items: Texts and pictures in reading order.
        n_read: How many of them had been read.
        ids: Token ids read so far.
        image_starts: Position of the ``<BoI>`` of each picture read.
        unread: Ids generated but not read.
        expects_image: The last text ended with an image start.
        ended: The last text ended with ``</s>``.
        picture_begun: The ``<BoI>`` of the first unread item has been read.
        random_state: uint8 state of the random numbers.
    """

    settings: GenerationSettings
    items: tuple[SessionItem, ...]
    n_read: int
    ids: list[int]
    image_starts: list[int]
    unread: list[int]
    expects_image: bool
    ended: bool
    picture_begun: bool
    random_state: Tensor


def write_session(folder: Path, saved: SavedSession, generator: Generator) -> None:
    """Write a session; one that was there before is replaced.

    Raises:
        SessionError: If the folder holds something else.
    """
    folder = folder.resolve()
    if folder.exists() and not _is_session(folder):
        raise SessionError(f"{folder} holds something else than a session; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    tensors = {_RANDOM: saved.random_state.cpu()}
    entries = []
    for number, item in enumerate(saved.items):
        entry: dict[str, Any] = {"generated": item.generated}
        if isinstance(item.content, str):
            entry |= {"text": item.content, "closed": item.closed}
        else:
            entry |= {"picture": f"picture-{number}", "seed": item.seed}
            tensors[f"picture-{number}"] = torch.from_numpy(np.array(item.content))
        entries.append(entry)
    record = {
        "schema_version": SCHEMA_VERSION,
        "network": _fingerprint(generator),
        "settings": to_tree(saved.settings),
        "items": entries,
        "n_read": saved.n_read,
        "ids": saved.ids,
        "image_starts": saved.image_starts,
        "unread": saved.unread,
        "expects_image": saved.expects_image,
        "ended": saved.ended,
        "picture_begun": saved.picture_begun,
    }
    save_file(tensors, draft / TENSORS)
    (draft / JSON).write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    old = draft.with_name(f"{draft.name}-old")
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _is_session(folder: Path) -> bool:
    """Say whether a folder holds nothing but a session that was written here."""
    if not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        return True
    if not names <= {JSON, TENSORS} or JSON not in names:
        return False
    try:
        record = json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "schema_version" in record and "network" in record


def read_session(folder: Path, generator: Generator) -> SavedSession:
    """Read a session and check that it belongs to this network and fits together.

    Raises:
        SessionError: If it does not, or the files are damaged or missing.
    """
    path = folder / JSON
    if not path.is_file():
        raise SessionError(f"{folder} holds no session; expected {JSON} and {TENSORS}, as Session.save writes them.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        version = record["schema_version"]
        if version > SCHEMA_VERSION:
            raise SessionError(
                f"{path} has schema_version {version} but this version of mmi reads up to {SCHEMA_VERSION}; update mmi."
            )
        _check_network(record["network"], _fingerprint(generator), path)
        saved = SavedSession(
            settings=from_tree(GenerationSettings, record["settings"], "settings"),
            items=tuple(_item(entry, tensors) for entry in record["items"]),
            n_read=int(record["n_read"]),
            ids=[int(i) for i in record["ids"]],
            image_starts=[int(i) for i in record["image_starts"]],
            unread=[int(i) for i in record["unread"]],
            expects_image=bool(record["expects_image"]),
            ended=bool(record["ended"]),
            picture_begun=bool(record["picture_begun"]),
            random_state=tensors[_RANDOM],
        )
        _check_places(saved, generator)
    except SessionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise SessionError(f"the session in {folder} is damaged ({reason}); start a new one.") from error
    return saved


def _item(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SessionItem:
    if "text" in entry:
        return SessionItem(str(entry["text"]), bool(entry["generated"]), closed=bool(entry["closed"]))
    pixels = tensors[entry["picture"]]
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.numel():
        raise ValueError(f"{entry['picture']} is no uint8[H, W, 3] picture")
    seed = entry["seed"]
    picture = Image.fromarray(pixels.numpy())
    return SessionItem(picture, bool(entry["generated"]), seed=None if seed is None else int(seed))


def _check_places(saved: SavedSession, generator: Generator) -> None:
    """Refuse ids and places that a network could not read."""
    special = generator.tokenizer.special
    if not all(0 <= i <= max(special.image, special.image_start) for i in (*saved.ids, *saved.unread)):
        raise ValueError("an id is none of the vocabulary")
    n_pictures = sum(not item.is_text for item in saved.items[: saved.n_read])
    if not 0 <= saved.n_read <= len(saved.items) or n_pictures != len(saved.image_starts):
        raise ValueError("items and tokens do not belong together")
    n = generator.network.config.tokens_per_image
    for start in saved.image_starts:
        if start < 0 or saved.ids[start : start + 1 + n] != [special.image_start] + [special.image] * n:
            raise ValueError(f"no picture begins at token {start}")


def _fingerprint(generator: Generator) -> dict[str, Any]:
    """Return what a network must have in common with the one of a session."""
    config = generator.network.config
    return {
        "weights": generator.model_hash,
        "vocab_size": config.language.vocab_size,
        "tokens_per_image": config.tokens_per_image,
        "image_size": config.vision.image_size,
        "crop": generator.crop,
    }


def _check_network(found: Mapping[str, Any], here: Mapping[str, Any], path: Path) -> None:
    for key, value in here.items():
        other = found[key]
        # A network that was built in memory has no hash.
        if value != other and (key != "weights" or (value and other)):
            raise SessionError(
                f"{path} belongs to another network: its {key} is {str(other)[:12]}, here it is {str(value)[:12]}; "
                "load the checkpoint it was made with."
            )
