"""Gradient flow on squared error in the eigenvectors of the kernel, where every direction learns by itself."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ib.infinite_width.kernels import Kernels
from lightning_ib.infinite_width.mixture import Components, mixture_information

_POINT = 1e-12
"""Of the variance at the start: a smaller one is rounding, and the output counts as a point mass."""

_SAME = 1e-8
"""Of the largest mean: point masses that differ by less are one value."""

_LATE = 1e-3
"""From this product of time and eigenvalue on, a direction begins to be learned."""


@dataclass(frozen=True)
class TestSet:
    """Where an ensemble is looked at.

    Attributes:
        x: inputs, float64, shape ``(n, …)``.
        y: real targets, ``(n, k)``, or None.
        label: classes, int64, ``(n,)``, or None.
    """

    x: Tensor
    y: Tensor | None
    label: Tensor | None


@dataclass(frozen=True)
class Solution:
    r"""Training data in the eigenvectors U of their kernel Θ; all float64.

    Attributes:
        architecture: of the networks.
        x: training inputs, ``(N, …)``.
        eigenvalues: λ of Θ, ``(N,)``; 0 for those that are rounding.
        vectors: U, ``(N, N)``.
        targets: Uᵀ y, ``(N, k)``.
        covariance: Uᵀ K U, ``(N, N)``.
        fisher: the mean of Θ(x, x).
        rounding: the largest eigenvalue that is taken for 0.
        unresolved: how many directions of distinct inputs have such an eigenvalue.
    """

    architecture: Kernels
    x: Tensor
    eigenvalues: Tensor
    vectors: Tensor
    targets: Tensor
    covariance: Tensor
    fisher: Tensor
    rounding: float
    unresolved: int

    @classmethod
    def of(cls, architecture: Kernels, x: Tensor, y: Tensor) -> Solution:
        """Solve for inputs ``(N, …)`` and targets ``(N, k)``."""
        nngp, ntk = architecture.kernels(x, x)
        eigenvalues, vectors = torch.linalg.eigh(ntk)
        rounding = len(x) * torch.finfo(torch.float64).eps * float(eigenvalues.max())
        eigenvalues = torch.where(eigenvalues > rounding, eigenvalues, 0.0)
        distinct = len(x.flatten(1)[ntk.diagonal() > 0].unique(dim=0))
        unresolved = max(0, distinct - int((eigenvalues > 0).sum()))
        targets, covariance, fisher = vectors.T @ y, vectors.T @ nngp @ vectors, ntk.diagonal().mean()
        return cls(architecture, x, eigenvalues, vectors, targets, covariance, fisher, rounding, unresolved)

    def warn_of_late(self, times: Tensor) -> None:
        """Warn where directions that float64 cannot resolve would be learned."""
        if self.unresolved and float(times.max()) * self.rounding > _LATE:
            warnings.warn(
                f"the kernel of the training inputs has {self.unresolved} of {len(self.x)} directions with eigenvalues "
                f"below the rounding of float64 ({self.rounding:.1e}): they are left out, and values from t = "
                f"{_LATE / self.rounding:.1e} on are those of a network that never learns them.",
                UserWarning,
                stacklevel=3,
            )

    def at(self, times: Tensor, test: TestSet) -> dict[str, Tensor]:
        """All values, informations in nats, by name; the times, shape ``(T,)``, come first."""
        start, _ = self.architecture.variances(test.x)
        nngp, ntk = (kernel @ self.vectors for kernel in self.architecture.kernels(test.x, self.x))
        ntk = torch.where(self.eigenvalues > 0, ntk, 0.0)  # the other directions are not learned
        rows = []
        for t in times:
            decay, growth = self._decay_and_growth(t)
            pull = ntk * growth
            mean = pull @ self.targets
            variance = start + ((pull @ self.covariance - 2 * nngp) * pull).sum(1)
            variance = torch.where(variance > _POINT * start, variance, 0.0)
            values = {
                "mean": mean,
                "variance": variance,
                "fisher": self.targets.shape[1] * self.fisher,
                **self._training(decay, growth),
                **_losses(mean, variance, test.y),
                **_informations(mean, variance, start, test.label),
            }
            rows.append(values)
        return {
            name: torch.stack([torch.as_tensor(row[name], dtype=dtype, device=times.device) for row in rows])
            for name, dtype in {**dict.fromkeys(rows[0], torch.float64), "saturated": torch.int64}.items()
        }

    def _decay_and_growth(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""exp(−tλ) and (1 − exp(−tλ)) / λ; of directions that are not learned 1 and 0."""
        learned = self.eigenvalues > 0
        divisor = torch.where(learned, self.eigenvalues, 1.0)
        exponent = -t * divisor
        return torch.where(learned, exponent.exp(), 1.0), torch.where(learned, -exponent.expm1() / divisor, 0.0)

    def _training(self, decay: Tensor, growth: Tensor) -> dict[str, Tensor]:
        """The loss on the training inputs, and the way of the weights."""
        outputs = self.targets.shape[1]
        squares = self.targets.square().sum(1) + outputs * self.covariance.diagonal()
        return {
            "train_loss": decay.square() @ squares / (2 * len(self.x)),
            "distance": (self.eigenvalues * growth.square()) @ squares,
        }


def _losses(mean: Tensor, variance: Tensor, y: Tensor | None) -> dict[str, Tensor | float]:
    if y is None:
        return {"test_loss": math.nan, "test_loss_of_mean": math.nan}
    of_mean = (mean - y).square().sum(1).mean() / 2
    return {"test_loss": of_mean + mean.shape[1] * variance.mean() / 2, "test_loss_of_mean": of_mean}


def _informations(mean: Tensor, variance: Tensor, start: Tensor, label: Tensor | None) -> dict[str, Tensor | float]:
    """In nats."""
    is_point = variance == 0
    found = mixture_information(Components(mean, variance, is_point, _SAME * float(mean.abs().max()), label))
    safe = torch.where(start > 0, start, 1.0)
    ratio = torch.where(start > 0, variance / safe, 1.0)  # an output that is 0 from the start learns nothing
    divergence = (mean.shape[1] * (ratio - 1 - ratio.log()) + mean.square().sum(1) / safe) / 2
    return {**found._asdict(), "i_zd": divergence.mean(), "saturated": is_point.sum()}
