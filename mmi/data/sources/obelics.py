"""OBELICS: web pages as texts and pictures in reading order.

Needs pyarrow for parquet (``pip install "mmi[parquet]"``). Texts and pictures stay where the page has them. Of the
rules for MMC4 those that have a meaning here apply: at most ``max_images`` pictures, no page without a picture, and
some of those with a single one are dropped; there is no similarity and no sentence to choose a side of.
"""

from __future__ import annotations

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.filters import OPTED_OUT, PictureRules
from mmi.data.filters_opt_out import OptOutList
from mmi.data.pack import RowCut
from mmi.data.skips import BROKEN, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.mmc4 import web_pictures
from mmi.data.sources.pictures import Picture
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
        self._store = web_pictures(config)
        self._rules = PictureRules(0.0, config.max_images, config.drop_single_image_probability)
        self._opt_out = OptOutList.load(config.opt_out_lists)

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
        if entry := self._opt_out.match(name, url=record.url):
            raise SkipError(name, OPTED_OUT, entry)
        pages, pictures = record.images, dict[int, Picture]()

        def exists(i: int) -> bool:
            picture = self._store.find(pages[i].file_name)
            if picture is not None:
                pictures[i] = picture
            return picture is not None

        kept = self._rules.choose(
            name,
            [None] * len(pages),
            draws(self._seed, epoch, self.name, name),
            exists=exists,
            opted_out=lambda i: bool(self._opt_out.match(pages[i].file_name, url=_address(pages[i]))),
            place=self._store.told,
        )
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
