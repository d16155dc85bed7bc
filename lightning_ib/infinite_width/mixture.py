r"""The information in a mixture of Gaussians: which component, or which class of components, a sample came from.

Given component x, Z is :math:`\mathcal N(\mu_x, s_x^2 I)`, in as many dimensions as the network has outputs; x is
uniform on n components. With the posterior :math:`r_x(z) = p(x|z)` and its sums over classes :math:`q_y(z) = p(y|z)`,

.. math:: I(X;Z) = \ln n - \mathrm{E}_z H(r(z)) \le \ln n, \qquad I(Y;Z) = H(Y) - \mathrm{E}_z H(q(z)) \le H(Y)

A component of no variance is a point mass. Those in one place are one symbol of Z, and beside a point mass the density
of the other components is negligible. So both informations split into a part that is counted and one that is
integrated.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

_REACH = 9.5
"""How far from its mean a component is followed, in standard deviations: 1e-21 of its mass lies beyond."""

_NODES = 12
"""Of the Gauss–Legendre rule in a panel, which is as wide as the smallest standard deviation of a component there."""

_NEGLIGIBLE = 50.0
"""Log densities that are lower by this add nothing in float64."""

_AT_ONCE = 384
"""How many nodes look for the components in their reach together."""

_BLOCK = 1 << 20
"""How many pairs of a node and a component are worked on at once: 8 MiB a matrix."""

_EXACT = "donot_use_mm_for_euclid_dist"
_SCRAMBLES = 8
_MOST_DRAWS, _LEAST_DRAWS, _PAIRS = 1024, 4, 1 << 24


class Components(NamedTuple):
    """Components of a mixture, float64.

    Attributes:
        mean: shape ``(n, k)``.
        variance: of each coordinate, shape ``(n,)``; positive but for point masses.
        is_point: whether a component counts as a point mass, shape ``(n,)``.
        resolution: how far apart two point masses must be to be two symbols.
        label: a class of each, int64, ``(n,)``, or None.
    """

    mean: Tensor
    variance: Tensor
    is_point: Tensor
    resolution: float
    label: Tensor | None = None


class MixtureInformation(NamedTuple):
    r"""Informations of a mixture, in nats.

    Attributes:
        i_xz: I(X;Z), X uniform on the components.
        i_xz_upper: :math:`-\frac1n \sum_x \ln \frac1n \sum_{x'} e^{-\mathrm{KL}(x \Vert x')}`, at least ``i_xz``.
        i_xz_lower: the same with Bhattacharyya distances, at most ``i_xz`` (Kolchinsky & Tracey 2017).
        i_xz_left_out: the mean log ratio of a component to the mixture of the *others*; infinite for a lone point mass,
            NaN for a single component. Its integrand is in the tails: 1e-5 of it may be wrong where widths differ by a
            factor of 1 000.
        i_yz: I(Y;Z); NaN without labels.
        standard_error: of ``i_xz`` and of ``i_yz``, the larger one; 0 in one dimension, where they are integrated.
    """

    i_xz: float
    i_xz_upper: float
    i_xz_lower: float
    i_xz_left_out: float
    i_yz: float
    standard_error: float


def mixture_information(mixture: Components) -> MixtureInformation:
    """Informations of a mixture.

    Args:
        mixture: its components, at least one.
    """
    n = len(mixture.mean)
    spread, points = _subset(mixture, ~mixture.is_point), _subset(mixture, mixture.is_point)
    n_spread = len(spread.mean)
    place, crowd = _places(points)
    integrated = _integrated(spread) if n_spread else _Uncertainty(0.0, 0.0, 0.0, 0.0)

    within = float(crowd.log().sum()) / n  # H(X|Z)
    others = float((crowd - 1).log().sum()) / n
    share = n_spread / n
    left_out = math.log(n - 1) - others + share * integrated.left_out if n > 1 else math.nan
    upper, lower = _pairwise(spread)
    i_yz = math.nan
    if mixture.label is not None:
        i_yz = _label_entropy(mixture.label) - _of_points(points, place) / n - share * integrated.of_label
    return MixtureInformation(
        i_xz=max(0.0, math.log(n) - within - share * integrated.of_component),
        i_xz_upper=math.log(n) - within - upper / n,
        i_xz_lower=max(0.0, math.log(n) - within - lower / n),
        i_xz_left_out=left_out,
        i_yz=max(0.0, i_yz) if not math.isnan(i_yz) else i_yz,
        standard_error=share * integrated.standard_error,
    )


def _subset(mixture: Components, chosen: Tensor) -> Components:
    label = None if mixture.label is None else mixture.label[chosen]
    return Components(
        mixture.mean[chosen], mixture.variance[chosen], mixture.is_point[chosen], mixture.resolution, label
    )


# -- point masses ------------------------------------------------------------------------------------------------------


def _places(points: Components) -> tuple[Tensor, Tensor]:
    """The place of each point mass, int64 ``(n,)``, and how many stand there, float64 ``(n,)``.

    Two are in one place where in every coordinate no gap in the values from one to the other exceeds the resolution.
    """
    values, order = points.mean.sort(0)
    steps = torch.cat([torch.zeros_like(order[:1]), (values.diff(dim=0) > points.resolution).long()])
    codes = torch.zeros_like(order).scatter(0, order, steps.cumsum(0))
    _, place, counts = codes.unique(dim=0, return_inverse=True, return_counts=True)
    return place, counts[place].double()


def _label_entropy(label: Tensor) -> float:
    share = torch.bincount(label).double() / len(label)
    return -float(torch.xlogy(share, share).sum())


def _of_points(points: Components, place: Tensor) -> float:
    """The sum over point masses of H(Y|Z) at their place."""
    if points.label is None or not len(place):
        return 0.0
    kinds = torch.nn.functional.one_hot(points.label).double()
    share = kinds.new_zeros(int(place.max()) + 1, kinds.shape[1]).index_add_(0, place, kinds)
    size = share.sum(1, keepdim=True)
    return -float((size * torch.xlogy(share / size, share / size)).sum())


# -- components with a density -----------------------------------------------------------------------------------------


class _Uncertainty(NamedTuple):
    """What is left open by Z, on average, in nats.

    Attributes:
        of_component: H(X|Z) of these components alone.
        of_label: H(Y|Z).
        left_out: E [Σ r ln r − Σ r ln (1 − r)].
        standard_error: of the first two, the larger one.
    """

    of_component: float
    of_label: float
    left_out: float
    standard_error: float


def _integrated(mixture: Components) -> _Uncertainty:
    """By Gauss–Legendre panels in one dimension, by scrambled Sobol points in more."""
    if mixture.mean.shape[1] == 1:
        z, width = _panels(mixture.mean[:, 0], mixture.variance.sqrt())
        x, y, left_out = _averages(mixture, z[:, None], width).tolist()
        return _Uncertainty(x, y, left_out, 0.0)
    draws = torch.stack([_averages(mixture, _draws(mixture, seed)) for seed in range(_SCRAMBLES)])
    error = float(draws.std(0)[:2].max()) / math.sqrt(_SCRAMBLES)
    x, y, left_out = draws.mean(0).tolist()
    return _Uncertainty(x, y, left_out, error)


def _averages(mixture: Components, z: Tensor, width: Tensor | None = None) -> Tensor:
    """The means over Z of the three uncertainties.

    Args:
        mixture: n components with a density.
        z: places, shape ``(G, k)``: draws from the mixture, or nodes of a quadrature.
        width: of the nodes, shape ``(G,)``.
    """
    n, in_one = len(mixture.mean), mixture.mean.shape[1] == 1
    kinds = None if mixture.label is None else torch.nn.functional.one_hot(mixture.label).double()
    total, mass = z.new_zeros(3), z.new_zeros(())
    size = _AT_ONCE if in_one else max(1, _BLOCK // n)
    for k, some in enumerate(z.split(size)):
        here = _in_reach(mixture, some) if in_one else torch.arange(n, device=z.device)
        log_p = _log_densities(mixture, here, some)
        log_sum = log_p.logsumexp(1)
        weight = torch.ones_like(log_sum)
        if width is not None:
            weight = (log_sum - math.log(n)).exp() * width[k * size : (k + 1) * size]
        log_r = log_p - log_sum[:, None]
        r = log_r.exp()
        open_x = -(r * log_r).sum(1)
        of_label = torch.zeros_like(open_x)
        if kinds is not None:
            q = r @ kinds[here]
            of_label = -torch.xlogy(q, q).sum(1)
        total += torch.stack([open_x, of_label, -open_x - (r * _log_rest(log_r, r)).sum(1)]) @ weight
        mass += weight.sum()
    return total / mass


def _log_densities(mixture: Components, chosen: Tensor, z: Tensor) -> Tensor:
    """Of the chosen components at places, shape ``(G, n)``."""
    mean, std = mixture.mean[chosen], mixture.variance[chosen].sqrt()
    offset = mean.shape[1] * (std.log() + math.log(2 * math.pi) / 2)
    return -torch.cdist(z, mean, compute_mode=_EXACT).div_(std).square_().div_(2) - offset


def _log_rest(log_r: Tensor, r: Tensor) -> Tensor:
    """The logarithm of 1 − r, for the likeliest component as the sum of the others, which keeps its digits."""
    rest = (-r).log1p()
    best = r.argmax(1, keepdim=True)
    return rest.scatter_(1, best, log_r.scatter(1, best, -math.inf).logsumexp(1, keepdim=True))


def _panels(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes, in ascending order, and their widths wherever a component is.

    Panels are cells of width 2^level, no wider than the narrowest component there: from the coarsest level down, a cell
    is split as long as a narrower component reaches into it.
    """
    level = std.log2().floor()
    width = level.exp2()
    first, last = (((mean + side * _REACH * std) / width).floor() for side in (-1, 1))
    wanted = {}
    for value in level.unique().tolist():
        some = level == value
        steps = torch.arange(float((last - first)[some].max()) + 1, dtype=mean.dtype, device=mean.device)
        cells = first[some, None] + steps
        wanted[int(value)] = cells[cells <= last[some, None]].unique()
    none = mean.new_zeros(0)
    levels = range(min(wanted), max(wanted) + 1)
    finer = {levels[0]: none}
    for value in levels[:-1]:
        finer[value + 1] = (torch.cat([wanted.get(value, none), finer[value]]) / 2).floor().unique()
    cells = torch.cat([wanted[levels[-1]], finer[levels[-1]]]).unique()
    covered, left, widths = torch.zeros_like(cells, dtype=torch.bool), [], []
    for value in reversed(levels):
        covered = covered | torch.isin(cells, wanted.get(value, none))
        split = torch.isin(cells, finer[value])
        left.append(cells[covered & ~split] * 2.0**value)
        widths.append(torch.full_like(left[-1], 2.0**value))
        cells = torch.cat([2 * cells[split], 2 * cells[split] + 1])
        covered = covered[split].repeat(2)
    start, order = torch.cat(left).sort()
    half = torch.cat(widths)[order, None] / 2
    x, weight = _gauss_legendre(_NODES, mean.device)
    return (start[:, None] + half * (1 + x)).flatten(), (half * weight).flatten()


