"""``mmi data caption``: captions of pictures by a BLIP or BLIP-2 model, kept by picture and model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmi.commands.arguments import Arguments
from mmi.commands.bars import item_bar
from mmi.errors import DONE, UsageError

_DESCRIPTION = """\
Caption every picture below a folder, or in its pair tars, with a BLIP or BLIP-2 model in the layout of transformers:
one JSON line for each with image, caption, sha256 of the picture, model. The file is a cache: what is in it, by picture
and model, is not captioned again, so a stopped run goes on and new pictures cost only themselves. Training reads the
file as format pair_jsonl, and mmi data prepare --captions packs tars with it.

The model is named by a hash of its files, so that two folders of the same weights share captions. Pictures that cannot
be read are told and left out. A hub name instead of a folder needs network once."""
_EXAMPLE = """\
mmi data caption --images photos --model blip-image-captioning-base --out photos/captions.jsonl
mmi data caption --images objects365/train --model blip2-opt-2.7b --out objects365/captions.jsonl --device cuda
mmi data caption --images photos --model Salesforce/blip-image-captioning-base --out photos/captions.jsonl"""


def caption(argv: Sequence[str]) -> int:
    """Caption the pictures that have no caption by this model yet."""
    parser = Arguments("data caption", _DESCRIPTION, _EXAMPLE)
    add = parser.add_argument
    add("--images", required=True, metavar="DIR", help="folder of pictures (folders in it are searched too) or of tars")
    add("--model", required=True, metavar="FOLDER_OR_ID", help="BLIP or BLIP-2: a folder, or a name on the hub")
    add("--out", required=True, metavar="FILE", help="JSON lines to write, or to go on with")
    add("--batch-size", type=int, default=16, metavar="N", help="pictures captioned at once (16)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (auto: a GPU where there is one)")
    add("--max-new-tokens", type=int, default=40, metavar="N", help="longest caption (40)")
    add("--beams", type=int, default=3, metavar="N", help="beams of the search; 1 is greedy (3)")
    add("--prompt", default="", help="words the caption begins with, such as: a photo of")
    options = parser.read(argv).options
    for option, value in (
        ("--batch-size", options.batch_size),
        ("--max-new-tokens", options.max_new_tokens),
        ("--beams", options.beams),
    ):
        if value < 1:
            raise UsageError(f"{option} is {value}; expected at least 1.")
    from mmi.commands.captioner import CaptionCache, caption_pictures, load_captioner, pictures_below

    pictures = pictures_below(options.images)
    cache = CaptionCache.read(options.out)
    captioner = load_captioner(
        options.model,
        device=options.device,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        n_beams=options.beams,
    )
    with item_bar("captioning") as progress:
        done = caption_pictures(pictures, captioner, cache, batch_size=options.batch_size, progress=progress)
    print(
        f"{done.written:,} captions written, {done.kept:,} were there, {len(done.unreadable):,} pictures cannot be "
        f"read: {options.out} (model {captioner.name})"
    )
    for sentence in done.unreadable[:5]:
        print(f"  left out: {sentence}")
    if any(Path(options.images).expanduser().glob("*.tar")):
        print(f"use it: mmi data prepare own --from {options.images} --captions {options.out} --out NEW_FOLDER")
    else:
        print(f"train on it: --data.train.NAME='{{format: pair_jsonl, path: {options.out}, images: {options.images}}}'")
    return DONE
