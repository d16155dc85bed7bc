"""The values of a replay beside those that the run recorded itself."""

from __future__ import annotations

import math

from lightning_ib.records.history import History
from lightning_ib.records.record import Record
from lightning_ib.records.units import in_unit, unit_of_history

_SAME = 1e-9
_FIRST = ("I_XT", "I_TY")
"""Of the differences, the ones to name."""


def agreement(replayed: History, recorded: History) -> str:
    """A sentence on whether the values are those that the run recorded; empty where none can be compared.

    Args:
        replayed: the values of the replay.
        recorded: those in the state of the callback; they are put into the unit of the replay.
    """
    run = {(record[:5], record.target): record for record in in_unit(recorded, unit_of_history(replayed)).records()}
    replays = {(record[:5], record.target): record for record in replayed.records()}
    pairs = [(record, run[key]) for key, record in replays.items() if key in run]
    pairs = [(a, b) for a, b in pairs if a.unit == b.unit]
    if not pairs:
        return ""
    other = [(a, b) for a, b in pairs if not _same(a.value, b.value)]
    if not other:
        if not any(a.quantity == "I_XT" for a, _ in pairs):
            return ""
        return f"All {len(pairs)} values that the run recorded too are the same, to {_SAME:g}."
    a, b = max(other, key=_weight)
    why = "" if a.n_samples == b.n_samples else f" (on {a.n_samples} samples, and {b.n_samples} in the run)"
    return (
        f"{len(other)} of {len(pairs)} values differ from those that the run recorded, such as {a.quantity} of "
        f"{a.layer} at epoch {a.epoch}: {a.value:.4g}, and {b.value:.4g} in the run{why}. "
        "Data, device or options may be others."
    )


def _weight(pair: tuple[Record, Record]) -> tuple[bool, float]:
    """How much a difference says: informations first, then the largest; one with NaN is infinite."""
    a, b = pair
    difference = abs(a.value - b.value)
    return a.quantity in _FIRST, math.inf if math.isnan(difference) else difference


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= _SAME or a == b
