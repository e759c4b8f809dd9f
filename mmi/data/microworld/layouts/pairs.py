"""Pictures with one caption each as tars of pairs."""

from __future__ import annotations

from collections.abc import Iterator

from mmi.data.microworld.language import captions
from mmi_eval.formats.pair_tars import TarPair, write_pair_tar

from .part import WorldPart

PAIRS_PER_SHARD = 1000


def write(part: WorldPart) -> dict[str, int]:
    """Write ``pairs/<split>/00000.tar`` and so on, and the scene graphs by key."""
    numbers = part.items()

    def pairs(n: int) -> Iterator[tuple[TarPair, bytes]]:
        for _ in range(n):
            i = next(numbers)
            scene, key = part.scene("pairs", i), f"{i:09d}"
            caption = captions(scene, part.dice("pairs", i), 1)[0]
            part.note_scenes("pairs", [key], [scene])
            about = {"key": key, "caption": caption, "status": "success"}
            sides = {"width": part.image_size, "height": part.image_size}
            yield TarPair(key, caption, "png", about | sides), part.png(scene)

    for start in range(0, part.size, PAIRS_PER_SHARD):
        shard = part.folder / "pairs" / part.split / f"{start // PAIRS_PER_SHARD:05d}.tar"
        write_pair_tar(shard, pairs(min(PAIRS_PER_SHARD, part.size - start)))
    next(numbers, None)
    return {"pairs": part.size}