def _in_reach(mixture: Components, z: Tensor) -> Tensor:
    """The components that count at places in one dimension: all but those that add nothing to any, nor to its rest."""
    mean, std = mixture.mean[:, 0], mixture.variance.sqrt()
    a, b = z.min(), z.max()
    near = torch.maximum(a - mean, mean - b).clamp_min(0) / std
    far = torch.maximum(b - mean, mean - a) / std
    most, least = (-distance.square() / 2 - std.log() for distance in (near, far))
    second = least.topk(min(2, len(least))).values[-1]
    return (most >= second - _NEGLIGIBLE - math.log(len(std))).nonzero().flatten()


def _gauss_legendre(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [−1, 1] (Golub & Welsch 1969)."""
    k = torch.arange(1, n, dtype=torch.float64, device=device)
    beside = k / (4 * k.square() - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, 2 * vectors[0].square()


def _draws(mixture: Components, seed: int) -> Tensor:
    """Draws from each component, the same number: Sobol points as normal deviates, shifted at random for each."""
    n, k = mixture.mean.shape
    draws = min(_MOST_DRAWS, max(_LEAST_DRAWS, 2 ** int(math.log2(max(1, _PAIRS // n**2)))))
    uniform = SobolEngine(k, scramble=True, seed=seed).draw(draws, dtype=torch.float64)
    shift = torch.rand(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    uniform = ((uniform[:, None] + shift) % 1).clamp(2.0**-40, 1 - 2.0**-40).to(mixture.mean.device)
    z: Tensor = mixture.mean + mixture.variance.sqrt()[:, None] * torch.special.ndtri(uniform)
    return z.flatten(0, 1)


def _pairwise(mixture: Components) -> tuple[float, float]:
    """The sums over components of ln Σ exp(−distance), with KL divergences and with Bhattacharyya distances."""
    (n, k), variance = mixture.mean.shape, mixture.variance
    upper, lower = 0.0, 0.0
    for start in range(0, n, size := max(1, _BLOCK // max(1, n))):
        v = variance[start : start + size, None]
        square = torch.cdist(mixture.mean[start : start + size], mixture.mean, compute_mode=_EXACT).square()
        ratio = v / variance
        kl = (k * (ratio - 1 - ratio.log()) + square / variance) / 2
        total = v + variance
        bhattacharyya = square / (4 * total) + k / 2 * (total / (2 * (v * variance).sqrt())).log()
        upper, lower = upper + float((-kl).logsumexp(1).sum()), lower + float((-bhattacharyya).logsumexp(1).sum())
    return upper, lower
