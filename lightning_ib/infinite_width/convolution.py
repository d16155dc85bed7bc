r"""The kernels of convolutional networks with infinitely many channels.

Pre-activations at places p of an input and p' of another one have a covariance each; a filter of q places averages it
over its offsets o, with zeros beyond the border (Novak et al. 2019; Arora et al. 2019):

.. math::

    K^{l+1}_{p p'} = \sigma_b^2 + \frac{\sigma_w^2}{q} \sum_o F(K^l)_{p+o,\, p'+o}, \qquad
    \Theta^{l+1}_{p p'} = K^{l+1}_{p p'} + \frac{\sigma_w^2}{q} \sum_o (\Theta^l \circ \dot F(K^l))_{p+o,\, p'+o}

A readout from all places averages the pairs p = p', global average pooling before it averages all pairs. Of the gaps
1 − c an average over places keeps fewer digits: equal inputs are exact, and ReLU's Θ of nearly equal ones has eight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.infinite_width.activations import Activation

_BLOCK = 1 << 21
"""How many pairs of places are worked on at once."""


class Convolutional(NamedTuple):
    """A convolutional network with infinitely many channels, stride 1 and zeros around the input.

    Attributes:
        hidden_layers: convolutions, each followed by the nonlinearity; at least one. A linear readout comes last.
        activation: the nonlinearity.
        weight_variance: σ_w².
        bias_variance: σ_b².
        kernel_size: the side of a filter, odd.
        pooling: whether the average over all places comes before the readout.
    """

    hidden_layers: int
    activation: Activation
    weight_variance: float
    bias_variance: float
    kernel_size: int
    pooling: bool

    def at_once(self, m: int, x: Tensor) -> int:
        """How many numbers are held at once at least, for the kernel of inputs like x's with m others."""
        return 12 * max(_BLOCK, self._pairs(m, x))

    def _pairs(self, m: int, x: Tensor) -> int:
        """The pairs of places of one input and of m others."""
        places = x.shape[2] * x.shape[3]
        return m * places * (places if self.pooling else 1)

    def kernels(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """NNGP and NTK between inputs, float64, shapes ``(n, C, H, W)`` and ``(m, C, H, W)`` → ``(n, m)`` each."""
        nngp, ntk = x1.new_empty(len(x1), len(x2)), x1.new_empty(len(x1), len(x2))
        size = max(1, _BLOCK // self._pairs(len(x2), x1))
        theirs = [self._at_second(k) for k in self._variances(x2)]
        for start in range(0, len(x1), size):
            some = x1[start : start + size]
            ours = [self._at_first(k) for k in self._variances(some)]
            nngp[start : start + size], ntk[start : start + size] = self._forward(some, x2, ours, theirs)
        return nngp, ntk

    def variances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The diagonals of NNGP and NTK at inputs, float64, shape ``(n, C, H, W)`` → ``(n,)`` each."""
        both = torch.stack([torch.cat(self.kernels(one, one)).flatten() for one in x.split(1)], 1)
        return both[0], both[1]

    def _variances(self, x: Tensor) -> list[Tensor]:
        """Mean squares of inputs at their places, ``(n, H, W)``, then the variances of each convolution's outputs."""
        found, power = [x.square().mean(1)], x.square().mean(1)
        for _ in range(self.hidden_layers):
            found.append(self.bias_variance + self.weight_variance * self._window(power, ((-2,), (-1,))))
            power = self.activation.power(found[-1])
        return found

    def _forward(self, x1: Tensor, x2: Tensor, ours: list[Tensor], theirs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """NNGP and NTK of a block of inputs; the variances have the shapes of :meth:`_at_first` and of the other."""
        channels = zip(x1.unbind(1), x2.unbind(1))
        distance = sum((self._at_first(a) - self._at_second(b)).square() for a, b in channels) / x1.shape[1]
        p1, p2 = ours[0], theirs[0]
        product = (p1 * p2).sqrt()
        lag = ((distance - (p1.sqrt() - p2.sqrt()).square()) / 2).clamp_min(0)  # √(p₁ p₂) less the covariance
        slope, ntk = torch.zeros_like(product), torch.zeros_like(product)
        axes = ((-4, -2), (-3, -1)) if self.pooling else ((-2,), (-1,))
        for k1, k2 in zip(ours[1:], theirs[1:]):
            scale, product, lag, slope_ntk = (
                (k1 * k2).sqrt(),
                *(self._window(v, axes) for v in (product, lag, slope * ntk)),
            )
            covariance = self.bias_variance + self.weight_variance * (product - lag)
            ntk = covariance + self.weight_variance * slope_ntk
            # the first difference is exactly 0 where the inputs are equal
            difference = scale - (self.bias_variance + self.weight_variance * product) + self.weight_variance * lag
            gap = torch.where(scale > 0, difference / scale, 1.0).clamp(0, 2)
            gap, slope = self.activation.duals(k1, k2, gap)
            product = (self.activation.power(k1) * self.activation.power(k2)).sqrt()
            lag = product * gap
        places = tuple(range(2, product.ndim))
        nngp = self.bias_variance + self.weight_variance * (product - lag).mean(places)
        return nngp, nngp + self.weight_variance * (slope * ntk).mean(places)

    def _at_first(self, values: Tensor) -> Tensor:
        """Values at the places of the first inputs, ``(n, H, W)``, as ``(n, 1, H, W)``, or ``(n, 1, H, W, 1, 1)``."""
        return values[:, None, :, :, None, None] if self.pooling else values[:, None]

    def _at_second(self, values: Tensor) -> Tensor:
        """Values at the places of the second inputs, ``(m, H, W)``, as ``(m, H, W)``, or ``(m, 1, 1, H, W)``."""
        return values[:, None, None] if self.pooling else values

    def _window(self, values: Tensor, axes: tuple[tuple[int, ...], ...]) -> Tensor:
        """The mean over the offsets of a filter, the same along all axes of a group; zeros beyond the border."""
        half = self.kernel_size // 2
        for group in axes:
            total = torch.zeros_like(values)
            for offset in range(-half, half + 1):
                into, of = total, values
                for axis in group:
                    length = values.shape[axis] - abs(offset)
                    if length <= 0:
                        break
                    into = into.narrow(axis, max(0, -offset), length)
                    of = of.narrow(axis, max(0, offset), length)
                else:
                    into += of
            values = total / self.kernel_size
        return values
