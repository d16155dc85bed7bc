"""Nearest neighbors for many coordinates, corrected by how low they read on normals with the same correlations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_integer, checked_pair, checked_unit, in_unit
from lightning_ib.functional.continuous.copula import mutual_information_gaussian_copula, normal_scores
from lightning_ib.functional.continuous.neighbors import check_varies, checked_k, mutual_information_ksg, pointwise_ksg
from lightning_ib.functional.resampling import Pointwise

# The factor by which correlations are shrunk is bisected so often: to the last bit of a float64.
_BISECTIONS = 60


def mutual_information_ksg_corrected(
    x: Tensor, y: Tensor, *, k: int = 3, simulations: int = 3, seed: int = 0, unit: Unit = "bits"
) -> float:
    r"""The information from nearest neighbors, corrected by how low they read on normals with the same correlations.

    .. math:: I = \mathrm{KSG}(x, y) + \langle G(x', y') - \mathrm{KSG}(x', y') \rangle

    after a rank transform of each coordinate to normal scores. :math:`(x', y')` are as many normal samples with the
    correlations of the scores (a parametric bootstrap), and G is
    :func:`~lightning_ib.functional.mutual_information_gaussian_copula`, which is right for them. The correlations
    between x and y are shrunk by one factor until their information is that of G on the data, corrected for its bias.

    It equals the Gaussian copula where the data have one, and adds what neighbors see beyond: on Student-t variables,
    for example, it halves the error of both. It is the choice for about 5 to 20 coordinates each.

    Source:
        This package; neighbors by Kraskov, Stögbauer & Grassberger (2004), copula by Ince et al. (2017).

    Cost:
        One estimate by neighbors for each simulation, and two more: about 1 s for 2 000 samples of 10 + 10.

    Samples:
        Some forty per coordinate: with 50 + 50 coordinates and 1 000 samples it reads 0.6 bits too high.

    Trap:
        Clusters are its blind spot: their copula is far from Gaussian, and the ranks mix their coordinates. With one
        coordinate each, neighbors have next to no bias, and the simulations add their own scatter.

    Args:
        x: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        y: real numbers in floating point, shape ``(N, …)`` or ``(N,)``.
        k: the number of neighbors, 1 to N − 1.
        simulations: how many samples of normals are drawn, 2 or more; each takes the time of one estimate.
        seed: of the normals. The global random state stays as it is.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``; it may be below 0.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: as :func:`~lightning_ib.functional.mutual_information_gaussian_copula`, and where rows repeat as
            :func:`~lightning_ib.functional.mutual_information_ksg`.

    Example:
        >>> x, noise = torch.randn(2, 1000, 8, generator=torch.Generator().manual_seed(0))
        >>> x, y = x, (x + noise).exp()  # 8 times half a bit
        >>> round(mutual_information_ksg_corrected(x, y)), round(mutual_information_ksg(x, y))
        (4, 1)
    """
    checked_unit(unit)
    return in_unit(pointwise_ksg_corrected(x, y, k=k, simulations=simulations, seed=seed).nats, unit)


def pointwise_ksg_corrected(x: Tensor, y: Tensor, *, k: int = 3, simulations: int = 3, seed: int = 0) -> Pointwise:
    """The estimate of :func:`mutual_information_ksg_corrected` and the part of each sample in it.

    The standard error has the scatter of the neighbors and of the simulations: 0.55 to 0.9 of that over repetitions.
    """
    simulations = checked_integer(simulations, "simulations", at_least=2)
    generator = torch.Generator().manual_seed(checked_integer(seed, "seed"))
    x, y = checked_pair(x, y, labels="use mutual_information_projected(t, y)")
    k = checked_k(k, len(x))
    check_varies(x, "x")
    check_varies(y, "y")
    x, y = (rows[:, rows.amax(0) > rows.amin(0)] for rows in (x, y))  # constant coordinates carry nothing
    gaussian = mutual_information_gaussian_copula(x, y, unit="nats")  # with the checks of every coordinate
    x, y = normal_scores(x).t().contiguous(), normal_scores(y).t().contiguous()
    factor = _shrunk(x, y, max(0.0, gaussian))
    bias = []
    for _ in range(simulations):
        drawn = torch.randn(len(x), len(factor), generator=generator, dtype=torch.float64, device="cpu").to(x.device)
        normals = (drawn @ factor.t()).split([x.shape[1], y.shape[1]], 1)
        known = mutual_information_gaussian_copula(*normals, unit="nats")
        bias.append(known - mutual_information_ksg(*normals, k=k, unit="nats"))
    uncorrected, mean = pointwise_ksg(x, y, k=k), math.fsum(bias) / simulations
    scatter = math.fsum((one - mean) ** 2 for one in bias) / (simulations - 1) / simulations
    return uncorrected._replace(nats=uncorrected.nats + mean, added=scatter)


def _shrunk(x: Tensor, y: Tensor, information: float) -> Tensor:
    """A Cholesky factor of the correlations of x and y, those between them shrunk to an information in nats."""
    d = x.shape[1]
    correlations = torch.corrcoef(torch.cat((x, y), 1).t())
    within_x, within_y = (torch.linalg.cholesky(block) for block in (correlations[:d, :d], correlations[d:, d:]))
    half = torch.linalg.solve_triangular(within_x, correlations[:d, d:], upper=False)
    canonical = torch.linalg.svdvals(torch.linalg.solve_triangular(within_y, half.t(), upper=False))
    least, most = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (least + most) / 2
        if -0.5 * float(torch.log1p(-(middle * canonical).square()).sum()) > information:
            most = middle
        else:
            least = middle
    correlations[:d, d:] *= least
    correlations[d:, :d] *= least
    factor: Tensor = torch.linalg.cholesky(correlations)
    return factor
