"""The page about a data set: counts by family and split, questions and answers, scenes, sample pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .charts import Bar, bar_chart
from .dataset import Dataset, Example, Part, SceneCounts, majority, mean
from .markup import NOTHING, Content, Markup, element, facts, fold, fragment, items, missing, note, paragraph
from .numbers import count, percent, short
from .page import Section, render_page
from .pictures import figure, gallery, picture
from .tables import Column, table

_MOST_ANSWERS = 12
COUNT_COLUMNS = ("family", "split", "items", "pictures", "texts", "words a text", "questions")


def render_dataset(data: Dataset, written_by: str) -> str:
    """Return the page of a data set as HTML.

    Args:
        data: What was counted.
        written_by: The program and its version, for the last line.
    """
    families = list(dict.fromkeys(part.family for part in data.parts))
    total = sum(part.n_items for part in data.parts)
    lead = f"{count(total, 'item')} in {count(len(families), 'family', 'families')} of layouts, in {data.folder}."
    sections = [
        Section("counts", "Counts", _counts(data)),
        Section("pictures", "Sample pictures", _samples(data.parts)),
        Section("questions", "Question types and answers", _questions(data.parts)),
        Section("tags", "Tags: what items test", _tags(data)),
        Section("lengths", "Lengths of texts and documents", _lengths(data.parts)),
        Section("scenes", "Scenes, things and print sizes", _scenes(data.scenes)),
        Section("made-from", "What it was made from", _made_from(data)),
    ]
    return render_page("Data statistics", [lead], sections, f"Written by {written_by}.")


def count_rows(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """Return a row of ``COUNT_COLUMNS`` for each family and split."""
    return [
        (
            part.family,
            part.split,
            f"{part.n_items:,}",
            f"{part.n_pictures:,}",
            f"{part.n_texts:,}",
            short(mean(part.words)) if part.words else "",
            f"{part.n_questions:,}" if part.n_questions else "",
        )
        for part in parts
    ]


def question_rows(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """Return family, split, type, questions, different answers, the most frequent answer and its share."""
    rows = []
    for part in parts:
        for kind, answers in sorted(part.answers.items()):
            answer, share = majority(answers)
            said = kind or "(no type)"
            rows.append(
                (part.family, part.split, said, f"{answers.total():,}", f"{len(answers):,}", answer, percent(share))
            )
    return rows


def _counts(data: Dataset) -> Markup:
    columns = [Column(name, name not in ("family", "split")) for name in COUNT_COLUMNS]
    said = note("A picture that two items name counts twice. Texts are sentences, captions and expressions.")
    return fragment(table("Items by family and split", columns, count_rows(data.parts)), said)


def _samples(parts: Sequence[Part]) -> Markup:
    shown = []
    for part in _first_splits(parts):
        cards = [_card(example) for example in part.examples]
        shown += [element("h3", {}, f"{part.family}, {part.split}"), gallery(cards)]
    return fragment(note("The first items of the first split of each family."), *shown)


def _card(example: Example) -> Markup:
    said = example.text if len(example.text) <= 300 else example.text[:299] + "\u2026"
    if example.picture is None:
        return fragment(missing("The picture cannot be read."), element("p", {}, said))
    return fragment(picture(example.picture, f"Picture of: {said}"), element("p", {}, said))


def _questions(parts: Sequence[Part]) -> Markup:
    rows = question_rows(parts)
    if not rows:
        return missing("No family has questions.")
    names = ("family", "split", "type", "questions", "different answers", "majority answer", "its share")
    columns = [Column(name, name in ("questions", "different answers", "its share")) for name in names]
    told = paragraph("A model that does not look reaches the share of the most frequent answer of each type.")
    return fragment(told, table("Questions by type", columns, rows), *map(_answers, _first_splits(parts)))


def _answers(part: Part) -> Markup:
    if not part.answers:
        return NOTHING
    charts = []
    for number, (kind, answers) in enumerate(sorted(part.answers.items())):
        title = f"Answers to {kind or 'questions without a type'}, {part.family} {part.split}"
        anchor = f"answers-{_anchor(part.family)}-{number}"
        charts.append(_distribution(anchor, title, answers))
    return fold(f"Answer distributions of {part.family}, {part.split}", *charts)


def _distribution(anchor: str, title: str, values: Counter[str]) -> Markup:
    common = sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    bars = [Bar(name, 100 * times / values.total()) for name, times in common[:_MOST_ANSWERS]]
    rest = len(common) - len(bars)
    more = f"; {count(rest, 'other')} not drawn" if rest > 0 else ""
    return figure(bar_chart(anchor, title, bars), f"{title}, in percent of {values.total():,}{more}.")


def _tags(data: Dataset) -> Markup:
    if not data.tags:
        return missing("The folder has no tags.")
    parts = []
    kinds = dict.fromkeys(kind for kind, _ in data.tags)
    for kind in kinds:
        splits = [split for of_kind, split in data.tags if of_kind == kind]
        names = sorted({tag for split in splits for tag in data.tags[kind, split]})
        rows = [(name, *(f"{data.tags[kind, split][name]:,}" for split in splits)) for name in names]
        columns = [Column("tag"), *(Column(split, True) for split in splits)]
        parts.append(fold(f"{kind}: {count(len(names), 'tag')}", table(f"Tags of {kind}", columns, rows)))
    return fragment(*parts)


def _lengths(parts: Sequence[Part]) -> Markup:
    rows: list[tuple[str, ...]] = []
    for part in parts:
        if part.words or any(n > 1 for n in part.pictures_per_item):
            counters = (part.words, part.texts_per_item, part.pictures_per_item)
            rows.append((part.family, part.split, *(_spread(counter) for counter in counters)))
    names = ("family", "split", "words a text", "texts an item", "pictures an item")
    told = note("Mean, then the fewest and the most.")
    return fragment(told, table("Lengths", [Column(name, name not in names[:2]) for name in names], rows))


def _spread(counter: Counter[int]) -> str:
    return f"{short(mean(counter))} ({min(counter)} to {max(counter)})" if counter else ""


def _scenes(scenes: Sequence[SceneCounts]) -> Markup:
    if not scenes:
        return missing("The folder has no scene graphs.")
    sizes = list(dict.fromkeys(size for s in scenes for size in s.values.get("print size", ())))
    rows: list[list[Content]] = []
    for s in scenes:
        printed = s.values.get("print size", Counter())
        n_things = sum(n * times for n, times in s.n_things.items())
        shares = [percent(printed[size] / n_things) if n_things else "" for size in sizes]
        rows.append([s.kind, s.split, f"{s.n_scenes:,}", short(mean(s.n_things)), *shares])
    columns = [Column("kind"), Column("split"), *(Column(n, True) for n in ("scenes", "things a scene", *sizes))]
    parts = [table("Scenes, and the share of things with print of each size", columns, rows)]
    seen: set[str] = set()
    for s in scenes:
        if s.kind not in seen:
            seen.add(s.kind)
            charts = [
                _distribution(f"scene-{_anchor(s.kind)}-{_anchor(name)}", f"{name.capitalize()} in {s.kind}", values)
                for name, values in s.values.items()
            ]
            parts.append(fold(f"Properties of things in {s.kind}, {s.split}", *charts))
    return fragment(*parts)


def _made_from(data: Dataset) -> Markup:
    problems = [element("h3", {}, "What could not be read"), items(*data.remarks)] if data.remarks else []
    return fragment(facts(dict(data.facts)), *problems)


def _first_splits(parts: Sequence[Part]) -> list[Part]:
    first: dict[str, Part] = {}
    for part in parts:
        first.setdefault(part.family, part)
    return list(first.values())


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())
