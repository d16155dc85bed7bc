"""One measurement as a line of JSON: what a TensorBoard event holds, and what a page draws."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from lightning_ib.records.bound import BoundLine
from lightning_ib.records.history import History
from lightning_ib.records.record import Record
from lightning_ib.records.reliability import reason

VERSION = 2
"""Of the form; a reader refuses later ones. Measurements without named targets are written in version 1."""

_COLUMNS = ("value", "standard_error", "n_samples", "verdict", "correction")
_MISSING = {"value": math.nan, "standard_error": math.nan, "n_samples": 0, "verdict": "", "correction": ""}


def measurement_to_json(
    measured: History,
    *,
    by: str = "epoch",
    discretized: Mapping[str, str] | None = None,
    bound: BoundLine | None = None,
    bounds: Mapping[str, BoundLine | None] | None = None,
) -> str:
    """The records of one measurement as JSON.

    The keys are ``version``, ``epoch``, ``step``, ``by``, ``layers`` (in the order they are reported),
    ``discretized`` (layer → words), ``reasons`` (layer → why it is flagged as unreliable) and ``series``: an object
    for each source and quantity, with its ``unit`` and columns of ``value``, ``standard_error``, ``n_samples``,
    ``verdict`` and ``correction``. A column is a list with a place for each layer of ``at`` (indices of ``layers``; all
    where it is left out), one value where all places are the same, and left out where that is NaN, 0 or empty. NaN and
    infinities are ``null``, ``"inf"`` and ``"-inf"``. Where there is a bound, ``bound`` holds its fields,
    rounded to six digits. Of several targets, ``targets`` are the names, the primary first, a series about one has it
    as ``target``, and ``about`` holds for each of the others its ``reasons`` and its ``bound``.

    Args:
        measured: the records of one moment.
        by: the unit of moments, ``"epoch"`` or ``"step"``.
        discretized: layer → how it was discretized, in words.
        bound: the curve beside the points; of several targets that of the primary.
        bounds: name → the curve of each other target.

    Raises:
        ValueError: there are no records, or they are of several moments.

    Example:
        >>> text = measurement_to_json(History([Record(1, 8, "out", "probe", "I_TY", 0.5, unit="bits", n_samples=80)]))
        >>> text[:54]
        '{"version":1,"epoch":1,"step":8,"by":"epoch","layers":'
        >>> text[54:]
        '["out"],"series":[{"source":"probe","quantity":"I_TY","unit":"bits","value":0.5,"n_samples":80}]}'
    """
    records = measured.records()
    moments = {record[:2] for record in records}
    if len(moments) != 1:
        raise ValueError(f"a measurement is of one moment, got {len(moments)}: {sorted(moments)[:3]}.")
    (epoch, step), layers = moments.pop(), list(dict.fromkeys(record.layer for record in records))
    places = {layer: k for k, layer in enumerate(layers)}
    series: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        series.setdefault((record.source, record.quantity, record.unit, record.target), []).append(record)
    targets = measured.targets
    version = VERSION if targets else 1
    made: dict[str, Any] = {"version": version, "epoch": epoch, "step": step, "by": by, "layers": layers}
    if targets:
        made["targets"] = targets
    if discretized:
        made["discretized"] = {layer: words for layer, words in discretized.items() if words}
    made |= _beside(measured, bound)
    others = {name: _beside(measured.about(name), (bounds or {}).get(name)) for name in targets[1:]}
    if any(others.values()):
        made["about"] = {name: parts for name, parts in others.items() if parts}
    made["series"] = [_series(*key, of, places) for key, of in series.items()]
    return json.dumps(made, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _beside(measured: History, bound: BoundLine | None) -> dict[str, Any]:
    """The parts of a measurement about one target: why layers are flagged, and the curve beside the points."""
    made: dict[str, Any] = {}
    if reasons := {point.layer: why for point in measured if (why := reason(point))}:
        made["reasons"] = reasons
    if bound is not None:
        x, y = ([float(f"{one:.6g}") for one in axis] for axis in (bound.i_xt, bound.i_ty))
        made["bound"] = bound._replace(i_xt=x, i_ty=y)._asdict()
    return made


def _series(
    source: str, quantity: str, unit: str, target: str, records: Sequence[Record], places: Mapping[str, int]
) -> Any:
    made: dict[str, Any] = {"source": source, "quantity": quantity}
    if unit:
        made["unit"] = unit
    if target:
        made["target"] = target
    at = [places[record.layer] for record in records]
    if at != list(range(len(places))):
        made["at"] = at
    for name in _COLUMNS:
        column = [_plain(getattr(record, name)) for record in records]
        same = len(set(map(repr, column))) == 1  # −0 is another number than 0 here
        if not (same and column[0] == _plain(_MISSING[name])):
            made[name] = column[0] if same else column
    return made


def _plain(value: Any) -> Any:
    """A value that JSON has."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else "inf" if value > 0 else "-inf"


def measurement_from_json(text: str) -> History:
    """The records of a measurement, from :func:`measurement_to_json`; layer by layer, in the order of ``layers``.

    Raises:
        ValueError: the text is of another kind, incomplete, or of a later version.

    Example:
        >>> history = History([Record(1, 8, "out", "probe", "I_TY", 0.5)])
        >>> measurement_from_json(measurement_to_json(history)) == history
        True
    """
    try:
        made = json.loads(text)
        version = made["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"this is no measurement, or an incomplete one: {text[:40]!r}.") from error
    if version not in (1, VERSION):
        raise ValueError(f"this measurement is of version {version!r}, known is {VERSION}: update lightning-ib.")
    try:
        found = [pair for one in made["series"] for pair in _placed(one, made)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this measurement is incomplete or damaged ({error!r}): {text[:40]!r}.") from error
    return History(record for _, record in sorted(found, key=lambda pair: pair[0]))


def _placed(series: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[tuple[int, Record]]:
    """The records of a series, each with the place of its layer."""
    layers, columns = made["layers"], {name: series.get(name, _MISSING[name]) for name in _COLUMNS}
    for k, place in enumerate(series.get("at", range(len(layers)))):
        values = {name: column[k] if isinstance(column, list) else column for name, column in columns.items()}
        floats = {name: _number(values[name]) for name in ("value", "standard_error")}
        of = (made["epoch"], made["step"], layers[place], series["source"], series["quantity"])
        yield place, Record(*of, **values | floats, unit=series.get("unit", ""), target=series.get("target", ""))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def measurements_of(history: History) -> list[History]:
    """The measurements of a history, one by one, in the order of their moments."""
    records = sorted(history.records(), key=lambda one: one[:2])
    return [History(of) for _, of in groupby(records, key=lambda one: one[:2])]


def history_to_json(history: History) -> list[str]:
    """All measurements of a history as JSON, by step where an epoch has several; see :func:`measurement_to_json`."""
    measured = measurements_of(history)
    epochs = {one.records()[0].epoch for one in measured}
    by = "step" if len(epochs) < len(measured) else "epoch"
    return [measurement_to_json(one, by=by) for one in measured]
