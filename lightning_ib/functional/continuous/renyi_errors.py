r"""Standard errors of matrix-based Rényi informations, by their influence functions.

In the limit the entropy is that of the eigenvalues of an operator, the mean of :math:`\phi(x) \phi(x)^\top` over the
samples. One more sample x changes :math:`\operatorname{tr} C^\alpha` by :math:`\alpha (\phi(x)^\top C^{\alpha - 1}
\phi(x) - \operatorname{tr} C^\alpha)`, which the eigenvectors of the Gram matrix give for each of the samples:

.. math::

    \psi_i(A) = \frac{\alpha}{1 - \alpha} \Big( \frac{N (A^\alpha)_{ii}}{\operatorname{tr} A^\alpha} - 1 \Big), \qquad
    \mathrm{SE} = \frac{1}{\sqrt N} \operatorname{sd}_i \big( \psi_i(A) + \psi_i(B) - \psi_i(A \circ B)
    + \dot I_w v_i / 2 \big)

:math:`\dot I_w` is the derivative in the logarithm of a kernel width that follows the spread of its variable, and
:math:`v_i` the influence on the logarithm of the variance. The deviation is taken over a quarter of the rows, 200 to
500, at the same widths: eigenvectors take several times as long as eigenvalues.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_labels, checked_number, checked_rows
from lightning_ib.functional.continuous.renyi import gram_matrix
from lightning_ib.functional.resampling import INFLUENCES, Pointwise, spread_rows

# The order closest to 1: the formula has 1 − α below a difference that rounding leaves about 1e-15 of.
_LIMIT = 1e-6


def standard_error_renyi(
    x: Tensor,
    y: Tensor,
    *,
    alpha: float = 1.01,
    kernel_width_x: float,
    kernel_width_y: float | None = None,
    follows: tuple[bool, bool] = (True, True),
    clusters: Tensor | None = None,
    unit: Unit = "bits",
) -> float:
    r"""The standard error of the matrix-based Rényi information of N samples.

    The formula is that of :mod:`~lightning_ib.functional.continuous.renyi_errors`. It misleads near saturation, and
    reads up to a third low where few hundred rows hardly fill the space.

    Args:
        x: real floating point, shape ``(N, …)``.
        y: real floating point, shape ``(N, …)``, or class labels, integers, shape ``(N,)``.
        alpha: the order, positive; 1 is the limit.
        kernel_width_x: the standard deviation of the kernel on x.
        kernel_width_y: the same for y, where it is real.
        follows: whether the widths of x and of y are proportional to the spread of the rows.
        clusters: int64 ``(N,)``, the cluster of each sample; ``None`` where they are independent.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The standard error in ``unit``.

    Raises:
        TypeError, ValueError: as :func:`~lightning_ib.functional.mutual_information_renyi`.

    Example:
        >>> x, noise = torch.randn(2, 600, generator=torch.Generator().manual_seed(0))
        >>> round(standard_error_renyi(x, x + noise, kernel_width_x=0.3, kernel_width_y=0.4), 2)
        0.04
    """
    alpha = checked_number(alpha, "alpha", above=0)
    alpha = 1 + _LIMIT if abs(alpha - 1) < _LIMIT else alpha
    n = len(x)
    some = spread_rows(n, min(INFLUENCES, max(200, n // 4)))
    a = checked_rows(x, "x")[some.to(x.device)]
    kernels, shifts = [gram_matrix(a, kernel_width_x, "x", "kernel_width_x")], [_shift(a, follows[0])]
    if y.is_floating_point():
        b = checked_rows(y, "y")[some.to(y.device)]
        kernels.append(gram_matrix(b, kernel_width_y, "y", "kernel_width_y"))
        shifts.append(_shift(b, follows[1]))
        joint, influence = kernels[0] * kernels[1], torch.zeros(len(a), dtype=torch.float64, device=a.device)
    else:
        numbers, counts = (of.to(a.device) for of in checked_labels(y[some.to(y.device)], len(a)))
        joint = kernels[0] * (numbers.unsqueeze(0) == numbers.unsqueeze(1))
        share = counts.double() / len(a)
        influence = alpha / (1 - alpha) * (share ** (alpha - 1))[numbers] / share.pow(alpha).sum()
    for kernel, shift in zip(kernels, shifts):
        influence = influence + _influence(kernel, [kernel], [shift], alpha)
    influence = influence - _influence(joint, kernels, shifts, alpha)
    return Pointwise(0.0, influence, some, n).standard_error(clusters, unit=unit)


def _shift(rows: Tensor, follows: bool) -> Tensor | None:
    """The influence of each row on the logarithm of the spread; ``None`` where the width is fixed."""
    if not follows:
        return None
    squares = (rows.double() - rows.double().mean(0)).square().sum(1)
    return (squares / squares.mean() - 1) / 2


def _influence(gram: Tensor, kernels: Sequence[Tensor], shifts: Sequence[Tensor | None], alpha: float) -> Tensor:
    """The influence of each row on the entropy of a Gram matrix, a product of kernels, and through their widths."""
    n = len(gram)
    eigenvalues, vectors = torch.linalg.eigh(gram / n)
    kept = eigenvalues > n * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    trace, factor = float(eigenvalues.pow(alpha).sum()), alpha / (1 - alpha)
    influence: Tensor = factor * n / trace * (vectors.square() @ eigenvalues.pow(alpha))
    if any(shift is not None for shift in shifts):
        # d tr A^α = α tr(A^{α−1} dA), and a kernel changes by −2 k log k for each part of its width
        weights = (vectors * eigenvalues.pow(alpha - 1)) @ vectors.T * gram
        for kernel, shift in zip(kernels, shifts):
            if shift is not None:
                moved = weights * kernel.clamp_min(torch.finfo(kernel.dtype).tiny).log()
                influence = influence - 2 * factor / trace / n * float(moved.sum()) * shift
    return influence
