"""OBELICS: web pages as texts and pictures in reading order.

Needs pyarrow for parquet (``pip install "mmi[parquet]"``). Texts and pictures stay where the page has them. Of the
rules for MMC4 those that have a meaning here apply: at most ``max_images`` pictures, no page without a picture, and
some of those with a single one are dropped; there is no similarity and no sentence to choose a side of.
"""

from __future__ import annotations

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.pack import RowCut
from mmi.data.skips import BROKEN, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.web import Candidate, WebPictures
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.obelics import ObelicsShards, WebImage


class ObelicsSource:
    """Pages of OBELICS files.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Together with epoch, source and document it decides every random choice.
    """

    row_cut: RowCut = "image"
    pairs = False

    def __init__(self, name: str, config: SourceConfig, seed: int) -> None:
        self.name = name
        self._config = config
        self._seed = seed
        self._shards = ObelicsShards(config.paths)
        self._pictures = WebPictures(config, min_similarity=0.0)

    def __len__(self) -> int:
        return min(len(self._shards), self._config.limit or len(self._shards))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a page with the pictures that are left of it.

        Raises:
            SkipError: If the row is broken or opted out, no picture is left, or the one that is left is dropped by
                chance.
        """
        name = self._shards.name(index)
        try:
            record = self._shards[index]
        except FormatError as error:
            raise SkipError(name, BROKEN, str(error)) from None
        self._pictures.refuse_opted_out(name, record.url)
        candidates = [Candidate(image.file_name, _address(image)) for image in record.images]
        kept, pictures = self._pictures.choose(name, candidates, draws(self._seed, epoch, self.name, name))
        items: list[TextItem | ImageItem] = []
        number = -1
        for item in record.items:
            if isinstance(item, WebImage):
                number += 1
                if number in kept.indices:
                    items.append(pictures[number].item(loss=self._config.images_learned))
            elif item.strip():
                text = item.lower() if self._config.lowercases else item
                items.append(TextItem(text, loss=self._config.text_learned))
        return Document(name, self.name, tuple(items), {"left_out": kept.left_out} if kept.left_out else {})


def _address(image: WebImage) -> str | None:
    """Return where a picture was found: its source, or what the row says of it."""
    told = image.metadata.get("src")
    return image.source if "://" in image.source else told if isinstance(told, str) else None
