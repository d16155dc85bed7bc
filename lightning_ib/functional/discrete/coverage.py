"""How well samples cover the symbols of a variable: two numbers that say whether its counts mean anything."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_integer, checked_integers, checked_number, logarithm


def saturation(h_t: float, *, n_samples: int, unit: Unit = "bits") -> float:
    r"""The entropy of a variable as a share of the most that N samples can show, :math:`H(T) / \log N`.

    Source:
        A diagnostic of this package. No entropy of N counted samples is above log N (Cover & Thomas 2006).

    Cost:
        None beside the entropy.

    Samples:
        At least :math:`2^{H(T) / 0.9}` for an entropy in bits, which leaves the ratio below 0.9: 475 for 8 bits.

    Trap:
        Near 1 every sample has a symbol of its own: I(T;Y) is H(Y), and both are constant whatever the network does. A
        low saturation says nothing against symbols that are too coarse.

    Args:
        h_t: H(T) as counted, in ``unit``.
        n_samples: N.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The share, 0 … 1 for a plug-in entropy; NaN for a single sample.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``h_t`` is below 0, ``n_samples`` is below 1, or the unit is unknown.

    Example:
        >>> saturation(8.0, n_samples=1024)
        0.8
    """
    n_samples = checked_integer(n_samples, "n_samples", at_least=1)
    h_t = checked_number(h_t, "h_t", at_least=0)
    return h_t / logarithm(unit)(n_samples) if n_samples > 1 else math.nan


def singleton_fraction(counts: Tensor) -> float:
    r"""The share of the samples whose symbol was seen once, :math:`f_1 / N`.

    It estimates the probability that the next sample shows a new symbol.

    Source:
        Good (1953), after Turing.

    Cost:
        None beside the counts.

    Samples:
        Enough that it falls below 0.1, from where on the verdict is no longer ``undersampled``.

    Trap:
        It is about the symbols, and 0 for symbols that are too coarse to show anything.

    Args:
        counts: non-negative integers, shape ``(K,)``; zeros are ignored.

    Raises:
        TypeError: ``counts`` are of another kind than integers.
        ValueError: a count is negative, or all are zero.

    Example:
        >>> import torch
        >>> singleton_fraction(torch.tensor([1, 5, 0, 1, 3]))
        0.2
    """
    checked_integers(counts, "counts must be frequencies", "(K,)", "give how often each symbol was seen")
    if len(counts) and int(counts.min()) < 0:
        raise ValueError(f"counts must not be negative, got {int(counts.min())}: give how often each symbol was seen.")
    n = int(counts.sum())
    if n == 0:
        raise ValueError("counts must add up to one sample at least, got none: give how often each symbol was seen.")
    return int((counts == 1).sum()) / n
