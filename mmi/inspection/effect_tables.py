"""The effects of changed pictures as tables, bars and examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmi_eval.metrics.intervals import Score
from mmi_eval.report.cards import asked as question_of
from mmi_eval.report.cards import context, lines, named, opened, truth
from mmi_eval.report.charts import Bar, bar_chart
from mmi_eval.report.grid import Grid, Part
from mmi_eval.report.markup import Markup, fragment, note
from mmi_eval.report.page import Section
from mmi_eval.report.pictures import figure, gallery, row
from mmi_eval.report.tables import Column
from mmi_eval.report.wording import interval, readable, signed
from mmi_eval.sample import Picture
from mmi_eval.tasks.protocol import Answer

from .changes import Kind, place_words
from .counterfactuals import Arm, Changes
from .effects import AGREEMENT, CHANGED, EVERYTHING, PIXELS, Effect, Use
from .result_page import Asked, Findings

TITLE = "What one picture is worth"
_KINDS: Mapping[Kind, str] = {"same": "nothing changed", "swap": "swapped", "blur": "blurred", "drop": "grey"}
_DIFFERS = {CHANGED: "answers changed", PIXELS: "pixel difference", AGREEMENT: "judges agree"}
_EXAMPLES_PER_ARM, _MOST_EXAMPLES = 2, 18


def findings_of(
    asked: Asked, changes: Changes, arms: Sequence[Arm], effects: Sequence[Effect], uses: Sequence[Use]
) -> Findings:
    """Put everything together in the order in which it is read."""
    lead = [
        "Each sample was asked again with one picture of its prompt changed and nothing else: swapped with a picture "
        "that stands at the same distance in another prompt, blurred "
        f"(Gaussian, {100 * changes.blur:g} % of the longer side), or made grey. Pictures are counted back from the "
        "question: the nearest, 1 earlier, 2 earlier.",
        "A model that uses several pictures changes its answer when the picture that is asked about changes, and "
        "not when another one does. Intervals are of 95 %, questions on the same pictures kept together; differences "
        "are paired.",
    ]
    parts = [_overall(effects), *_use_parts(uses), _by_group(effects)]
    values = {
        "settings": {
            "kinds": list(changes.kinds),
            "distances": list(changes.distances) if changes.distances else None,
            "blur": changes.blur,
            "seed": changes.seed,
        },
        "effects": [effect.record() for effect in effects],
        "use": [use.record() for use in uses],
    }
    return Findings(TITLE, asked, lead, parts, values, _plots(effects, uses), _examples(arms))


def _overall(effects: Sequence[Effect]) -> Part:
    whole = [effect for effect in effects if effect.group == EVERYTHING]
    told = "The first row changes nothing and asks again in other batches: what differs there is the noise of asking."
    if any(PIXELS in effect.differs for effect in whole):
        told += " Pixel difference: mean absolute difference of drawn pictures, in percent of the range of a pixel."
    if any(AGREEMENT in effect.differs for effect in whole):
        told += " Judges agree: share of background and nine cells in which the judges see the same before and after."
    title = "Samples that show a picture there"
    names = _score_names(whole)
    if len(names) == 1:
        grids = [_grid("effects", f"{title}: answers and scores, before and after", whole, names, named_group=False)]
    else:
        grids = [_grid("effects", f"{title}: what differs", whole, (), named_group=False)]
    for n, name in enumerate(names if len(names) > 1 else ()):
        some = [replace(effect, differs={}) for effect in whole if name in effect.scores]
        grids.append(_grid(f"effects-score-{n}", f"{title}: {readable(name)}", some, [name], named_group=False))
    return Part("effects", "By change and picture", grids, [told])


def _by_group(effects: Sequence[Effect]) -> Part:
    grids = []
    places: list[tuple[Kind, int | None]] = [(e.kind, e.distance) for e in effects if e.distance is not None]
    for kind, distance in dict.fromkeys(places):
        some = [e for e in effects if (e.kind, e.distance) == (kind, distance) and e.group != EVERYTHING]
        title = _arm_words(kind, distance).capitalize()
        # The file of JSON has all scores; a table of them all would be too wide to be read.
        grids.append(_grid(f"effects-{kind}-{distance}", title, some, _score_names(some)[:1], named_group=True))
    return Part("groups", "By number of pictures and tag", grids)


def _score_names(effects: Sequence[Effect]) -> list[str]:
    return list(dict.fromkeys(name for effect in effects for name in effect.scores))


def _grid(anchor: str, title: str, effects: Sequence[Effect], scores: Sequence[str], *, named_group: bool) -> Grid:
    """Return one row for each effect; columns that no row fills are left out."""
    differs = [name for name in _DIFFERS if any(name in effect.differs for effect in effects)]
    head = [Column("questions")] if named_group else [Column("change"), Column("picture")]
    columns = [*head, Column("n", True), *(Column(_DIFFERS[name], True) for name in differs)]
    for name in scores:
        columns += [Column(f"{readable(name)}, {word}", True) for word in ("before", "after", "after \u2212 before")]
    rows = []
    for effect in effects:
        first = [effect.group] if named_group else [_KINDS[effect.kind], _place(effect.distance)]
        # Not every sample has every score: a drawing has none of a question.
        n = effect.n if differs or not scores else effect.scores[scores[0]].before.n
        cells = [*first, f"{n:,}", *(_cell(effect.differs.get(name)) for name in differs)]
        for name in scores:
            found = effect.scores.get(name)
            cells += [""] * 3 if found is None else [_cell(found.before), _cell(found.after), _signed(found.difference)]
        rows.append(cells)
    return Grid(anchor, title, columns, rows)


def _use_parts(uses: Sequence[Use]) -> list[Part]:
    if not uses:
        return []
    columns = [Column("change"), Column("questions about"), Column("n", True)]
    columns += [Column(f"answers changed with {which}", True) for which in ("that picture", "another")]
    columns += [Column(f"score {when}", True) for when in ("before", "after that picture", "after another")]
    columns += [Column("lost more with that picture", True), Column("what it shows")]
    rows = [
        [_KINDS[use.kind], _place(use.asked), f"{use.n:,}", _cell(use.own), _cell(use.others), _cell(use.score),
         _cell(use.score_own), _cell(use.score_others), "" if use.loss is None else _signed(use.loss), use.verdict]
        for use in uses
    ]  # fmt: skip
    grid = Grid("use", "Prompts of two pictures or more: is it the picture asked about that matters?", columns, rows)
    told = (
        "A model that is unsure changes its answers with any picture. So the score decides: right answers that are "
        "lost when one picture changes, and not when another one does, came from that picture."
    )
    return [Part("use", "The picture asked about against the others", [grid], [told])]


def _plots(effects: Sequence[Effect], uses: Sequence[Use]) -> dict[str, Markup]:
    whole = [effect for effect in effects if effect.group == EVERYTHING]
    charts = []
    for name, words in _DIFFERS.items():
        bars = [_bar(_arm_words(e.kind, e.distance), e.differs[name]) for e in whole if name in e.differs]
        if bars:
            most = None if name == PIXELS else 100.0
            title = f"{words.capitalize()}, percent"
            charts.append(figure(bar_chart(f"plot-{name}", title, bars, most=most), f"{title}."))
    plots = {"effects": fragment(*charts)}
    if uses:
        plots["use"] = _use_plot(uses)
    return plots


def _use_plot(uses: Sequence[Use]) -> Markup:
    """Draw scores after changes; shares of changed answers where a task has no score."""
    bars = []
    for use in uses:
        asked = f"{_KINDS[use.kind]}, asks {place_words(use.asked)}"
        own, others = use.score_own or use.own, use.score_others or use.others
        mark = None if use.score is None else 100 * use.score.value
        bars += [
            replace(_bar(f"{asked}: that one", own), mark=mark),
            replace(_bar(f"{asked}: another", others), mark=mark),
        ]
    shown = "Score" if uses[0].score is not None else "Answers changed"
    chart = bar_chart("plot-use", f"{shown}, percent", bars, most=100.0, mark_name="before")
    told = f"{shown} after the picture asked about is changed, and after another one of the prompt is, in percent."
    marks = " Orange marks: the score before." if uses[0].score is not None else ""
    return figure(chart, told + marks)


def _bar(name: str, score: Score) -> Bar:
    if not score.has_interval:
        return Bar(name, 100 * score.value)
    return Bar(name, 100 * score.value, 100 * score.low, 100 * score.high)


def _examples(arms: Sequence[Arm]) -> list[Section]:
    """Show the first samples of each arm whose answers differ."""
    cards = []
    for arm in arms:
        differing = ((s, b, a) for s, b, a in zip(arm.shown, arm.before, arm.after, strict=True) if _differ(b, a))
        cards += [_card(arm, *found) for found, _ in zip(differing, range(_EXAMPLES_PER_ARM), strict=False)]
    if not cards:
        return []
    told = "The prompt as it was asked the second time, with its changed picture, and both answers."
    return [Section("examples", "Examples", fragment(note(told), gallery(cards[:_MOST_EXAMPLES], pairs=True)))]


def _card(arm: Arm, shown: Any, before: Answer | None, after: Answer | None) -> Markup:
    told = lines([("changed", _arm_words(arm.kind, arm.distance)), ("asked", question_of(shown))])
    texts = lines([("right", truth(shown)), ("before", _text(before)), ("after", _text(after))])
    drawn = [named(fragment(*_drawn(answer)), name) for name, answer in (("before", before), ("after", after))
             if _drawn(answer)]  # fmt: skip
    return fragment(*told, context(shown), *texts, row(*drawn) if drawn else fragment())


def _drawn(answer: Answer | None) -> list[Any]:
    pictures: Iterable[Picture] = (answer,) if isinstance(answer, Picture) else ()
    pictures = answer if isinstance(answer, tuple) else pictures
    return [opened(picture, "A drawn picture", 96) for picture in pictures]


def _differ(before: Answer | None, after: Answer | None) -> bool:
    if isinstance(before, Picture | tuple):
        return True
    return _text(before) != _text(after)


def _text(answer: Answer | None) -> str:
    if isinstance(answer, dict):
        return max(answer, key=answer.__getitem__, default="")
    return answer.strip() if isinstance(answer, str) else ""


def _arm_words(kind: Kind, distance: int | None) -> str:
    return _KINDS[kind] if distance is None else f"{_KINDS[kind]}, {place_words(distance)}"


def _place(distance: int | None) -> str:
    return "" if distance is None else place_words(distance)


def _cell(score: Score | None) -> str:
    return "" if score is None else interval(score, True)


def _signed(score: Score) -> str:
    return signed(score, True)
