"""One point of the information plane, and the history of points as a CSV file."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

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


def restored_points(saved: Any) -> tuple[list[InformationPoint], list[str]]:
    """The points of a history that a checkpoint holds as a list of dictionaries, as far as they can be read.

    A figure that is not there, as in a history of another version, is NaN. A point without epoch, layer or unit, or
    with a value of the wrong type, is left out.

    Returns:
        The points, and in words what is wrong with the others: nothing, as a rule.

    Example:
        >>> points, faults = restored_points([{"epoch": 1, "step": 9, "layer": 3, "unit": "bits"}])
        >>> points, faults[-1]
        ([], 'a point of its history has layer=3, not a str')
    """
    if not isinstance(saved, list):
        return [], [
            f"its history is {'missing' if saved is None else f'a {type(saved).__name__}'}, not a list of points"
        ]
    points, faults = [], dict[str, None]()  # a fault that many points share is told once
    for entry in saved:
        if not isinstance(entry, Mapping):
            faults[f"a point of its history is a {type(entry).__name__}, not a mapping"] = None
            continue
        point = InformationPoint.missing("", n_samples=0, unit="")._asdict()
        lacking, unknown = [key for key in point if key not in entry], [key for key in entry if key not in point]
        if lacking:
            faults[f"points of its history lack {lacking}"] = None
        if unknown:
            faults[f"points of its history have {unknown}, which is unknown here"] = None
        point |= {key: value for key, value in entry.items() if key in point}
        wrong = [
            f"a point of its history has {key}={point[key]!r}, not a {kind.__name__}"
            for key, kind in get_type_hints(InformationPoint).items()
            if isinstance(point[key], bool) or not isinstance(point[key], (int, float) if kind is float else kind)
        ]
        faults |= dict.fromkeys(wrong)
        if not wrong and not {"epoch", "layer", "unit"} & set(lacking):
            points.append(InformationPoint(**point))
    return points, list(faults)


def write_csv(points: Iterable[InformationPoint], path: str | os.PathLike[str]) -> None:
    """Write the points, one row each, replacing the file as a whole: a reader never sees half of it.

    Raises:
        OSError: the file cannot be written; an older one is left as it was.
    """
    with replacing(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(InformationPoint._fields)
        writer.writerows(points)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``; once it is written whole it takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
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
