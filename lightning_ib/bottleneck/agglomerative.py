"""Agglomerative bottleneck: clusters of x merged pair by pair, each time the pair that loses the least I(T;Y)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ib.bottleneck.joint import Joint, checked_joint, divergence
from lightning_ib.functional.checks import Unit, checked_unit, in_unit

_MOST = 2048
"""Different rows p(y|x); the time grows with their third power."""


def agglomerative_ib(p_xy: Tensor, *, unit: Unit = "bits") -> dict[int, float]:
    r"""I(T;Y) by number of clusters, for the greedy hard clustering of Slonim & Tishby (1999).

    It starts with a cluster for each x and merges the pair with the least loss

    .. math:: \delta I(i, j) = (p_i + p_j)\, \text{JS}_{\pi}[p(y|i), p(y|j)], \qquad \pi \propto (p_i, p_j)

    until one cluster is left. Each step is the best one, and the outcome is not optimal in general.

    Args:
        p_xy: p(x, y), shape ``(X, Y)``, summing to 1.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        ``{k: I(T;Y) with k clusters}`` for k from X down to 1.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``p_xy`` is no joint distribution, or has more than 2048 different rows p(y|x).

    Example:
        >>> p = torch.tensor([[0.4, 0.1], [0.3, 0.1], [0.02, 0.08]], dtype=torch.float64)
        >>> {k: round(i, 4) for k, i in agglomerative_ib(p).items()}
        {3: 0.0978, 2: 0.0955, 1: 0.0}
    """
    checked_unit(unit)
    joint = checked_joint(p_xy)
    if len(joint.p_x) > _MOST:
        raise ValueError(
            f"agglomerative_ib compares all pairs of x, here of {len(joint.p_x)} different rows p(y|x), and takes at "
            f"most {_MOST}: merge similar rows first."
        )
    merged, lost = merges(joint)[1:]
    kept = [joint.information]
    for loss in lost:
        kept.append(max(0.0, kept[-1] - loss))
    kept[-1] = 0.0
    by_number = dict.fromkeys(range(len(joint.merged), len(merged) + 1, -1), joint.information)
    by_number |= {len(merged) + 1 - step: value for step, value in enumerate(kept)}
    return {k: in_unit(value, unit) for k, value in by_number.items()}


def merges(joint: Joint) -> tuple[list[Tensor], list[tuple[int, int]], list[float]]:
    """The greedy merges: the partition before each and after the last, the pairs, and what each loses, in nats."""
    p, rows = joint.p_x.clone(), joint.rows.clone()
    n = len(p)
    labels = torch.arange(n, device=p.device)
    costs = torch.full((n, n), torch.inf, dtype=p.dtype, device=p.device)
    for i in range(n - 1):
        costs[i, i + 1 :] = _loss(p[i], rows[i], p[i + 1 :], rows[i + 1 :])
    partitions, pairs, lost = [labels.clone()], [], []
    for _ in range(n - 1):
        i, j = divmod(int(costs.argmin()), n)
        lost.append(float(costs[i, j]))
        pairs.append((i, j))
        total = p[i] + p[j]
        rows[i] = (p[i] * rows[i] + p[j] * rows[j]) / total
        p[i] = total
        labels = torch.where(labels == j, labels.new_tensor(i), labels)
        partitions.append(labels.clone())
        costs[j, :] = costs[:, j] = torch.inf
        p[j] = 0
        fresh = _loss(p[i], rows[i], p, rows).masked_fill(p == 0, torch.inf)
        costs[i, i + 1 :] = fresh[i + 1 :]
        costs[:i, i] = fresh[:i]
    return partitions, pairs, lost


def _loss(p: Tensor, row: Tensor, others: Tensor, rows: Tensor) -> Tensor:
    """What merging one cluster with each of the others loses of I(T;Y)."""
    center = (p * row + others[:, None] * rows) / (p + others)[:, None]
    return p * divergence(row.expand_as(rows), center) + others * divergence(rows, center)
