r"""Exact counting for quantised networks: finitely many activations, counted as they are, with no bins chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_labels, checked_rows
from lightning_ib.functional.discrete.counting import entropy, mutual_information
from lightning_ib.functional.discretize.codes import splitmix64

Per = Literal["layer", "tensor"]

# How many values are hashed at once.
_BLOCK = 4_000_000


def quantised_ids(
    t: Tensor, *, bits: int | None = 8, per: Per = "layer", bounds: Sequence[float] | None = None
) -> Tensor:
    r"""One 64-bit id for every activation of a quantised layer.

    With :math:`l \le 0 \le h` the bounds, widened where they do not hold 0, and :math:`Q = 2^b - 1`,

    .. math:: s = \frac{h - l}{Q}, \quad z = \mathrm{round}(-l / s), \quad
              c = \min(\max(\mathrm{round}(t / s) + z, 0), Q), \quad \hat t = s\,(c - z),

    the affine quantisation of networks (Jacob et al. 2018), halves to even: on float32, what
    :func:`torch.fake_quantize_per_tensor_affine` gives with this scale and zero point. Zero stays zero, as padding and
    ReLU need it. Samples get the same id where all their :math:`\hat t` are equal.

    ``per="layer"`` takes one scale for all samples. ``per="tensor"`` takes each sample's own, as dynamic quantisation
    does. What the next layer then sees is :math:`\hat t`, the scale included; and a scale is a number of 32 bits, which
    by itself tells nearly all samples apart. Hence the entropy is then mostly log N, whatever ``bits`` is: what it
    says of such a network is true, and what it says of its training is little.

    Args:
        t: real activations, shape ``(N, …)``, N at least 1; float64 is quantised in float64, all else in float32
            (integers in float64).
        bits: b, 1 to 16; or None where the network is quantised already: its activations (of PyTorch's quantised
            tensors, what ``dequantize()`` gives) are counted as they are, 0 and −0 as equal.
        per: whose least and greatest value are the bounds: ``"layer"``, all samples', or ``"tensor"``, each sample's.
        bounds: the two bounds themselves, for ``per="layer"``, to compare epochs, or parts of one data set, at one
            scale. What is outside gets the outermost level: bounds that clip make a layer look compressed.

    Returns:
        int64 ids, shape ``(N,)``, the same on every device. Different rows share one with probability about
        :math:`2^{-64}`: among N rows the chance of any such pair is about :math:`N^2 / 2^{65}`.

    Raises:
        TypeError: ``t`` is no real tensor, or ``bits`` neither an integer nor None.
        ValueError: ``t`` is not ``(N, …)`` or not finite, ``bits`` is not in 1 … 16, ``per`` is neither of the two,
            the bounds are not two finite numbers in ascending order, or they are given where they are of no use.

    Example:
        >>> ids = quantised_ids(torch.tensor([[0.0, 1.0], [0.01, 0.99], [0.5, 1.0]]), bits=4)
        >>> bool(ids[0] == ids[1]), bool(ids[0] == ids[2])
        (True, False)
    """
    if isinstance(bits, bool) or not isinstance(bits, int | None):
        raise TypeError(f"bits must be an integer or None, got {bits!r}.")
    if bits is not None and not 1 <= bits <= 16:
        raise ValueError(f"bits must be 1 to 16, or None for a network that is quantised already, got {bits}.")
    if per not in get_args(Per):
        raise ValueError(f"per must be 'layer' or 'tensor', got {per!r}.")
    if bounds is not None:
        if bits is None or per == "tensor":
            why = (
                "bits=None, which quantises nothing" if bits is None else "per='tensor', which takes each sample's own"
            )
            raise ValueError(f"bounds are of no use with {why}: leave them out.")
        if len(bounds) != 2 or not (-math.inf < bounds[0] < bounds[1] < math.inf):
            raise ValueError(f"bounds must be two finite numbers in ascending order, got {bounds!r}.")
    rows = checked_rows(t, "t", at_least=1)
    return _ids(rows if bits is None else _quantised(rows, bits, per, bounds))


def mutual_information_quantised(
    t: Tensor,
    y: Tensor | None = None,
    *,
    bits: int | None = 8,
    per: Per = "layer",
    bounds: Sequence[float] | None = None,
    unit: Unit = "bits",
) -> float:
    r"""The information of a quantised layer: :math:`I(X;T) = H(T)`, or, given labels, :math:`I(T;Y)`.

    .. math:: I(T;Y) = H(T) + H(Y) - H(T,Y)

    Plug-in entropies of the layer's activations, :func:`quantised_ids`, counted exactly (Lorenzen, Igel & Nielsen
    2022). A quantised network is a function of its input and has finitely many activations, so that I(X;T) is finite,
    and no bins are chosen: the levels are the network's own. For a network that is not quantised, it says what one
    would hold that rounds this layer to b bits.

    Exact it is for the samples given, not for their distribution: a wide layer at 8 bits has a symbol for nearly
    every sample, H(T) is then log N and I(T;Y) is H(Y), whatever was learnt.

    Args:
        t: real activations, shape ``(N, …)``, N at least 1.
        y: class labels, integers, shape ``(N,)``; None for I(X;T).
        bits: how many the activations are rounded to, or None: see :func:`quantised_ids`.
        per: one scale for the ``"layer"``, or one for each sample's ``"tensor"``.
        bounds: the two bounds of the levels, for ``per="layer"``; without them, the values' own.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``: between 0 and log N, and with labels at most H(Y).

    Raises:
        TypeError: as :func:`quantised_ids`, or ``y`` is no tensor of integers.
        ValueError: as :func:`quantised_ids`, ``y`` does not have shape ``(N,)``, or the unit is unknown.

    Example:
        At one bit the labels are lost; at eight they are not.

        >>> t, y = torch.tensor([[0.0], [0.1], [0.9], [1.0]]), torch.tensor([0, 1, 0, 1])
        >>> mutual_information_quantised(t, y, bits=1), mutual_information_quantised(t, y, bits=8)
        (0.0, 1.0)
    """
    ids = quantised_ids(t, bits=bits, per=per, bounds=bounds)
    if y is None:
        return entropy(ids, unit=unit)
    return mutual_information(ids, checked_labels(y, len(ids))[0], unit=unit)


def _quantised(rows: Tensor, bits: int, per: Per, bounds: Sequence[float] | None) -> Tensor:
    """The rows, each value at its nearest level, in the dtype of the rows."""
    if bounds is not None:
        low, high = rows.new_tensor(bounds)
    elif per == "layer":
        low, high = rows.aminmax()
    else:
        low, high = rows.aminmax(dim=1, keepdim=True)
    low, high, top = low.clamp(max=0), high.clamp(min=0), 2**bits - 1
    # Not the difference, which may be infinite. Where all is 0, any scale will do.
    scale = (high / top - low / top).clamp(min=torch.finfo(rows.dtype).tiny)
    zero_point = (-low / scale).round().clamp(0, top)
    codes = (rows * (1 / scale)).round() + zero_point
    return (codes.clamp(0, top) - zero_point) * scale


def _ids(values: Tensor) -> Tensor:
    r"""An id for every row of values: :math:`\sum_d h(\mathrm{bits}(v_{nd}) \oplus h(d)) \mod 2^{64}`.

    What :func:`~lightning_ib.functional.row_ids` does, without a table: that would need an entry for every
    float64.
    """
    ids = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    salts = splitmix64(torch.arange(values.shape[1], device=values.device))
    width = max(1, _BLOCK // len(values))
    for block, salt in zip(values.split(width, dim=1), salts.split(width)):
        patterns = (block.double() + 0.0).view(torch.int64)  # −0 + 0 is 0
        ids += splitmix64(patterns ^ salt).sum(1)
    return ids
