"""MMC4: web documents, their pictures placed beside the sentences they match (SPEC 3.2)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mmi.data.document import Document, ImageItem, TextItem
from mmi.data.draws import draws
from mmi.data.pack import RowCut
from mmi.data.skips import NO_FILE, SkipError
from mmi.data.sources.config import SourceConfig
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.mmc4 import MMC4Document, MMC4Image, MMC4Shards


class MMC4Source:
    """Documents of MMC4 shards.

    Pictures that match too weakly or have no file are left out; of more than ``max_images`` a random choice is kept;
    each goes before or after its sentence at random. Nothing else changes the text.

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
        self._shards = MMC4Shards(config.paths, config.image_folder or _folder_beside(Path(config.paths[0])))

    def __len__(self) -> int:
        return min(len(self._shards), self._config.limit or len(self._shards))

    def __getitem__(self, index: int) -> Document:
        return self.document(index, epoch=0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a document as the rules of SPEC 3.2 make it in this epoch.

        Raises:
            SkipError: If the record is broken, no picture is left, or the one that is left is dropped by chance.
        """
        config = self._config
        name = self._shards.name(index)
        try:
            record = self._shards[index]
        except FormatError as error:
            raise SkipError(name, "broken record", str(error)) from None
        left_out: dict[str, int] = {}
        similar = [i for i, image in enumerate(record.images) if image.matched_sim >= config.min_similarity]
        found = [i for i in similar if self._exists(record.images[i])]
        random = draws(self._seed, epoch, self.name, name)
        chosen = sorted(sorted(found, key=lambda _: random.random())[: config.max_images])
        for reason, n in (
            (f"picture less similar to its sentence than {config.min_similarity:g}", len(record.images) - len(similar)),
            (NO_FILE, len(similar) - len(found)),
            (f"picture beyond the first {config.max_images} drawn at random", len(found) - len(chosen)),
        ):
            if n:
                left_out[reason] = n
        if not chosen:
            raise SkipError(name, "no picture left", _told(left_out, str(self._shards.images)))
        if len(chosen) == 1 and random.random() < config.drop_single_image_probability:
            raise SkipError(name, f"single picture, dropped with p={config.drop_single_image_probability:g}")
        first = {i: random.random() < config.image_first_probability for i in chosen}
        return Document(name, self.name, self._items(record, first), {"left_out": left_out} if left_out else {})

    def _exists(self, image: MMC4Image) -> bool:
        try:
            return self._shards.image_path(image).is_file()
        except (FormatError, OSError):
            return False

    def _items(self, record: MMC4Document, first: dict[int, bool]) -> tuple[TextItem | ImageItem, ...]:
        """Place pictures around their sentences; ``first`` says for each kept one whether it precedes."""
        items: list[TextItem | ImageItem] = []
        for number, sentence in enumerate(record.sentences):
            own = [i for i in first if record.images[i].matched_text_index == number]
            items.extend(self._picture(record.images[i]) for i in own if first[i])
            text = sentence.lower() if self._config.lowercase else sentence
            if text.strip():
                items.append(TextItem(text))
            items.extend(self._picture(record.images[i]) for i in own if not first[i])
        return tuple(items)

    def _picture(self, image: MMC4Image) -> ImageItem:
        path = self._shards.image_path(image)
        return ImageItem(partial(open, path, "rb"), str(path), loss=self._config.images_learned)


def _folder_beside(path: Path) -> Path:
    """Return ``images`` beside the shards, or their own folder where there is none."""
    folder = path if path.is_dir() else path.parent
    return folder / "images" if (folder / "images").is_dir() else folder


def _told(left_out: dict[str, int], folder: str) -> str:
    told = "; ".join(f"{n} x {reason}" for reason, n in left_out.items()) or "the record has none"
    return f"{told} (pictures in {folder})"
