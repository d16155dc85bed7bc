r"""The bottleneck and its dual as rate–distortion problems, with all distributions s over Y as reproductions.

.. math::
    d_\text{IB}(x, s) = D[p(y|x) \,\|\, s], \qquad d_\text{dual}(x, s) = D[s \,\|\, p(y|x)]

The solver and its certificate know a problem through four things: the distances, the centroid of a cluster, and the
first and second derivatives of the distances. Derivatives are along :math:`s \propto s\, e^{k / \sqrt{s}}` at
:math:`k \perp \sqrt{s}`, the coordinates in which the Fisher metric is the identity:

.. math:: d(x, s_k) = d(x, s) - b_x \cdot k + \tfrac12 |k|^2 + O(|k|^2 (x\text{-mean of } b) + |k|^3)

with :math:`b_x = (p(y|x) - s)/\sqrt{s}` for the IB, and for the dual :math:`b_x = \sqrt{s}\,(\ln p(y|x)/s + d(x, s))`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ib.bottleneck.joint import Joint, entropies

_FAR = 1e25
"""Stands for −ln 0: finite, so that its product with a probability of 0 is 0, in single precision too."""


def finite_log(p: Tensor) -> Tensor:
    """The logarithm with a huge negative number for ln 0."""
    return torch.where(p > 0, p, torch.ones_like(p)).log().masked_fill(p <= 0, -_FAR)


@dataclass(frozen=True)
class Distortion:
    """One of the two problems on a joint distribution.

    Attributes:
        joint: the distribution.
        dual: whether the arguments of the divergence are swapped.
        features: what a cluster averages, shape ``(X, Y)``: p(y|x), or ln p(y|x) for the dual.
        constants: the part of the distance that depends on x alone, shape ``(X,)``.
    """

    joint: Joint
    dual: bool
    features: Tensor
    constants: Tensor

    def distances(self, s: Tensor) -> Tensor:
        """The distance of every x to every reproduction: ``(…, T, Y)`` → ``(…, X, T)``."""
        if self.dual:
            return (-entropies(s)[..., None, :] - self.features @ s.mT).clamp_min(0)
        return (self.constants[:, None] - self.features @ finite_log(s).mT).clamp_min(0)

    def centroid(self, means: Tensor) -> Tensor:
        """The best reproduction of clusters with these mean features: their mixture, or their geometric mean."""
        if self.dual:
            return means.softmax(-1)
        return means / means.sum(-1, keepdim=True)

    def frame(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, offset and normal at s: b is the part of ``scale · features + offset`` across the normal √s."""
        root = s.sqrt()
        if self.dual:
            return root, -root * torch.where(s > 0, s, torch.ones_like(s)).log(), root
        return torch.where(s > 0, root.reciprocal(), torch.zeros_like(s)), -root, root

    def slopes(self, s: Tensor) -> Tensor:
        """The vector b of every x at every reproduction: ``(…, T, Y)`` → ``(…, T, X, Y)``."""
        scale, offset, normal = (part[..., None, :] for part in self.frame(s))
        u = self.features * scale + offset
        return u - (u * normal).sum(-1, keepdim=True) * normal

    def moments(self, s: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of b, and of its outer product, in every cluster.

        Args:
            s: reproductions, shape ``(…, T, Y)``.
            share: p(x|t), shape ``(…, X, T)``.
        """
        scale, offset, normal = self.frame(s)
        first = share.mT @ self.features
        n = self.features.shape[1]
        pairs = (self.features[:, :, None] * self.features[:, None, :]).reshape(-1, n * n)
        centered = (share.mT @ pairs).reshape(*first.shape, n) - first[..., :, None] * first[..., None, :]
        mean = scale * first + offset
        second = scale[..., :, None] * centered * scale[..., None, :]
        across = second @ normal[..., None]
        along = (normal[..., None, :] @ across)[..., 0, 0, None, None]
        second = second - across * normal[..., None, :] - normal[..., :, None] * across.mT
        second = second + along * normal[..., :, None] * normal[..., None, :]
        mean = mean - (mean * normal).sum(-1, keepdim=True) * normal
        return mean, second + mean[..., :, None] * mean[..., None, :]


def move(s: Tensor, k: Tensor, limit: float = 1.0) -> Tensor:
    """Move reproductions along k by the exponential map, each probability by a factor of at most e^limit."""
    root = torch.where(s > 0, s.sqrt(), torch.ones_like(s))
    h = k / root
    h = h * (limit / h.abs().amax(-1, keepdim=True).clamp_min(limit))
    moved = s * h.exp()
    return moved / moved.sum(-1, keepdim=True)


def distortion(joint: Joint, *, dual: bool = False) -> Distortion:
    """The rate–distortion problem of the IB or its dual.

    Raises:
        ValueError: a p(y|x) is 0 in the dual.
    """
    if dual:
        if not joint.positive:
            raise ValueError(
                f"The dual bottleneck needs p(y|x) > 0 for all x and y, and {int((joint.rows <= 0).sum())} of "
                f"{joint.rows.numel()} entries are 0, as with hard labels: give smoothing=0.01, say, which mixes each "
                "p(y|x) with the uniform distribution."
            )
        return Distortion(joint, True, joint.rows.log(), torch.zeros_like(joint.p_x))
    return Distortion(joint, False, joint.rows, -entropies(joint.rows))
