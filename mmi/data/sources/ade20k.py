"""ADE20K for drawing from label maps: the labels as colours, the caption, the photograph (SPEC 3.5, 3.7).

``path`` is ``training.json`` or ``validation.json`` in the root of the data set, ``images`` and ``annotations`` beside
it; ``split`` names the phase where the file's name does not. Colours are made from the labels when a picture is read.
With ``image_first_probability: 0`` the caption comes first. Only the photograph is learned.
"""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mmi.config import ConfigError
from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.skips import EMPTY_CAPTION, NO_FILE, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.pictures import Picture
from mmi.data.sources.records import DocumentNames, RecordSource
from mmi_eval.formats.ade20k import CaptionedScene, colour_labels, read_labels, read_scene_captions
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.png_files import encode_rgb


class Ade20kSource(RecordSource[tuple[Path, str, CaptionedScene]]):
    """One document per photograph.

    Args:
        name: Name in the mixture.
        config: Paths and rules; ``images`` names another root of ``images`` and ``annotations``.
        seed: Together with epoch, source and document it decides what comes first.
    """

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        if config.images is not None and config.image_folder is None:
            raise ConfigError(f"images of source {name} is {config.images}; ade20k needs a folder of this machine.")
        names = DocumentNames(config.paths)
        records = [
            (names.name(file, scene.image_id), (config.image_folder or Path(path).parent, _phase(path, config), scene))
            for file, path in enumerate(config.paths)
            for scene in read_scene_captions(path)
        ]
        super().__init__(name, config, seed, records)

    def _document(self, document_id: str, record: tuple[Path, str, CaptionedScene], epoch: int) -> Document:
        """Return colours, caption and photograph.

        Raises:
            SkipError: If a picture has no file or there is no caption.
        """
        root, phase, scene = record
        self._refuse_opted_out(document_id, scene.image_id)
        caption = scene.caption.strip().removesuffix(".")
        if not caption:
            raise SkipError(document_id, EMPTY_CAPTION, f"{scene.image_id} in {phase}.json")
        try:
            photo, labels = scene.image_path(root, phase), scene.labels_path(root, phase)
        except (FileNotFoundError, FormatError) as error:
            raise SkipError(document_id, NO_FILE, str(error)) from None
        if not labels.is_file():
            raise SkipError(document_id, NO_FILE, str(labels))
        colours = ImageItem(partial(open_colours, labels), str(labels), loss=False)
        # The official system adds the full stop.
        text = TextItem(f"{caption}.", loss=self._config.text_learned)
        drawn = Picture(partial(open, photo, "rb"), str(photo), photo).item(loss=self._config.images_learned)
        first = draws(self._seed, epoch, self.name, document_id).random() < self._config.image_first
        return Document(document_id, self.name, (colours, text, drawn) if first else (text, colours, drawn))


def open_colours(labels: Path) -> BinaryIO:
    """Return a label picture in the official colours, as a PNG.

    Raises:
        FormatError: If it is no 8-bit label picture.
    """
    return BytesIO(encode_rgb(colour_labels(read_labels(labels))))


def _phase(path: str, config: SourceConfig) -> str:
    return config.split or Path(path).stem
