"""Multinomial logistic regression with a ridge, fitted by preconditioned L-BFGS."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# How many of the last steps L-BFGS keeps, and how often a step is halved before the fit counts as finished.
_HISTORY = 10
_HALVINGS = 25

# The smallest mean of p (1 - p) that the preconditioner assumes: where all p are near 0 or 1, the mean itself vanishes.
_LEAST_VARIANCE = 1e-3


class Rows(NamedTuple):
    r"""The rows of one fit, and the scales in which it sees them: :math:`z_n = (\phi_n - \mu) / \sigma`.

    Attributes:
        features: float64, shape ``(N, R + 1)``; the last column is one.
        target: the mean over all rows of the row times its one-hot label, ``(C, R + 1)``: last the class shares.
        mean: shape ``(R,)``.
        scale: shape ``(R,)``; zero where the fit leaves the coordinate out.
        covariance: of the scaled rows, ``(R, R)``, to precondition with, or None.
    """

    features: Tensor
    target: Tensor
    mean: Tensor
    scale: Tensor
    covariance: Tensor | None


def class_means(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """The mean over all rows of the row times its one-hot label: ``(N, R)`` and ``(N,)`` give ``(C, R)``."""
    one_hot = features.new_zeros(n_classes, len(labels)).scatter_(0, labels.unsqueeze(0), 1.0)
    return one_hot @ features / len(labels)


def softmax_regression(rows: Rows, ridge: float, start: Tensor, *, tolerance: float, steps: int) -> Tensor:
    r"""Minimize the mean cross-entropy of the rows plus the ridge.

    .. math:: \frac{1}{N} \sum_n -\log \mathrm{softmax}(W z_n + b + \log \pi)_{y_n}
              + \frac{\lambda}{2} \lVert W \rVert^2

    where :math:`\pi` are the class shares of the rows; a class absent from the rows has probability zero. By L-BFGS
    (Liu & Nocedal 1989) in float64, preconditioned with :math:`(v \Sigma + \lambda I)^{-1}`, where :math:`\Sigma` is
    the covariance of the rows and v the mean of :math:`p (1 - p)` over rows and classes at the start; with v in the
    place of :math:`v \Sigma` where the covariance is None. A step is halved until the loss falls enough (Armijo 1966).

    Args:
        rows: the rows, with their labels and scales.
        ridge: λ, above 0.
        start: the weights to start from, ``(C, R + 1)``: zeros, or those of a fit to some of these rows.
        tolerance: in nats. The fit ends where the next step is expected to lower the loss by less.
        steps: the largest number of steps.

    Returns:
        The weights ``(C, R + 1)``, those of the features themselves: ``features @ weights.T`` plus :math:`\log \pi`
        are the logits.
    """
    loss = _Loss(rows, ridge)
    now = loss.at(start)
    p = now.p
    preconditioner = _Preconditioner(rows, ridge, float((p * (1 - p)).mean().clamp(min=_LEAST_VARIANCE)))
    gradient = loss.gradient(now.theta, p)
    history: list[tuple[Tensor, Tensor, float]] = []
    size = 1.0
    for _ in range(steps):
        direction = _direction(gradient, history, preconditioner, size)
        slope = _dot(gradient, direction)
        if -slope / 2 < tolerance:
            break
        found = loss.searched(now, direction, slope)
        if found is None:  # all that is left to gain is rounding
            break
        now, t = found
        before, gradient = gradient, loss.gradient(now.theta, now.p)
        step, change = direction * t, gradient - before
        product = _dot(step, change)
        if product <= 0:  # by rounding only: the loss is strictly convex
            break
        size = product / _dot(change, preconditioner(change))
        history.append((step, change, 1 / product))
        history = history[-_HISTORY:]
    return now.theta


class _Point(NamedTuple):
    """Weights, with the logits ``(C, N)``, their normalizers ``(N,)`` and the loss."""

    theta: Tensor
    z: Tensor
    normalizer: Tensor
    loss: float

    @property
    def p(self) -> Tensor:
        """The probabilities of the classes, ``(C, N)``."""
        return (self.z - self.normalizer).exp_()


class _Loss:
    """The loss of a fit, its gradient, and the line search along a direction."""

    def __init__(self, rows: Rows, ridge: float) -> None:
        self.features, self.target = rows.features, rows.target
        self.penalty = ridge * torch.cat([rows.scale, rows.scale.new_zeros(1)]).square()

    def at(self, theta: Tensor) -> _Point:
        """The loss at some weights."""
        z = (theta @ self.features.t()).add_(self.target[:, -1:].log())
        normalizer = z.logsumexp(0)
        # The mean logit of the labels is linear in the weights, which saves a product with the rows.
        loss = float(normalizer.mean()) - _dot(theta, self.target) + _dot(theta, theta * self.penalty) / 2
        return _Point(theta, z, normalizer, loss)

    def gradient(self, theta: Tensor, p: Tensor) -> Tensor:
        """Of the loss by the weights, ``(C, R + 1)``."""
        return torch.addcmul((p @ self.features).div_(len(self.features)).sub_(self.target), theta, self.penalty)

    def searched(self, now: _Point, direction: Tensor, slope: float) -> tuple[_Point, float] | None:
        """The first point along a direction that lowers the loss enough, and its step; None where there is none."""
        dz, bent = direction @ self.features.t(), direction * self.penalty
        linear = _dot(now.theta, bent) - _dot(direction, self.target)
        quadratic = _dot(direction, bent) / 2
        fixed = now.loss - float(now.normalizer.mean())
        t = 1.0
        for _ in range(_HALVINGS):
            z = now.z.add(dz, alpha=t)
            normalizer = z.logsumexp(0)
            loss = float(normalizer.mean()) + fixed + t * linear + t * t * quadratic
            if loss <= now.loss + 1e-4 * t * slope:
                return _Point(now.theta.add(direction, alpha=t), z, normalizer, loss), t
            t /= 2
        return None


class _Preconditioner:
    """An approximate inverse of the Hessian, for the weights of one class."""

    def __init__(self, rows: Rows, ridge: float, variance: float) -> None:
        self.mean, self.inverse = rows.mean, torch.where(rows.scale > 0, 1 / rows.scale, 0.0)
        self.ridge, self.variance = ridge, variance
        self.matrix = None
        if rows.covariance is not None:
            hessian = variance * rows.covariance
            hessian.diagonal().add_(ridge)
            within = torch.cholesky_inverse(torch.linalg.cholesky(hessian)).mul_(self.inverse)
            within.mul_(self.inverse.unsqueeze(1))
            across = -(within @ rows.mean).unsqueeze(1)
            corner = (1 / variance - rows.mean @ across).unsqueeze(0)
            self.matrix = torch.cat([torch.cat([within, across], 1), torch.cat([across.t(), corner], 1)])

    def __call__(self, g: Tensor) -> Tensor:
        """Of gradients, ``(C, R + 1)``."""
        if self.matrix is not None:
            return g @ self.matrix
        within = (g[:, :-1] - g[:, -1:] * self.mean) * (self.inverse.square() / (self.variance + self.ridge))
        return torch.cat([within, g[:, -1:] / self.variance - (within @ self.mean).unsqueeze(1)], 1)


def _direction(
    gradient: Tensor, history: list[tuple[Tensor, Tensor, float]], preconditioner: _Preconditioner, size: float
) -> Tensor:
    """The direction of L-BFGS: the two-loop recursion over the last steps."""
    coefficients = []
    d = gradient
    for step, change, weight in reversed(history):
        coefficients.append(weight * _dot(step, d))
        d = d.sub(change, alpha=coefficients[-1])
    d = preconditioner(d).mul_(-size)
    for (step, change, weight), a in zip(history, reversed(coefficients)):
        d.sub_(step, alpha=a + weight * _dot(change, d))
    return d


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.view(-1), b.view(-1)))
