"""One split of a world on its way to disk: its scenes, its choices and its files.

Item ``i`` of a split depends on kind, recipe, seed, split and ``i`` only, so that families of layouts can be written
in any order, by any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from mmi.data.microworld.dice import Dice
from mmi.data.microworld.draw import PALETTE, draw
from mmi.data.microworld.png import encode_png
from mmi.data.microworld.recipe import PRESETS, Recipe
from mmi.data.microworld.scene import Scene, Split, draw_scene
from mmi_eval.formats.errors import dump_json

FIRST_IMAGE_ID: Mapping[str, int] = {"train": 1, "val": 1_000_001, "test": 2_000_001}

Step = Callable[[], None]


def no_step() -> None:
    """Tell nobody that an item is done."""


class WorldPart:
    """One split of a world.

    Args:
        folder: The world's folder.
        split: Which scenes.
        sizes: Number of items per split: of stories, pairs, pictures with captions, and so on, each.
        seed: Another seed draws other items.
        image_size: Height and width of the pictures.
        recipe: Shares of everything in scenes and questions.
        step: Called after each item.
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        sizes: Mapping[Split, int],
        seed: int = 0,
        image_size: int = 32,
        recipe: Recipe = PRESETS["tiny"],
        step: Step = no_step,
    ) -> None:
        self.folder = folder
        self.split: Split = split
        self.size = sizes[split]
        self.seed = seed
        self.image_size = image_size
        self.recipe = recipe
        self._sizes = sizes
        self._step = step

    @property
    def all_splits(self) -> tuple[WorldPart, ...]:
        """This part and those of the other splits, in order."""
        return tuple(
            WorldPart(self.folder, split, self._sizes, self.seed, self.image_size, self.recipe, self._step)
            for split in self._sizes
        )

    def dice(self, kind: str, i: int) -> Dice:
        """Return the source of choices of item ``i`` of a kind."""
        return Dice(kind, self.split, self.seed, i)

    def scene(self, kind: str, i: int) -> Scene:
        """Return the scene of item ``i`` of a kind; ``coco`` is the pool that several layouts share."""
        return _scene(kind, self.split, self.seed, i, self.recipe)

    def image_id(self, i: int) -> int:
        """Return the COCO-like id of picture ``i`` of the pool."""
        return FIRST_IMAGE_ID[self.split] + i

    def image_name(self, i: int) -> str:
        """Return the file name of picture ``i`` of the pool, in ``coco/images``."""
        return f"{self.image_id(i):012d}.png"

    def png(self, scene: Scene) -> bytes:
        """Return the picture of a scene as a PNG file."""
        return encode_png(draw(scene, self.image_size).indices, PALETTE)

    def items(self, n: int | None = None) -> Iterator[int]:
        """Yield ``0 .. n-1`` and tell after each that it is done; ``n`` is the split's size unless given."""
        for i in range(self.size if n is None else n):
            yield i
            self._step()

    def save(self, kind: str, names: Sequence[str], scenes: Sequence[Scene]) -> None:
        """Write pictures to ``<kind>/images``, and their scene graphs to ``scenes/<kind>_<split>.jsonl``."""
        folder = self.folder / kind / "images"
        folder.mkdir(parents=True, exist_ok=True)
        for name, scene in zip(names, scenes, strict=True):
            (folder / name).write_bytes(self.png(scene))
        self.note_scenes(kind, names, scenes)

    def note_scenes(self, kind: str, names: Sequence[str], scenes: Sequence[Scene]) -> None:
        """Append scene graphs of pictures that lie elsewhere to ``scenes/<kind>_<split>.jsonl``."""
        lines = [dump_json({"image": n} | scene.record()) for n, scene in zip(names, scenes, strict=True)]
        self.note(f"scenes/{kind}", lines)

    def note(self, name: str, lines: Sequence[str]) -> None:
        """Append lines to ``<name>_<split>.jsonl``."""
        path = self.folder / f"{name}_{self.split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    def note_tags(self, kind: str, tags: Mapping[int | str, Sequence[str]]) -> None:
        """Append what each item tests, by its id, to ``tags/<kind>_<split>.jsonl``."""
        self.note(f"tags/{kind}", [dump_json({"id": key, "tags": list(value)}) for key, value in tags.items()])


@lru_cache(maxsize=4096)
def _scene(kind: str, split: Split, seed: int, i: int, recipe: Recipe) -> Scene:
    return draw_scene(Dice("scene", kind, split, seed, i), split, recipe=recipe)
