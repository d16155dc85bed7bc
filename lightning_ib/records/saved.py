"""The records in the state of a callback: as they were saved, as far as they can be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from lightning_ib.records.earlier import ESTIMATE, POINT, records_of_earlier
from lightning_ib.records.record import Record

_REQUIRED = {"epoch", "layer", "unit"}


def records_in(state: Mapping[str, Any]) -> tuple[list[Record], list[str]]:
    """The records that a state holds, and the faults of the others, in words.

    A missing value is NaN. Rows that lack epoch, layer, unit or, for single values, quantity and source, or that have
    a value of the wrong type, are left out.

    Args:
        state: a mapping with ``"history"``: its columns, or the points and ``"estimates"`` of an earlier version.

    Example:
        >>> records_in({"history": [{"epoch": 1, "step": 9, "layer": 3, "unit": "bits"}]})[1][-1]
        'a point of its history has layer=3, of type int, and str is expected'
    """
    saved = state.get("history")
    if isinstance(saved, list):
        points, faults = _rows(saved, "point", POINT, _REQUIRED)
        estimates: Any = state.get("estimates", [])
        if not isinstance(estimates, list):
            faults.append(f"its estimates are of type {type(estimates).__name__}, and a list is expected")
            estimates = []
        estimates, others = _rows(estimates, "estimate", ESTIMATE, _REQUIRED | {"estimator", "figure"})
        records = [record for one in points + estimates for record in records_of_earlier(one)]
        return sorted(records, key=lambda record: record[:2]), faults + others
    if not isinstance(saved, Mapping):
        came = "missing" if saved is None else f"of type {type(saved).__name__}"
        return [], [f"its history is {came}, and a mapping of columns is expected"]
    lengths = {len(column) for column in saved.values() if isinstance(column, list)}
    if len(lengths) != 1 or not all(isinstance(column, list) for column in saved.values()):
        return [], ["the columns of its history differ in length or kind"]
    before: dict[str, Any] = {"target": ""}  # states of before several targets were measured in one pass lack it
    rows = [before | dict(zip(saved, values)) for values in zip(*saved.values())]
    found, faults = _rows(rows, "record", get_type_hints(Record), _REQUIRED | {"source", "quantity"})
    return [Record(**one) for one in found], faults


def _rows(
    rows: list[Any], kind: str, types: Mapping[str, type], needed: set[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that can be read, with all their fields, and the faults of the others, each of them once."""
    found, faults, one = [], dict[str, None](), f"{'an' if kind == 'estimate' else 'a'} {kind}"
    for row in rows:
        if not isinstance(row, Mapping):
            faults[f"{one} of its history is of type {type(row).__name__}, and a mapping is expected"] = None
            continue
        values: dict[str, Any] = {name: {float: math.nan, int: 0}.get(of, "") for name, of in types.items()}
        lacking, unknown = [name for name in values if name not in row], [name for name in row if name not in values]
        if lacking:
            faults[f"{kind}s of its history lack {lacking}"] = None
        if unknown:
            faults[f"{kind}s of its history have {unknown}, which is unknown here"] = None
        values |= {name: value for name, value in row.items() if name in values}
        wrong = [
            f"{one} of its history has {name}={values[name]!r}, of type {type(values[name]).__name__}, and "
            f"{of.__name__} is expected"
            for name, of in types.items()
            if isinstance(values[name], bool) or not isinstance(values[name], (int, float) if of is float else of)
        ]
        faults |= dict.fromkeys(wrong)
        if not wrong and not needed & set(lacking):
            found.append(values)
    return found, list(faults)
