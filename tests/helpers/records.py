"""Records as tests make them and compare them, and as a version before this one saved them."""

import math
import struct
from pathlib import Path

from lightning_ib.records import History, InformationPoint, Record
from lightning_ib.records.earlier import ESTIMATE, POINT
from lightning_ib.records.record import unit_of

VERSION_1 = Path(__file__).parent / "version_1"
"""Files that version 1 wrote."""

ERRORS = ("i_xt_se", "i_ty_se", "h_t_se", "h_x_se", "h_y_se", "h_y_given_t_se", "i_xt_given_y_se")
"""The standard errors of a point."""


def estimate(epoch, step, layer, source, quantity, value, unit="bits", n_samples=9, verdict="", **others):
    """What an estimator says, in the unit of its quantity."""
    unit = unit_of(quantity, unit)
    of = (epoch, step, layer, source, quantity, value)
    return Record(*of, unit=unit, n_samples=n_samples, verdict=verdict, **others)


def of(records, **wanted):
    """The values of the records that have these fields."""
    return [one.value for one in records if all(getattr(one, field) == value for field, value in wanted.items())]


def exact(records):
    """A history, its points or its records in a form that compares to the last bit, in which NaN is equal to NaN."""
    found = records.records() if isinstance(records, History) else records
    each = (one.records() if isinstance(one, InformationPoint) else [one] for one in found)
    return [repr(tuple(record)) for of in each for record in of]


def bits(records):
    """The records with every float as its eight bytes, so that −0 does not equal 0, and one NaN equals another."""

    def cell(v):
        return struct.pack("d", math.nan if math.isnan(v) else v) if isinstance(v, float) else (type(v), v)

    return [tuple(map(cell, record)) for record in (records.records() if isinstance(records, History) else records)]


def in_version_1(history):
    """What the state of version 1 held of a history: points and estimates apart, under other names."""
    renamed = {
        "i_ty_shuffled": "i_ty_permuted",
        "i_ty_shuffled_sd": "i_ty_permuted_sd",
        "outside": "clipped_fraction",
        "explained": "explained_variance",
        "beyond": "out_of_bounds",
        "estimator": "source",
        "figure": "quantity",
    }

    def fields(kind, record):
        return {name: getattr(record, renamed.get(name, name), None) for name in kind}

    return {
        "history": [
            fields(POINT, point)
            | {
                "singletons": point.singleton_fraction * point.n_samples / max(1, point.n_codes),
                "source": "bins" if point.source == "binned" else point.source,
            }
            for point in history
        ],
        "estimates": [fields(ESTIMATE, one) for one in history.estimates()],
    }


def of_version_1(damage=lambda state: None):
    """A damage to the state of a callback: it becomes one that version 1 saved, and then is damaged so."""

    def damaged(state):
        state |= in_version_1(History.restored(state)[0]) | {"version": 1}
        return damage(state)

    return damaged
