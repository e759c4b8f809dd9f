"""What web documents of all layouts have in common: pictures that lie apart, some of which stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mmi.data.filters import OPTED_OUT, KeptPictures, PictureRules
from mmi.data.filters_opt_out import OptOutList
from mmi.data.skips import SkipError
from mmi.data.sources.config import SourceConfig
from mmi.data.sources.pictures import (
    ExactFolder,
    Picture,
    PictureStore,
    PictureTars,
    folder_or_tars,
    picture_stores,
)
from mmi.data.sources.places import expanded, is_url


@dataclass(frozen=True)
class Candidate:
    """A picture that a document names.

    Args:
        name: Its file name.
        url: Where it was found.
        similarity: To its sentence; ``None`` where the layout has none.
    """

    name: str
    url: str | None
    similarity: float | None = None


class WebPictures:
    """Choose among the pictures of web documents.

    Args:
        config: Paths and rules of the source.
        min_similarity: Pictures below it are left out.
    """

    def __init__(self, config: SourceConfig, min_similarity: float) -> None:
        self._store = _store_of(config)
        self._rules = PictureRules(min_similarity, config.max_images, config.drop_single_image_probability)
        self._opt_out = OptOutList.load(config.opt_out_lists)

    def refuse_opted_out(self, document_id: str, url: str | None) -> None:
        """Leave out a whole document that is on an opt-out list.

        Raises:
            SkipError: If it is.
        """
        if entry := self._opt_out.match(document_id, url=url):
            raise SkipError(document_id, OPTED_OUT, entry)

    def choose(
        self, document_id: str, candidates: Sequence[Candidate], random: Random
    ) -> tuple[KeptPictures, dict[int, Picture]]:
        """Apply the rules; only pictures that are still in question are looked for.

        Args:
            document_id: For messages.
            candidates: All pictures of the document.
            random: Draws which pictures stay and whether a single one does.

        Returns:
            Which candidates stay, and the pictures that were found, by their place among the candidates.

        Raises:
            SkipError: If no picture is left, or the one that is left is dropped by chance.
        """
        found: dict[int, Picture] = {}

        def exists(i: int) -> bool:
            picture = self._store.find(candidates[i].name)
            if picture is not None:
                found[i] = picture
            return picture is not None

        kept = self._rules.choose(
            document_id,
            [candidate.similarity for candidate in candidates],
            random,
            exists=exists,
            opted_out=lambda i: bool(self._opt_out.match(candidates[i].name, url=candidates[i].url)),
            place=self._store.told,
        )
        return kept, found


def _store_of(config: SourceConfig) -> PictureStore:
    """Return where the pictures lie: ``images`` as set, or beside the shards, or among them.

    A folder that holds tars stands for these, since that is what ``mmi data prepare`` writes.
    """
    if config.images is not None and config.images.endswith("/*.tar") and not is_url(config.images):
        return _in_folder(Path(expanded(config.images)).parent, config.paths)
    if config.images is not None and config.image_folder is None:
        return picture_stores(config.images, [Path()])[0]
    if config.image_folder is not None:
        return _in_folder(config.image_folder, config.paths)
    path = Path(config.paths[0])
    folder = path if path.is_dir() else path.parent
    return _in_folder(folder / "images", config.paths) if (folder / "images").is_dir() else ExactFolder(folder)


def _in_folder(images: Path, paths: Sequence[str]) -> PictureStore:
    """Return the tars that belong to single shards, or else the whole folder.

    A tar named like a shard holds the pictures of that shard, as ``mmi data prepare`` writes them. A source that
    streams opens one shard at a time, so that it indexes one tar at a time too: an index of all pictures of MMC4
    (287 bytes each) would be more than memory holds.
    """
    stems = [Path(path).name.removesuffix(".parquet").split(".jsonl")[0] for path in paths]
    tars = [images / f"{stem}.tar" for stem in stems]
    return PictureTars(tars) if all(tar.is_file() for tar in tars) else folder_or_tars(images)
