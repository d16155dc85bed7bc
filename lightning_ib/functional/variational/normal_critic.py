r"""The critic of a normal distribution in closed form, from which the networks start.

The log density ratio of two jointly normal variables is a sum over their canonical pairs :math:`(u_k, v_k)` (Hotelling
1936), whose correlations are :math:`\rho_k`:

.. math:: \log \frac{p(x, y)}{p(x)\, p(y)} = \sum_k \frac{\rho_k u_k v_k - \rho_k^2 (u_k^2 + v_k^2) / 2}{1 - \rho_k^2}
          - \tfrac12 \log (1 - \rho_k^2)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.variational.dealing import Halves

# The canonical pairs that are used: their correlation on the judges exceeds so many standard errors of a correlation
# of zero.
_STANDARD_ERRORS = 3.0

# The correlation of a pair at most: nearer to 1 the ratio is so steep that single rows decide the loss.
_LARGEST = 0.995

# The scores at least: a network can make up for a pair that the normal distribution takes for impossible.
_HIGHEST = 6.0

# The parts of the log ratio that are tried; none at all comes first.
_SHARES = (0.0, 0.25, 0.5, 1.0)

# With more coordinates the networks start from zero: the covariance would take longer than they do.
_WIDEST = 512

# With fewer groups to judge by, the networks start from zero: chance correlations of so few would be believed.
_FEWEST_GROUPS = 30


class NormalCritic(NamedTuple):
    r"""The critic :math:`g(x)^\top h(y) + a(x) + b(y)`, its parts at every row.

    Attributes:
        g: ``(copies, N, K)``.
        h: ``(copies, N, K)``.
        a: ``(copies, N)``.
        b: ``(copies, N)``.
    """

    g: Tensor
    h: Tensor
    a: Tensor
    b: Tensor

    def scores(self, chosen: Tensor) -> Tensor:
        """The scores of all pairs in each batch of rows: ``(copies, M, B)`` gives ``(copies, M, B, B)``, x down."""
        flat = chosen.flatten(1)
        g, h = (
            part.gather(1, flat.unsqueeze(2).expand(-1, -1, part.shape[2])).unflatten(1, chosen.shape[1:])
            for part in (self.g, self.h)
        )
        a, b = (part.gather(1, flat).view(chosen.shape) for part in (self.a, self.b))
        scores: Tensor = g @ h.transpose(-1, -2) + a.unsqueeze(-1) + b.unsqueeze(-2)
        return scores.clamp(-_HIGHEST, _HIGHEST)

    def with_pairs(self, k: int) -> NormalCritic:
        """The same with K pairs, of which those that are added count for nothing."""
        g, h = (torch.nn.functional.pad(part, (0, k - part.shape[2])) for part in (self.g, self.h))
        return self._replace(g=g, h=h)

    def nothing(self) -> NormalCritic:
        """One that scores every pair 0, of the same shape."""
        return NormalCritic(*map(torch.zeros_like, self))

    def plus(self, other: NormalCritic, shares: Tensor) -> NormalCritic:
        """The sum with a share of another critic's scores, ``(copies,)``: each copy its own share."""
        column = shares.view(-1, 1)
        g = torch.cat([self.g, other.g * column.unsqueeze(2)], 2)
        return NormalCritic(g, torch.cat([self.h, other.h], 2), self.a + other.a * column, self.b + other.b * column)


