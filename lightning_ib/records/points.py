"""The view of one layer at one moment: a point of the information plane, and the records it consists of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lightning_ib.records.record import COUNTED, Record, is_about_target, unit_of

_CORE = ("I_XT", "I_TY", "H_T", "saturation")

_FIELDS = {
    "I_XT": "i_xt",
    "I_TY": "i_ty",
    "H_T": "h_t",
    "H_X": "h_x",
    "H_Y": "h_y",
    "H_Y_given_T": "h_y_given_t",
    "I_XT_given_Y": "i_xt_given_y",
    "saturation": "saturation",
    "n_codes": "n_codes",
    "I_TY_permuted": "i_ty_permuted",
    "I_TY_permuted_sd": "i_ty_permuted_sd",
    "singleton_fraction": "singleton_fraction",
    "clipped_fraction": "clipped_fraction",
    "explained_variance": "explained_variance",
    "accuracy": "accuracy",
    "I_TY_fano": "i_ty_fano",
    "fano_shortfall": "fano_shortfall",
    "I_TY_bound": "i_ty_bound",
    "I_TY_gap": "i_ty_gap",
    "I_XT_finite_sample": "i_xt_finite_sample",
    "I_TY_finite_sample": "i_ty_finite_sample",
    "error_heuristic": "error_heuristic",
}
"""Quantity → the field of a point."""

_WITH_ERRORS = ("I_XT", "I_TY", "H_T", "H_X", "H_Y", "H_Y_given_T", "I_XT_given_Y", "I_TY_gap")


class InformationPoint(NamedTuple):
    """The measured informations and entropies of one layer at one moment of training.

    All of them are in ``unit``. A missing value is NaN.

    Attributes:
        epoch: the number of epochs of training that came before; 0 is the point before training.
        step: the number of optimizer steps that came before.
        layer: the name of the module, as in ``named_modules()``.
        i_xt: I(X;T), the information about the input; H(T) where the input is the identity of the sample.
        i_ty: I(T;Y), the information about the target.
        h_t: H(T), the entropy of the discretized representation.
        h_x: H(X), the entropy of the input; log N where the input is the identity of the sample.
        h_y: H(Y), the entropy of the target.
        h_y_given_t: H(Y|T) = H(Y) − I(T;Y), the uncertainty about the target that remains given the layer.
        i_xt_given_y: I(X;T|Y), superfluous information; I(X;T) − I(T;Y) where T is a function of X.
        n_samples: N, the number of samples counted.
        n_codes: the number of different symbols of T.
        saturation: H(T) / log N, H(T) as counted. Near 1 every sample has a symbol of its own, and the values describe
            the sample rather than the layer.
        unit: ``"bits"`` or ``"nats"``.
        i_xt_se: the standard error of ``i_xt``, as of the values below: its scatter among samples of N, without its
            bias. See :func:`~lightning_ib.functional.standard_error`.
        i_ty_se: the standard error of ``i_ty``.
        h_t_se: the standard error of ``h_t``.
        h_x_se: the standard error of ``h_x``; 0 where the input is the identity of the sample.
        h_y_se: the standard error of ``h_y``.
        h_y_given_t_se: the standard error of ``h_y_given_t``.
        i_xt_given_y_se: the standard error of ``i_xt_given_y``.
        i_ty_permuted: the permutation baseline: the mean of I(T;Y) over all permutations of the labels, in closed form.
            (With the corrections ``"chao_shen"``, ``"james_stein"``, ``"chao_wang_jost"`` and ``"nsb"``, the mean
            over a few random permutations.)
        i_ty_permuted_sd: the standard deviation of I(T;Y) among random permutations; NaN unless asked for.
        singleton_fraction: the fraction of the samples with a symbol seen once: by Good and Turing the probability
            that the next sample shows a new symbol.
        clipped_fraction: the fraction of the values of T outside the bins: past the outermost edge by more than the
            width of the bin next to it. NaN where a coordinate has a single edge, so that the width is undefined.
        verdict: the reliability flag: ``"ok"``, ``"constant"``, ``"saturated"``, ``"clipped"``, ``"undersampled"``,
            ``"too_coarse"``, ``"target_saturated"`` or ``"target_undersampled"`` (see
            :func:`~lightning_ib.records.reliability.verdict`); empty where nothing was measured.
        correction: of the plug-in entropies, such as ``"miller_madow"``; empty for plug-in values.
        source: ``"cells"``, on a sample of ``n_samples``, or ``"binned"``, counted on every sample.
        explained_variance: the fraction of the layer's variance that lies between its cells; NaN for bins.
        accuracy: of the head, the fraction of the sampled rows where the most probable class is the label; else NaN.
        i_ty_fano: the least I(T;Y) of every layer that the head's predictions are computed from alone, by their
            accuracy (see :func:`~lightning_ib.functional.fano_information`); NaN without a head.
        fano_shortfall: by how much ``i_ty`` lies below ``i_ty_fano``, else 0. A layer that the predictions are
            computed from alone holds at least ``i_ty_fano``: a shortfall is information that its symbols miss. One
            that a skip connection goes around may hold less.
        i_ty_bound: where a bound was asked for, the largest I(T;Y) that a representation with this I(X;T) can have: the
            information-bottleneck curve at ``i_xt``.
        i_ty_gap: the distance from it, ``i_ty_bound`` − ``i_ty``. Below 0 where the counted labels hold more about X
            than the distribution of the bound.
        i_ty_gap_se: the standard error of ``i_ty_gap``, at most: that of ``i_ty``, and that of ``i_xt`` times the
            slope of the curve.
        i_xt_finite_sample: where asked for, the most by which ``i_xt`` is off with a probability of 95 %
            (see :func:`~lightning_ib.bottleneck.finite_sample_bound`).
        i_ty_finite_sample: the most by which ``i_ty`` is.
        error_heuristic: where asked for, the generalization error that the compression of X would allow if the measured
            samples were the training set, a heuristic (see :func:`~lightning_ib.bottleneck.input_compression_bound`).
        target: the name of Y, where several targets were measured in one pass; empty for a single one.
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
    i_ty_permuted: float = math.nan
    i_ty_permuted_sd: float = math.nan
    singleton_fraction: float = math.nan
    clipped_fraction: float = math.nan
    verdict: str = ""
    correction: str = ""
    source: str = "cells"
    explained_variance: float = math.nan
    accuracy: float = math.nan
    i_ty_fano: float = math.nan
    fano_shortfall: float = math.nan
    i_ty_bound: float = math.nan
    i_ty_gap: float = math.nan
    i_ty_gap_se: float = math.nan
    i_xt_finite_sample: float = math.nan
    i_ty_finite_sample: float = math.nan
    error_heuristic: float = math.nan
    target: str = ""

    @classmethod
    def missing(
        cls, layer: str, *, n_samples: int, unit: str, epoch: int = 0, step: int = 0, source: str = "cells"
    ) -> InformationPoint:
        """The point of a layer that was not measured: its values are NaN."""
        nan = math.nan
        return cls(epoch, step, layer, nan, nan, nan, nan, nan, nan, nan, n_samples, 0, nan, unit, source=source)

    @property
    def out_of_bounds(self) -> str:
        """The values that a correction pushed past a bound, such as ``"h_t > log N, i_ty > H(Y)"``; kept as they are.

        Empty if all bounds hold, as they do for plug-in values.
        """
        if not self.correction or not self.n_samples:
            return ""
        log_n = math.log2(self.n_samples) if self.unit == "bits" else math.log(self.n_samples)
        bounds = {
            "h_t > log N": self.h_t > log_n,
            "i_xt > H(X)": self.i_xt > self.h_x,
            "i_xt < 0": self.i_xt < 0,
            "i_ty > H(Y)": self.i_ty > self.h_y,
            "i_ty < 0": self.i_ty < 0,
            "h_y_given_t < 0": self.h_y_given_t < 0,
            "i_xt_given_y < 0": self.i_xt_given_y < 0,
        }
        return ", ".join(name for name, passed in bounds.items() if passed)

    def records(self) -> Iterator[Record]:
        """The records of the point: I(X;T), I(T;Y) and H(T), and all other values that are defined."""
        for quantity, field in _FIELDS.items():
            value = float(getattr(self, field))
            error = getattr(self, f"{field}_se") if quantity in _WITH_ERRORS else math.nan
            if quantity in _CORE or not (math.isnan(value) and math.isnan(error)):
                yield Record(
                    self.epoch,
                    self.step,
                    self.layer,
                    self.source,
                    quantity,
                    value,
                    error,
                    unit_of(quantity, self.unit),
                    self.n_samples,
                    self.verdict,
                    self.correction,
                    self.target if is_about_target(quantity) else "",
                )


