"""MMC4: web documents, their pictures placed beside the sentences they match (SPEC 3.2)."""

from __future__ import annotations

from pathlib import Path

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.filters import OPTED_OUT, PictureRules
from mmi.data.filters_opt_out import OptOutList
from mmi.data.pack import RowCut
from mmi.data.skips import BROKEN, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.pictures import ExactFolder, Picture, PictureStore, folder_or_tars, picture_stores
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Shards


class MMC4Source:
    """Documents of MMC4 shards.

    Pictures that match too weakly, are on an opt-out list or have no file are left out; of more than ``max_images`` a
    random choice is kept; each goes before or after its sentence at random. Nothing else changes the text.

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
        self._shards = MMC4Shards(config.paths)
        self._store = web_pictures(config)
        self._rules = PictureRules(config.min_similarity, config.max_images, config.drop_single_image_probability)
        self._opt_out = OptOutList.load(config.opt_out_lists)

    def __len__(self) -> int:
        return min(len(self._shards), self._config.limit or len(self._shards))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a document as the rules of SPEC 3.2 make it in this epoch.

        Raises:
            SkipError: If the record is broken or opted out, no picture is left, or the one that is left is dropped by
                chance.
        """
        name = self._shards.name(index)
        try:
            record = self._shards[index]
        except FormatError as error:
            raise SkipError(name, BROKEN, str(error)) from None
        if entry := self._opt_out.match(name, url=record.url):
            raise SkipError(name, OPTED_OUT, entry)
        random = draws(self._seed, epoch, self.name, name)
        pictures: dict[int, Picture] = {}

        def exists(i: int) -> bool:
            picture = self._store.find(record.images[i].image_name)
            if picture is not None:
                pictures[i] = picture
            return picture is not None

        kept = self._rules.choose(
            name,
            [image.matched_sim for image in record.images],
            random,
            exists=exists,
            opted_out=lambda i: bool(self._opt_out.match(record.images[i].image_name, url=record.images[i].raw_url)),
            place=self._store.told,
        )
        first = {i: random.random() < self._config.image_first for i in kept.indices}
        metadata = {"left_out": kept.left_out} if kept.left_out else {}
        return Document(name, self.name, self._items(record, pictures, first), metadata)

    def _items(
        self, record: MMC4Document, pictures: dict[int, Picture], first: dict[int, bool]
    ) -> tuple[TextItem | ImageItem, ...]:
        """Place pictures around their sentences; ``first`` says for each kept one whether it precedes."""
        learned = self._config.images_learned
        items: list[TextItem | ImageItem] = []
        for number, sentence in enumerate(record.sentences):
            own = [i for i in first if record.images[i].matched_text_index == number]
            items.extend(pictures[i].item(loss=learned) for i in own if first[i])
            text = sentence.lower() if self._config.lowercases else sentence
            if text.strip():
                items.append(TextItem(text, loss=self._config.text_learned))
            items.extend(pictures[i].item(loss=learned) for i in own if not first[i])
        return tuple(items)


def web_pictures(config: SourceConfig) -> PictureStore:
    """Return where the pictures of web documents lie: ``images`` as set, or beside the shards, or among them.

    A folder that holds tars stands for these, since that is what ``mmi data prepare`` writes.
    """
    if config.images is not None and config.image_folder is None:
        return picture_stores(config.images, [Path()])[0]
    if config.image_folder is not None:
        return folder_or_tars(config.image_folder)
    path = Path(config.paths[0])
    folder = path if path.is_dir() else path.parent
    return folder_or_tars(folder / "images") if (folder / "images").is_dir() else ExactFolder(folder)
