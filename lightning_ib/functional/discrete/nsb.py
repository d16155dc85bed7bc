"""The entropy of counts under a mixture of Dirichlet priors (Nemenman, Shafee & Bialek 2002).

A symmetric Dirichlet prior gives each of K symbols the pseudocount β, and with it nearly fixes the entropy before any
sample is seen. The mixture weighs β so that the prior expectation ξ(β) of the entropy is uniform from 0 to log K. The
posterior of log β is integrated by the trapezoidal rule, which converges exponentially on it: it is analytic and falls
off exponentially on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_integer, in_unit
from lightning_ib.functional.discrete.multiplicities import counts_of_counts, samples, unseen_symbols

# The posterior of log beta is followed down to e^-45 of its peak, on so many points in a round of the search. It is
# added up on at least so many, at most this far apart: at most half a standard deviation where it is narrow.
_DEPTH = 45.0
_SEARCHED, _INTEGRATED, _STEP = 65, 129, 0.15

# From here on the asymptotic series of log-gamma and trigamma are exact in float64.
_LARGE = 20.0

# How many distinct counts are looked at together.
_BLOCK = 1024

# The number of samples at most: beyond, float64 leaves out single ones.
_MOST = 2**53


def nsb(counts: Tensor, *, unit: Unit = "bits", n_symbols: int | None = None) -> float:
    r"""The posterior mean of the entropy under a nearly uniform prior of the entropy (Nemenman, Shafee & Bialek 2002).

    .. math::
        H = \frac{\int \langle H \rangle_\beta \, p(n \mid \beta) \, d\xi(\beta)}{\int p(n \mid \beta) \, d\xi(\beta)},
        \qquad \xi(\beta) = \psi(K \beta + 1) - \psi(\beta + 1)

    :math:`p(n \mid \beta)` is the probability of the counts under a symmetric Dirichlet prior with pseudocount
    :math:`\beta`, and :math:`\langle H \rangle_\beta` its posterior mean of the entropy (Wolpert & Wolf 1995).

    The paper takes K, the number of possible symbols, as known. By default it is estimated from the counts: the symbols
    seen, and Chao's (1984) lower bound :math:`f_1^2 / 2 f_2` of those never seen, from the numbers of symbols seen once
    and twice. 12 fair bits then read 12.0 ± 0.1 from 1000 samples; they would read 9.8 with the symbols seen for K, and
    12.7 with a very large K, the limit in Nemenman (2011).

    This K is too small where probabilities fall off slowly, and so is the value. With a symbol for every sample K is
    about :math:`N^2 / 2`, and the value about :math:`2 \log N - 1` nats by construction. In an information each entropy
    has a K and a prior of its own; it may be negative.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.
        unit: ``"bits"`` (base 2) or ``"nats"`` (base e).
        n_symbols: K, where it is known, at most 1e18.

    Returns:
        The entropy in ``unit``, between 0 and log K, computed in float64. It is 0 for K = 1, hence by default for a
        single symbol, and half of log K for one sample.

    Raises:
        TypeError: ``counts`` or ``n_symbols`` are of another kind than integers.
        ValueError: a count is negative, all are zero, K is less than the number of symbols seen, or the unit is
            unknown; or there are more than 2**53 samples, of which float64 cannot count single ones.

    Example:
        >>> round(nsb(torch.tensor([1, 1, 2]), n_symbols=3), 3)
        1.411
    """
    table = counts_of_counts(counts)
    seen = sum(table.values())
    if (n := samples(table)) > _MOST:
        raise ValueError(
            f"counts must add up to at most 2**53 samples, got {n}: leave the correction out, which is nothing to so "
            "many."
        )
    if n_symbols is None:
        k = seen + unseen_symbols(table)
    else:
        advice = f"give the number of possible symbols, of which {seen} were seen"
        k = checked_integer(n_symbols, "n_symbols", at_least=seen, at_most=10**18, advice=advice)
    return in_unit(_Posterior(table, k).mean_entropy() if k > 1 else 0.0, unit)


class _Posterior:
    """The posterior of the pseudocount beta.

    Args:
        table: from :func:`~lightning_ib.functional.discrete.multiplicities.counts_of_counts`.
        k: the number of possible symbols, at least 2.
    """

    def __init__(self, table: dict[int, int], k: int) -> None:
        self.n = torch.tensor(samples(table), dtype=torch.float64, device="cpu")
        self.k = float(k)
        self.unseen = float(k - sum(table.values()))
        self.counts = torch.tensor([*table], dtype=torch.float64, device="cpu")
        self.multiplicities = torch.tensor([*table.values()], dtype=torch.float64, device="cpu")

    def mean_entropy(self) -> float:
        """The posterior mean of the entropy, in nats."""
        log_beta = self._support()
        weights = self._log_density(log_beta)
        weights = weights.sub_(weights.max()).exp_()
        return float((weights * self._mean_entropy_at(log_beta.exp())).sum() / weights.sum())

    def _support(self) -> Tensor:
        """Evenly spaced values of log beta, outside of which the posterior is below e^-45 of its peak.

        The likelihood has a single peak (Levin & Reeds 1977), and the prior of log beta is flat between -log K and 0
        and falls off on either side. Each round keeps the cells where the posterior may be above that limit, until
        they are a third of all.
        """
        low, high = -math.log(self.k) - _DEPTH - 5, 2 * math.log(float(self.n)) + _DEPTH + 5
        while True:
            grid = torch.linspace(low, high, _SEARCHED, dtype=torch.float64, device="cpu")
            density = self._log_density(grid)
            inside = (density > density.max() - _DEPTH).nonzero()
            first, last = max(int(inside[0]) - 1, 0), min(int(inside[-1]) + 1, _SEARCHED - 1)
            low, high = float(grid[first]), float(grid[last])
            if last - first > _SEARCHED // 3:
                points = max(_INTEGRATED, math.ceil((high - low) / _STEP))
                return torch.linspace(low, high, points, dtype=torch.float64, device="cpu")

    def _log_density(self, log_beta: Tensor) -> Tensor:
        """The logarithm of the posterior of log beta, up to a constant."""
        beta = log_beta.exp()
        of_symbols = self._sum_over_symbols(lambda c: _log_rising(beta.unsqueeze(1), c))
        return of_symbols - _log_rising(self.k * beta, self.n) + log_beta + _prior(beta, self.k).log_()

    def _mean_entropy_at(self, beta: Tensor) -> Tensor:
        """The posterior mean of the entropy at a known beta, in nats (Wolpert & Wolf 1995)."""
        b = beta.unsqueeze(1)
        of_symbols = self._sum_over_symbols(lambda c: (c + b) * torch.digamma(c + b + 1))
        of_unseen = self.unseen * beta * torch.digamma(beta + 1)
        total = self.n + self.k * beta
        return torch.digamma(total + 1) - (of_symbols + of_unseen) / total

    def _sum_over_symbols(self, term: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of the count, added up over the symbols seen."""
        blocks = zip(self.counts.split(_BLOCK), self.multiplicities.split(_BLOCK))
        return torch.stack([(term(c) * m).sum(1) for c, m in blocks]).sum(0)


