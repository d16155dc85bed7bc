"""The bounds that a plane is compared with: the information-bottleneck curve of a distribution, and finite samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_ib.bottleneck import (
    BottleneckCurve,
    GaussianCurve,
    finite_samples,
    ib_curve,
    input_compression_bound,
)
from lightning_ib.bottleneck.joint import checked_joint
from lightning_ib.functional import NOT_FINITE, Symbols, Unit, joint, symbols
from lightning_ib.functional.checks import checked_choice, in_unit, kind_of, logarithm, plain_tensor, sentence
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import STANDARD_ERRORS
from lightning_ib.warn_once import WarnOnce

Bound = Tensor | BottleneckCurve | GaussianCurve | Literal["labels", "data", "finite_sample", "input_compression"]
"""A bound: a joint distribution p(x, y), a curve, or the name of one; see :class:`PlaneBounds`."""

DELTA = 0.05
"""The probability that a bound for finite samples fails."""

_CURVES = ("labels", "data")
_ABOUT_X = ("labels", "data", "finite_sample")
_NAMES = (*_CURVES, "finite_sample", "input_compression")
_MOST_WORK = 25_600  # X Y² of a curve that is solved during a run: about twenty seconds for 256 × 10
_N_CORNERS = 65
_ROUNDING = 1e-9


class Pass(NamedTuple):
    """The samples of a pass that a bound is counted on.

    Attributes:
        x: the symbols of the input; ``None`` where it is unknown.
        y: the symbols of the target; ``None`` without one.
        n: the number of samples.
    """

    x: Symbols | None
    y: Symbols | None
    n: int


class PlaneBounds:
    r"""The bounds of one plane: the most I(T;Y) at the I(X;T) of a layer, and by how much the layer lies below it.

    .. math:: \text{I\_TY\_bound} = \max_{p(t|x):\, I(X;T) \le i} I(T;Y), \qquad
              \text{I\_TY\_gap} = \text{I\_TY\_bound} - I(T;Y)

    at the measured i; for hard labels that is min(i, H(Y)).

    Source:
        Tishby, Pereira & Bialek (1999).

    Cost:
        None for ``"labels"`` and a given curve. One that is solved in a run takes up to about twenty seconds, once.

    Samples:
        ``"data"`` counts p(y|x), and so needs inputs that come up several times.

    Trap:
        The bound is one for the p(x, y) it was given: counted labels may hold more, and the gap is then below 0. It is
        as wrong as I(X;T): a saturated layer has H(Y) for a bound and no gap.

    Args:
        asked: one bound or several; ``None`` for none. A joint distribution p(x, y) of shape ``(X, Y)``, or a curve of
            :mod:`lightning_ib.bottleneck`, in any unit; ``"labels"`` for hard labels, min(I(X;T), H(Y)); ``"data"`` for
            the curve of p(y|x) as counted on inputs that come up several times; ``"finite_sample"`` for how far
            counted informations may be from the true ones; ``"input_compression"`` for the generalization error that
            compression would allow, a heuristic.
        unit: of the plane.
        identity: whether each sample is an x of its own, no quantizer being given for the input.
        tokens: whether tokens are the samples.
        warned: takes the warnings.
        target: which of several targets the plane is about; empty for a single one.

    Raises:
        TypeError: a bound is of another kind.
        ValueError: it is no distribution, a curve of the dual, an unknown name, the second curve, or one that says
            nothing for such samples.
    """

    def __init__(
        self, asked: Any, unit: Unit, *, identity: bool, tokens: bool, warned: WarnOnce, target: str = ""
    ) -> None:
        parts = [] if asked is None else list(asked) if isinstance(asked, (list, tuple)) else [asked]
        names = list(dict.fromkeys(checked_choice(one, "bound", _NAMES) for one in parts if isinstance(one, str)))
        given = [_checked_kind(one) for one in parts if not isinstance(one, str)]
        if len(given) + sum(one in _CURVES for one in names) > 1:
            raise ValueError(
                "bound must hold one curve, got several: give a joint distribution, a curve, 'labels' or 'data', and "
                "beside it 'finite_sample' or 'input_compression'."
            )
        of_x = [one for one in names if one in _ABOUT_X]
        counted = [one for one in of_x if one != "labels"]
        if counted and tokens:
            raise ValueError(
                f"bound={counted[0]!r} takes the representation for a function of x, and with tokens=True it depends "
                "on the tokens around: give a joint distribution of what a token can depend on and its label."
            )
        if of_x and not identity:
            raise ValueError(
                f"bound={of_x[0]!r} takes the representation for a function of x, and it depends on more than the bin "
                "that input=… puts x into: leave input out, or give the joint distribution of those bins and Y."
            )
        self._unit, self._warned, self._target = unit, warned, target
        self.name = next((one for one in names if one in _CURVES), "curve" if given else "")
        """``"labels"``, ``"data"``, ``"curve"``, or empty without a curve."""
        self.finite_sample, self.input_compression = "finite_sample" in names, "input_compression" in names
        self.line: BoundLine | None = None
        """The curve at the last measurement, as far as I(X;T) can reach."""
        self.how = ""
        """How the curve was counted on the data, in words."""
        # The curve that was given, or that of the data once it is counted, and on how many samples that was.
        self._curve = given_curve(given[0], unit) if given else None
        self._n_counted: int | None = None

    @property
    def needs_input(self) -> bool:
        """Whether the inputs of the samples are looked at."""
        return self.name == "data" or self.finite_sample

    @property
    def quantities(self) -> list[str]:
        """The quantities that are recorded of a layer."""
        named = ["I_TY_bound", "I_TY_gap"] if self.name else []
        named += ["I_XT_finite_sample", "I_TY_finite_sample"] if self.finite_sample else []
        return named + ["error_heuristic"] * self.input_compression

    def applied(self, points: Mapping[str, InformationPoint], seen: Pass) -> dict[str, InformationPoint]:
        """The points beside the curve. One that is unknown is one warning, and NaN.

        Args:
            points: layer → its point.
            seen: the samples that p(y|x) is counted on.
        """
        found = dict(points)
        if self.name:
            bound, self.line = self._bound(found, seen), None
            if bound is not None:
                found = {layer: self._with_gap(point, bound) for layer, point in found.items()}
                self.line = self._line(found, bound)
        return found

    def _warn(self, key: str, message: str) -> None:
        about = f"target {self._target!r}: " if self._target else ""
        self._warned.warn(about + key, about + message, stacklevel=3)

    # -- the curve -----------------------------------------------------------------------------------------------------

    def _bound(self, points: Mapping[str, InformationPoint], seen: Pass) -> Callable[[float], float] | None:
        """The largest I(T;Y) at an I(X;T); ``None`` where it is unknown."""
        if self.name == "labels":
            h_y = max((one.h_y for one in points.values() if math.isfinite(one.h_y)), default=math.nan)
            if seen.y is not None:  # a correction may put H(Y) above
                h_y = min(h_y, logarithm(self._unit)(len(seen.y.counts)))
            return None if math.isnan(h_y) else lambda r: min(r, h_y)
        if self._curve is None:
            self._curve = self._of_data(seen)
        if (curve := self._curve) is None:
            return None
        scale = self._scale(curve)
        return lambda r: scale * float(curve.bound(r / scale))

    def _scale(self, curve: BottleneckCurve | GaussianCurve) -> float:
        """The unit of a curve in that of the plane."""
        return in_unit(1.0, self._unit) / in_unit(1.0, curve.unit)

    def _of_data(self, seen: Pass) -> BottleneckCurve | None:
        """The curve of p(x, y) as counted; ``None``, and one warning, where there is none."""
        counts = self._joint_counts(seen)
        if counts is None:
            return None
        p_xy = counts.double() / counts.sum()
        try:
            n_rows, n_labels = len(checked_joint(p_xy).p_x), counts.shape[1]
            if n_rows * n_labels**2 > _MOST_WORK:
                raise ValueError(
                    f"the inputs have {n_rows} different p(y|x) of {n_labels} labels, more than a curve is solved for "
                    "during a run: make one beforehand by ib_curve, with fewer rows or labels, and give it as bound."
                )
            curve = _curve_of(p_xy, self._unit)
        except Exception as error:  # a bound must leave the run going
            self._warn("bound", f"there is no bound from the data: {sentence(error)}")
            return None
        self._n_counted = seen.n
        self.how = (
            f"{len(counts)} different inputs among {int(counts.sum())} samples, I(X;Y) = {curve.i_xy:.3f} {self._unit}"
        )
        return curve

    def _joint_counts(self, seen: Pass) -> Tensor | None:
        """How often each input came with each label, ``(X, Y)``; ``None``, and one warning, where inputs are new."""
        if seen.x is None or seen.y is None or len(seen.y.counts) < 2:
            missing = "inputs of one tensor with a row a sample" if seen.x is None else "labels of several classes"
            self._warn("bound", f"there is no bound from the data, which needs {missing}.")
            return None
        n_x, n_y = len(seen.x.counts), len(seen.y.counts)
        repeated = int(seen.x.counts[seen.x.counts > 1].sum())
        if repeated == 0:
            self._warn(
                "bound",
                f"there is no bound from the data: each of the {seen.n} inputs came once, so that p(y|x) is unknown. "
                "Give bound=p_xy where the joint distribution is known, or bound='labels' where a label is a function "
                "of the input.",
            )
            return None
        if repeated < seen.n / 2:
            self._warn(
                "bound of few",
                f"the bound takes {seen.n - repeated} of {seen.n} labels for certain, since their inputs came once: it "
                "is that of the sample, and above the one of the distribution.",
            )
        pairs = seen.x.numbers.cpu() * n_y + seen.y.numbers.cpu()
        return torch.bincount(pairs, minlength=n_x * n_y).reshape(n_x, n_y)

    def _with_gap(self, point: InformationPoint, bound: Callable[[float], float]) -> InformationPoint:
        if not math.isfinite(point.i_xt):
            return point
        if self._n_counted is not None and point.n_samples > self._n_counted:
            self._warn(
                "bound of a sample",
                f"the bound is counted on {self._n_counted} of the {point.n_samples} samples that layers in bins are: "
                "give max_samples for all of them.",
            )
        r = max(0.0, point.i_xt)
        best = bound(r)
        step = max(1e-6, 1e-3 * r)
        slope = (bound(r + step) - bound(max(0.0, r - step))) / (r + step - max(0.0, r - step))
        error = point.i_ty_se + slope * point.i_xt_se
        gap = best - point.i_ty
        gap = 0.0 if abs(gap) < _ROUNDING else gap
        if gap < -STANDARD_ERRORS * (error if math.isfinite(error) else 0.0) and point.verdict == "ok":
            self._warn(
                f"bound of {point.layer}",
                f"layer {point.layer!r}: I(T;Y) = {point.i_ty:.3f} is above the bound, {best:.3f} {point.unit} at "
                f"I(X;T) = {point.i_xt:.3f}: the samples are from another distribution than the bound, or each input "
                "came with one drawn label, which counts as known. Measure each input as often as its p(y|x) asks, or "
                "give the bound of the data.",
            )
        return point._replace(i_ty_bound=best, i_ty_gap=gap, i_ty_gap_se=error)

    def _line(self, points: Mapping[str, InformationPoint], bound: Callable[[float], float]) -> BoundLine:
        """The corners of the curve, up to H(X)."""
        most = max((one.h_x for one in points.values() if math.isfinite(one.h_x)), default=0.0)
        most = max([most, *(one.i_xt for one in points.values() if math.isfinite(one.i_xt))])
        corners = {most * k / (_N_CORNERS - 1) for k in range(_N_CORNERS)}
        if self.name == "labels":
            corners = {0.0, most, *(one.h_y for one in points.values() if 0 < one.h_y < most)}
        elif self._curve is not None:
            own = (self._scale(self._curve) * self._curve.i_xt).tolist()
            corners |= {one for one in own if 0 < one < most}
        xs = sorted(corners)
        return BoundLine(xs, [bound(x) for x in xs], self._unit, _LABELS[self.name])

    # -- finite samples ------------------------------------------------------------------------------------------------

    def with_deviations(self, point: InformationPoint, t: Symbols | None, seen: Pass) -> InformationPoint:
        """The point with the bounds for finite samples that were asked for.

        Args:
            point: of a layer.
            t: the symbols of the layer; ``None`` where it was not measured.
            seen: the samples that it was counted on; without symbols of the input each is an x of its own.
        """
        if self.input_compression and math.isfinite(point.i_xt):
            error = input_compression_bound(max(0.0, point.i_xt), point.n_samples, delta=DELTA, unit=self._unit)
            point = point._replace(error_heuristic=float(error))
        if t is None or seen.y is None or not self.finite_sample:
            return point
        if point.source == "binned":
            self._warn(
                "finite sample in bins",
                "bound='finite_sample' is for layers in cells, whose sampled inputs are told apart: layers in bins "
                "have no value.",
            )
            return point
        x = symbols(torch.arange(seen.n)) if seen.x is None else seen.x
        n_x, n_t, n_y = len(x.counts), len(t.counts), len(seen.y.counts)
        pairs = _pairs(x, t)
        p = pairs.counts.double() / x.counts.cpu()[pairs.first]
        zeros = torch.zeros(n_t, dtype=torch.float64)
        of_y = _pairs(seen.y, t)
        p_y = of_y.counts.double() / seen.y.counts.cpu()[of_y.first]
        found = finite_samples.deviations(
            zeros.index_add(0, pairs.second, p.square()),
            zeros.index_add(0, pairs.second, p),
            _entropies(pairs.first, p, n_x),
            _entropies(of_y.first, p_y, n_y),
            seen.n,
            delta=DELTA,
        )
        of_x, of_target = (in_unit(one, self._unit) for one in found)
        return point._replace(i_xt_finite_sample=of_x, i_ty_finite_sample=of_target)


_LABELS = {"labels": "bound: min(I(X;T), H(Y))", "data": "IB bound of the data", "curve": "IB bound"}


def given_curve(bound: Any, unit: Unit) -> BottleneckCurve | GaussianCurve:
    """The curve of a joint distribution, or the one that was given.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is no distribution, or a curve of the dual.
    """
    if isinstance(bound, GaussianCurve):
        return bound
    if isinstance(bound, BottleneckCurve):
        if bound.kind == "dual":
            raise ValueError(
                "bound must be a curve that bounds I(T;Y), got one of the dual: give ib_curve(p_xy, kind='ib')."
            )
        return bound
    return _curve_of(plain_tensor(_checked_kind(bound)), unit)


def bounds_by_target(
    asked: Any, targets: Sequence[str], unit: Unit, *, identity: bool, tokens: bool, warned: WarnOnce
) -> dict[str, PlaneBounds]:
    """The bounds of the plane of each target; a distribution or a curve that was given is about the first one.

    Args:
        asked: see :class:`PlaneBounds`.
        targets: their names.
        unit: see :class:`PlaneBounds`.
        identity: see :class:`PlaneBounds`.
        tokens: see :class:`PlaneBounds`.
        warned: see :class:`PlaneBounds`.
    """
    parts = [] if asked is None else list(asked) if isinstance(asked, (list, tuple)) else [asked]
    names = [one for one in parts if isinstance(one, str)]
    options: dict[str, Any] = {"identity": identity, "tokens": tokens, "warned": warned}
    return {
        target: PlaneBounds(names if k else asked, unit, **options, target=target) for k, target in enumerate(targets)
    }


def _checked_kind(bound: Any) -> Any:
    """A joint distribution or a curve, as it is.

    Raises:
        TypeError: it is of another kind.
    """
    if isinstance(bound, (Tensor, BottleneckCurve, GaussianCurve)):
        return bound
    numbers = hasattr(bound, "__array__") or isinstance(bound, (list, tuple))
    remedy = "give torch.as_tensor(p_xy, dtype=torch.float64)" if numbers else "give one of those, or a list of names"
    raise TypeError(
        "bound must be a tensor p(x, y), a curve of lightning_ib.bottleneck, 'labels', 'data', 'finite_sample' or "
        f"'input_compression', got {kind_of(bound)}: {remedy}."
    )


def _curve_of(p_xy: Tensor, unit: Unit) -> BottleneckCurve:
    """The curve of a joint distribution, 0 everywhere where X and Y are independent."""
    independent = len(checked_joint(p_xy).p_x) == 1
    return ib_curve(p_xy, [1.0] if independent else None, unit=unit)


def solved(asked: Any, unit: Any) -> Any:
    """The same bounds with curves in place of joint distributions, which so are solved once for many planes."""
    if isinstance(asked, (list, tuple)):
        return [one if isinstance(one, (list, tuple)) else solved(one, unit) for one in asked]
    return asked if asked is None or isinstance(asked, str) else given_curve(asked, unit)


class _Pairs(NamedTuple):
    """The different pairs of symbols of two variables: the first, the second, and how often they came."""

    first: Tensor
    second: Tensor
    counts: Tensor


def _pairs(a: Symbols, b: Symbols) -> _Pairs:
    both = joint(a, b)
    place = torch.empty(len(both.counts), dtype=torch.int64)
    place[both.numbers.cpu()] = torch.arange(len(both.numbers))
    return _Pairs(a.numbers.cpu()[place], b.numbers.cpu()[place], both.counts.cpu())


def _entropies(row: Tensor, p: Tensor, n_rows: int) -> Tensor:
    """The entropy of each row in nats, from its probabilities."""
    return torch.zeros(n_rows, dtype=torch.float64).index_add(0, row, -torch.special.xlogy(p, p))


def input_symbols(ids: Tensor | None) -> Symbols | None:
    """The symbols of inputs; ``None`` where they are unknown, or one has a NaN or an infinity in it.

    Args:
        ids: from :func:`~lightning_ib.functional.discretize.ids.value_ids`, ``(N,)``.
    """
    return None if ids is None or bool((ids == NOT_FINITE).any()) else symbols(ids)
