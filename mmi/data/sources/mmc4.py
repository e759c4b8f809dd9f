"""MMC4: web documents, their pictures placed beside the sentences they match (SPEC 3.2)."""

from __future__ import annotations

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.pack import RowCut
from mmi.data.skips import BROKEN, SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.pictures import Picture
from mmi.data.sources.web import Candidate, WebPictures
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
        self._pictures = WebPictures(config, config.min_similarity)

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
        self._pictures.refuse_opted_out(name, record.url)
        random = draws(self._seed, epoch, self.name, name)
        candidates = [Candidate(image.image_name, image.raw_url, image.matched_sim) for image in record.images]
        kept, pictures = self._pictures.choose(name, candidates, random)
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
