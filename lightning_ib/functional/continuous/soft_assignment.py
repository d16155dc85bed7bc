"""The anchors of soft entropy, and the directions of rows that are compared with them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ib.functional.discretize.ids import splitmix64

# Where the anchors begin in the sequence of random bits, far from the bits that the hashes use.
_FIRST_BITS = 1 << 60


def anchors(n_anchors: int, n_coordinates: int, device: torch.device | str | None = None) -> Tensor:
    """Random directions, the same in every process, and on every device up to rounding.

    They are standard normal numbers made unit vectors, from the SplitMix64 generator with a fixed seed (Box & Muller
    1958); the global random states stay as they are. The first anchors of many are those of few.

    Args:
        n_anchors: the number K of anchors.
        n_coordinates: the number D of coordinates.
        device: the device to compute them on.

    Returns:
        float64, shape ``(K, D)``, each row of length 1.
    """
    anchor = torch.arange(n_anchors, device=device, dtype=torch.int64).unsqueeze(1)
    coordinate = torch.arange(n_coordinates, device=device, dtype=torch.int64)
    counter = _FIRST_BITS + (anchor << 32) + 2 * coordinate
    radius, angle = (((splitmix64(counter + i) >> 11 & (1 << 53) - 1).double() + 0.5) * 2.0**-53 for i in (0, 1))
    normal = (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()
    anchors: Tensor = normal / normal.norm(dim=1, keepdim=True)
    return anchors


def directions(rows: Tensor, center: Tensor, eps: float) -> Tensor:
    """Rows minus the center, of length 1; zero where the difference is within rounding.

    Args:
        rows: float64, shape ``(B, D)``, finite.
        center: float64, shape ``(D,)``.
        eps: the relative rounding of the rows as they came.
    """
    scale = torch.maximum(rows.abs().amax(1, keepdim=True), center.abs().max())
    rows = rows - center
    largest = rows.abs().amax(1, keepdim=True)
    rows = torch.where(largest > 4 * eps * scale, rows / largest, 0.0)  # squares of these stay within range
    units: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1.0)  # at least 1 unless the row is zero
    return units
