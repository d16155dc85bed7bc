"""Tokens and pixels as samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_ib.functional.checks import plain_tensor

CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.Upsample,
)
"""Modules that put out channels before places, ``(B, C, …)``."""


CHANNELS_LAST = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RNNBase, nn.MultiheadAttention)
"""Modules that put out channels last, ``(B, …, C)``."""


ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
    *(nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold, nn.Softmax, nn.LogSoftmax),
    nn.modules.dropout._DropoutNd,
)
"""Modules that keep the order of what they take."""


def orders(modules: Mapping[str, nn.Module]) -> dict[str, bool]:
    """Module → whether it puts out ``(B, C, …)`` or ``(B, …, C)``, where that is known.

    Its kind says so; an elementwise one has the order of the module that is defined just before it, by the same parent.

    Args:
        modules: by name, in the order of definition.

    Example:
        >>> net = nn.Sequential(nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.ReLU(), nn.Linear(8, 2))
        >>> orders(dict(net.named_modules()))
        {'0': True, '1': True, '4': False}
    """
    found: dict[str, bool] = {}
    before = ""
    for name, module in modules.items():
        if isinstance(module, (*CHANNELS_FIRST, *CHANNELS_LAST)):
            found[name] = isinstance(module, CHANNELS_FIRST)
        elif isinstance(module, ELEMENTWISE) and before in found and _parent(before) == _parent(name):
            found[name] = found[before]
        before = name
    return found


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def by_token(activation: Tensor, channels_first: bool | None = None) -> tuple[Tensor, tuple[int, ...]]:
    """The tokens of an activation as rows, and the shape they had: ``(B, L, D)`` to ``(B·L, D)``.

    Args:
        activation: batch first.
        channels_first: whether it is ``(B, C, …)``, to become ``(B · …, C)``; where that is unknown, four dimensions
            and more are taken for it, as of pictures.
    """
    if activation.ndim < 3:
        return activation.flatten(), tuple(activation.shape)
    if channels_first or (channels_first is None and activation.ndim > 3):
        activation = activation.movedim(1, -1)
    return activation.flatten(0, -2), tuple(activation.shape[:-1])


def channel_means(activation: Tensor, channels_first: bool | None = None) -> Tensor:
    """The channels of each sample, averaged over places: ``(B, C, …)`` or ``(B, …, C)`` to ``(B, C)``.

    Args:
        activation: batch first, real or whole numbers.
        channels_first: whether it is ``(B, C, …)``; where that is unknown, four dimensions and more are taken for it.

    Returns:
        float64 for float64 and whole numbers, float32 for all others. It may share the memory of the activation.

    Raises:
        ValueError: it is complex, or a single number.
    """
    activation = plain_tensor(activation)
    if activation.is_complex() or activation.ndim == 0:
        came = "complex values" if activation.is_complex() else "a single number"
        raise ValueError(f"got {came}: companions take a real row for each sample.")
    kept = activation.dtype in (torch.float32, torch.float64)
    dtype = activation.dtype if kept else torch.float32 if activation.is_floating_point() else torch.float64
    if activation.ndim < 3:
        return (activation.unsqueeze(1) if activation.ndim == 1 else activation).to(dtype)
    first = channels_first or (channels_first is None and activation.ndim > 3)
    return activation.mean(tuple(range(2, activation.ndim) if first else range(1, activation.ndim - 1)), dtype=dtype)
