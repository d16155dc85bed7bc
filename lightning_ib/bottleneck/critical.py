r"""The critical β of a bottleneck: where the curve leaves the origin, and where one cluster becomes unstable.

.. math:: \beta_\text{onset} = \min_s \beta(s), \qquad \sum_x p(x) e^{-\beta(s)\, (d(x, s) - d(x, s_0))} = 1

with :math:`s_0` the decoder of a single cluster. For the IB this is the inverse of the strong data-processing constant,
:math:`1 / \sup_q D(qA\|pA) / D(q\|p)` (Ahlswede & Gács 1976; Anantharam et al. 2013). The local one is
:math:`1/\lambda_2`, with the second squared singular value of :math:`p(x,y)/\sqrt{p(x)p(y)}` for the IB (Wu et al.
2019). The onset is at most the local one, and lower wherever the new clusters appear at a distance.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_ib.bottleneck.certificate import climb, climb_newton, starts
from lightning_ib.bottleneck.distortion import Distortion, distortion
from lightning_ib.bottleneck.joint import check_memory, checked_joint
from lightning_ib.bottleneck.solver import one_cluster
from lightning_ib.functional.checks import checked_choice


class CriticalBetas(NamedTuple):
    """Both critical β, infinite where X and Y are independent.

    Attributes:
        onset: the largest β at which one cluster is optimal: the curve leaves the origin here.
        local: the β at which one cluster becomes unstable, 1/λ₂; at least the onset.
    """

    onset: float
    local: float


def critical_betas(
    p_xy: Tensor, *, kind: Literal["ib", "dual"] = "ib", smoothing: float | None = None
) -> CriticalBetas:
    """The β where the curve leaves the origin, and the β where one cluster becomes unstable.

    Args:
        p_xy: p(x, y), shape ``(X, Y)``, summing to 1.
        kind: the bottleneck or its dual.
        smoothing: the part of each p(y|x) that is replaced by the uniform distribution; by default none is. The dual
            needs it where labels are hard.

    Returns:
        ``(onset, local)``; both are infinite where X and Y are independent.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``p_xy`` is no joint distribution, or has zeros in the dual.

    Example:
        A symmetric channel has one critical β, an asymmetric one has two.

        >>> onset, local = critical_betas(torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64))
        >>> round(onset, 4), round(local, 4)
        (1.5625, 1.5625)
        >>> onset, local = critical_betas(torch.tensor([[0.63, 0.07], [0.12, 0.18]], dtype=torch.float64))
        >>> onset < local
        True
    """
    checked_choice(kind, "kind", ("ib", "dual"))
    joint = checked_joint(p_xy, smoothing)
    check_memory(joint, "critical_betas", clusters=1)
    return critical(distortion(joint, dual=kind == "dual"))[0]


def critical(problem: Distortion) -> tuple[CriticalBetas, Tensor]:
    """Both critical β of a problem, and reproductions of the clusters that appear at the onset, shape ``(C, Y)``."""
    if len(problem.joint.p_x) == 1:
        return CriticalBetas(math.inf, math.inf), problem.joint.p_y[None]
    s0 = one_cluster(problem, 1).s[0]
    d0 = problem.distances(s0)[:, 0]
    share = problem.joint.p_x[:, None]
    largest = float(torch.linalg.eigvalsh(problem.moments(s0, share)[1])[0, -1])
    local = 1 / largest
    best = local
    beta = torch.full_like(problem.joint.p_x[:1], local)
    s = climb(problem, beta, -beta[:, None] * d0, starts(problem)[None], 30)[0]
    for _ in range(60):
        beta = root(problem, s, d0, best)
        lowest = float(beta.min())
        keep = beta.isfinite()
        if not bool(keep.any()):
            break
        s, beta = s[keep], beta[keep]
        if len(s) > 64:
            order = beta.topk(64, largest=False).indices
            s, beta = s[order], beta[order]
        done = lowest > best * (1 - 1e-13)
        best = min(best, lowest)
        if done and _ > 5:
            break
        s = _ascended(problem, beta, d0, s)
    return CriticalBetas(best, local), s[:8]


def root(problem: Distortion, s: Tensor, d0: Tensor, start: float) -> Tensor:
    """β(s): the positive root of ln Σ p(x) exp(−β (d(x, s) − d(x, s₀))), by Newton from the right."""
    distances = problem.distances(s)
    difference = distances - d0[:, None]
    noise = 2e-15 * (1 + start * d0.max())
    log_p = problem.joint.p_x.log()[:, None]
    beta = torch.full_like(difference[0], start)
    for _ in range(200):
        terms = log_p - beta * difference
        value = terms.logsumexp(0)
        if _ == 0:
            alive = value > noise  # otherwise the root is not below start, as far as rounding shows
        share = (terms - value).exp()
        slope = -(share * difference).sum(0)
        new = beta - value / slope
        alive = alive & (slope > 0) & (new > 0)
        step = torch.where(alive, new, beta)
        if bool((step - beta).abs().max() <= 1e-15 * start):
            break
        beta = step
    return torch.where(alive, beta, torch.full_like(beta, torch.inf))


def _ascended(problem: Distortion, beta: Tensor, d0: Tensor, s: Tensor) -> Tensor:
    """Each s moved up G at its own β: then β(s) can only fall."""
    log_z = -beta[:, None] * d0
    return climb_newton(problem, beta, log_z, s[:, None, :], 3)[0][:, 0]
