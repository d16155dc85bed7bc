r"""What a nonlinearity does to the covariance of Gaussian pre-activations, and to that of the gradients.

For jointly Gaussian u and v with variances k₁, k₂ and correlation c, a layer needs

.. math:: F = \mathrm{E}\, \phi(u) \phi(v), \qquad \dot F = \mathrm{E}\, \phi'(u) \phi'(v)

Where two inputs are close, 1 − c is far smaller than the rounding of c, and the angle of ReLU needs its root. So
correlations are passed from layer to layer as the gap 1 − c, and every formula is written in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_LARGEST_TANH = 100.0
_REACH = 12.5  # in units of the Gaussian: exp(-z²/4) is 1e-17 there


class Duals(NamedTuple):
    """Expectations over pairs of pre-activations.

    Attributes:
        gap: 1 − F / √(E φ(u)² E φ(v)²).
        slope: E φ'(u) φ'(v).
    """

    gap: Tensor
    slope: Tensor


class Activation(Protocol):
    """A nonlinearity φ. All tensors are float64."""

    def power(self, k: Tensor) -> Tensor:
        """E φ(u)² at the variances k, any shape."""

    def terms(self, largest: float) -> int:
        """How many numbers it holds for every input, where variances are at most so large."""

    def duals(self, k1: Tensor, k2: Tensor, gap: Tensor) -> Duals:
        """The expectations over pairs.

        Args:
            k1: the variances of u, such as ``(n, 1)``.
            k2: the variances of v, such as ``(1, m)``.
            gap: 1 − c, from 0 to 2, of the shape that the two broadcast to.
        """


class ReLU:
    r"""max(0, u): the arc-cosine kernel (Cho & Saul 2009), with θ the angle between the two.

    .. math:: F = \frac{\sqrt{k_1 k_2}}{2\pi} \big( \sin\theta + (\pi - \theta) \cos\theta \big),
              \qquad \dot F = \frac{\pi - \theta}{2\pi}
    """

    def power(self, k: Tensor) -> Tensor:
        """Half the variance."""
        return k / 2

    def terms(self, largest: float) -> int:
        """None."""
        return 0

    def duals(self, k1: Tensor, k2: Tensor, gap: Tensor) -> Duals:
        """See the class."""
        angle = 2 * torch.atan2(gap.sqrt(), (2 - gap).sqrt())
        square = angle.square()
        # sin θ − θ cos θ, of which the difference of the two terms leaves little at a small angle
        series = 1 / 3 - square * (1 / 30 - square * (1 / 840 - square * (1 / 45360 - square / 3991680)))
        lag = torch.where(angle < 0.1, angle * square * series, angle.sin() - angle * angle.cos())
        return Duals(gap - lag / math.pi, (math.pi - angle) / (2 * math.pi))


class Erf:
    r"""The error function (Williams 1998).

    .. math:: F = \frac 2\pi \arcsin \frac{2 k_{12}}{\sqrt{(1 + 2 k_1)(1 + 2 k_2)}}, \qquad
              \dot F = \frac 4\pi \big( (1 + 2 k_1)(1 + 2 k_2) - 4 k_{12}^2 \big)^{-1/2}
    """

    def power(self, k: Tensor) -> Tensor:
        """F at c = 1."""
        return 2 / math.pi * torch.atan2(2 * k, (1 + 4 * k).sqrt())

    def terms(self, largest: float) -> int:
        """None."""
        return 0

    def duals(self, k1: Tensor, k2: Tensor, gap: Tensor) -> Duals:
        """See the class; the arc sine as an arc tangent, which keeps its digits near 1."""
        root = (1 + 2 * k1 + 2 * k2 + 4 * k1 * k2 * gap * (2 - gap)).sqrt()
        dual = 2 / math.pi * torch.atan2(2 * (k1 * k2).sqrt() * (1 - gap), root)
        return Duals(_gap(dual, self.power(k1), self.power(k2)), 4 / math.pi / root)


class Tanh:
    r"""The hyperbolic tangent, by its expansion in normalized Hermite polynomials (Daniely et al. 2016).

    .. math:: F = \sum_n a_n(k_1)\, a_n(k_2)\, c^n, \qquad a_n(k) = \mathrm{E}\, \tanh(\sqrt k z)\, h_n(z)

    and likewise for the slope, with z standard normal. The coefficients are found by the trapezoidal rule, with the
    steps that the poles of tanh ask for. :math:`\sum_n a_n^2 = \mathrm{E} \tanh^2` is known, and so is what the terms
    left out can add: below 1e-9 for the slope, and far less for F.
    """

    def power(self, k: Tensor) -> Tensor:
        """E tanh², by the trapezoidal rule."""
        z, weight = _nodes(_largest(k), 0, k.device)
        return (torch.tanh(k.sqrt()[..., None] * z).square() * weight).sum(-1)

    def terms(self, largest: float) -> int:
        """Coefficients of both expansions."""
        return 60 + int(110 * largest)

    def duals(self, k1: Tensor, k2: Tensor, gap: Tensor) -> Duals:
        """See the class.

        Raises:
            ValueError: a variance is above 100, where the expansion takes more than ten thousand terms.
        """
        orders = self.terms(_largest(k1, k2))
        dual = _expansion(torch.tanh, k1, k2, 1 - gap, range(1, orders, 2))
        slope = _expansion(_slope_of_tanh, k1, k2, 1 - gap, range(0, orders, 2))
        return Duals(_gap(dual, self.power(k1), self.power(k2)), slope)


ACTIVATIONS: dict[str, Activation] = {"relu": ReLU(), "erf": Erf(), "tanh": Tanh()}
"""The nonlinearities by name."""


def _gap(dual: Tensor, power1: Tensor, power2: Tensor) -> Tensor:
    scale = (power1 * power2).sqrt()
    return torch.where(scale > 0, 1 - dual / scale, 1.0).clamp(0, 2)


def _slope_of_tanh(u: Tensor) -> Tensor:
    return 1 - torch.tanh(u).square()


def _largest(*variances: Tensor) -> float:
    largest = max(float(k.max()) for k in variances)
    if largest > _LARGEST_TANH:
        raise ValueError(
            f"tanh needs pre-activations with a variance of at most {_LARGEST_TANH:.0f}, got {largest:.4g}: "
            "standardize x, or give a smaller weight_variance."
        )
    return largest


def _nodes(largest: float, order: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places z and weights for the expectation over a normal z of a polynomial of this order times tanh(√k z)."""
    step = 2 * math.pi / (math.sqrt(order) + 8 + 21 * max(math.sqrt(largest), 0.1))
    half = math.ceil(_REACH / step)
    z = torch.arange(-half, half + 1, dtype=torch.float64, device=device) * step
    return z, (-z.square() / 2).exp() * step / math.sqrt(2 * math.pi)


def _expansion(function: Callable[[Tensor], Tensor], k1: Tensor, k2: Tensor, c: Tensor, orders: range) -> Tensor:
    """E f(u) f(v) by the Hermite coefficients of these orders, all of one parity."""
    z, weight = _nodes(_largest(k1, k2), orders[-1], c.device)
    root = (-z.square() / 4).exp()  # h_n(z) times it stays within one
    before, now, polynomials = torch.zeros_like(z), root, []
    for n in range(orders[-1] + 1):
        if n in orders:
            polynomials.append(now)
        before, now = now, (z * now - math.sqrt(n) * before) / math.sqrt(n + 1)
    weighted = torch.stack(polynomials) * (weight / root)
    ours, theirs = (function(k.sqrt()[..., None] * z) @ weighted.T for k in (k1, k2))
    powers, square = (c if orders[0] else torch.ones_like(c)), c.square()
    total = torch.zeros_like(c)
    for a, b in zip(ours.unbind(-1), theirs.unbind(-1)):
        total.addcmul_(a * powers, b)
        powers = powers * square
    return total
