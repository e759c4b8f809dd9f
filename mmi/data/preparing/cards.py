"""Data cards: what is known of each data set the project names, before anything of it is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from mmi.config import ConfigError

Recipe = Literal["pairs", "mmc4", "conversations", "files"]


@dataclass(frozen=True)
class DataCard:
    """What one should know of a data set.

    Args:
        name: What commands call it.
        title: Its full name.
        licence: The licence at its source, in a few words.
        recipe: What ``mmi data prepare`` does with it.
        size: How much it is.
        availability: Where it stands with getting it.
        people: Faces, names and private matters in it.
        paper: What the paper used it for.
        format: What a config names its layout; ``None`` where only tasks read it.
        files: Patterns of what must be there under the recipe ``files``; ``a|b`` is one of the two.
        counts: Published numbers of records by split.
        homes: Addresses where it can be had.
        problems: What is known to go wrong with it.
        never_fetch: Why its addresses must not be fetched, and what to take instead; ``None`` where they may.
        unverified: Fields that were written down from memory.
    """

    name: str
    title: str
    licence: str
    recipe: Recipe
    size: str
    availability: str
    people: str
    paper: str
    format: str | None = None
    files: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    homes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    never_fetch: str | None = None
    unverified: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"data card {self.name}"
        for part in fields(self):
            value = getattr(self, part.name)
            declared = str(part.type)
            kind = "tuple" if declared.startswith("tuple") else "Mapping" if declared.startswith("Mapping") else "str"
            fits = {
                "tuple": isinstance(value, tuple) and all(isinstance(entry, str) for entry in value),
                "Mapping": isinstance(value, Mapping) and all(type(n) is int and n > 0 for n in value.values()),
                "str": isinstance(value, str) or (value is None and "None" in declared),
            }
            if not fits[kind]:
                raise ConfigError(f"{where}: {part.name} is {value!r}; expected {_EXPECTED[kind]}.")
        if self.recipe not in get_args(Recipe):
            raise ConfigError(f"{where}: recipe is {self.recipe}; expected one of {', '.join(get_args(Recipe))}.")
        strange = set(self.unverified) - {part.name for part in fields(self)}
        if strange:
            raise ConfigError(f"{where}: unverified names {', '.join(sorted(strange))}, which a card does not have.")

    def told(self) -> str:
        """Return the card as people read it, with a mark at what is from memory."""
        counts = ", ".join(f"{split} {n:,}" for split, n in self.counts.items())
        rows = {
            "licence": self.licence,
            "size": self.size,
            "counts": counts,
            "people": self.people,
            "paper": self.paper,
            "availability": self.availability,
            "homes": ", ".join(self.homes),
            "problems": "; ".join(self.problems),
        }
        lines = [f"{self.name}: {self.title}"]
        for name, text in rows.items():
            mark = " (unverified)" if name in self.unverified else ""
            lines += [f"  {name + ':':<14}{text}{mark}"] if text else []
        return "\n".join(lines)


_EXPECTED = {"tuple": "a list of texts", "Mapping": "names with whole numbers above 0", "str": "text"}


def read_cards(file: Path | None = None) -> dict[str, DataCard]:
    """Read the cards.

    Args:
        file: Another file; the packaged one by default.

    Raises:
        ConfigError: If a card lacks a field or has a value of another kind.
    """
    import yaml

    file = file or Path(__file__).with_name("cards.yaml")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no data cards; expected a name with fields for each data set.")
    cards: dict[str, DataCard] = {}
    for name, entry in content.items():
        try:
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
            cards[name] = DataCard(name, **plain)
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"data card {name} of {file.name}: {error}.") from error
    return cards


def find_card(name: str) -> DataCard:
    """Return the card of that name.

    Raises:
        ConfigError: If there is none; the sentence names the nearest.
    """
    cards = read_cards()
    if name not in cards:
        near = get_close_matches(name, cards, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(cards)}."
        raise ConfigError(f'no data card "{name}"; {hint}')
    return cards[name]
