"""Multinomial logistic regression with a ridge, fitted by Newton's method or by preconditioned L-BFGS."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# How many of the last steps L-BFGS keeps, and how often a step is halved before the fit counts as finished.
_HISTORY = 10
_HALVINGS = 25

# The smallest mean of p (1 - p) that the preconditioner assumes: where all p are near 0 or 1, the mean itself vanishes.
_LEAST_VARIANCE = 1e-3

# After how many steps L-BFGS gives way to Newton's method, and the largest number of weights for it: with more, the
# Hessian takes longer than the steps that it saves.
_LBFGS_STEPS = 12
_NEWTON = 128

# What the Hessian of an intercept is at least, in nats: where all p are 0 or 1 to rounding, it vanishes.
_LEAST_CURVATURE = 1e-9

# No step is worth while that is expected to lower the loss by less, in nats.
_ROUNDING = 1e-16


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


class SoftmaxRegression:
    r"""Fits to the same rows with one ridge after another, each from where the one before ended.

    A fit minimizes the mean cross-entropy of the rows plus the ridge,

    .. math:: \frac{1}{N} \sum_n -\log \mathrm{softmax}(W z_n + b + \log \pi)_{y_n}
              + \frac{\lambda}{2} \lVert W \rVert^2

    where :math:`\pi` are the class shares of the rows; a class absent from the rows has probability zero. By L-BFGS
    (Liu & Nocedal 1989) in float64, preconditioned with :math:`(v \Sigma + \lambda I)^{-1}`, where :math:`\Sigma` is
    the covariance of the rows and v the mean of :math:`p (1 - p)` over rows and classes at the start; with v in the
    place of :math:`v \Sigma` where the covariance is None. Where that takes more than 12 steps for at most 128 weights,
    as with many classes that overlap along a line, this fit and those after it go on by Newton's method. A step is
    halved until the loss falls enough (Armijo 1966).

    Args:
        rows: the rows, with their labels and scales.
        start: the weights to start from, ``(C, R + 1)``: zeros, or those of a fit to some of these rows.
    """

    def __init__(self, rows: Rows, start: Tensor) -> None:
        self.rows, self.theta = rows, start
        logits = (start @ rows.features.t()).add_(rows.target[:, -1:].log())
        self._move_to(start, logits.log_softmax(0))
        self.penalized = torch.cat([rows.scale, rows.scale.new_zeros(1)]).square()
        # By this class, which has rows, the normalizer of the logits is read.
        self.common = int(rows.target[:, -1].argmax())
        self.newton: _Newton | None = None

    def fit(self, ridge: float, *, tolerance: float, steps: int) -> Tensor:
        r"""Go on to the weights of another ridge.

        Args:
            ridge: λ, above 0.
            tolerance: in nats. The fit ends where the next step is expected to lower the loss by less.
            steps: the largest number of steps.

        Returns:
            The weights ``(C, R + 1)``, those of the features themselves: ``features @ weights.T`` plus :math:`\log
            \pi` are the logits.
        """
        method: _LBFGS | _Newton = self.newton or _LBFGS(self.rows, ridge, self.p)
        gradient = self._gradient(ridge)
        for step in range(steps):
            if step == _LBFGS_STEPS and self.theta.numel() <= _NEWTON:
                method = self.newton = self.newton or _Newton(self.rows)
            direction = method.direction(gradient, self.p, ridge)
            slope = _dot(gradient, direction)
            if -slope / 2 < max(tolerance, _ROUNDING):
                break
            t = self._search(direction, slope, ridge)
            if t is None:  # all that is left to gain is rounding
                break
            before, gradient = gradient, self._gradient(ridge)
            if not method.learn(direction * t, gradient - before):
                break
        return self.theta

    def _move_to(self, theta: Tensor, log_p: Tensor) -> None:
        """Weights, with the log-probabilities of the classes and the gradient of the cross-entropy there."""
        self.theta, self.log_p, self.p = theta, log_p, log_p.exp()
        self.slope = (self.p @ self.rows.features).div_(len(self.rows.features)).sub_(self.rows.target)

    def _gradient(self, ridge: float) -> Tensor:
        """Of the loss by the weights, ``(C, R + 1)``."""
        return torch.addcmul(self.slope, self.theta, self.penalized, value=ridge)

    def _search(self, direction: Tensor, slope: float, ridge: float) -> float | None:
        """Move to the first point along a direction that lowers the loss enough; the step, or None without such."""
        dz, bent = direction @ self.rows.features.t(), direction * self.penalized
        # The mean logit of the labels is linear in the weights, which saves a product with the rows.
        linear = ridge * _dot(self.theta, bent) - _dot(direction, self.rows.target)
        quadratic = ridge * _dot(direction, bent) / 2
        t = 1.0
        for _ in range(_HALVINGS):
            z = self.log_p.add(dz, alpha=t)
            log_p = z.log_softmax(0)
            normalizer = float((z[self.common] - log_p[self.common]).mean())
            if normalizer + t * linear + t * t * quadratic <= 1e-4 * t * slope:
                self._move_to(self.theta.add(direction, alpha=t), log_p)
                return t
            t /= 2
        return None


def softmax_regression(rows: Rows, ridge: float, start: Tensor, *, tolerance: float, steps: int) -> Tensor:
    """The weights of a single ridge: see :class:`SoftmaxRegression`.

    Args:
        rows: the rows, with their labels and scales.
        ridge: λ, above 0.
        start: the weights to start from, ``(C, R + 1)``.
        tolerance: in nats.
        steps: the largest number of steps.
    """
    return SoftmaxRegression(rows, start).fit(ridge, tolerance=tolerance, steps=steps)


class _Newton:
    """The direction of Newton's method, from the Hessian of all weights, in the scales of the fit."""

    def __init__(self, rows: Rows) -> None:
        inverse = torch.where(rows.scale > 0, 1 / rows.scale, 0.0)
        # Takes features to scaled rows, and gradients by weights of the features to those by weights of scaled rows.
        self.scaling = torch.diag(torch.cat([inverse, inverse.new_ones(1)]))
        self.scaling[-1, :-1] = -rows.mean * inverse
        self.scaled = self.scaling.t() @ rows.features.t()
        # What is free, the sum of the intercepts and the intercept of a class without rows, gets some curvature.
        present = (rows.target[:, -1] > 0).double()
        self.free = torch.outer(present, present) / len(present) + torch.diag(1 - present + _LEAST_CURVATURE)

    def direction(self, gradient: Tensor, p: Tensor, ridge: float) -> Tensor:
        """From the gradient ``(C, R + 1)`` and the probabilities ``(C, N)``."""
        (classes, size), n = gradient.shape, p.shape[1]
        weighted = p.unsqueeze(1) * self.scaled
        flat = weighted.view(classes * size, n)
        hessian = (flat @ flat.t()).div_(-n).view(classes, size, classes, size)
        within = hessian.diagonal(dim1=0, dim2=2)
        within.add_((weighted @ self.scaled.t()).div_(n).permute(1, 2, 0))
        within[:-1, :-1].diagonal(dim1=0, dim2=1).add_(ridge)
        hessian[:, -1, :, -1].add_(self.free)
        factor = torch.linalg.cholesky(hessian.view(classes * size, classes * size))
        step = torch.cholesky_solve((gradient @ self.scaling).view(-1, 1), factor).view(classes, size)
        return -(step @ self.scaling.t())

    def learn(self, step: Tensor, change: Tensor) -> bool:
        """Whether the fit may go on: always. The next Hessian is computed afresh."""
        return True


