"""Principal components."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_components(rows: Tensor, *, n: int = 50) -> Tensor:
    """Rows ``(M, …)`` on their first ``n`` principal components, those with the most variance first.

    Args:
        rows: real numbers; NaN and infinite values become zeros.
        n: the largest number of components.

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
    # The sign of a component is arbitrary: fixed here, so that the same rows give the same picture.
    components: Tensor = found * found.gather(0, found.abs().argmax(0, keepdim=True)).sign()
    return components
