"""The records in the state of a callback: as they were saved, as far as they can be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from lightning_ib.records.earlier import ESTIMATE, POINT, records_of_earlier
from lightning_ib.records.record import Record

_NEEDED = {"epoch", "layer", "unit"}


def records_in(state: Mapping[str, Any]) -> tuple[list[Record], list[str]]:
    """The records that a state holds, and what is wrong with the others, in words.

    A value that is missing is NaN. A record that lacks epoch, layer or unit, or has a value of the wrong type, is left
    out.

    Args:
        state: a mapping with ``"history"``: its columns, or the points and ``"estimates"`` of an earlier version.

    Example:
        >>> records_in({"history": [{"epoch": 1, "step": 9, "layer": 3, "unit": "bits"}]})[1][-1]
        'a point of its history has layer=3, of type int, and str is expected'
    """
    saved = state.get("history")
    if isinstance(saved, list):
        points, faults = _rows(saved, POINT)
        estimates, others = _rows(state.get("estimates", []), ESTIMATE)
        return [record for one in points + estimates for record in records_of_earlier(one)], faults + others
    if not isinstance(saved, Mapping):
        came = "missing" if saved is None else f"of type {type(saved).__name__}"
        return [], [f"its history is {came}, and a mapping of columns is expected"]
    lengths = {len(column) for column in saved.values() if isinstance(column, list)}
    if len(lengths) != 1 or not all(isinstance(column, list) for column in saved.values()):
        return [], ["the columns of its history differ in length or kind"]
    rows = [dict(zip(saved, values)) for values in zip(*saved.values())]
    found, faults = _rows(rows, get_type_hints(Record))
    return [Record(**one) for one in found], faults


def _rows(rows: Any, types: Mapping[str, type]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that can be read, with all their fields, and the faults of the others, each kind once."""
    if not isinstance(rows, list):
        return [], [f"its history is of type {type(rows).__name__}, and a list of points is expected"]
    found, faults = [], dict[str, None]()
    for row in rows:
        if not isinstance(row, Mapping):
            faults[f"a point of its history is of type {type(row).__name__}, and a mapping is expected"] = None
            continue
        values: dict[str, Any] = {name: {float: math.nan, int: 0}.get(of, "") for name, of in types.items()}
        lacking, unknown = [name for name in values if name not in row], [name for name in row if name not in values]
        if lacking:
            faults[f"points of its history lack {lacking}"] = None
        if unknown:
            faults[f"points of its history have {unknown}, which is unknown here"] = None
        values |= {name: value for name, value in row.items() if name in values}
        wrong = [
            f"a point of its history has {name}={values[name]!r}, of type {type(values[name]).__name__}, and "
            f"{of.__name__} is expected"
            for name, of in types.items()
            if isinstance(values[name], bool) or not isinstance(values[name], (int, float) if of is float else of)
        ]
        faults |= dict.fromkeys(wrong)
        if not wrong and not _NEEDED & set(lacking):
            found.append(values)
    return found, list(faults)