class _LBFGS:
    """The direction of L-BFGS: the two-loop recursion over the last steps."""

    def __init__(self, rows: Rows, ridge: float, p: Tensor) -> None:
        variance = float((p * (1 - p)).mean().clamp(min=_LEAST_VARIANCE))
        self.preconditioner = _Preconditioner(rows, ridge, variance)
        self.history: list[tuple[Tensor, Tensor, float]] = []
        self.size = 1.0

    def direction(self, gradient: Tensor, p: Tensor, ridge: float) -> Tensor:
        """From the gradient ``(C, R + 1)``."""
        coefficients = []
        d = gradient
        for step, change, weight in reversed(self.history):
            coefficients.append(weight * _dot(step, d))
            d = d.sub(change, alpha=coefficients[-1])
        d = self.preconditioner(d).mul_(-self.size)
        for (step, change, weight), a in zip(self.history, reversed(coefficients)):
            d.sub_(step, alpha=a + weight * _dot(change, d))
        return d

    def learn(self, step: Tensor, change: Tensor) -> bool:
        """Take in a step and how the gradient changed; whether there is curvature to learn from."""
        product = _dot(step, change)
        if product <= 0:  # by rounding only: the loss is strictly convex
            return False
        self.size = product / _dot(change, self.preconditioner(change))
        self.history = [*self.history, (step, change, 1 / product)][-_HISTORY:]
        return True


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


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.view(-1), b.view(-1)))
