"""Sources of documents, one file per kind of record; ``open_source`` knows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mmi.config import ConfigError
from mmi.data.skips import NO_FILE, SkipError, SkipRecord, counted
from mmi.data.sources.ade20k import Ade20kSource
from mmi.data.sources.augmented import AugmentedSource
from mmi.data.sources.captions import CaptionSource
from mmi.data.sources.config import Format, Source, SourceConfig
from mmi.data.sources.conversations import ConversationSource
from mmi.data.sources.grounding import GroundingSource
from mmi.data.sources.mmc4 import MMC4Source
from mmi.data.sources.obelics import ObelicsSource
from mmi.data.sources.pairs import PairLineSource, PairTarSource
from mmi.data.sources.places import is_url, local_files
from mmi.data.sources.questions import QuestionSource
from mmi.data.sources.stories import StorySource

__all__ = ["SOURCES", "EmptySourceError", "Source", "SourceConfig", "build_source", "fetched", "open_source"]

SOURCES: Mapping[Format, Callable[[str, SourceConfig, int], Source]] = {
    "mmc4": MMC4Source,
    "obelics": ObelicsSource,
    "pair_tars": PairTarSource,
    "pair_jsonl": PairLineSource,
    "folder": CaptionSource,
    "coco_captions": CaptionSource,
    "karpathy": CaptionSource,
    "flickr30k": CaptionSource,
    "nocaps": CaptionSource,
    "textcaps": CaptionSource,
    "paragraphs": CaptionSource,
    "narratives": CaptionSource,
    "conversations": ConversationSource,
    "vqa": QuestionSource,
    "textvqa": QuestionSource,
    "vizwiz": QuestionSource,
    "gqa": QuestionSource,
    "chartqa": QuestionSource,
    "docvqa": QuestionSource,
    "infovqa": QuestionSource,
    "estvqa": QuestionSource,
    "stvqa": QuestionSource,
    "ocrvqa": QuestionSource,
    "dvqa": QuestionSource,
    "refcoco": GroundingSource,
    "grounding_rows": GroundingSource,
    "ade20k": Ade20kSource,
    "vist": StorySource,
    "pororo": StorySource,
    "flintstones": StorySource,
}
_N_TRIED = 20


class EmptySourceError(ConfigError):
    """Say in one sentence which source gives no document at all, why, and what to do."""


def build_source(name: str, config: SourceConfig, seed: int) -> Source:
    """Open a source whose files are on this machine, without trying a record.

    Args:
        name: Name in the mixture.
        config: Paths and rules.
        seed: Decides every random choice of its documents.

    Raises:
        FileNotFoundError: If the path does not exist.
        FormatError: If a file is not what its format says.
        ConfigError: If the format needs a setting that is not there.
    """
    source = SOURCES[config.format](name, config, seed)
    if config.augment is None or not config.augment.active:
        return source
    return AugmentedSource(source, config.augment, seed, height_axis=config.format == "ade20k")


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
        ConfigError: If the format needs a setting that is not there.
        EmptySourceError: If the source holds no records.
    """
    source = build_source(name, fetched(config, where), seed)
    if len(source) == 0:
        raise EmptySourceError(f"{where}.path holds no records{_broken(source)}; check {', '.join(config.paths)}.")
    n_tried = min(_N_TRIED, len(source))
    missing: list[SkipError] = []
    for index in range(n_tried):
        try:
            source.document(index, 0)
        except SkipError as error:
            missing.extend([error] if NO_FILE in f"{error.reason} {error.detail}" else [])
    if len(missing) == n_tried:
        raise FileNotFoundError(
            f"{where}: none of the first {counted(n_tried, 'document')} has its pictures ({missing[0].detail}); "
            f"set {where}.images to their folder."
        )
    return source


def _broken(source: Source) -> str:
    """Return what a source without records says of those that it had to leave out."""
    problems: Sequence[SkipRecord] = getattr(source, "problems", ())
    if not problems:
        return ""
    return f" that can be read ({counted(len(problems), 'fault')}, the first: {problems[0].detail.rstrip('. ')})"


def fetched(config: SourceConfig, where: str) -> SourceConfig:
    """Return a configuration whose files are on this machine, copies of those that were at addresses.

    Args:
        config: Paths and rules.
        where: Key of the source in the configuration, for messages.

    Raises:
        FileNotFoundError: If there is nothing at an address.
        ConfigError: If fsspec can't read such addresses, or one names a folder.
    """
    if not any(is_url(place) for place in (*config.paths, *config.opt_out_lists, config.annotations or "")):
        return config
    annotations = None if config.annotations is None else local_files([config.annotations], f"{where}.annotations")[0]
    return replace(
        config,
        path=local_files(config.paths, f"{where}.path"),
        opt_out=local_files(config.opt_out_lists, f"{where}.opt_out") or None,
        annotations=annotations,
    )