def records_of(points: Iterable[InformationPoint]) -> Iterator[Record]:
    """The records of points; of those of one layer that differ in the target alone, what is about none comes once."""
    seen: dict[tuple[int, int, str, str], str] = {}
    for point in points:
        first = seen.setdefault((*point[:3], point.source), point.target)
        yield from (one for one in point.records() if first == point.target or one.target)


def points_of(records: Iterable[Record]) -> list[InformationPoint]:
    """The points that counted records belong to, in the order of their first records; estimates are passed over.

    Of several targets each has a point, which shares the values about no target with the others.
    """
    found: dict[tuple[int, int, str, str], dict[str, list[Record]]] = {}
    for record in records:
        if record.source in COUNTED and record.quantity in _FIELDS:
            found.setdefault(record[:4], {}).setdefault(record.target, []).append(record)
    points = []
    for by_target in found.values():
        shared = by_target.get("", [])
        named = {target: of for target, of in by_target.items() if target}
        points += [_point(target, shared, of) for target, of in named.items()] or [_point("", shared, [])]
    return points


def _point(target: str, shared: Sequence[Record], own: Sequence[Record]) -> InformationPoint:
    """The point of records of one layer, moment and source: those about no target, and those about its own."""
    first = (own or shared)[0]
    missing = InformationPoint.missing(first.layer, n_samples=first.n_samples, unit=first.unit)
    point: dict[str, Any] = missing._asdict() | {
        "epoch": first.epoch,
        "step": first.step,
        "source": first.source,
        "verdict": first.verdict,
        "correction": first.correction,
        "target": target,
    }
    for record in (*shared, *own):
        field = _FIELDS[record.quantity]
        if field != "n_codes":
            point[field] = record.value
        elif math.isfinite(record.value):
            point[field] = int(record.value)
        if record.quantity in _WITH_ERRORS:
            point[f"{field}_se"] = record.standard_error
            point["unit"] = record.unit
    return InformationPoint(**point)
