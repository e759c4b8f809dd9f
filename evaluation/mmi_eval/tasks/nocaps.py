"""NoCaps: captions of pictures with things that COCO captions do not name.

Data: https://nocaps.org/download, Open Images pictures with 10 captions each. val: 4,500 (648 in-domain, 2,938
near-domain, 914 out-domain), ``nocaps_val_4500_captions.json``, which the official system scores. test: 10,600, whose
captions are on a server only: ``write_submission`` writes what it takes.
Prompt and decoding: as COCO captions (SPEC 3.6, 5.1).
Metric: CIDEr of the COCO toolkit on PTB tokens over all pictures, with BLEU, ROUGE-L and METEOR as for COCO. Each
domain's pictures are scored as a set of their own, with their own document frequencies, as files for single domains
are: the three are not parts of which the overall value is the mean. The official system cuts nothing: its value is the
headline.
Baselines: most_frequent_caption (of COCO's training captions where given: NoCaps has none) and human_leave_one_out.
Paper: 106.4 zero-shot, 123.2 after fine-tuning (times 100; the paper says test, the official configuration val).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from mmi_eval.formats.caption_results import write_caption_results
from mmi_eval.formats.coco_captions import CaptionedImage
from mmi_eval.formats.errors import FormatError
from mmi_eval.formats.nocaps import DOMAINS, NocapsImage, read_nocaps
from mmi_eval.sample import Sample

from .captioning import Captioning
from .protocol import Answer, Scored


@dataclass(frozen=True)
class NoCaps(Captioning):
    """Settings of the benchmark: those of every caption benchmark; ``captions`` may be a file without captions."""

    split: str = "val"

    name: ClassVar[str] = "nocaps"

    def pictures(self) -> list[CaptionedImage]:
        """Read the pictures of the split in file order."""
        return [_captioned(image) for image in read_nocaps(self.captions)]

    def samples(self) -> list[Sample]:
        """Ask about each picture once; without references where the captions are not public.

        Raises:
            FileNotFoundError: If the file is not there.
            FormatError: If it is malformed.
        """
        images = read_nocaps(self.captions)
        domains = {str(image.image_id): image.domain for image in images if image.domain is not None}
        asked = self.asked([_captioned(image) for image in images])
        return [replace(s, meta={**s.meta, "domain": domains[s.id]}) if s.id in domains else s for s in asked]

    def parts(self, samples: Sequence[Sample]) -> dict[str, list[str]]:
        """Return the samples of each domain."""
        found = {f"domain/{name}": [s.id for s in samples if s.meta.get("domain") == name] for name in DOMAINS}
        return {name: members for name, members in found.items() if members}

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> Scored:
        """Score the captions; one that could not be had is empty.

        Raises:
            FormatError: If the captions are not public, or Java or the toolkit fails.
        """
        self._check_public(samples)
        return super().score(samples, answers)

    def baselines(self, samples: Sequence[Sample]) -> dict[str, Scored]:
        """Score the most frequent caption, and people against each other.

        Raises:
            FormatError: If the captions are not public, or Java or the toolkit fails.
        """
        self._check_public(samples)
        return super().baselines(samples)

    def write_submission(self, path: Path, samples: Sequence[Sample], answers: Sequence[Answer | None]) -> None:
        """Write what the server takes: the COCO result layout with every picture of the file.

        Args:
            path: The file.
            samples: All of the split.
            answers: Their captions.

        Raises:
            FormatError: If a picture of the file has no caption, or an empty one.
        """
        captions = {s.id: text for s, text in zip(samples, answers, strict=True) if isinstance(text, str)}
        everything = [image.image_id for image in read_nocaps(self.captions)]
        lost = [image_id for image_id in everything if not captions.get(str(image_id), "").strip()]
        if lost:
            raise FormatError(
                f"{len(lost)} of {len(everything)} pictures of {self.captions} have no caption, such as image_id "
                f"{lost[0]}; the server takes complete files only, so evaluate all of them (no n, no --limit)."
            )
        write_caption_results(path, {image_id: captions[str(image_id)] for image_id in everything})

    def _check_public(self, samples: Sequence[Sample]) -> None:
        if not all(sample.references for sample in samples):
            raise FormatError(
                f"{self.captions} has no captions to score against; write a submission for the server, or score "
                "nocaps_val_4500_captions.json."
            )


def _captioned(image: NocapsImage) -> CaptionedImage:
    return CaptionedImage(image.image_id, image.file_name, image.captions or (), image.size)
