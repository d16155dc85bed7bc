"""Tokens and pixels as samples."""

from __future__ import annotations

from torch import Tensor, nn

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
