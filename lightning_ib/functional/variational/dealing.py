"""Dealing samples to the folds of a cross-validation, and to the halves of a critic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.functional.checks import check_same_samples, checked_integers

# With groups, the samples of a critic are dealt to so many parts: half of them to either half, one of those to judge.
PARTS = 8


class Halves(NamedTuple):
    """How the samples are dealt to two critics.

    Attributes:
        rows: int64 ``(2, M)``: of each critic, the numbers of the rows that it is fitted to, then of those that judge
            when to stop, then of the unseen ones that it is evaluated on.
        n_fitted: how many it is fitted to.
        n_judges: how many judge.
        n_independent: how many independent samples or groups the judges are, of the critic that has fewer.
    """

    rows: Tensor
    n_fitted: int
    n_judges: int
    n_independent: int

    def split(self, of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Columns of each critic, ``(2, M)``: of the rows it is fitted to, of the judges, and of the unseen ones."""
        fitted, judges, unseen = of.tensor_split([self.n_fitted, self.n_fitted + self.n_judges], 1)
        return fitted, judges, unseen


def checked_groups(
    groups: Tensor, n: int, parts: int, device: torch.device, *, of: str = "t", part: str = "fold"
) -> Tensor:
    """The group of each sample, numbered from 0 in ascending order, so that the split is the same in any order of rows.

    Args:
        groups: integers ``(n,)``.
        n: the number of samples.
        parts: how many parts they are dealt to.
        device: where to hold them.
        of: how a message names the samples.
        part: how a message names one: a caller can choose the number of a ``"fold"`` and a ``"part"``.

    Raises:
        TypeError: groups are of another kind than a tensor of integers.
        ValueError: they have another shape than ``(n,)``, or there are fewer than parts.
    """
    checked_integers(groups, "groups must be the group of each sample", "(N,)")
    if groups.ndim != 1:
        raise ValueError(f"groups must have shape (N,), got {tuple(groups.shape)}.")
    check_same_samples(n, len(groups), (of, "groups"))
    numbered: Tensor
    names, numbered = groups.to(device).unique(return_inverse=True)
    if len(names) < parts:
        fewer = f" or fewer {part}s" if part in ("fold", "part") else ""
        raise ValueError(
            f"groups must be at least {parts}, one for each {part}, got {len(names)}: give more groups{fewer}."
        )
    return numbered


def by_first_appearance(labels: Tensor, n_classes: int) -> Tensor:
    """Number the classes in the order in which they come, so that the split is the same for any names."""
    at = torch.arange(len(labels), device=labels.device)
    first = at.new_full((n_classes,), len(labels)).scatter_reduce(0, labels, at, "amin")
    return first.argsort().argsort()[labels]


def dealt(labels: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """The fold of each sample, ``(N,)``: the classes, shuffled each, one after another, are dealt in turn."""
    order = torch.randperm(len(labels), generator=generator, device="cpu").to(labels.device)
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels), device=labels.device) % folds
    return fold


def dealt_whole(groups: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """The fold of each sample, ``(N,)``: groups, shuffled and then the largest first, go to the smallest fold."""
    sizes = torch.bincount(groups).cpu()
    order = torch.randperm(len(sizes), generator=generator, device="cpu")
    order = order[sizes[order].argsort(descending=True, stable=True)]
    held, fold = [0] * folds, torch.empty_like(sizes)
    for group in order.tolist():
        fold[group] = least = held.index(min(held))
        held[least] += int(sizes[group])
    return fold.to(groups.device)[groups]


def dealt_halves(n: int, groups: Tensor | None, generator: torch.Generator, device: torch.device) -> Halves:
    """Deal n samples to two critics: each learns from a half, of which a quarter judges, and never sees the other.

    Args:
        n: the number of samples, at least 16.
        groups: the group of each sample, numbered, ``(n,)``, at least 8 groups: a group stays in one part. Both critics
            have as many rows as the one that has fewer; those beyond are left over.
        generator: on the CPU.
        device: where the row numbers are used.

    Raises:
        ValueError: the groups are of so unequal size that a part has a single sample.
    """
    order = torch.randperm(n, generator=generator, device="cpu")
    if groups is None:
        half = n // 2
        own = order[: 2 * half].view(2, half).to(device)
        return Halves(torch.cat([own, own.flip(0)], 1), half - half // 4, half // 4, half // 4)
    part = dealt_whole(groups.cpu(), PARTS, generator)[order]
    judges = [order[part == p] for p in (PARTS - 2, PARTS - 1)]
    fitted = [order[(part % 2 == p) & (part < PARTS - 2)] for p in (0, 1)]
    unseen = [order[part % 2 == 1 - p] for p in (0, 1)]
    cut = [torch.stack([one[: min(map(len, of))] for one in of]) for of in (fitted, judges, unseen)]
    n_fitted, n_judges, _ = (of.shape[1] for of in cut)
    if n_judges < 2:
        raise ValueError(
            "groups are of so unequal size that a critic is judged on a single sample: give more groups, or split the "
            "largest."
        )
    n_independent = min(len(groups.cpu()[one].unique()) for one in cut[1])
    return Halves(torch.cat(cut, 1).to(device), n_fitted, n_judges, n_independent)
