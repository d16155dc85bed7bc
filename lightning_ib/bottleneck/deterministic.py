r"""The deterministic bottleneck: hard clusters, with H(T) in place of I(X;T) (Strouse & Schwab 2017).

.. math:: \min_f \; H(T) - \beta I(T;Y), \qquad T = f(X)

The objective is a sum over clusters, so the best partition of n symbols follows from those of their subsets in about
3ⁿ⁻¹ / 2 steps instead of Bell(n). This is exact. For more symbols a local search moves single x between clusters and
merges clusters, from every partition of the agglomerative bottleneck.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_ib.bottleneck.agglomerative import merges
from lightning_ib.bottleneck.curve import BottleneckCurve, scaled
from lightning_ib.bottleneck.joint import Joint, divergence, entropies
from lightning_ib.functional.checks import in_unit

EXACT = 14
"""Up to this many different rows p(y|x) the best partition is found exactly."""


def deterministic_curve(
    joint: Joint, beta: Tensor, unit: str, relaxed: Callable[[], BottleneckCurve]
) -> BottleneckCurve:
    """The deterministic bottleneck at each β.

    Args:
        joint: the distribution.
        beta: shape ``(B,)``.
        unit: of the curve.
        relaxed: gives the curve of the IB, a lower bound where the partition is not proven to be the best.
    """
    n = len(joint.p_x)
    exact = n <= EXACT
    labels = torch.stack(best_partitions(joint, beta) if exact else local_search(joint, beta))
    k = int(labels.max()) + 1
    member = torch.nn.functional.one_hot(labels, k).to(joint.p_x)
    flow = joint.p_x[:, None] * member
    w = flow.sum(1)
    rows = flow.mT @ joint.rows / w.clamp_min(1e-300)[..., None]
    rows = torch.where((w > 0)[..., None], rows, joint.p_y)
    h_t = entropies(w).clamp_min(0) + 0.0  # no −0
    i_ty = torch.minimum((w * divergence(rows, joint.p_y)).sum(1), h_t)
    f = h_t + beta * (joint.information - i_ty).clamp_min(0)
    if exact:
        gap = torch.zeros_like(f)
    else:
        lower = relaxed()
        gap = (f - (lower.objective - lower.gap) / in_unit(1.0, unit)).clamp_min(0)
    return BottleneckCurve(
        beta=beta,
        i_xt=scaled(h_t, unit),
        i_ty=scaled(i_ty, unit),
        h_t=scaled(h_t, unit),
        objective=scaled(f, unit),
        n_clusters=(w > 0).sum(1),
        gap=scaled(gap, unit),
        i_ty_decoder=None,
        kind="deterministic",
        unit=unit,
        i_xy=in_unit(joint.information, unit),
        onset=math.nan,
        p_t=w,
        p_y_given_t=rows,
        p_x=joint.p_original,
        p_y_given_x=joint.rows[joint.merged],
    )


def cluster_costs(mass: Tensor, mixed: Tensor, p_y: Tensor, beta: Tensor) -> Tensor:
    """What clusters add to H(T) − β I(T;Y), from their p(t), shape ``(N,)``, and p(t, y): ``(B, N)``."""
    entropy: Tensor = -torch.special.xlogy(mass, mass)
    safe = torch.where(mass > 0, mass, torch.ones_like(mass))[:, None]
    information: Tensor = torch.special.xlogy(mixed, mixed / (safe * p_y)).sum(1)
    return entropy - beta[:, None] * information


def best_partitions(joint: Joint, beta: Tensor) -> list[Tensor]:
    """The best partition of all x at each β, exactly: the labels of the x, numbered from 0."""
    n = len(joint.p_x)
    mixed = torch.zeros(1, len(joint.p_y), dtype=joint.p_x.dtype, device=joint.p_x.device)
    for i in range(n):
        mixed = torch.cat([mixed, mixed + joint.p_x[i] * joint.rows[i]])
    mass = mixed.sum(1)
    splits = _splits(n, beta.device)
    return [_best_partition(cluster_costs(mass, mixed, joint.p_y, one)[0], n, splits) for one in beta.split(1)]


def _splits(n: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """For m = 0 … n − 2: the 3ᵐ ways to split a subset of m symbols into two parts, as bit masks."""
    inside = torch.zeros(1, dtype=torch.int64, device=device)
    outside = inside.clone()
    found = [(inside, outside)]
    for m in range(n - 2):
        bit = 1 << m
        inside, outside = torch.cat([inside, inside | bit, inside]), torch.cat([outside, outside, outside | bit])
        found.append((inside, outside))
    return found


def _best_partition(cost: Tensor, n: int, splits: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Dynamic programming over subsets: the cluster of the highest symbol of a subset, and the best of the rest."""
    value = torch.full_like(cost, torch.inf)
    value[0] = 0
    for m in range(n - 1):
        inside, outside = splits[m]
        total = cost[inside | (1 << m)] + value[outside]
        subset = inside | outside
        best = torch.full((1 << m,), torch.inf, dtype=cost.dtype, device=cost.device)
        value[1 << m : 2 << m] = best.scatter_reduce(0, subset, total, "amin")
    labels = torch.zeros(n, dtype=torch.int64, device=cost.device)
    left, number = (1 << n) - 1, 0
    while left:
        top = 1 << (left.bit_length() - 1)
        parts = _subsets(left ^ top, cost.device)
        total = cost[parts | top] + value[(left ^ top) & ~parts]
        lowest = total.amin()
        # Of equal values the one with the fewest clusters: the largest cluster first.
        near = total <= lowest + 1e-14 * (1 + lowest.abs())
        size = sum((parts >> i) & 1 for i in range(n))
        chosen = int(parts[torch.where(near, size, -torch.ones_like(parts)).argmax()]) | top
        members = [i for i in range(n) if chosen >> i & 1]
        labels[members] = number
        left, number = left & ~chosen, number + 1
    return labels


