"""Multinomial logistic regression with a ridge: several fits to different rows of one matrix at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# How many of the last steps L-BFGS keeps, and how often a step is halved before a fit counts as finished.
_HISTORY = 10
_HALVINGS = 25


class Rows(NamedTuple):
    r"""One matrix, and how each of K fits sees it: fit k's row n is :math:`(\phi_n - \mu_k) / \sigma_k`.

    Attributes:
        features: float64, shape ``(N, R)``.
        labels: int64 in ``0 … C − 1``, shape ``(N,)``.
        mean: shape ``(R, K)``.
        scale: shape ``(R, K)``; infinite where fit k leaves the coordinate out.
    """

    features: Tensor
    labels: Tensor
    mean: Tensor
    scale: Tensor


def softmax_regression(
    rows: Rows, chosen: Tensor, ridge: Tensor, start: Tensor, *, tolerance: float, steps: int
) -> tuple[Tensor, Tensor]:
    r"""Minimise, for every fit by itself, the mean cross-entropy of its rows plus the ridge.

    .. math:: \frac{1}{n_k} \sum_{n \in k} -\log \mathrm{softmax}(W_k^\top z_{kn} + b_k)_{y_n}
              + \frac{\lambda_k}{2} \lVert W_k \rVert^2

    By L-BFGS (Liu & Nocedal 1989), in float64. All fits share the two products with the matrix that a step takes; its
    length is halved, each fit's own, until the loss falls enough (Armijo 1966), which takes no product at all.

    Args:
        rows: the matrix, as the fits see it.
        chosen: bool ``(N, K)``: which rows fit k is fitted to.
        ridge: float64 ``(K,)``, each above 0.
        start: float64 ``(R + 1, K, C)``: first W, and b in the last row.
        tolerance: a fit has ended where no entry of its gradient is larger.
        steps: at most so many.

    Returns:
        What ``start`` became, and the logits of all rows, chosen or not, ``(N, K, C)``.
    """
    (n, r), (k, c) = rows.features.shape, start.shape[1:]
    weight = chosen.to(rows.features.dtype) / chosen.sum(0)
    inverse, mean = rows.scale.reciprocal().unsqueeze(2), rows.mean.unsqueeze(2)
    label = rows.labels.view(n, 1, 1).expand(n, k, 1)
    target = torch.zeros(n, k, c, dtype=weight.dtype, device=weight.device).scatter_(2, label, 1.0)

    def logits(theta: Tensor) -> Tensor:
        w = theta[:-1] * inverse
        return (rows.features @ w.reshape(r, k * c)).view(n, k, c) - (mean * w).sum(0) + theta[-1]

    def cross_entropy(z: Tensor) -> Tensor:
        return (weight * (z.logsumexp(2) - z.gather(2, label).squeeze(2))).sum(0)

    def gradient(theta: Tensor, z: Tensor) -> Tensor:
        residual = weight.unsqueeze(2) * (z.softmax(2) - target)
        total = residual.sum(0)
        w = (rows.features.t() @ residual.view(n, k * c)).view(r, k, c) - mean * total
        return torch.cat([w * inverse + ridge.unsqueeze(1) * theta[:-1], total.unsqueeze(0)])

    theta, z = start, logits(start)
    g = gradient(theta, z)
    loss = cross_entropy(z) + ridge / 2 * _dot(theta[:-1], theta[:-1])
    # A softmax's curvature is at most half the variance of the rows, which is one a coordinate.
    first = 1 / (0.5 * rows.scale.isfinite().sum(0).clamp(min=1) + ridge)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    moving = torch.ones_like(ridge, dtype=torch.bool)
    for _ in range(steps):
        moving = moving & (g.abs().amax((0, 2)) > tolerance)
        if not moving.any():
            break
        d = _direction(g, history, first)
        dz, slope = logits(d), _dot(g, d)
        square, cross, across = _dot(theta[:-1], theta[:-1]), _dot(theta[:-1], d[:-1]), _dot(d[:-1], d[:-1])
        t = moving.to(g.dtype)
        for _ in range(_HALVINGS):
            trial = cross_entropy(z + t.unsqueeze(1) * dz) + ridge / 2 * (square + 2 * t * cross + t * t * across)
            high = trial > loss + 1e-4 * t * slope
            if not high.any():
                break
            t = torch.where(high, t / 2, t)
        else:  # rounding leaves these fits nothing to gain
            t, moving = torch.where(high, 0.0, t), moving & ~high
            trial = torch.where(high, loss, trial)
        step = t.unsqueeze(1) * d
        theta, z, loss = theta + step, z + t.unsqueeze(1) * dz, trial
        g, before = gradient(theta, z), g
        change = g - before
        curvature = _dot(step, change)
        # Positive for every step of a strictly convex loss; zero for a fit that did not move, whose pair says nothing.
        history.append((step, change, torch.where(curvature > 0, 1 / curvature, 0.0)))
        first = torch.where(curvature > 0, curvature / _dot(change, change), first)
        history = history[-_HISTORY:]
    return theta, z


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of every fit's weights, ``(K,)``."""
    return (a * b).sum((0, 2))


def _direction(g: Tensor, history: list[tuple[Tensor, Tensor, Tensor]], first: Tensor) -> Tensor:
    """The two loops of L-BFGS: the gradient, times the inverse curvature as the last steps saw it, downhill."""
    coefficients = []
    for step, change, weight in reversed(history):
        coefficients.append(weight * _dot(step, g))
        g = g - coefficients[-1].unsqueeze(1) * change
    d = g * first.unsqueeze(1)
    for (step, change, weight), a in zip(history, reversed(coefficients)):
        d = d + (a - weight * _dot(change, d)).unsqueeze(1) * step
    return -d
