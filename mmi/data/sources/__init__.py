"""Sources of documents, one file per layout; ``open_source`` knows them all."""

from __future__ import annotations

from mmi.data.skips import NO_FILE, SkipError
from mmi.data.sources.coco_captions import CocoCaptionSource
from mmi.data.sources.config import Format, Source, SourceConfig
from mmi.data.sources.conversations import ConversationSource
from mmi.data.sources.mmc4 import MMC4Source
from mmi.data.sources.pairs import PairLineSource, PairTarSource

__all__ = ["SOURCES", "Source", "SourceConfig", "open_source"]

SOURCES: dict[Format, type[CocoCaptionSource | ConversationSource | MMC4Source | PairLineSource | PairTarSource]] = {
    "mmc4": MMC4Source,
    "pair_tars": PairTarSource,
    "pair_jsonl": PairLineSource,
    "coco_captions": CocoCaptionSource,
    "conversations": ConversationSource,
}
_N_TRIED = 20


def open_source(name: str, config: SourceConfig, seed: int, *, where: str) -> Source:
    """Open a source and try a few records, so that a wrong folder is noticed before training.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Decides every random choice of its documents.
        where: Key of the source in the configuration, for messages.

    Raises:
        FileNotFoundError: If the path does not exist, or none of the first pictures does.
        FormatError: If a file is not what its format says.
        ValueError: If the source holds no records.
    """
    source = SOURCES[config.format](name, config, seed)
    if len(source) == 0:
        raise ValueError(f"{where}.path holds no records; check {', '.join(config.paths)}.")
    n_tried = min(_N_TRIED, len(source))
    missing: list[SkipError] = []
    for index in range(n_tried):
        try:
            source.document(index, 0)
        except SkipError as error:
            missing.extend([error] if NO_FILE in f"{error.reason} {error.detail}" else [])
    if len(missing) == n_tried:
        raise FileNotFoundError(
            f"{where}: none of the first {n_tried} documents has its pictures ({missing[0].detail}); "
            f"set {where}.images to their folder."
        )
    return source