def _log_rising(a: Tensor, n: Tensor) -> Tensor:
    """The logarithm of a (a + 1) … (a + n - 1) / a^n, of ascending a.

    In the posterior, the powers of beta that are divided out cancel, and the power of K is constant.
    """
    n_small = int((a < _LARGE).sum())
    small, large = a[:n_small], a[n_small:]
    exact = torch.lgamma(small + n) - torch.lgamma(small) - n * small.log()
    # These would be large and nearly equal for large a.
    series = (large + n - 0.5) * torch.log1p(n / large) - n + _stirling(large + n) - _stirling(large)
    return torch.cat([exact, series])


def _stirling(z: Tensor) -> Tensor:
    """The remainder of Stirling's formula, for large z."""
    w = 1 / (z * z)
    return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680))) / z


def _prior(beta: Tensor, k: float) -> Tensor:
    """The derivative of xi, K psi'(K beta + 1) - psi'(beta + 1)."""
    exact = k * _trigamma(k * beta + 1) - _trigamma(beta + 1)
    # For large beta both are close to 1 / beta, which the remainders leave out.
    return torch.where(beta < _LARGE, exact, k * _trigamma_remainder(k * beta) - _trigamma_remainder(beta))


def _trigamma(z: Tensor) -> Tensor:
    """psi'(z) to float64 precision; ``torch.polygamma`` has eight digits."""
    trigamma: Tensor = torch.special.zeta(z.new_tensor(2.0), z)
    return trigamma


def _trigamma_remainder(z: Tensor) -> Tensor:
    """psi'(z + 1) - 1 / z, for large z."""
    w = 1 / (z * z)
    return -w * (1 / 2 - (1 / 6 - w * (1 / 30 - w * (1 / 42 - w * (1 / 30 - w * 5 / 66)))) / z)
