"""The joint distribution of X and Y that every bottleneck starts from: checked, and with equal rows merged.

Two symbols x with the same p(y|x) are one symbol of the minimal sufficient statistic X'. The curve of X' is the curve
of X, since every optimal encoder depends on p(y|x) alone, so solving for X' is exact and often far smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_number, checked_values, plain_tensor

MEMORY_LIMIT = 4.0
"""The most memory, in GiB, that a problem may need; a larger one is refused before the memory is taken."""

INDEPENDENT = 1e-10
"""The most information I(X;Y), in nats, of X and Y that count as independent: rounding decides what is below."""

_SUM_TOLERANCE = 1e-6
_EQUAL_ROWS = 1e-13


@dataclass(frozen=True)
class Joint:
    """A joint distribution after merging, in float64.

    Attributes:
        p_x: the distribution of X', shape ``(X',)``.
        rows: p(y|x'), shape ``(X', Y)``.
        merged: the class x' of each original x, int64, shape ``(X,)``.
        p_original: the distribution of X, shape ``(X,)``.
    """

    p_x: Tensor
    rows: Tensor
    merged: Tensor
    p_original: Tensor

    @cached_property
    def p_y(self) -> Tensor:
        """The marginal of Y."""
        return self.p_x @ self.rows

    @cached_property
    def information(self) -> float:
        """I(X;Y) in nats, exactly 0 where all rows are equal."""
        if len(self.rows) == 1:
            return 0.0
        return float(self.p_x @ divergence(self.rows, self.p_y))

    @property
    def positive(self) -> bool:
        """Whether every p(y|x) is positive."""
        return bool((self.rows > 0).all())


def entropies(p: Tensor) -> Tensor:
    """The entropy of distributions along the last dimension, in nats."""
    terms: Tensor = torch.special.xlogy(p, p)
    return -terms.sum(-1)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """The divergence D[p‖q] along the last dimension, in nats; infinite where q vanishes and p does not."""
    ratio = torch.where(p > 0, p / q, torch.ones_like(p))
    return torch.where(p > 0, p * ratio.log(), torch.zeros_like(p)).sum(-1).clamp_min(0)


def checked_joint(p_xy: Any, smoothing: float | None = None) -> Joint:
    """Check a joint distribution and merge the rows that have the same p(y|x).

    X and Y with less information than :data:`INDEPENDENT` count as independent.

    Args:
        p_xy: p(x, y), a floating-point tensor of shape ``(X, Y)`` that sums to 1.
        smoothing: the part of each p(y|x) that is replaced by the uniform distribution.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is no distribution, has a row or a column of zeros, or a single label.
    """
    checked_values(p_xy, "p_xy", "(X, Y)")
    joint = plain_tensor(p_xy.detach()).double()
    if joint.ndim != 2 or joint.shape[0] < 1 or joint.shape[1] < 1:
        raise ValueError(f"p_xy must have shape (X, Y), got {tuple(joint.shape)}.")
    if not bool(joint.isfinite().all()):
        raise ValueError("p_xy has NaN or infinite entries: give a joint distribution of X and Y.")
    if bool((joint < 0).any()):
        raise ValueError(f"p_xy must not be negative, got {float(joint.min()):.4g}: give probabilities p(x, y).")
    total = float(joint.sum())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise ValueError(f"p_xy must sum to 1, got {total:.8g}: give p_xy / p_xy.sum().")
    joint = joint / total
    if joint.shape[1] == 1:
        raise ValueError("p_xy must have at least two labels (columns), got one: no X informs about a constant Y.")
    for axis, what, rest in ((1, "rows", "p_xy[p_xy.sum(1) > 0]"), (0, "columns", "p_xy[:, p_xy.sum(0) > 0]")):
        empty = int((joint.sum(axis) == 0).sum())
        if empty:
            raise ValueError(f"p_xy has {what} of zeros, {empty} of them: leave out what never occurs, {rest}.")
    p_x = joint.sum(1)
    rows = joint / p_x[:, None]
    if smoothing is not None:
        amount = checked_number(smoothing, "smoothing", above=0, at_most=1)
        rows = (1 - amount) * rows + amount / rows.shape[1]
    found = merged(p_x, rows)
    return found if found.information > INDEPENDENT else one_symbol(found)


def one_symbol(joint: Joint) -> Joint:
    """The distribution with all x merged into one, which says nothing about Y."""
    one = torch.ones(1, dtype=joint.p_x.dtype, device=joint.p_x.device)
    return Joint(one, joint.p_y[None], torch.zeros_like(joint.merged), joint.p_original)


def joint_of(p_x: Tensor, rows: Tensor) -> Joint:
    """A joint distribution as it is, without merging."""
    return Joint(p_x, rows, torch.arange(len(p_x), device=p_x.device), p_x)


def check_memory(joint: Joint, name: str, clusters: int = 1024) -> None:
    """Raise where the arrays of one problem exceed :data:`MEMORY_LIMIT`, before any of them is made.

    The largest arrays of the solver hold p(t|x) with its derivatives, X' × T × (Y + 3), and a Y × Y matrix for each x.

    Args:
        joint: the distribution.
        name: how the message names the caller.
        clusters: the most clusters T to reckon with.

    Raises:
        ValueError: the memory exceeds the limit.
    """
    x, y = joint.rows.shape
    gib = 8 * x * (min(x, clusters) * (y + 3) + 3 * y * y) / 2**30
    if gib > MEMORY_LIMIT:
        raise ValueError(
            f"{name} of {x} different rows p(y|x) and {y} labels needs about {gib:.0f} GiB of memory, more than the "
            f"{MEMORY_LIMIT:.0f} GiB allowed: merge symbols x with similar p(y|x), or labels y, first."
        )


def merged(p_x: Tensor, rows: Tensor) -> Joint:
    """Merge rows that agree up to the rounding of a division: sorted along a direction, equal rows are neighbors."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.rand(rows.shape[1], generator=generator, dtype=torch.float64).to(rows.device)
    order = (rows @ direction).argsort(dim=0, stable=True)
    ordered = rows[order]
    starts = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    starts[1:] = (ordered[1:] - ordered[:-1]).abs().amax(1) > _EQUAL_ROWS
    number = starts.cumsum(0) - 1
    classes = torch.empty_like(number)
    classes[order] = number
    mass = torch.zeros(int(number[-1]) + 1, dtype=torch.float64, device=rows.device).index_add_(0, classes, p_x)
    means = torch.zeros(len(mass), rows.shape[1], dtype=torch.float64, device=rows.device)
    means.index_add_(0, classes, rows * p_x[:, None])
    means /= mass[:, None]
    return Joint(mass, means / means.sum(1, keepdim=True), classes, p_x)
