"""What several draws of a code predict together."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_ib.objectives.labels import in_full_precision
from lightning_ib.objectives.terms import checked_logits


def mean_log_probabilities(logits: Tensor) -> Tensor:
    r"""The logarithm of the mean probabilities over several draws of the code.

    .. math:: \ln \frac{1}{S} \sum_s \mathrm{softmax}(\text{logits}_s)

    This is the prediction p(y|x) = E q(y|z) of a stochastic code, by S draws: ``code = bottleneck(x, samples=12)``,
    then ``mean_log_probabilities(decoder(code.sample)).argmax(1)``. A mean of the logits would be another decoder.

    Args:
        logits: floating point, shape ``(samples, B, K)``.

    Returns:
        Shape ``(B, K)``: float32 for half precision.

    Raises:
        TypeError: the logits are of another kind.
        ValueError: they have another shape.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]).log()
        >>> mean_log_probabilities(logits).exp()
        tensor([[0.5000, 0.5000]])
    """
    checked_logits(logits)
    if logits.ndim != 3:
        raise ValueError(
            f"logits must have shape (samples, B, K), got {tuple(logits.shape)}: give decoder(bottleneck(x, "
            "samples=12).sample), say."
        )
    return in_full_precision(logits).log_softmax(-1).logsumexp(0) - math.log(len(logits))
