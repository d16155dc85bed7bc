r"""The certificate of a solution: how far it can be from the global optimum, and the cluster that would improve it.

For any weights and reproductions, with :math:`Z_x = \sum_t w_t e^{-\beta d(x, s_t)}` and

.. math:: G(s) = \sum_x \frac{p(x)}{Z_x} e^{-\beta d(x, s)}, \qquad
          F(\beta) \ge J(w, s) - \max(0, \ln \max_s G(s))

by convex duality of rate–distortion problems (Csiszár 1974; Berger 1971). A solution is optimal where G is at most 1
everywhere; where G(s) exceeds 1, a cluster at s lowers the objective. The maximum over s has \|Y\| − 1 dimensions,
whatever the number of x: a grid and ascents from it are exhaustive for two labels, and several starts for more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ib.bottleneck.distortion import Distortion, finite_log, move
from lightning_ib.bottleneck.newton import Clusters

_GRID = {2: 256, 3: 18, 4: 9, 5: 6}
"""Cells along an edge of the simplex, by number of labels."""

_ROWS = {2: 128}
"""The most rows p(y|x) to start from, by number of labels, 1024 for more than two."""

_MIXTURES = 96
_CLIMBS, _NEWTON_CLIMBS = 20, 6

_CHEAP = 5e6
"""Up to this many multiplications a β, Newton ascents start from every end of a fixed-point ascent."""
_KEPT = 96
"""Above, from this many."""


def starts(problem: Distortion) -> Tensor:
    """Reproductions from which to look for the maximum of G: rows, mixtures of rows, a grid; shape ``(C, Y)``."""
    joint = problem.joint
    rows = joint.rows
    x, y = rows.shape
    generator = torch.Generator().manual_seed(0)
    most = _ROWS.get(y, 1024)
    if x > most:
        chosen = torch.randperm(x, generator=generator)[:most].to(rows.device)
        rows = rows[chosen]
    weights = torch.rand(_MIXTURES, len(rows), generator=generator, dtype=torch.float64).to(rows.device)
    power = torch.linspace(1, 24, _MIXTURES, dtype=torch.float64, device=rows.device)[:, None]
    weights = weights**power
    mixtures = problem.centroid((weights / weights.sum(1, keepdim=True)) @ problem_features(problem, rows))
    found = [rows, joint.p_y[None], mixtures, 0.9 * rows + 0.1 * joint.p_y, 0.5 * rows + 0.5 * joint.p_y]
    if y in _GRID:
        found.append(_simplex_grid(y, _GRID[y]).to(rows.device))
    return torch.cat(found)


def problem_features(problem: Distortion, rows: Tensor) -> Tensor:
    """What a cluster averages, of some rows."""
    return rows.log() if problem.dual else rows


def _simplex_grid(y: int, cells: int) -> Tensor:
    """Cell centers of a regular grid on the simplex, all entries positive."""
    axes = torch.cartesian_prod(*[torch.arange(cells + 1)] * (y - 1)).reshape(-1, y - 1)
    axes = axes[axes.sum(1) <= cells]
    points = torch.cat([axes, cells - axes.sum(1, keepdim=True)], 1).double() + 1e-3
    return points / points.sum(1, keepdim=True)


def log_g(problem: Distortion, beta: Tensor, log_z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Ln G at reproductions ``(B, C, Y)``, and p(x|s) there: ``(B, C)``, ``(B, X, C)``."""
    terms = (problem.joint.p_x.log() - log_z)[..., None] - beta[:, None, None] * problem.distances(s)
    total = terms.logsumexp(1)
    return total, (terms - total[:, None, :]).exp()


def climb(problem: Distortion, beta: Tensor, log_z: Tensor, s: Tensor, steps: int) -> Tensor:
    """Fixed-point ascent of G: each reproduction becomes the centroid of the x that it attracts.

    Single precision, which is enough to find the maxima; Newton's method sharpens them in double precision.
    """
    features = problem.features.float()
    s, scale = s.float(), beta[:, None, None].float()
    # The part of β d that is linear in the features is all that tells the x apart.
    weights = (problem.joint.p_x.log() - log_z - beta[:, None] * problem.constants).float()[:, None, :]
    for _ in range(steps):
        inner = s if problem.dual else finite_log(s)
        share = torch.baddbmm(weights, (scale * inner).expand(len(beta), -1, -1), features.mT.expand(len(beta), -1, -1))
        s = problem.centroid(share.softmax(2) @ features)
    s = s.double()
    return s / s.sum(2, keepdim=True)


