r"""Bounds that compare the samples of a batch: the information through added noise, and the log-variance."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_choice, checked_number
from lightning_ib.objectives.labels import checked_class_numbers, values_can_be_read
from lightning_ib.objectives.terms import checked_code

Side = Literal["upper", "lower"]

ZERO_ENTROPY_NOISE = 1 / (2 * math.pi * math.e)
"""The variance of Gaussian noise whose differential entropy is 0: 0.0585."""


def nonlinear_ib_bound(mean: Tensor, noise_variance: float | Tensor, *, bound: Side = "upper") -> Tensor:
    r"""Bounds of I(X;Z) in nats for Z = mean(X) + Gaussian noise of one variance (Kolchinsky & Tracey 2017).

    .. math::

        \hat I = -\frac{1}{N} \sum_i \ln \frac{1}{N} \sum_j e^{-\|\mu_i - \mu_j\|^2 / c\, \sigma^2}

    with c = 2 for the upper bound and c = 8 for the lower one.

    X is uniform over the N samples of the batch, so that Z is a mixture of N Gaussians, and both lie between 0 and ln
    N: **a batch of N cannot show more than ln N nats**, 5.3 for 200. Where the code carries more, the bound is
    saturated and its gradient small. The upper one is exact for means that coincide and for means far apart.

    It describes the samples at hand. In training with several processes, give those of all: see
    :func:`gather_batch`. It takes ``(N, N)`` numbers of memory. NaN in the means gives NaN.

    Args:
        mean: μ, floating point, shape ``(N, D)``; further dimensions are flattened.
        noise_variance: σ² of each dimension, positive: a number, or a tensor with one element, which gets a gradient.
        bound: ``"upper"``, or ``"lower"`` for the one by the Bhattacharyya distance.

    Returns:
        A scalar: float32 for half precision, else the dtype of the means.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the means have another shape, or the variance is 0 or negative.

    Example:
        >>> nonlinear_ib_bound(torch.tensor([[0.0], [0.0], [100.0], [100.0]]), 1.0)
        tensor(0.6931)
    """
    mean, variance = checked_code(mean, "mean"), _checked_variance(noise_variance)
    scale = 2 if checked_choice(bound, "bound", get_args(Side)) == "upper" else 8
    # Distances by way of a matrix product would cancel where the noise is small, and autocast would round them.
    distance = torch.cdist(mean, mean, compute_mode="donot_use_mm_for_euclid_dist").square()
    result: Tensor = math.log(len(mean)) - (-distance / (scale * variance)).logsumexp(1).mean()
    return result


def log_variance_bound(t: Tensor, y: Tensor | None = None, *, noise_variance: float = ZERO_ENTROPY_NOISE) -> Tensor:
    r"""An upper bound in nats of the entropy of a representation with noise added (Kirsch, Lyle & Gal 2021).

    .. math::

        h(T + \varepsilon) \leq \sum_i \tfrac{1}{2} \ln 2 \pi e\, (\mathrm{Var}[T_i] + \sigma^2), \qquad
        h(T + \varepsilon \,|\, Y) \leq \sum_y p(y) \sum_i \tfrac{1}{2} \ln 2 \pi e\, (\mathrm{Var}[T_i | y] + \sigma^2)

    No distribution with the same variances has more entropy than independent Gaussians. Variances are those of the
    batch, with 1/N; the variance of the noise is added to them, so that T is given *without* noise. p(y) is the
    fraction of the class in the batch. With the default variance 1/(2πe) the noise has entropy 0, the bounds are at
    least 0, and they bound I(X;T+ε) and I(X;T+ε|Y) where T is a function of X. Without noise the entropy of a constant
    would be −∞.

    The variance of a class is that of its samples in this batch: with 1/N it is too small by a factor (n − 1)/n in the
    mean. **A class with a single sample is left out**: it adds 0. If all classes have one, the result is 0 with a
    gradient of 0, and a UserWarning says so. In training with several processes, give the samples of all: see
    :func:`gather_batch`. NaN in t gives NaN.

    Args:
        t: floating point, shape ``(N, D)``; further dimensions are flattened.
        y: class labels, integers of shape ``(N,)``, for the entropy given the class; their values are read, which waits
            for the device.
        noise_variance: σ² of each dimension, positive.

    Returns:
        A scalar: float32 for half precision, else the dtype of ``t``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: shapes differ, or the variance is 0 or negative.

    Example:
        >>> t = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
        >>> log_variance_bound(t), log_variance_bound(t, torch.tensor([0, 0, 1, 1]))
        (tensor(0.8310), tensor(0.))
    """
    t = checked_code(t, "t")
    variance = checked_number(noise_variance, "noise_variance", above=0, advice=f"give {ZERO_ENTROPY_NOISE:.4f}, say")
    if y is None:
        return _gaussian_entropy(t.var(0, correction=0) + variance)
    _, members, counts = torch.unique(checked_class_numbers(y, len(t)), return_inverse=True, return_counts=True)
    if not bool((counts > 1).any()):
        warnings.warn(
            "log_variance_bound: every class has one sample in the batch, where variances within classes are undefined "
            "and the bound is 0: use a larger batch, or samples of fewer classes.",
            stacklevel=2,
        )
        return (t * 0).sum()
    sizes = counts.to(t.dtype)[:, None]
    zeros = t.new_zeros(len(counts), t.shape[1])
    centered = t - (zeros.index_add(0, members, t) / sizes)[members]
    variances = zeros.index_add(0, members, centered.square()) / sizes
    several = counts > 1
    entropies = _gaussian_entropy(variances[several] + variance)
    # A class that is left out has variance 0 for finite values, and NaN for NaN.
    bound: Tensor = (sizes[several, 0] * entropies).sum() / len(t) + variances[~several].sum()
    return bound


def _gaussian_entropy(variance: Tensor) -> Tensor:
    entropies: Tensor = (2 * math.pi * math.e * variance).log() / 2
    return entropies.sum(-1)


def _checked_variance(value: Any) -> float | Tensor:
    advice = "give the variance of the noise that is added to the means"
    if not isinstance(value, Tensor) or value.numel() != 1:
        return checked_number(value, "noise_variance", above=0, advice=advice)
    if values_can_be_read() and bool(value <= 0):  # NaN gives NaN
        checked_number(value.detach(), "noise_variance", above=0, advice=advice)
    return value.reshape(())
