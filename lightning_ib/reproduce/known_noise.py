r"""The information that a layer with known noise has about its input.

Given sample x, T is normal with the mean :math:`m_x` and the standard deviation :math:`s_x` of every coordinate,
both known: :math:`h(T|X)` is in closed form, and the density of T is a mixture with a component for each sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_AT_ONCE = 1 << 22
"""Pairs of a draw and a component, or of two components and a coordinate, that are worked on at once."""


class NoiseInformation(NamedTuple):
    """I(X;T) in nats.

    Attributes:
        lower: each draw against the mixture of all N components, its own included: the information about which of
            these N samples it was, up to log N, and on average over samples at most I(X;T).
        lower_error: the standard error of ``lower``, over the samples.
        upper: each draw against the mixture of the others: on average over samples at least I(X;T). Infinite where the
            noiseless coordinates of a sample are shared by no other.
        upper_error: the standard error of ``upper``.
        pairwise_lower: at most the information about which sample it was, from Bhattacharyya distances between
            components; NaN where it was left out.
        pairwise_upper: at least that, from Kullback–Leibler divergences.
        noise_entropy: h(T|X), of the coordinates that have noise.
    """

    lower: float
    lower_error: float
    upper: float
    upper_error: float
    pairwise_lower: float
    pairwise_upper: float
    noise_entropy: float


def known_noise_information(
    mean: Tensor, std: Tensor, *, draws: int, generator: torch.Generator, n_pairwise: int = 1000
) -> NoiseInformation:
    r"""The information of T about X, by Monte Carlo with exact densities.

    .. math::

        \frac1N \sum_i \log \frac{p(t_i|x_i)}{\frac1N \sum_j p(t_i|x_j)} \lesssim I(X;T) \lesssim
        \frac1N \sum_i \log \frac{p(t_i|x_i)}{\frac1{N-1} \sum_{j \neq i} p(t_i|x_j)}

    in expectation (Poole et al. 2019), and between the components the bounds of Kolchinsky & Tracey (2017).

    A coordinate without noise, such as that of a rectified unit at 0 under multiplicative noise, has an atom in place
    of a density. T then says at least in which coordinates the atoms are and at which values; only samples that
    agree in those can be confused, and their densities are compared in the other coordinates. The information stays
    finite as long as samples agree.

    Args:
        mean: float64 ``(N, D)``.
        std: float64 ``(N, D)``, 0 or more.
        draws: of T for each sample.
        generator: of the draws.
        n_pairwise: the bounds between components are of so many samples, the first ones; 0 leaves them out.
    """
    n = len(mean)
    noisy = std > 0
    _, pattern = torch.cat([noisy.double(), mean.where(~noisy, 0) + 0.0], 1).unique(dim=0, return_inverse=True)
    own, mixture, others = torch.empty(3, n, dtype=torch.float64).zero_()
    components = _Components(mean, std, noisy, pattern)
    size = max(1, _AT_ONCE // n)
    for _ in range(draws):
        t = mean + std * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        for rows in torch.arange(n).split(size):
            log_p = components.log_densities(t[rows], pattern[rows])
            itself = log_p.gather(1, rows[:, None])
            own[rows] += itself.squeeze(1)
            mixture[rows] += log_p.logsumexp(1) - math.log(n)
            others[rows] += log_p.scatter(1, rows[:, None], -math.inf).logsumexp(1) - math.log(n - 1)
    lower, upper = (own - mixture) / draws, (own - others) / draws
    pairwise = _pairwise(*(of[:n_pairwise] for of in (mean, std, noisy, pattern))) if n_pairwise else (math.nan,) * 2
    entropies = torch.where(noisy, (std.where(noisy, 1) * math.sqrt(2 * math.pi * math.e)).log(), 0).sum(1)
    return NoiseInformation(*_mean(lower), *_mean(upper), *pairwise, _mean(entropies)[0])


class _Components:
    """Log densities of normal components, from two products of matrices."""

    def __init__(self, mean: Tensor, std: Tensor, noisy: Tensor, pattern: Tensor) -> None:
        scale = torch.where(noisy, std, 1)
        self._precision = torch.where(noisy, scale.square().reciprocal(), 0)
        self._linear = mean * self._precision
        self._constant = (mean.square() * self._precision).sum(1) / 2 + scale.log().sum(1)
        self._constant += noisy.sum(1) * math.log(2 * math.pi) / 2
        self._pattern = pattern

    def log_densities(self, t: Tensor, pattern: Tensor) -> Tensor:
        """At places ``(G, D)`` with the noiseless coordinates of a pattern, ``(G, N)``; −∞ at other patterns."""
        log_p = t @ self._linear.T - t.square() @ self._precision.T / 2 - self._constant
        return log_p.masked_fill(pattern[:, None] != self._pattern, -math.inf)


def _pairwise(mean: Tensor, std: Tensor, noisy: Tensor, pattern: Tensor) -> tuple[float, float]:
    """The lower and the upper bound between components."""
    n, d = mean.shape
    variance = torch.where(noisy, std.square(), 1)
    log_variance = variance.log()
    lower, upper = torch.zeros(2, n, dtype=torch.float64)
    for rows in torch.arange(n).split(max(1, _AT_ONCE // (n * d))):
        apart = pattern[rows, None] != pattern
        square = (mean[rows, None] - mean).square()
        of_log = log_variance[rows, None] - log_variance
        ratio = of_log.exp()
        kl = ((ratio - 1 - of_log + square / variance) / 2).sum(2)
        both = variance[rows, None] + variance
        bhattacharyya = (square / both / 4 + (both.log() - math.log(2)) / 2).sum(2)
        bhattacharyya -= (log_variance[rows].sum(1)[:, None] + log_variance.sum(1)) / 4
        for distance, found in ((bhattacharyya, lower), (kl, upper)):
            found[rows] = math.log(n) - (-distance).masked_fill(apart, -math.inf).logsumexp(1)
    return _mean(lower)[0], _mean(upper)[0]


def _mean(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    n = len(values)
    if not bool(values.isfinite().all()):
        return float(values.mean()), math.nan
    center = math.fsum(values.tolist()) / n
    return center, math.sqrt(math.fsum(((values - center) ** 2).tolist()) / (n - 1) / n)


def normal_channel_information(s: float) -> float:
    r"""I(X;T) in nats of T = (1 + ζ)X with X ~ N(0, 1) and ζ ~ N(0, s²), by quadrature.

    Sign and size of T are independent of each other. With :math:`A = \log |X|` and :math:`B = \log |1 + \zeta|`,

    .. math:: I(X;T) = h(A + B) + \mathrm{E}\, B + \log 2 - \tfrac12 \log (2 \pi e s^2)

    Args:
        s: the standard deviation of ζ, 0.1 to 1.

    Example:
        >>> round(normal_channel_information(0.1), 3)
        2.942
    """
    step = 0.02 * min(1.0, s / 0.3)
    log_size = torch.arange(-45, 4, step, dtype=torch.float64)
    a, b = (_density_of_log_size(log_size, *of) for of in ((0.0, 1.0), (1.0, s)))
    length = 2 * len(log_size)  # padded, so that the convolution does not wrap around
    density = torch.fft.irfft(torch.fft.rfft(a, length) * torch.fft.rfft(b, length), length).clamp_min(0) * step
    entropy = -float(torch.xlogy(density, density).sum()) * step
    noise = math.log(2 * math.pi * math.e * s**2) / 2
    return entropy + float((b * log_size).sum()) * step + math.log(2) - noise


def _density_of_log_size(log_size: Tensor, mean: float, std: float) -> Tensor:
    """Of a normal variable."""
    size = log_size.exp()
    both = sum((-((sign * size - mean) / std).square() / 2).exp() for sign in (-1, 1))
    return both * size / (math.sqrt(2 * math.pi) * std)