def climb_newton(problem: Distortion, beta: Tensor, log_z: Tensor, s: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Newton ascent of ln G with fixed-point steps where it fails; the reproductions and ln G there."""
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    value, share = log_g(problem, beta, log_z, s)
    for _ in range(steps):
        mean, second = problem.moments(s, share)
        spread = second - mean[..., :, None] * mean[..., None, :]
        factor, info = torch.linalg.cholesky_ex((eye - beta[:, None, None, None] * spread).nan_to_num(0.0, 0.0, 0.0))
        good = (info == 0)[..., None]
        factor = torch.where(good[..., None], factor, eye)
        k = torch.cholesky_solve(mean[..., None], factor)[..., 0]
        moved = move(s, torch.where(good, k, mean))
        after, after_share = log_g(problem, beta, log_z, moved)
        worse = after < value
        if bool(worse.any()):
            fallback = problem.centroid(share.mT @ problem.features)
            moved = torch.where(worse[..., None], fallback, moved)
            after, after_share = log_g(problem, beta, log_z, moved)
        s, value, share = moved, after, after_share
    return s, value


def violations(
    problem: Distortion, beta: Tensor, log_z: Tensor, clusters: Clusters, pool: Tensor
) -> tuple[Tensor, Tensor]:
    """Local maxima of G, the highest first.

    The fixed-point ascent starts from the pool and around the clusters. Newton ascents follow from all ends of it, or,
    in large problems, from those that are highest and away from the clusters, which are maxima already.

    Args:
        problem: the distortion.
        beta: shape ``(B,)``.
        log_z: of the solution, shape ``(B, X)``.
        clusters: the solution.
        pool: where to start at every β, shape ``(C, Y)``.

    Returns:
        Reproductions ``(B, K, Y)`` and ln G there, ``(B, K)``.
    """
    own = clusters.s
    other = own[:, torch.arange(own.shape[1], device=own.device).roll(1)]
    near = torch.cat([own, 0.98 * own + 0.02 * other, 0.5 * own + 0.5 * other], 1)
    s = climb(problem, beta, log_z, torch.cat([pool.expand(len(beta), -1, -1), near[:, own.shape[1] :]], 1), _CLIMBS)
    x, y = problem.joint.rows.shape
    if x * s.shape[1] * y * y > _CHEAP and s.shape[1] > _KEPT:
        value = log_g(problem, beta, log_z, s)[0]
        overlap = (s.sqrt() @ own.sqrt().mT).masked_fill((clusters.weights <= 0)[:, None, :], 0).amax(2)
        value = value - 1e3 * (2 - 2 * overlap < 1e-3 / beta.clamp_min(1)[:, None])
        order = value.topk(_KEPT, dim=1).indices
        s = s.gather(1, order[..., None].expand(-1, -1, y))
    s, value = climb_newton(problem, beta, log_z, torch.cat([s, own], 1), _NEWTON_CLIMBS)
    value, order = value.sort(dim=1, descending=True)
    return s.gather(1, order[..., None].expand(-1, -1, y)), value


def insert(
    problem: Distortion,
    beta: Tensor,
    log_z: Tensor,
    clusters: Clusters,
    found: Tensor,
    value: Tensor,
    tolerance: Tensor,
) -> Clusters:
    """Put new clusters at the highest maxima of G above 1, at most four, each with the weight that lowers J most."""
    weights, added = clusters.weights, [clusters.s]
    value = value.clone()
    new = []
    for _ in range(4):
        best = value.argmax(1, keepdim=True)
        peak = value.gather(1, best)[:, 0]
        s = found.gather(1, best[..., None].expand(-1, -1, found.shape[2]))
        mass = _best_mass(problem.joint.p_x, (-log_z[..., None] - beta[:, None, None] * problem.distances(s))[..., 0])
        new.append(torch.where(peak > tolerance, mass, torch.zeros_like(mass)))
        added.append(s)
        near = (found.sqrt() - s.sqrt()).square().sum(2) < 1e-3
        value = value.masked_fill(near, -torch.inf)
    extra = torch.stack(new, 1)
    total = weights.sum(1, keepdim=True) + extra.sum(1, keepdim=True)
    return Clusters(torch.cat([weights, extra], 1) / total, torch.cat(added, 1)).compacted()


def _best_mass(p_x: Tensor, log_ratio: Tensor) -> Tensor:
    """The weight m of a new cluster that lowers −Σ p(x) ln(1 − m + m r_x) most, from ln r, shape ``(B, X)``."""
    ratio = log_ratio.clamp_max(300).exp()
    mass = ((ratio - 1) @ p_x / ((ratio - 1).square() @ p_x).clamp_min(1e-300)).clamp(1e-12, 0.2)[:, None]
    for _ in range(20):
        mass = ((mass * ratio / (1 - mass + mass * ratio)) @ p_x)[:, None]
    return mass[:, 0].clamp(1e-12, 0.5)
