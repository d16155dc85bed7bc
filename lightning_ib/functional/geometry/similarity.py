r"""The similarity of two representations of the same samples: linear CKA, exact and from sketches."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from lightning_ib.functional.checks import checked_flag, checked_integer, checked_pair
from lightning_ib.functional.discretize.ids import splitmix64
from lightning_ib.functional.geometry.rows import centered_rows, gram, rounding_of, squared_lengths

SKETCH_LENGTH = 2048
"""The numbers of a sketch, 8 KiB in float32."""

# Offsets of the counters that places and signs are hashed from, so that every use has bits of its own.
_HASHES = ((3 << 50) + (1 << 43), (3 << 50) + (1 << 44))


@torch.no_grad()
def linear_cka(x: Tensor, y: Tensor, *, debiased: bool = False) -> float:
    r"""The linear centered kernel alignment of two representations of the same samples.

    .. math:: \frac{\lVert X^\top Y \rVert_F^2}{\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}

    of centered rows. It lies in [0, 1] and stays the same under rotations, scales and shifts. 1 says that one is the
    other, rotated and scaled; other linear maps lower it.

    Source:
        Kornblith et al. (2019); the unbiased estimator of all three products: Song et al. (2012).

    Cost:
        0.1 s for 1 000 rows of 512 coordinates and 0.2 s for those of 2 048, on one core. Beside a plane the rows of
        the first measurement are kept: 4 bytes for each number, in checkpoints too.

    Samples:
        Several times D: two independent Gaussians of D coordinates have about :math:`D/(N+D)`. ``debiased`` takes this
        out, at the cost of values below 0.

    Trap:
        The first few directions of large variance dominate it: a layer can settle in it and still learn. It compares
        the same samples in the same order; shuffled or augmented data has none.

    Args:
        x: real floating point, shape ``(N, D)``. Computed in float64.
        y: of the same samples in the same order, shape ``(N, E)``.
        debiased: whether to take out the similarity of unrelated rows; needs four rows.

    Returns:
        The similarity; NaN where all rows of one are the same up to rounding, or a debiased norm is 0 or less.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the numbers of rows differ, there are fewer than two, or a value is NaN or infinite.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
        >>> round(linear_cka(x, 3 * x.flip(1) + 1), 6)
        1.0
    """
    checked_flag(debiased, "debiased")
    checked = checked_pair(x, y, ("x", "y"))
    of_x, of_y = (centered_rows(rows, rounding_of(of.dtype)) for rows, of in zip(checked, (x, y)))
    n = len(of_x)
    between, within_x, within_y = cka_products(of_x, of_y)
    if debiased:
        if n < 4:
            return math.nan
        of_x, of_y = squared_lengths(of_x), squared_lengths(of_y)
        between, within_x, within_y = (
            product + float(a.sum() * b.sum()) / ((n - 1) * (n - 2)) - float(a @ b) * n / (n - 2)
            for product, a, b in ((between, of_x, of_y), (within_x, of_x, of_x), (within_y, of_y, of_y))
        )
    if within_x <= 0 or within_y <= 0:
        return math.nan
    return min(1.0, between / (math.sqrt(within_x) * math.sqrt(within_y)))


def cka_products(
    x: Tensor, y: Tensor, within_x: float | None = None, of_y: Tensor | None = None
) -> tuple[float, float, float]:
    """The squared norms of XᵀY, XᵀX and YᵀY, of which linear CKA is made.

    Args:
        x: centered rows, float64 ``(N, D)``.
        y: the same of others, ``(N, E)``.
        within_x: the second one, where it is known; the others take less time then, if N is the larger number.
        of_y: YYᵀ, where it is known; it saves time if N is the smaller number.
    """
    if max(x.shape[1], y.shape[1]) <= len(x):
        squares = [gram(of.T).square().sum() for of in ((x, y) if within_x is None else (y,))]
        within = [float(one) for one in squares] if within_x is None else [within_x, float(squares[0])]
        return float((x.T @ y).square().sum()), within[0], within[1]
    k, m = gram(x), gram(y) if of_y is None else of_y
    return float((k * m).sum()), float(k.square().sum()) if within_x is None else within_x, float(m.square().sum())


@torch.no_grad()
def cka_sketch(x: Tensor, *, length: int = SKETCH_LENGTH) -> Tensor:
    r"""A sketch of the Gram matrix of a representation, from which its CKA to any other follows.

    The entries :math:`K_{ik}` of the Gram matrix of centered rows are added up, with random signs
    :math:`\sigma_i \tau_k`, in ``length`` places :math:`a_i + b_k`:

    .. math:: s_j = \sum_{a_i + b_k \equiv j} \sigma_i \tau_k K_{ik}

    (the tensor sketch of Pham & Pagh 2013). The product of two sketches is an unbiased estimate of the product of the
    matrices, so that their cosine estimates the CKA: see :func:`cka_of_sketches`. With more rows than coordinates the
    sum is a convolution, taken by Fourier transforms without the matrix. Places and signs are hashed from the number of
    the row: the sketches of the same samples in the same order match, whenever they are made.

    Args:
        x: real floating point, shape ``(N, D)``.
        length: how many numbers a sketch has.

    Returns:
        float32 ``(length,)`` on the host, scaled to length 1; zeros where all rows are the same up to rounding.

    Raises:
        TypeError, ValueError: the rows are unsuited, as for :func:`linear_cka`.

    Example:
        >>> cka_sketch(torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]]), length=8).shape
        torch.Size([8])
    """
    length = checked_integer(length, "length", at_least=2)
    z = centered_rows(checked_pair(x, x, ("x", "x"))[0], rounding_of(x.dtype))
    return sketch_of_centered(z, length=length)


def sketch_of_centered(z: Tensor, products: Tensor | None = None, *, length: int = SKETCH_LENGTH) -> Tensor:
    """The sketch of centered rows: of their Gram matrix, where that is known or small, else without it.

    Args:
        z: from :func:`~lightning_ib.functional.geometry.rows.centered_rows`.
        products: their Gram matrix, where it is known.
        length: how many numbers a sketch has.
    """
    n, d = z.shape
    hashed = [(places.to(z.device), signs.to(z.device)) for places, signs in _hashed(n, length)]
    if products is not None or d > n:
        products = gram(z) if products is None else products
        (a, signs_a), (b, signs_b) = hashed
        places = (a.unsqueeze(1) + b).remainder_(length).flatten()
        signed = products * signs_a.unsqueeze(1) * signs_b
        found = z.new_zeros(length).index_add_(0, places, signed.flatten()).cpu()
    else:
        low, high = map(float, torch.aminmax(z))
        largest = max(high, -low)
        z = (z / largest if largest > 0 else z).float()  # whose range is narrower
        spectra = []
        for places, signs in hashed:
            folded = z.new_zeros(length, d).index_add_(0, places, z * signs.unsqueeze(1))  # whole rows
            folded = folded.T.contiguous()
            spectra.append(torch.fft.rfft(folded))
        found = torch.fft.irfft((spectra[0] * spectra[1]).sum(0), n=length).double().cpu()
    norm = float(found.norm())
    scaled_to_1: Tensor = (found / norm if norm > 0 else found).float()
    return scaled_to_1


@lru_cache(maxsize=4)
def _hashed(n: int, length: int) -> list[tuple[Tensor, Tensor]]:
    """Places and signs of the rows, twice."""
    found = []
    for offset in _HASHES:
        bits = splitmix64(torch.arange(n, dtype=torch.int64, device="cpu") + offset)
        found.append(((bits >> 1).remainder(length), ((bits & 1) * 2 - 1).float()))
    return found


def cka_of_sketches(a: Tensor, b: Tensor) -> tuple[float, float]:
    r"""The CKA of two representations, estimated from their sketches, and its standard error.

    Of sketches a and b of length 1, with M places each, the estimate is

    .. math:: \sum_j a_j b_j

    The error is near :math:`(1 - \rho^2) / \sqrt M` at a CKA of ρ, so that similar representations have an exact one.

    Source:
        Sketches of products by Pham & Pagh (2013), of what Kornblith et al. (2019) compare.

    Cost:
        A sketch takes 35 ms for 1 000 rows of 512 coordinates and 0.1 s for those of 2 048, on one core, and 8 KiB;
        comparing two takes no time.

    Samples:
        As many as the exact CKA, whose dependence on N and D it shares; the error of the sketch depends on M alone.

    Trap:
        The standard error is measured by the spread over the places of the sketch, and so errs on the high side where
        one outlying row holds most of the variance: its square stands in one place, and is the same in both. As a
        record it belongs to measurements that are past, and so is in the history and its files alone.

    Args:
        a: from :func:`cka_sketch`.
        b: the same, of the same samples.

    Returns:
        The estimate and its standard error; NaN where the rows behind a sketch were all the same up to rounding.

    Raises:
        ValueError: they differ in length.

    Example:
        >>> sketch = cka_sketch(torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]]))
        >>> value, error = cka_of_sketches(sketch, sketch)
        >>> round(value, 6), round(error, 6)
        (1.0, 0.0)
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"the sketches must have one length, got {tuple(a.shape)} and {tuple(b.shape)}.")
    a, b = a.double(), b.double()
    of_a, of_b, m = float(a @ a), float(b @ b), len(a)
    if of_a == 0 or of_b == 0:
        return math.nan, math.nan
    a, b = a / math.sqrt(of_a), b / math.sqrt(of_b)
    cosine = float(a @ b)
    influences = m * (a * b - cosine / 2 * (a.square() + b.square()))
    return min(1.0, cosine), float(influences.std()) / math.sqrt(m)
