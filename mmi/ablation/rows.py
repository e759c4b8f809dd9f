"""From axes as they are written to the rows of one scale."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from mmi.ablation.design import Axis, Row, Value
from mmi.ablation.experiment_file import ALL, ROW_KEYS, AxisEntry, ExperimentEntry, Text, known_scale, table_id
from mmi.ablation.paper_factors import find_row
from mmi.config import ConfigError
from mmi.config_tree import did_you_mean

_ABSENT = object()


def rows_of(entry: ExperimentEntry, scale: str) -> tuple[Row, ...]:
    """Return the rows of a scale, in order.

    Raises:
        ConfigError: If an axis or value is unknown or has no label at this scale, a row lacks an axis or is there
            twice, or its factors fit no row of the paper's table.
    """
    choices = _choices(entry, scale)
    rows: list[Row] = []
    for number, given in enumerate(choices):
        where = f"rows[{number}]"
        row = _row(entry, given, scale, where)
        for before, other in enumerate(rows):
            if other.values == row.values:
                raise ConfigError(f"{where} has the values of rows[{before}]; take it out, or add an axis.")
        rows.append(row)
    return tuple(rows)


def axis_of(name: str, entry: AxisEntry, rows: tuple[Row, ...], scale: str) -> Axis:
    """Return an axis with the values that rows use."""
    used = {row.values[name] for row in rows}
    return Axis(name, entry.label, tuple(_value(name, value, entry, scale) for value in entry.values if value in used))


def find_value(entry: ExperimentEntry, axis: str, value: object, where: str) -> str:
    """Return the name of a value that a row or claim names.

    Raises:
        ConfigError: If the axis or the value is unknown.
    """
    if axis not in entry.axes:
        raise ConfigError(f"{where}: no axis {axis}; {did_you_mean(axis, entry.axes, 'axes')}")
    known = entry.axes[axis].values
    if str(value) not in known:
        raise ConfigError(f"{where}.{axis}: no value {value}; {did_you_mean(str(value), known, 'values')}")
    return str(value)


def _choices(entry: ExperimentEntry, scale: str) -> list[dict[str, Any]]:
    """Return the rows as mappings of axes to values, whichever way they are written."""
    rows, where = entry.rows, "rows"
    if isinstance(rows, Mapping):
        for key in rows:
            known_scale(str(key), "rows", also=(ALL,))
        if scale not in rows and ALL not in rows:
            raise ConfigError(f"rows has nothing for the scale {scale}; add it, or all: for every other scale.")
        where, rows = (f"rows.{scale}", rows[scale]) if scale in rows else (f"rows.{ALL}", rows[ALL])
    if rows == ALL:
        names = [list(axis.values) for axis in entry.axes.values()]
        return [dict(zip(entry.axes, chosen, strict=True)) for chosen in product(*names)]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError(f"{where} is {rows!r}; expected all, or a list of rows such as {{tokens: few, mmfs: on}}.")
    return rows


def _row(entry: ExperimentEntry, given: Mapping[str, Any], scale: str, where: str) -> Row:
    chosen = {axis: value for axis, value in given.items() if axis not in ROW_KEYS}
    names = {axis: find_value(entry, axis, value, where) for axis, value in chosen.items()}
    for axis in entry.axes:
        if axis not in names:
            raise ConfigError(f"{where} says nothing of the axis {axis}; expected a value of every axis.")
    values = [_value(axis, names[axis], entry.axes[axis], scale) for axis in entry.axes]
    settings = _joined(values, where)
    if "set" in given:
        settings |= _settings(given["set"], scale, f"{where}.set")
    label = ", ".join(f"{axis.label} {value.label}" for axis, value in zip(entry.axes.values(), values, strict=True))
    if "label" in given:
        label = _text(given["label"], scale, f"{where}.label")
    paper = _factors(given.get("paper", _ABSENT), values, where)
    table = table_id(entry)
    if paper is not None:
        if table is None:
            raise ConfigError(f"{where} has factors of the paper but paper_table is null; name the table.")
        try:
            find_row(table, paper)
        except ConfigError as error:
            raise ConfigError(f"{where} ({label}): {error}") from error
    return Row(label, {axis: names[axis] for axis in entry.axes}, settings, paper)


def _value(axis: str, name: str, entry: AxisEntry, scale: str) -> Value:
    written, where = entry.values[name], f"axes.{axis}.values.{name}"
    return Value(
        name=name,
        label=_text(written.label, scale, f"{where}.label"),
        paper=written.paper,
        settings=_settings(written.set, scale, f"{where}.set"),
    )


def _text(given: Any, scale: str, where: str) -> str:
    if isinstance(given, Mapping):
        for key in given:
            known_scale(str(key), where, also=(ALL,))
        if scale not in given and ALL not in given:
            raise ConfigError(f"{where} has no text for the scale {scale}; add {scale}: or one text for all scales.")
        given = given.get(scale, given.get(ALL))
    if not isinstance(given, Text) or isinstance(given, bool):
        raise ConfigError(f"{where} is {given!r}; expected text, or texts by scale.")
    return str(given)


def _settings(given: Any, scale: str, where: str) -> dict[str, Any]:
    """Return the settings of a scale: those for all, and on top those that the scale says itself."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; expected settings by scale, such as {{all: {{a.b: 1}}}}.")
    for key, settings in given.items():
        if "." in str(key):
            raise ConfigError(f"{where}.{key} is for no scale; put it below all:, or below a scale such as small:.")
        known_scale(str(key), where, also=(ALL,))
        for name in settings if isinstance(settings, Mapping) else ():
            if not isinstance(name, str) or not all(name.split(".")):
                raise ConfigError(f"{where}.{key}: {name!r} is no setting; expected names with single dots.")
        if not isinstance(settings, Mapping):
            raise ConfigError(f"{where}.{key} is {settings!r}; expected settings of mmi fit such as {{a.b: 1}}.")
    return {**given.get(ALL, {}), **given.get(scale, {})}


def _joined(values: list[Value], where: str) -> dict[str, Any]:
    """Return the settings of several values, which must not contradict each other."""
    settings: dict[str, Any] = {}
    for value in values:
        for name, wanted in value.settings.items():
            if name in settings and settings[name] != wanted:
                raise ConfigError(
                    f"{where}: two axes set {name}, to {settings[name]!r} and {wanted!r}; set it in one of them, or in "
                    "the row itself."
                )
            settings[name] = wanted
    return settings


def _factors(own: Any, values: list[Value], where: str) -> dict[str, Any] | None:
    """Return the factors of the paper's row: the row's own, or those of its values if each has some."""
    if own is not _ABSENT:
        if own is not None and not isinstance(own, Mapping):
            raise ConfigError(f"{where}.paper is {own!r}; expected factors such as {{mmfs: true}}, or null.")
        return None if own is None else dict(own)
    factors: dict[str, Any] = {}
    for value in values:
        if value.paper is None:
            return None
        factors |= value.paper
    return factors
