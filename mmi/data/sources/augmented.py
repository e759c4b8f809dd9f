"""A source whose pictures are mirrored and cut at random."""

from __future__ import annotations

from collections.abc import Sequence

from mmi.data.augment import AugmentConfig, augmented
from mmi.data.document import Document
from mmi.data.pack import RowCut
from mmi.data.skips import SkipRecord
from mmi.data.sources.config import Source


class AugmentedSource:
    """The documents of another source, as they are seen in each epoch.

    Args:
        source: The documents as they are.
        config: What is done to them.
        seed: Together with epoch, source and document it decides what is done.
        height_axis: Which of the official mistakes is meant by ``config.official``.
    """

    def __init__(self, source: Source, config: AugmentConfig, seed: int, *, height_axis: bool) -> None:
        self.name, self.pairs = source.name, source.pairs
        self.row_cut: RowCut = source.row_cut
        self.problems: Sequence[SkipRecord] = getattr(source, "problems", ())
        self._source, self._config, self._seed, self._height_axis = source, config, seed, height_axis

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Document:
        return self.document(index, 0)

    def document(self, index: int, epoch: int) -> Document:
        """Return a document.

        Raises:
            SkipError: If the record is broken or a rule leaves it out.
        """
        document = self._source.document(index, epoch)
        return augmented(document, self._config, seed=self._seed, epoch=epoch, height_axis=self._height_axis)
