r"""The kernels of infinitely wide networks: of their outputs at the start (NNGP), and of their gradients (NTK).

In the NTK parameterization layer l computes :math:`\frac{\sigma_w}{\sqrt n} W h + \sigma_b b`, with standard normal W
and b, all of them trained. With F and :math:`\dot F` of the nonlinearity (Lee et al. 2018; Jacot, Gabriel & Hongler
2018),

.. math::

    K^1 = \Theta^1 = \sigma_b^2 + \tfrac{\sigma_w^2}{d}\, x \cdot x', \qquad
    K^{l+1} = \sigma_b^2 + \sigma_w^2 F(K^l), \qquad
    \Theta^{l+1} = K^{l+1} + \sigma_w^2\, \Theta^l \circ \dot F(K^l)
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_ib.infinite_width.activations import Activation

_CLOSE = 1e-3
"""Where 1 − |c| is less, it is found from the difference of the two inputs: their product leaves few digits."""

_TINY = 1e-300

_BLOCK = 1 << 21
"""How many pairs are worked on at once: 16 MiB for each of a dozen matrices."""

_ROWS = 4096
"""Of how many inputs the variances are found at once."""


class Kernels(Protocol):
    """An architecture of infinite width."""

    def kernels(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """NNGP and NTK between inputs, float64, ``(n, …)`` and ``(m, …)`` → ``(n, m)`` each."""

    def variances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The diagonals of NNGP and NTK at inputs, ``(n,)`` each."""

    def at_once(self, m: int, x: Tensor) -> int:
        """How many numbers are held at once beside the result, for the kernels of inputs like x's with m others."""


class Pairs(NamedTuple):
    """The covariance of pre-activations at pairs of inputs.

    Attributes:
        k1: the variances at the first inputs, such as ``(n, 1)``.
        k2: the variances at the second inputs, such as ``(1, m)``.
        gap: 1 − c, with the correlation c, of the shape that the two broadcast to.
    """

    k1: Tensor
    k2: Tensor
    gap: Tensor

    @property
    def covariance(self) -> Tensor:
        """√(k₁k₂) c."""
        return (self.k1 * self.k2).sqrt() * (1 - self.gap)


class FullyConnected(NamedTuple):
    """A fully connected network of infinite width.

    Attributes:
        hidden_layers: how many layers have the nonlinearity; 0 for a linear model.
        activation: the nonlinearity.
        weight_variance: σ_w².
        bias_variance: σ_b².
    """

    hidden_layers: int
    activation: Activation
    weight_variance: float
    bias_variance: float

    def kernels(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """NNGP and NTK between inputs, float64, shapes ``(n, D)`` and ``(m, D)`` → ``(n, m)`` each."""
        nngp, ntk = x1.new_empty(len(x1), len(x2)), x1.new_empty(len(x1), len(x2))
        size = max(1, _BLOCK // len(x2))
        for start in range(0, len(x1), size):
            some = slice(start, start + size)
            nngp[some], ntk[some] = self._forward(self._layer(*_products(x1[some], x2)))
        return nngp, ntk

    def at_once(self, m: int, x: Tensor) -> int:
        """How many numbers are held at once beside the result."""
        largest = self.weight_variance * float(x.square().mean(1).max()) + self.bias_variance
        return 12 * max(_BLOCK, m) + 2 * m * self.activation.terms(largest)

    def variances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The diagonals of NNGP and NTK at inputs, float64, shape ``(n, D)`` → ``(n,)`` each."""
        found = []
        for power in x.square().mean(1).split(_ROWS):
            found.append(torch.stack(self._forward(self._layer(power, power, torch.zeros_like(power)))))
        nngp, ntk = torch.cat(found, 1)
        return nngp, ntk

    def _forward(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        ntk = pairs.covariance
        for _ in range(self.hidden_layers):
            gap, slope = self.activation.duals(*pairs)
            pairs = self._layer(self.activation.power(pairs.k1), self.activation.power(pairs.k2), gap)
            ntk = pairs.covariance + self.weight_variance * slope * ntk
        return pairs.covariance, ntk

    def _layer(self, power1: Tensor, power2: Tensor, gap: Tensor) -> Pairs:
        """The next pre-activations, from the mean squares of what comes in and its gap."""
        p1, p2, bias = self.weight_variance * power1, self.weight_variance * power2, self.bias_variance
        k1, k2, product = p1 + bias, p2 + bias, (p1 * p2).sqrt()
        scale = (k1 * k2).sqrt()
        # √(k₁k₂) − k₁₂, without the difference of the two
        difference = bias * (p1.sqrt() - p2.sqrt()).square() / (scale + bias + product) + product * gap
        return Pairs(k1, k2, torch.where(scale > 0, difference / scale, 1.0).clamp(0, 2))


def _products(x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squares and gap of inputs; an input of zero norm has the gap 1 to all."""
    size = math.sqrt(x1.shape[1])
    norm1, norm2 = x1.norm(dim=1, keepdim=True), x2.norm(dim=1, keepdim=True)
    u, v = x1 / norm1.clamp_min(_TINY), x2 / norm2.clamp_min(_TINY)
    gap = 1 - u @ v.T
    for sign in (1, -1):
        i, j = (gap < _CLOSE if sign > 0 else gap > 2 - _CLOSE).nonzero(as_tuple=True)
        for some in torch.arange(len(i), device=gap.device).split(max(1, _BLOCK // x1.shape[1])):
            distance = (u[i[some]] - sign * v[j[some]]).square().sum(1) / 2
            gap[i[some], j[some]] = distance if sign > 0 else 2 - distance
    return (norm1 / size).square(), (norm2 / size).square().T, gap
