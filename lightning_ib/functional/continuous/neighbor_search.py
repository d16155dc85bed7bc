r"""The k nearest neighbors of every sample in a joint space, and the counts of samples as near in some variables of it.

Distances are in the max norm and in float64, also for rows in float32, whose differences need more digits than float32
has. The search is exact. On the CPU, in few coordinates and where SciPy is there, it takes a k-d tree
(:mod:`~lightning_ib.functional.continuous.neighbor_trees`) and counts by ranks
(:mod:`~lightning_ib.functional.continuous.neighbor_counts`); otherwise every sample is held against every other, a
block at a time, so that memory grows linearly with N and time with :math:`N^2 D`. The result is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.continuous import neighbor_counts, neighbor_trees

# How many distances are held at once in one matrix: under 1 MB of float64 on a CPU, with about five such matrices at a
# time. Other devices need more at once to be busy.
_BLOCK = 100_000
_BLOCK_ON_DEVICES = 4_000_000

# Up to how many coordinates a k-d tree takes less time than all distances: of the joint space, and within one class.
_FEW_COORDINATES = 12

# What breaks ties in several variables at once: the noise, as a share of the smallest difference of two values and, at
# least, of the largest value; and how often it is drawn.
_NOISE, _FLOOR, _DRAWS = 2.0**-16, 2.0**-46, 4

Subset = tuple[int, ...]


class Neighborhoods(NamedTuple):
    r"""What nearest neighbors say about each of N samples.

    Attributes:
        radii: float64 ``(N,)``: the distance :math:`\rho` to the k-th neighbor in the joint space.
        digammas: float64 ``(S, N)``: for each subset of the variables, :math:`\psi` of the number of samples nearer
            than :math:`\rho` in it, or equal in it where :math:`\rho = 0`; the sample itself is counted.
    """

    radii: Tensor
    digammas: Tensor


def psi_table(n: int) -> Tensor:
    """The digamma function at 0 … n, float64 ``(n + 1,)``: one value for each count, wherever it stands."""
    return torch.digamma(torch.arange(n + 1, dtype=torch.float64, device="cpu"))


def neighborhoods(parts: Sequence[Tensor], subsets: Sequence[Subset], k: int, *, ties: bool = False) -> Neighborhoods:
    r"""The neighborhoods of all samples.

    Args:
        parts: the variables, float64 ``(N, D)`` each; the joint space holds them all.
        subsets: those to count in, by the numbers of their variables: ``[(0,), (1,)]``.
        k: the number of neighbors, at most N − 1.
        ties: whether a k-th distance that is tied is broken, by the mean over the orders in which a tiny noise would
            put those tied: see :func:`_break_ties` for one variable, :func:`_with_noise` for several.
    """
    n, device = len(parts[0]), parts[0].device
    repeating = [i for i, part in enumerate(parts) if _repeats(part)] if ties else []
    every = tuple(range(len(parts)))
    wide = {*(of for of in subsets if {*of} & {*repeating}), *((i,) for i in repeating), every} if repeating else set()
    nearer = {of: torch.empty(n, dtype=torch.int64, device=device) for of in {*subsets, *wide}}
    within = {of: torch.empty_like(nearer[of]) for of in wide}
    radii = parts[0].new_empty(n)
    if by_tree(parts):
        joint = torch.cat(tuple(parts), 1)
        distances = neighbor_trees.nearest(joint, k)[0]
        radii = distances[:, k].contiguous()
        reaches = (below(radii), radii) if wide else (below(radii),)
        ranges = [neighbor_counts.rank_ranges(part, *reaches) for part in parts]
        for of in {*subsets, *wide} - {every}:
            shorter, *longer = ([ranked for i in of for ranked in ranges[i][which]] for which in range(len(reaches)))
            if of in wide:
                nearer[of], within[of] = neighbor_counts.count_nearer_and_within(shorter, *longer)
            else:
                nearer[of] = neighbor_counts.count(shorter)
        if wide:
            nearer[every] = (distances < radii.unsqueeze(1)).sum(1)
            tied = torch.stack([within[of] > nearer[of] + 1 for of in wide - {every}]).any(0)
            within[every] = neighbor_counts.count([ranked for _, longer in ranges for ranked in longer], tied)
    else:
        for block, to in _distances(parts):
            radii[block] = radius = _kth(_farthest(to), k)
            reach = below(radius).unsqueeze(1)
            for of, count in nearer.items():
                distances = _farthest([to[i] for i in of])
                count[block] = (distances <= reach).sum(1)
                if of in wide:
                    within[of][block] = (distances <= radius.unsqueeze(1)).sum(1)
    digammas = psi_table(n).to(device)[torch.stack([nearer[of] for of in subsets])]
    if repeating:
        at = {of: (within[of] - nearer[of]) * (radii > 0) for of in wide}
        several = _break_ties(digammas, subsets, k, repeating, nearer, at)
        if len(several):
            digammas[:, several] = _with_noise(parts, subsets, k)[:, several]
    return Neighborhoods(radii, digammas)


def box_neighborhoods(x: Tensor, y: Tensor, k: int) -> Neighborhoods:
    """The neighborhoods of two variables by boxes: in each, samples no farther than any of the k neighbors are.

    The sample itself is left out of the counts.
    """
    n = len(x)
    radii, counts = x.new_empty(n), torch.empty((2, n), dtype=torch.int64, device=x.device)
    rest: Tensor | None = None
    if by_tree((x, y)):
        distances, numbers = neighbor_trees.nearest(torch.cat((x, y), 1), min(k + 1, n - 1))
        radii = distances[:, k].contiguous()
        for part, own in zip((x, y), counts):
            sides = (part[numbers[:, 1 : k + 1]] - part.unsqueeze(1)).abs().amax((1, 2))
            own.copy_(neighbor_counts.count_within(part, sides))
        # Where the tree had to choose among equally near neighbors, all of them count.
        apart = distances[:, 1] > 0
        if k + 1 < n:
            apart &= distances[:, k + 1] > radii
        rest = (~apart).nonzero().squeeze(1)
    for block, to in _distances((x, y), rest):
        both = _farthest(to)
        radii[block] = radius = _kth(both, k)
        within = both <= radius.unsqueeze(1)
        for distances, own in zip(to, counts):
            own[block] = (distances <= distances.where(within, 0).amax(1, keepdim=True)).sum(1)
    return Neighborhoods(radii, psi_table(n).to(x.device)[counts - 1])


def class_neighborhoods(t: Tensor, labels: Tensor, n_classes: int, k: int) -> Neighborhoods:
    """The neighborhoods of a representation: the k-th neighbor of the own class, and all samples nearer than it.

    Args:
        t: float64 ``(N, D)``.
        labels: int64 ``(N,)`` in 0 … n_classes − 1; each class has more than k samples.
        n_classes: the number of classes.
        k: the number of neighbors.
    """
    n = len(t)
    radii, counts = t.new_empty(n), torch.empty((1, n), dtype=torch.int64, device=t.device)
    if by_tree((t,)):
        for label in range(n_classes):
            own = labels == label
            radii[own] = neighbor_trees.kth_distance(t[own], k)
        counts[0] = neighbor_counts.count_within(t, below(radii))
    else:
        for block, (distances,) in _distances((t,)):
            same = labels[block].unsqueeze(1) == labels
            radii[block] = radius = _kth(distances.where(same, math.inf), k)
            counts[0, block] = (distances < radius.unsqueeze(1)).sum(1)
    return Neighborhoods(radii, psi_table(n).to(t.device)[counts])


def neighbor_distances(rows: Tensor, numbers: Sequence[int]) -> Tensor:
    """The distances of all samples to some of their nearest neighbors.

    Args:
        rows: float64 ``(N, D)``.
        numbers: which neighbors, the nearest being 1; each at most N − 1.

    Returns:
        float64 ``(N, len(numbers))``.
    """
    k = max(numbers)
    if by_tree((rows,)):
        return neighbor_trees.nearest(rows, k)[0][:, list(numbers)]
    found = rows.new_empty((len(rows), len(numbers)))
    for block, (distances,) in _distances((rows,)):
        found[block] = distances.topk(k + 1, dim=1, largest=False).values[:, list(numbers)]
    return found


def by_tree(parts: Sequence[Tensor]) -> bool:
    """Whether a k-d tree searches these variables' joint space."""
    few = sum(part.shape[1] for part in parts) <= _FEW_COORDINATES
    return few and parts[0].device.type == "cpu" and neighbor_trees.trees() is not None