def normal_start(
    x: Tensor, y: Tensor, halves: Halves, judges: Tensor, loss: Callable[[Tensor], Tensor]
) -> NormalCritic:
    """The closed-form critic of every copy, in the share that lowers its loss on the judges most.

    First comes the critic of the coordinates, then, on top of it, that of their absolute values, which finds scales
    that x and y share, as heavy-tailed variables do. A copy whose judges gain by neither starts from zero.

    Args:
        x: float32 ``(copies, N, D)``: of each copy first the rows that it is fitted to, then the judges.
        y: float32 ``(copies, N, E)``.
        halves: how many rows a copy is fitted to, and how many judge.
        judges: the batches of rows that judge, ``(copies, M, B)``.
        loss: of scores ``(copies, M, B, B)``, ``(copies,)``.
    """
    copies, n = x.shape[:2]
    nothing, none = x.new_zeros(copies, n, 0), x.new_zeros(copies, n)
    found = NormalCritic(nothing, nothing, none, none)
    too_few = halves.n_independent < min(_FEWEST_GROUPS, halves.n_judges)
    if too_few or max(x.shape[2], y.shape[2]) > _WIDEST:
        return found
    for feature in (torch.clone, torch.abs):
        n_judges = judges[0].numel()
        independent = min(n_judges, halves.n_independent)
        more = normal_critic(feature(x), feature(y), halves.n_fitted, n_judges, independent)
        start, added = found.scores(judges), more.scores(judges)
        best = torch.stack([loss(start + share * added) for share in _SHARES]).argmin(0)
        found = found.plus(more, x.new_tensor(_SHARES)[best])
    return found


def normal_critic(x: Tensor, y: Tensor, n_fitted: int, n_judges: int, n_independent: int | None = None) -> NormalCritic:
    """The log density ratio of a normal distribution, for every copy.

    The canonical directions come from the first ``n_fitted`` rows, with their mean variance times D / ``n_fitted`` as a
    ridge on each covariance (Hoerl & Kennard 1970). Means, scales and correlations of the pairs come from the
    ``n_judges`` rows after those, so that chance correlations in the fitted rows, of which there are many with many
    coordinates, count for nothing.

    Args:
        x: float32 ``(copies, N, D)``.
        y: float32 ``(copies, N, E)``.
        n_fitted: the number of rows that the directions are fitted to.
        n_judges: the number of rows after those that the correlations are taken from.
        n_independent: how many independent ones, or groups, these are; by default all.

    Returns:
        float32, with as many pairs as the copy that has the most.
    """
    x, y = (_whitened(v.double(), n_fitted) for v in (x, y))
    left, _, right = torch.linalg.svd(x[:, :n_fitted].transpose(1, 2) @ y[:, :n_fitted], full_matrices=False)
    known = slice(n_fitted, n_fitted + n_judges)
    u, v = _standardized(x @ left, known), _standardized(y @ right.transpose(1, 2), known)
    rho = (u[:, known] * v[:, known]).mean(1)
    rho = torch.where(rho > _STANDARD_ERRORS / math.sqrt(n_independent or n_judges), rho, 0.0).clamp(max=_LARGEST)
    order = rho.argsort(1, descending=True)[:, : int((rho > 0).sum(1).max())]
    rho = rho.gather(1, order).unsqueeze(1)
    u, v = (w.gather(2, order.unsqueeze(1).expand(-1, w.shape[1], -1)) for w in (u, v))
    unexplained = 1 - rho.square()
    a, b = (-(rho.square() / unexplained * w.square() / 2 + unexplained.log() / 4).sum(2) for w in (u, v))
    return NormalCritic((rho / unexplained * u).float(), v.float(), a.float(), b.float())


def _whitened(rows: Tensor, n: int) -> Tensor:
    """The principal components of the first n rows, each over its root mean square; those without any are 0."""
    centered = rows - rows[:, :n].mean(1, keepdim=True)
    variances, components = torch.linalg.eigh(centered[:, :n].transpose(1, 2) @ centered[:, :n] / n)
    variances = variances.clamp(min=0)
    ridge = variances.sum(1, keepdim=True) / n
    scale = torch.where(ridge > 0, (variances + ridge).rsqrt(), 0.0)
    whitened: Tensor = centered @ (components * scale.unsqueeze(1))
    return whitened


def _standardized(rows: Tensor, known: slice) -> Tensor:
    """With the mean and the scale of some rows; columns that are constant there are 0."""
    mean, scale = rows[:, known].mean(1, keepdim=True), rows[:, known].std(1, correction=0, keepdim=True)
    return torch.where(scale > 0, (rows - mean) / scale, 0.0)
