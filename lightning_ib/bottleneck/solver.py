"""The solver of the bottleneck and its dual at a batch of β: global, with a certificate for every β."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ib.bottleneck.certificate import insert, starts, violations
from lightning_ib.bottleneck.distortion import Distortion
from lightning_ib.bottleneck.newton import Clusters, blahut_arimoto, encode, polish, tidy

_ROUNDS = 40
_VIOLATION = 3e-13
"""The ln G above which a new cluster is worth a round; rounding of β d is added for large β."""
_BATCH = 2**24
"""The most numbers in the largest array of one batch of β."""

_SAME = 1e-10
"""β times the squared Hellinger distance below which two clusters are one."""


@dataclass
class Solution:
    """Solutions at a batch of β.

    Attributes:
        clusters: weights and reproductions.
        gap: how far J can be above the optimum, shape ``(B,)``, in nats.
    """

    clusters: Clusters
    gap: Tensor


def solve(problem: Distortion, beta: Tensor, onset: float, seeds: Tensor) -> Solution:
    """Minimize I(X;T) + β E d at each β.

    Weights on a fixed set of reproductions first (a convex problem), then fixed-point and Newton steps on weights and
    reproductions, then new clusters wherever the certificate asks for one, until it asks for none.

    Args:
        problem: the distortion.
        beta: shape ``(B,)``, float64.
        onset: the β up to which one cluster is optimal.
        seeds: further reproductions to start from, shape ``(C, Y)``, such as the clusters that appear at the onset.
    """
    pool = torch.cat([starts(problem), seeds])
    x, y = problem.joint.rows.shape
    per_beta = x * max(len(pool), min(x, 256) * (y + 2))
    chunks = beta.split(max(1, _BATCH // per_beta))
    parts = [_solve_batch(problem, chunk, pool, onset) for chunk in chunks]
    width = max(part.clusters.weights.shape[1] for part in parts)
    return Solution(
        Clusters(
            torch.cat([_padded(part.clusters.weights, width) for part in parts]),
            torch.cat([_padded(part.clusters.s, width) for part in parts]),
        ),
        torch.cat([part.gap for part in parts]),
    )


def _solve_batch(problem: Distortion, beta: Tensor, pool: Tensor, onset: float) -> Solution:
    b = len(beta)
    trivial = beta <= onset
    clusters = one_cluster(problem, b)
    if not bool(trivial.all()):
        rich = first_guess(problem, beta, pool)
        rich.weights[trivial] = 0
        rich.weights[trivial, 0] = 1
        rich.s[trivial, 0] = clusters.s[trivial, 0]
        clusters = rich
    gap = torch.full_like(beta, torch.inf)
    running = torch.arange(b, device=beta.device)
    part = clusters
    for round_ in range(_ROUNDS):
        betas = beta[running]
        part = polish(problem, betas, part, steps=25, target=1e-13, merge=max(_SAME, 1e-2 * 0.1**round_))
        part = tidy(part, _SAME / betas.clamp_min(1))
        log_z = encode(problem, betas, part).log_z
        found, value = violations(problem, betas, log_z, part, pool)
        peak = value[:, 0].clamp_min(0)
        better = peak < gap[running]
        clusters = _stored(clusters, running[better], part[better])
        gap = gap.index_put((running[better],), peak[better])
        tolerance = _VIOLATION + 3e-15 * betas
        again = peak > torch.where(trivial[running], 1e-9, tolerance)
        if not bool(again.any()):
            break
        running, part = running[again], part[again]
        part = insert(problem, beta[running], log_z[again], part, found[again], value[again], tolerance[again])
    return Solution(clusters.compacted(), gap)


def one_cluster(problem: Distortion, b: int) -> Clusters:
    """The solution that ignores X."""
    mean = problem.centroid(problem.joint.p_x @ problem.features)
    return Clusters(torch.ones(b, 1, dtype=mean.dtype, device=mean.device), mean.expand(b, 1, -1).clone())


def first_guess(problem: Distortion, beta: Tensor, pool: Tensor) -> Clusters:
    """Weights on a fixed pool of reproductions by multiplicative updates, then fixed-point steps on the heaviest."""
    kernel = -beta[:, None, None] * problem.distances(pool)
    kernel = (kernel - kernel.amax(2, keepdim=True)).exp().float()
    weights = torch.full((len(beta), len(pool)), 1 / len(pool), dtype=torch.float32, device=beta.device)
    p = problem.joint.p_x.float()
    for _ in range(100):
        z = (kernel @ weights[..., None])[..., 0]
        weights = weights * ((p / z)[:, None, :] @ kernel)[:, 0]
    del kernel
    weights = weights.double().masked_fill(weights < 1e-4, 0.0)
    clusters = Clusters(weights / weights.sum(1, keepdim=True), pool.expand(len(beta), -1, -1)).compacted()
    clusters = tidy(clusters, 1e-3 / beta.clamp_min(1))
    for _ in range(3):
        for _ in range(10):
            clusters = blahut_arimoto(problem, clusters, encode(problem, beta, clusters))
        clusters = tidy(clusters, 1e-2 / beta.clamp_min(1))
    return clusters


def _padded(values: Tensor, width: int) -> Tensor:
    if values.ndim == 2:
        return torch.nn.functional.pad(values, (0, width - values.shape[1]))
    return torch.nn.functional.pad(values, (0, 0, 0, width - values.shape[1]), value=1 / values.shape[2])


def _stored(clusters: Clusters, where: Tensor, part: Clusters) -> Clusters:
    width = max(clusters.weights.shape[1], part.weights.shape[1])
    weights, s = _padded(clusters.weights, width).clone(), _padded(clusters.s, width).clone()
    weights[where], s[where] = _padded(part.weights, width), _padded(part.s, width)
    return Clusters(weights, s)
