"""The solver of the bottleneck and its dual at a batch of β: global, with a certificate for every β."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ib.bottleneck.certificate import insert, starts, violations
from lightning_ib.bottleneck.distortion import Distortion
from lightning_ib.bottleneck.newton import Clusters, blahut_arimoto, encode, polish

_ROUNDS = 40
_VIOLATION = 3e-13
_BATCH = 2**24
"""The most numbers in the largest array of one batch of β."""

_SAME = 1e-10
"""Squared Hellinger distance below which two clusters are one."""


@dataclass
class Solution:
    """Solutions at a batch of β.

    Attributes:
        clusters: weights and reproductions.
        gap: how far J can be above the optimum, shape ``(B,)``, in nats.
    """

    clusters: Clusters
    gap: Tensor


def solve(problem: Distortion, beta: Tensor, onset: float) -> Solution:
    """Minimize I(X;T) + β E d at each β.

    Weights on a fixed set of reproductions first (a convex problem), then fixed-point and Newton steps on weights and
    reproductions, then new clusters wherever the certificate asks for one, until it asks for none.

    Args:
        problem: the distortion.
        beta: shape ``(B,)``, float64.
        onset: the β up to which one cluster is optimal.
    """
    pool = starts(problem)
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
    candidates = pool.expand(b, -1, -1)
    for round_ in range(_ROUNDS):
        part, betas = clusters[running].compacted(), beta[running]
        part = tidy(polish(problem, betas, part, steps=25, target=1e-13))
        encoding = encode(problem, betas, part)
        found, value = violations(
            problem,
            betas,
            encoding.log_z,
            _with_neighbors(candidates[running], part),
            fixed_point=20,
            newton=6,
            keep=32,
        )
        peak = value[:, 0].clamp_min(0)
        clusters, gap = _stored(clusters, running, part), gap.index_put((running,), torch.minimum(peak, gap[running]))
        again = peak > _VIOLATION
        again &= ~trivial[running] | (peak > 1e-9)
        if not bool(again.any()) or round_ == _ROUNDS - 1:
            break
        part = insert(problem, betas[again], encoding.log_z[again], part[again], found[again], value[again], _VIOLATION)
        running = running[again]
        clusters = _stored(clusters, running, part)
    return Solution(clusters.compacted(), gap)


def one_cluster(problem: Distortion, b: int) -> Clusters:
    """The solution that ignores X."""
    mean = problem.centroid(problem.joint.p_x @ problem.features)
    return Clusters(torch.ones(b, 1, dtype=mean.dtype, device=mean.device), mean.expand(b, 1, -1).clone())


def first_guess(problem: Distortion, beta: Tensor, pool: Tensor) -> Clusters:
    """Weights on a fixed pool of reproductions by multiplicative updates, then fixed-point steps on the heaviest."""
    kernel = -beta[:, None, None] * problem.distances(pool)
    kernel = (kernel - kernel.amax(2, keepdim=True)).exp()
    weights = torch.full((len(beta), len(pool)), 1 / len(pool), dtype=beta.dtype, device=beta.device)
    p = problem.joint.p_x
    for _ in range(150):
        z = (kernel @ weights[..., None])[..., 0]
        weights = weights * ((p / z)[:, None, :] @ kernel)[:, 0]
    del kernel
    weights = weights.masked_fill(weights < 1e-4, 0.0)
    clusters = Clusters(weights / weights.sum(1, keepdim=True), pool.expand(len(beta), -1, -1)).compacted()
    for near in (1e-3, 1e-3, 1e-3):
        for _ in range(10):
            clusters = blahut_arimoto(problem, clusters, encode(problem, beta, clusters))
        clusters = tidy(clusters, near)
    return clusters


def tidy(clusters: Clusters, near: float = _SAME) -> Clusters:
    """Merge clusters with equal reproductions, and drop empty ones."""
    w, s = clusters.weights, clusters.s
    root = s.sqrt()
    close = (2 - 2 * root @ root.mT) < near
    if near < 1e-6:  # the product above loses digits
        close = (root[:, :, None] - root[:, None]).square().sum(3) < near
    close &= (w > 0)[:, None, :]
    first = close.float().argmax(2)
    merged = torch.zeros_like(w).scatter_add(1, first, w)
    means = torch.zeros_like(s).scatter_add(1, first[..., None].expand_as(s), w[..., None] * s)
    s = torch.where(merged[..., None] > 0, means / merged.clamp_min(1e-300)[..., None], s)
    return Clusters(merged, s / s.sum(2, keepdim=True)).compacted()


def _with_neighbors(candidates: Tensor, clusters: Clusters) -> Tensor:
    """Further starts around each cluster: it may have to split."""
    s = clusters.s
    other = s[:, torch.arange(s.shape[1]).roll(1)]
    return torch.cat([candidates, 0.98 * s + 0.02 * other, 0.5 * s + 0.5 * other, s], 1)


def _padded(values: Tensor, width: int) -> Tensor:
    if values.ndim == 2:
        return torch.nn.functional.pad(values, (0, width - values.shape[1]))
    return torch.nn.functional.pad(values, (0, 0, 0, width - values.shape[1]), value=1 / values.shape[2])


def _stored(clusters: Clusters, where: Tensor, part: Clusters) -> Clusters:
    width = max(clusters.weights.shape[1], part.weights.shape[1])
    weights, s = _padded(clusters.weights, width).clone(), _padded(clusters.s, width).clone()
    weights[where], s[where] = _padded(part.weights, width), _padded(part.s, width)
    return Clusters(weights, s)
