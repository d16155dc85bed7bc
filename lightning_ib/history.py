"""One point of the information plane, and the history of points as a CSV file."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, get_type_hints

SATURATED = 0.9
"""H(T)/log N above which a point is called saturated: most samples then have a symbol of their own."""


class InformationPoint(NamedTuple):
    """What one layer was measured to know at one moment of training.

    All informations and entropies are in ``unit``. A figure that could not be measured is NaN.

    Attributes:
        epoch: how many epochs of training came before; 0 is the point before training.
        step: how many optimizer steps came before.
        layer: the name of the module, as in ``named_modules()``.
        i_xt: I(X;T), the information about the input; H(T) where the input is the identity of the sample.
        i_ty: I(T;Y), the information about the target.
        h_t: H(T), the entropy of the narrowed representation.
        h_x: H(X), the entropy of the input; log N where the input is the identity of the sample.
        h_y: H(Y), the entropy of the target.
        h_y_given_t: H(Y|T) = H(Y) − I(T;Y), what of the target the layer does not tell.
        i_xt_given_y: I(X;T|Y), superfluous information; I(X;T) − I(T;Y) where T is a function of X.
        n_samples: N, the number of samples counted.
        n_codes: how many different symbols T showed.
        saturation: H(T) / log N. Near 1 every sample has a symbol of its own and the figures say nothing of the layer.
        unit: ``"bits"`` or ``"nats"``.
    """

    epoch: int
    step: int
    layer: str
    i_xt: float
    i_ty: float
    h_t: float
    h_x: float
    h_y: float
    h_y_given_t: float
    i_xt_given_y: float
    n_samples: int
    n_codes: int
    saturation: float
    unit: str

    @classmethod
    def missing(cls, layer: str, *, n_samples: int, unit: str, epoch: int = 0, step: int = 0) -> InformationPoint:
        """The point of a layer that could not be measured: its figures are NaN."""
        nan = math.nan
        return cls(epoch, step, layer, nan, nan, nan, nan, nan, nan, nan, n_samples, 0, nan, unit)


def write_csv(points: Iterable[InformationPoint], path: str | os.PathLike[str]) -> None:
    """Write the points, one row each, replacing the file as a whole: a reader never sees half of it.

    Raises:
        OSError: the file cannot be written; an older one is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(InformationPoint._fields)
            writer.writerows(points)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_csv(path: str | os.PathLike[str]) -> list[InformationPoint]:
    """The points of a file that :func:`write_csv` wrote, every figure to the last bit.

    Raises:
        ValueError: the file is not one of those.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        if header != InformationPoint._fields:
            raise ValueError(f"{path} is no history: its columns are {header}, expected {InformationPoint._fields}.")
        kinds = get_type_hints(InformationPoint).values()
        points = []
        for row in rows:
            if len(row) != len(header):
                raise ValueError(
                    f"{path} is no whole history: line {rows.line_num} has {len(row)} of {len(header)} cells."
                )
            points.append(InformationPoint(*(kind(cell) for kind, cell in zip(kinds, row))))
        return points
