"""Records in another unit."""

from __future__ import annotations

import math

from lightning_ib.records.history import History
from lightning_ib.records.record import Record
from lightning_ib.records.tags import UNITS

_IN_NATS = {"bits": math.log(2), "nats": 1.0}


def unit_of_history(history: History) -> str:
    """The unit of the informations; ``"bits"`` where there is none."""
    return next((record.unit for record in history.records() if record.unit in UNITS), "bits")


def in_unit(history: History, unit: str) -> History:
    """The same values in another unit; dimensionless ones stay as they are.

    Args:
        history: in bits or nats.
        unit: ``"bits"`` or ``"nats"``.

    Raises:
        ValueError: the unit is unknown.

    Example:
        >>> history = History([Record(0, 0, "out", "probe", "I_TY", 1.0, unit="bits")])
        >>> in_unit(history, "nats").records()[0].value == math.log(2)
        True
    """
    if unit not in _IN_NATS:
        raise ValueError(f"unit must be 'bits' or 'nats', got {unit!r}.")

    def converted(record: Record) -> Record:
        if record.unit not in _IN_NATS or record.unit == unit:
            return record
        factor = _IN_NATS[record.unit] / _IN_NATS[unit]
        value, error = factor * record.value, factor * record.standard_error
        return record._replace(value=value, standard_error=error, unit=unit)

    return History(map(converted, history.records()))