def _subsets(mask: int, device: torch.device) -> Tensor:
    """All subsets of a bit mask."""
    found = torch.zeros(1, dtype=torch.int64, device=device)
    bit = 1
    while bit <= mask:
        if mask & bit:
            found = torch.cat([found, found | bit])
        bit <<= 1
    return found


def local_search(joint: Joint, beta: Tensor) -> list[Tensor]:
    """A partition at each β that no move of one x and no merging of two clusters improves."""
    partitions = merges(joint)[0]
    starts = torch.stack([torch.unique(labels, return_inverse=True)[1] for labels in partitions])
    scores = torch.stack([_score(joint, labels, beta) for labels in starts])
    found = []
    for b, one in enumerate(beta.split(1)):
        order = scores[:, b].argsort()[:4]
        ends = [_improved(joint, starts[i].clone(), one) for i in order]
        found.append(min(ends, key=lambda labels: float(_score(joint, labels, one))))
    return found


def _score(joint: Joint, labels: Tensor, beta: Tensor) -> Tensor:
    mixed = _mixed(joint, labels, int(labels.max()) + 1)
    return cluster_costs(mixed.sum(1), mixed, joint.p_y, beta).sum(1)


def _mixed(joint: Joint, labels: Tensor, k: int) -> Tensor:
    flow = joint.p_x[:, None] * joint.rows
    return torch.zeros(k, flow.shape[1], dtype=flow.dtype, device=flow.device).index_add_(0, labels, flow)


def _improved(joint: Joint, labels: Tensor, beta: Tensor) -> Tensor:
    """Moves of single x, then merges, until none helps."""
    flow = joint.p_x[:, None] * joint.rows
    n = len(labels)
    for _ in range(20):
        moved = False
        k = int(labels.max()) + 1
        mixed = torch.cat([_mixed(joint, labels, k), torch.zeros_like(flow[:1])])
        for x in range(n):
            old = int(labels[x])
            own = mixed[old] - flow[x]
            own = own * (labels == old).sum().gt(1)  # exactly 0 without x
            options = torch.cat([mixed + flow[x], mixed, own[None]])
            cost = cluster_costs(options.sum(1), options, joint.p_y, beta)[0]
            change = cost[: k + 1] - cost[k + 1 : -1]
            change[old] = cost[old + k + 1] - cost[-1]
            new = int(change.argmin())
            if float(change[old] - change[new]) > 1e-13 and new != old and new < k:
                mixed[old], mixed[new] = own, mixed[new] + flow[x]
                labels[x] = new
                moved = True
        labels = torch.unique(labels, return_inverse=True)[1]
        labels, merged = _merged_pair(joint, labels, beta)
        if not moved and not merged:
            break
    return labels


def _merged_pair(joint: Joint, labels: Tensor, beta: Tensor) -> tuple[Tensor, bool]:
    """Merge the two clusters whose union lowers the objective most, if any does."""
    k = int(labels.max()) + 1
    if k == 1:
        return labels, False
    mixed = _mixed(joint, labels, k)
    cost = cluster_costs(mixed.sum(1), mixed, joint.p_y, beta)[0]
    i, j = torch.triu_indices(k, k, 1, device=labels.device)
    union = mixed[i] + mixed[j]
    change = cluster_costs(union.sum(1), union, joint.p_y, beta)[0] - cost[i] - cost[j]
    best = int(change.argmin())
    if float(change[best]) > -1e-13:
        return labels, False
    labels = torch.where(labels == j[best], i[best], labels)
    return torch.unique(labels, return_inverse=True)[1], True