def below(radii: Tensor) -> Tensor:
    """The largest distances that are nearer than these, or 0 where they are 0."""
    return radii.nextafter(torch.zeros_like(radii))


def _distances(parts: Sequence[Tensor], chosen: Tensor | None = None) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Row numbers ``(B,)``, a block at a time, of all rows or of those chosen, and their distances in each variable."""
    n, device = len(parts[0]), parts[0].device
    numbers = torch.arange(n, device=device) if chosen is None else chosen
    entries = _BLOCK if device.type == "cpu" else _BLOCK_ON_DEVICES
    for block in numbers.split(max(1, entries // n)):
        if len(block):
            yield block, [torch.cdist(part[block], part, p=math.inf) for part in parts]


def _kth(distances: Tensor, k: int) -> Tensor:
    """The distance to the k-th nearest, ``(B,)``: before the first comes the sample itself, at distance 0."""
    return distances.topk(k + 1, dim=1, largest=False).values[:, k]


def _farthest(to: Sequence[Tensor]) -> Tensor:
    distances = to[0]
    for other in to[1:]:
        distances = torch.maximum(distances, other)
    return distances


def _repeats(part: Tensor) -> bool:
    """Whether a coordinate has equal values in several rows."""
    ordered = part.sort(0).values
    return bool((ordered[1:] == ordered[:-1]).any())


def _break_ties(
    digammas: Tensor,
    subsets: Sequence[Subset],
    k: int,
    repeating: Sequence[int],
    nearer: Mapping[Subset, Tensor],
    at: Mapping[Subset, Tensor],
) -> Tensor:
    r"""Replace the digammas of rows whose k-th distance is tied in one variable alone by their mean over orders.

    A sample beside an atom has all samples on the atom at one distance in that variable. The formulas count those
    nearer than the k-th neighbor: none of the atom, although that neighbor is on it. A tiny noise on the variable would
    put them in an order, in which the neighbor has some place, and all orders are equally likely. With j samples nearer
    in the joint space and C at the distance, M of them in a subset, the place R of the :math:`(k - j)`-th of the C
    among the M follows a negative hypergeometric distribution. The mean of :math:`\psi(n + R - 1)` is what the noise
    gives on average, without its scatter.

    Args:
        digammas: of all rows, ``(S, N)``, changed in place.
        subsets: as in :func:`neighborhoods`.
        k: the number of neighbors.
        repeating: the variables with values that repeat.
        nearer: how many samples, the row's own included, are nearer than its k-th neighbor, ``(N,)``: in each subset,
            in each of these variables, and in all variables together.
        at: how many are as far as that neighbor, 0 where it is at distance 0, ``(N,)``: in the same, but for subsets
            without any of these variables.

    Returns:
        The rows that are tied in several variables, ``(R,)``, which are left as they are.
    """
    every = max(at, key=len)  # all variables together
    tied = torch.stack([at[of] > 1 for of in at if of in subsets]).any(0)
    in_variables = torch.stack([at[i,] > 0 for i in repeating])
    alone = tied & (in_variables.sum(0) < 2)
    log_factorial = torch.lgamma(torch.arange(1, digammas.shape[1] + 2, dtype=torch.float64, device="cpu"))
    log_factorial = log_factorial.to(digammas.device)
    for i, in_variable in zip(repeating, in_variables):
        rows = (alone & in_variable).nonzero().squeeze(1)
        for subset, values in zip(subsets, digammas):
            if i in subset and len(rows):
                place = k + 1 - nearer[every][rows]  # the sample itself is among those nearer
                n, c, m = (of[rows] for of in (nearer[subset], at[every], at[subset]))
                values[rows] = _mean_digamma(n, place, c, m, log_factorial)
    return (tied & ~alone).nonzero().squeeze(1)


def _with_noise(parts: Sequence[Tensor], subsets: Sequence[Subset], k: int) -> Tensor:
    """The digammas of all rows, ``(S, N)``: means over a few draws of a tiny noise on all values, of a fixed seed.

    Equal rows are alike, and others are numbered by their values, so that the order of the samples changes nothing.
    """
    _, numbers = torch.unique(torch.cat(tuple(parts), 1) + 0.0, dim=0, return_inverse=True)
    order = numbers.argsort()
    gaps = [torch.diff(part.sort(0).values, dim=0) for part in parts]
    step = min((float(gap[gap > 0].min()) for gap in gaps if bool((gap > 0).any())), default=0.0) * _NOISE
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = []
    for _ in range(_DRAWS):
        noisy = []
        for part in parts:
            noise = torch.empty_like(part)
            noise[order] = torch.rand(part.shape, generator=generator, dtype=part.dtype, device="cpu").to(part.device)
            noisy.append(part + noise * part.abs().amax(0).mul(_FLOOR).clamp(min=step))
        drawn.append(neighborhoods(noisy, subsets, k).digammas)
    return torch.stack(drawn).mean(0)


def _mean_digamma(nearer: Tensor, place: Tensor, chosen: Tensor, among: Tensor, log_factorial: Tensor) -> Tensor:
    """The mean of ψ(nearer − 1 + R), R being the place among M of one of C that are chosen at random.

    Args:
        nearer: int64 ``(R,)``, the samples nearer, the sample itself included.
        place: int64 ``(R,)``, which of those chosen it is, in their order, from 1.
        chosen: int64 ``(R,)``, C.
        among: int64 ``(R,)``, M, at least C.
        log_factorial: of 0, 1, …
    """
    means = []
    psi = psi_table(2 * len(log_factorial)).to(nearer.device)  # places that a row of the block has not are read as well
    size = max(1, _BLOCK // int(among.max()))
    for n, q, c, m in zip(*(of.unsqueeze(1).split(size) for of in (nearer, place, chosen, among))):
        r = torch.arange(1, int(m.max()) + 1, device=n.device)
        # C(r - 1, q - 1) C(m - r, c - q), up to a factor
        log_share = log_factorial[r - 1] - log_factorial[(r - q).clamp_(min=0)]
        log_share += log_factorial[(m - r).clamp_(min=0)]
        log_share -= log_factorial[(m - r - c + q).clamp_(min=0)]
        share = log_share.masked_fill_((r < q) | (r > m - c + q), -math.inf).softmax(1)
        means.append((share * psi[n - 1 + r]).sum(1))
    return torch.cat(means)
