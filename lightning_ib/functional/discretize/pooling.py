"""Maxima over windows, one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# PyTorch spreads an operation on more elements over its threads, whose meeting takes longer than a maximum of so many.
_ONE_THREAD = 32_768


def max_pool(values: Tensor, kernel_size: Sequence[int]) -> Tensor:
    r"""The maxima over windows side by side, as :class:`torch.nn.MaxPool3d` gives them with its stride left out.

    .. math:: p_{\dots ij} = \max_{a < k_1} \max_{b < k_2} z_{\dots,\; i k_1 + a,\; j k_2 + b}

    The maximum over a window is that of its rows' maxima: each axis is reduced by itself, with vector instructions,
    and the first one leaves a fraction of the values for the next. On the host this takes a tenth to two thirds of the
    time of PyTorch's pools, which also note where each maximum lies. A window with a NaN in it becomes NaN.

    Args:
        values: real, shape ``(…, n_1, …, n_d)``; the last axes are pooled.
        kernel_size: the lengths of a window along the last d axes, each at most that of its axis. Values that
            fill no window at the end of an axis are left out.

    Returns:
        Shape ``(…, n_1 // k_1, …, n_d // k_d)``, detached. It shares the memory of ``values`` where every length is 1.

    Example:
        >>> max_pool(torch.arange(12.0).view(1, 3, 4), (3, 2))
        tensor([[[ 9., 11.]]])
    """
    values = values.detach()
    first = next((length for length in kernel_size if length > 1), 1)
    if torch.get_num_threads() > 1 and values.ndim > len(kernel_size) and values.numel() // first > _ONE_THREAD:
        n = max(1, _ONE_THREAD * first * len(values) // values.numel())
        return torch.cat([_maxima(part, kernel_size) for part in values.split(n)])
    return _maxima(values, kernel_size)


def _maxima(values: Tensor, kernel_size: Sequence[int]) -> Tensor:
    for axis, length in zip(range(values.ndim - len(kernel_size), values.ndim), kernel_size):
        if length == 1:
            continue
        first, second, *others = values.unfold(axis, length, length).unbind(-1)
        values = torch.maximum(first, second)
        for other in others:
            torch.maximum(values, other, out=values)
    return values
