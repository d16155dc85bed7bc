"""Principal components."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_components(rows: Tensor, n: int = 50) -> Tensor:
    """Rows ``(M, …)`` on their first ``n`` principal components, those with the most variance first.

    Args:
        rows: real numbers; rows that are not finite become zeros.
        n: how many components at most.

    Returns:
        float64 on the host, shape ``(M, min(n, D, M))``.
    """
    z = rows.detach().reshape(len(rows), -1).to("cpu", torch.float64).nan_to_num(0.0, 0.0, 0.0)
    z = z - z.mean(0)
    if z.shape[1] > len(z):  # the same from the smaller of the two products, both symmetric
        variance, u = torch.linalg.eigh(z @ z.T)
        found = u * variance.clamp_min(0).sqrt()
    else:
        found = z @ torch.linalg.eigh(z.T @ z)[1]
    found = found.flip(1)[:, :n]
    # A component has no sign of its own: the same rows are to give the same picture.
    return found * found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
