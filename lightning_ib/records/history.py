"""What is recorded: a point of the information plane, an estimate beside it, and their histories as CSV files."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

from lightning_ib.records.tags import SHARES

STANDARD_ERRORS = 2
"""How many of them a bar or a band reaches to either side, wherever one is drawn or logged."""


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
        saturation: H(T) / log N, H(T) as counted. Near 1 every sample has a symbol of its own and the figures say
            nothing of the layer.
        unit: ``"bits"`` or ``"nats"``.
        i_xt_se: the standard error of ``i_xt``, as of the figures below: how far it would scatter among samples of N,
            without its bias. See :func:`~lightning_ib.functional.standard_error`.
        i_ty_se: the standard error of ``i_ty``.
        h_t_se: the standard error of ``h_t``.
        h_x_se: the standard error of ``h_x``; 0 where the input is the identity of the sample.
        h_y_se: the standard error of ``h_y``.
        h_y_given_t_se: the standard error of ``h_y_given_t``.
        i_xt_given_y_se: the standard error of ``i_xt_given_y``.
        i_ty_shuffled: the mean of I(T;Y) over all permutations of the labels, in closed form: what chance alone gives.
            (With the corrections ``"chao_shen"`` and ``"james_stein"``, the mean over a few random permutations.)
        i_ty_shuffled_sd: the standard deviation of I(T;Y) among random permutations; NaN unless ``shuffles`` asks.
        singletons: the share of the symbols of T that were seen once.
        outside: the share of the values of T outside the bins: beyond the outermost edge by more than the width of the
            bin next to it. NaN where a coordinate has one edge, and its bins no width.
        verdict: whether the values can be believed: ``"ok"``, ``"constant"``, ``"saturated"``, ``"clipped"``,
            ``"undersampled"``, ``"too_coarse"``, ``"target_saturated"`` or ``"target_undersampled"`` (see
            :func:`~lightning_ib.records.reliability.verdict`); empty where nothing was measured.
        correction: how the plug-in entropies were corrected, such as ``"miller_madow"``; empty where they were not.
        beyond: which figures a correction pushed past a bound, such as ``"h_t > log N, i_ty > H(Y)"``; kept as they
            are. Empty where none was.
        source: what the symbols are: ``"cells"``, on a sample of ``n_samples``, or ``"bins"``, counted on every sample.
        explained: the share of the layer's variance that lies between its cells: how much of its spread they show; NaN
            for bins.
        accuracy: of the head, the share of the sampled rows whose most probable class is their label; NaN for others.
        i_ty_fano: the least I(T;Y) of every layer that the head's predictions are computed from alone, by their
            accuracy (see :func:`~lightning_ib.functional.fano_information`); NaN where no head was measured.
        fano_shortfall: by how much ``i_ty`` lies below ``i_ty_fano``; 0 where it does not. A layer that the predictions
            are computed from alone holds at least ``i_ty_fano``, and a shortfall is what its symbols do not show; one
            that a skip connection goes around may hold less.
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
    i_xt_se: float = math.nan
    i_ty_se: float = math.nan
    h_t_se: float = math.nan
    h_x_se: float = math.nan
    h_y_se: float = math.nan
    h_y_given_t_se: float = math.nan
    i_xt_given_y_se: float = math.nan
    i_ty_shuffled: float = math.nan
    i_ty_shuffled_sd: float = math.nan
    singletons: float = math.nan
    outside: float = math.nan
    verdict: str = ""
    correction: str = ""
    beyond: str = ""
    source: str = ""
    explained: float = math.nan
    accuracy: float = math.nan
    i_ty_fano: float = math.nan
    fano_shortfall: float = math.nan

    @classmethod
    def missing(cls, layer: str, *, n_samples: int, unit: str, epoch: int = 0, step: int = 0) -> InformationPoint:
        """The point of a layer that could not be measured: its figures are NaN."""
        nan = math.nan
        return cls(epoch, step, layer, nan, nan, nan, nan, nan, nan, nan, n_samples, 0, nan, unit)


class Estimate(NamedTuple):
    """What one estimator that does not bin says of one layer at one moment of training.

    Attributes:
        epoch: how many epochs of training came before.
        step: how many optimizer steps came before.
        layer: the name of the module.
        estimator: the name of the estimator, such as ``"kde"``.
        figure: what it estimates, such as ``"I_TY"``, ``"I_XT_lower"`` or ``"accuracy"``.
        value: the figure; NaN where it could not be estimated.
        unit: ``"bits"`` or ``"nats"``; empty for what is no information, such as an accuracy or a kernel's width.
        n_samples: how many rows it was estimated from.
        verdict: whether the value can be believed: ``"ok"``, ``"saturated"``, ``"above_bound"``, ``"outgrown"`` or
            ``"at_chance"`` (see :func:`~lightning_ib.estimators.reliability.estimate_verdict`); empty where there is
            none.
    """

    epoch: int
    step: int
    layer: str
    estimator: str
    figure: str
    value: float
    unit: str
    n_samples: int
    verdict: str = ""


def unit_of(figure: str, unit: str) -> str:
    """The unit of a value: that of informations, or none for a share and for the width of a kernel."""
    unitless = figure.endswith("accuracy") or figure in (*SHARES, "noise_variance", "kernel_width")
    return "" if unitless else unit


class Measurement(NamedTuple):
    """What one measurement came to.

    Attributes:
        points: a point for each layer.
        estimates: the figures of estimators that do not bin, where there are any.
    """

    points: list[InformationPoint]
    estimates: list[Estimate]


Record = TypeVar("Record", InformationPoint, Estimate)

_NEEDED = {"epoch", "layer", "unit"}


def restored_points(saved: Any, kind: type[Record]) -> tuple[list[Record], list[str]]:
    """The points of a history that a checkpoint holds as a list of dictionaries, as far as they can be read.

    A figure that is not there, as in a history of another version, is NaN. A point without epoch, layer or unit, or
    with a value of the wrong type, is left out.

    Args:
        saved: what a checkpoint holds.
        kind: what it is a history of, :class:`InformationPoint` or :class:`Estimate`.

    Returns:
        The points, and in words what is wrong with the others: nothing, as a rule.

    Example:
        >>> points, faults = restored_points([{"epoch": 1, "step": 9, "layer": 3, "unit": "bits"}], InformationPoint)
        >>> points, faults[-1]
        ([], 'a point of its history has layer=3, not a str')
    """
    if not isinstance(saved, list):
        return [], [
            f"its history is {'missing' if saved is None else f'a {type(saved).__name__}'}, not a list of points"
        ]
    points, faults = [], dict[str, None]()  # a fault that many points share is told once
    types = get_type_hints(kind)
    for entry in saved:
        if not isinstance(entry, Mapping):
            faults[f"a point of its history is a {type(entry).__name__}, not a mapping"] = None
            continue
        point: dict[str, Any] = {key: {float: math.nan, int: 0}.get(of, "") for key, of in types.items()}
        lacking, unknown = [key for key in point if key not in entry], [key for key in entry if key not in point]
        if lacking:
            faults[f"points of its history lack {lacking}"] = None
        if unknown:
            faults[f"points of its history have {unknown}, which is unknown here"] = None
        point |= {key: value for key, value in entry.items() if key in point}
        wrong = [
            f"a point of its history has {key}={point[key]!r}, not a {of.__name__}"
            for key, of in types.items()
            if isinstance(point[key], bool) or not isinstance(point[key], (int, float) if of is float else of)
        ]
        faults |= dict.fromkeys(wrong)
        if not wrong and not _NEEDED & set(lacking):
            points.append(kind(**point))
    return points, list(faults)


def write_csv(
    points: Iterable[Record],
    path: str | os.PathLike[str],
    kind: type[Record] = InformationPoint,  # type: ignore[assignment]
) -> None:
    """Write the points, one row each, replacing the file as a whole: a reader never sees half of it.

    Args:
        points: the history.
        path: the file.
        kind: what it is a history of, :class:`InformationPoint` or :class:`Estimate`.

    Raises:
        OSError: the file cannot be written; an older one is left as it was.
    """
    with replacing(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(kind._fields)
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


def read_csv(
    path: str | os.PathLike[str],
    kind: type[Record] = InformationPoint,  # type: ignore[assignment]
) -> list[Record]:
    """The points of a file that :func:`write_csv` wrote, every figure to the last bit.

    Args:
        path: the file.
        kind: what it is a history of, :class:`InformationPoint` or :class:`Estimate`.

    Raises:
        ValueError: the file is not one of those.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        if header != kind._fields:
            raise ValueError(f"{path} is no history: its columns are {header}, expected {kind._fields}.")
        types = get_type_hints(kind).values()
        points = []
        for row in rows:
            if len(row) != len(header):
                raise ValueError(
                    f"{path} is no whole history: line {rows.line_num} has {len(row)} of {len(header)} cells."
                )
            points.append(kind(*(of(cell) for of, cell in zip(types, row))))
        return points
