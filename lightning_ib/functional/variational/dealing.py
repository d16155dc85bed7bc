"""Dealing samples to the folds of a cross-validation."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ib.functional.checks import check_same_samples, checked_integers


def checked_groups(groups: Tensor, n: int, folds: int, device: torch.device) -> Tensor:
    """The group of each sample, numbered from 0 in ascending order, so that the split is the same in any order of rows.

    Raises:
        TypeError: groups are of another kind than a tensor of integers.
        ValueError: they have another shape than ``(n,)``, or there are fewer than folds.
    """
    checked_integers(groups, "groups must be the group of each sample", "(N,)")
    if groups.ndim != 1:
        raise ValueError(f"groups must have shape (N,), got {tuple(groups.shape)}.")
    check_same_samples(n, len(groups), ("t", "groups"))
    numbered: Tensor
    names, numbered = groups.to(device).unique(return_inverse=True)
    if len(names) < folds:
        raise ValueError(
            f"groups must be at least {folds}, one for each fold, got {len(names)}: give more groups or fewer folds."
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
    order = torch.randperm(len(sizes), generator=generator)
    order = order[sizes[order].argsort(descending=True, stable=True)]
    held, fold = [0] * folds, torch.empty_like(sizes)
    for group in order.tolist():
        fold[group] = least = held.index(min(held))
        held[least] += int(sizes[group])
    return fold.to(groups.device)[groups]
