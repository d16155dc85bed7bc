r"""How far a representation is from the bound, and whether its encoder and decoder are self-consistent."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ib.bottleneck.critical import critical
from lightning_ib.bottleneck.curve import BottleneckCurve
from lightning_ib.bottleneck.distortion import Distortion, distortion
from lightning_ib.bottleneck.encoders import informations
from lightning_ib.bottleneck.joint import Joint, check_memory, checked_joint, divergence, entropies, merged
from lightning_ib.bottleneck.newton import encode
from lightning_ib.bottleneck.solver import solve
from lightning_ib.functional.checks import (
    Unit,
    check_same_samples,
    checked_ids,
    checked_unit,
    checked_values,
    in_unit,
    kind_of,
    plain_tensor,
)

_PRECISE = 1e-10
_LARGEST = 1e6
"""Times the onset: β above it count as infinite."""


class BoundDistance(NamedTuple):
    """A representation beside the bound. Informations are in the unit asked for.

    Attributes:
        gap: the bound at its I(X;T) less its I(T;Y); 0 for an optimal encoder, that is, below 1e-10 nats.
        beta_slope: the β of the bound at its I(X;T): the inverse slope of the curve; infinite where I(X;T) is at least
            that of the minimal sufficient statistic.
        bound: the largest I(T;Y) at its I(X;T).
        i_xt: I(X;T).
        i_ty: I(T;Y).
        beta_self_consistent: the β at which its encoder is closest to the one that its own decoder implies. Infinite
            where that gets closer without end, as for a deterministic layer whose x all have their own cluster as the
            nearest one; NaN where p(y|t) is the same for all t.
        self_consistency: the divergence there, in the unit; 0 for an optimal encoder. At an infinite β it is 0 for
            good and bad layers alike: look at ``gap``.
        degenerate: whether the self-consistency says nothing, its β being infinite or NaN.
    """

    gap: float
    beta_slope: float
    bound: float
    i_xt: float
    i_ty: float
    beta_self_consistent: float
    self_consistency: float
    degenerate: bool


def distance_to_bound(
    p_t_given_x: Tensor, p_xy: Tensor, *, curve: BottleneckCurve | None = None, unit: Unit = "bits"
) -> BoundDistance:
    r"""How far an encoder p(t|x) is from the information bottleneck bound of p(x, y).

    The gap is :math:`I^*(I(X;T)) - I(T;Y)`. The self-consistency is that of Shwartz-Ziv & Tishby (2017): the decoder
    :math:`p(y|t)` of the layer implies the optimal encoder
    :math:`p_\beta(t|x) \propto p(t)\, e^{-\beta D[p(y|x) \| p(y|t)]}`, and

    .. math:: J(\beta) = \sum_x p(x)\, D[p(t|x) \,\|\, p_\beta(t|x)]

    is convex in β; its minimum and the β there are given.

    Args:
        p_t_given_x: the encoder, shape ``(X, T)``, rows summing to 1; of a deterministic layer also the symbol of each
            x, integers of shape ``(X,)``.
        p_xy: p(x, y), shape ``(X, Y)``, summing to 1.
        curve: of p_xy and kind ``"ib"``, for the bound of many layers in little time: it is as tight as its grid of β.
            By default the bound is solved for at this I(X;T).
        unit: ``"bits"`` or ``"nats"``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is no distribution, or they are of different X.

    Example:
        A noisy copy of a uniform bit is optimal for a symmetric channel.

        >>> flip = lambda e: torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64)
        >>> found = distance_to_bound(flip(0.2), flip(0.1) / 2)
        >>> round(abs(found.gap), 8), round(found.beta_slope, 4), round(found.beta_self_consistent, 4)
        (0.0, 1.6567, 1.6567)
    """
    checked_unit(unit)
    joint = checked_joint(p_xy)
    check_memory(joint, "distance_to_bound")
    layer = _layer(p_t_given_x, joint)
    i_xt = layer.i_xt
    i_ty = min(i_xt, float(layer.w @ divergence(layer.decoder, joint.p_y)))
    bound, beta_slope = optimum(joint, i_xt) if curve is None else _on_curve(checked_curve(curve, joint), i_xt)
    bound = i_ty if abs(bound - i_ty) < _PRECISE else bound  # rounding and the last bits of the search
    beta, lowest = _self_consistency(joint.p_x, joint.rows, layer.encoder, layer.w, layer.decoder)
    lowest += max(0.0, i_xt - layer.i_merged)
    return BoundDistance(
        gap=in_unit(bound - i_ty, unit),
        beta_slope=beta_slope,
        bound=in_unit(bound, unit),
        i_xt=in_unit(i_xt, unit),
        i_ty=in_unit(i_ty, unit),
        beta_self_consistent=beta,
        self_consistency=in_unit(lowest, unit),
        degenerate=not math.isfinite(beta),
    )


class _Layer(NamedTuple):
    """An encoder p(t'|x') where x with equal p(y|x) are merged, and t with equal p(y|t); in nats.

    No β tells merged symbols apart, so that the divergence from the self-consistent encoder is that of the merged ones
    and a constant, I(X;T) less their I(X';T').

    Attributes:
        encoder: p(t'|x'), shape ``(X', T')``.
        w: p(t'), shape ``(T',)``.
        decoder: p(y|t'), shape ``(T', Y)``.
        i_xt: I(X;T).
        i_merged: I(X';T').
    """

    encoder: Tensor
    w: Tensor
    decoder: Tensor
    i_xt: float
    i_merged: float


def _layer(p_t_given_x: Any, joint: Joint) -> _Layer:
    """The encoder of a layer, from p(t|x) or from symbols.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is no conditional distribution, or of another number of x.
    """
    p_x, classes = joint.p_original, joint.merged
    by_symbols = isinstance(p_t_given_x, Tensor) and not p_t_given_x.is_floating_point() and p_t_given_x.ndim == 1
    if by_symbols:
        numbers = checked_ids(p_t_given_x, "p_t_given_x").to(p_x.device).unique(return_inverse=True)[1]
        check_same_samples(len(numbers), len(p_x), ("p_t_given_x", "p_xy"))
        flow = p_x.new_zeros(len(joint.p_x), int(numbers.max()) + 1)
        flow.index_put_((classes, numbers), p_x, accumulate=True)
        i_xt = float(entropies(flow.sum(0)))
    else:
        encoder = checked_encoder(p_t_given_x, len(p_x)).to(p_x.device)
        i_xt = float((p_x * divergence(encoder, p_x @ encoder)).sum())
        flow = p_x.new_zeros(len(joint.p_x), encoder.shape[1]).index_add(0, classes, p_x[:, None] * encoder)
    flow = flow[:, flow.sum(0) > 0]
    of_t = merged(flow.sum(0), (flow.mT @ joint.rows) / flow.sum(0)[:, None])
    flow = p_x.new_zeros(len(joint.p_x), len(of_t.p_x)).index_add(1, of_t.merged, flow)
    encoder = flow / joint.p_x[:, None]
    i_merged = float((joint.p_x * divergence(encoder, of_t.p_x)).sum())
    return _Layer(encoder, of_t.p_x, of_t.rows, i_xt, i_merged)


def checked_curve(curve: Any, joint: Joint) -> BottleneckCurve:
    """The curve of a joint distribution, as it was given.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is one of the dual or the deterministic bottleneck, or of another distribution.
    """
    if not isinstance(curve, BottleneckCurve):
        raise TypeError(f"curve must be a BottleneckCurve, got {kind_of(curve)}: give ib_curve(p_xy).")
    if curve.kind != "ib":
        raise ValueError(f"curve must be of kind 'ib', got {curve.kind!r}: give ib_curve(p_xy).")
    rows = joint.rows[joint.merged]
    same = curve.p_y_given_x.shape == rows.shape and torch.allclose(curve.p_y_given_x.to(rows), rows, atol=1e-9)
    if not same or not torch.allclose(curve.p_x.to(rows), joint.p_original, atol=1e-9):
        raise ValueError("curve must be that of p_xy, got one of another distribution: give ib_curve(p_xy).")
    return curve


def _on_curve(curve: BottleneckCurve, i_xt: float) -> tuple[float, float]:
    """The bound of a curve at an I(X;T) in nats, and the β of the line that proves it."""
    in_nats = 1 / in_unit(1.0, curve.unit)
    bound = float(curve.bound(i_xt / in_nats)) * in_nats
    lines = curve.i_xy - (curve.objective - curve.gap - i_xt / in_nats) / curve.beta
    beta = float(curve.beta[lines.argmin()])
    return bound, math.inf if bound >= curve.i_xy * in_nats - _PRECISE else beta


def checked_encoder(p_t_given_x: Any, n: int) -> Tensor:
    """An encoder of n symbols x in float64.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is no conditional distribution, or of another number of x.
    """
    checked_values(p_t_given_x, "p_t_given_x", "(X, T)")
    encoder = plain_tensor(p_t_given_x.detach()).double()
    if encoder.ndim != 2 or encoder.shape[0] != n or encoder.shape[1] == 0:
        raise ValueError(f"p_t_given_x must have shape (X, T) with X = {n} as in p_xy, got {tuple(encoder.shape)}.")
    sums = encoder.sum(1)
    if not bool((encoder >= 0).all()) or float((sums - 1).abs().max()) > 1e-6:
        raise ValueError(
            "p_t_given_x must hold a distribution over t in each row, not negative and summing to 1: give "
            "p_t_given_x / p_t_given_x.sum(1, keepdim=True)."
        )
    return encoder / sums[:, None]


def optimum(joint: Joint, i_xt: float) -> tuple[float, float]:
    """The largest I(T;Y) at an I(X;T), in nats, and the β of the curve there.

    β is bracketed, and chords and tangents of the concave curve close in on it. A straight segment of the curve is
    found by its chord.
    """
    problem = distortion(joint)
    (onset, _), seeds = critical(problem)
    most = float(-(joint.p_x * joint.p_x.log()).sum())
    if math.isinf(onset):
        return 0.0, math.nan
    if i_xt >= most - 1e-12:
        return joint.information, math.inf
    if i_xt <= 1e-14:
        return 0.0, onset
    curve = _Bracket(problem, onset, seeds, i_xt)
    for _ in range(40):
        if not curve.refine():
            break
    return curve.upper, curve.beta


class _Bracket:
    """Two points of the curve on both sides of an I(X;T), and the bound that all points seen so far prove."""

    def __init__(self, problem: Distortion, onset: float, seeds: Tensor, target: float) -> None:
        self.problem, self.onset, self.seeds, self.target = problem, onset, seeds, target
        self.information = problem.joint.information
        self.low = (onset, 0.0, 0.0)
        most = float(-(problem.joint.p_x * problem.joint.p_x.log()).sum())
        self.high = (math.inf, most, self.information)
        self.upper, self.beta = min(target / onset, self.information), onset
        self.see([onset * factor for factor in (1.1, 1.5, 2.5, 5.0, 10.0, 30.0, 100.0, 1000.0)])

    def see(self, betas: list[float]) -> None:
        """Solve at some β, and keep what they prove."""
        beta = torch.tensor(betas, dtype=torch.float64, device=self.problem.joint.p_x.device)
        solution = solve(self.problem, beta, self.onset, self.seeds)
        values, _ = informations(self.problem, beta, solution.clusters)
        lower = encode(self.problem, beta, solution.clusters).objective - solution.gap
        lines = self.information - (lower - self.target) / beta
        best = int(lines.argmin())
        if float(lines[best]) < self.upper:
            self.upper, self.beta = float(lines[best]), betas[best]
        for point in zip(betas, values.i_xt.tolist(), values.i_ty.tolist()):
            if point[1] <= self.target and point[0] >= self.low[0]:
                self.low = point
            elif point[1] > self.target and point[0] <= self.high[0]:
                self.high = point

    def refine(self) -> bool:
        """One round of bisection; False where nothing is left to gain."""
        (low, x0, y0), (high, x1, y1) = self.low, self.high
        achieved = y0 + (y1 - y0) * (self.target - x0) / (x1 - x0)
        narrow = high - low < 1e-9 * low
        if (self.upper - achieved < 1e-15 and self.target - x0 < 1e-7) or narrow or low >= _LARGEST * self.onset:
            if low >= _LARGEST * self.onset:
                self.beta = math.inf
            elif narrow:
                self.beta = (low + high) / 2
            return False
        if math.isinf(high):
            self.see([low * factor for factor in (3.0, 10.0, 100.0, 1000.0)])
            return True
        chord = (x1 - x0) / (y1 - y0) if y1 > y0 else math.inf
        linear = low + (high - low) * (self.target - x0) / (x1 - x0)
        around = [linear, *((linear + sign * (high - low) * part) for part in (1e-2, 1e-4) for sign in (-1, 1))]
        tried = [beta for beta in (chord, *around, math.sqrt(low * high)) if low < beta < high]
        self.see(tried or [(low + high) / 2])
        return True


def _self_consistency(p_x: Tensor, rows: Tensor, encoder: Tensor, w: Tensor, decoder: Tensor) -> tuple[float, float]:
    """The β of the smallest J(β), by bisection of J', and J there."""
    distance = divergence(rows[:, None, :], decoder[None])
    spent = float((p_x[:, None] * torch.where(encoder > 0, encoder * distance, 0.0)).sum())

    def implied(beta: float) -> Tensor:
        return (w.log() - beta * distance).softmax(1)

    def slope(beta: float) -> float:
        p = implied(beta)
        return spent - float((p_x[:, None] * torch.where(p > 0, p * distance, 0.0)).sum())

    def j(p: Tensor) -> float:
        return max(0.0, float((p_x * divergence(encoder, p)).sum()))

    finite = distance[distance.isfinite()]
    if float(divergence(decoder, decoder.mean(0)).max()) < 1e-14 or finite.numel() == 0:
        return math.nan, j(w.expand_as(encoder))
    low, high = 0.0, 1.0
    while slope(high) < 0 and high < 1e12:
        low, high = high, high * 2
    nearest = (distance <= distance.amin(1, keepdim=True) + 1e-12) * w
    limit = j(nearest / nearest.sum(1, keepdim=True))
    if high >= 1e12 or (low > 1 and limit <= j(implied(low)) and math.isfinite(limit) and slope(1e12) <= 1e-15):
        return math.inf, limit
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2, j(implied((low + high) / 2))
