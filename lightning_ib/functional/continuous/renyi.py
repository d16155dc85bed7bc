r"""Matrix-based Rényi entropy: the eigenvalues of a Gram matrix in the place of probabilities.

Sanchez Giraldo, Rao & Príncipe (2015) compute an entropy from the kernel matrix of the samples directly.
:math:`A_{ij} = \frac{1}{N} k(x_i, x_j)` is positive semidefinite with trace 1, and its entropy is that of its
eigenvalues. Two variables are joined by multiplying their kernels.

The values obey many of Shannon's laws and differ from Shannon's entropies: they depend on the kernel and its width, and
compare only with values of the same kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import eigvalsh

from lightning_ib.functional.checks import (
    AS_Y,
    Unit,
    checked_labels,
    checked_number,
    checked_pair,
    checked_rows,
    checked_unit,
    in_unit,
)
from lightning_ib.functional.continuous.gaussian_kernel import kernel_blocks, total_variance
from lightning_ib.functional.discrete.counting import add_entropies


def entropy_renyi(x: Tensor, *, alpha: float = 1.01, kernel_width: float | None = None, unit: Unit = "bits") -> float:
    r"""The matrix-based Rényi entropy of a variable.

    .. math::

        S_\alpha(A) = \frac{1}{1 - \alpha} \log \sum_i \lambda_i(A)^\alpha, \qquad
        A_{ij} = \frac{1}{N} \exp\left(-\frac{\lVert x_i - x_j \rVert^2}{2 w^2}\right)

    (Sanchez Giraldo, Rao & Príncipe 2015.) It is 0 where all rows are equal and log N where they lie many widths apart:
    near either end the width is unsuited to the rows.

    Feature maps ``(N, C, H, W)`` are flattened, which is the tensor kernel of Wickstrøm et al. (2019): the norm above
    is then Frobenius', of whole tensors. The multivariate form of Yu et al. (2019) multiplies the Gram matrices of the
    channels, each with a width :math:`w_c` of its own; since :math:`\prod_c \exp(-d_c^2 / 2 w_c^2) = \exp(-\sum_c d_c^2
    / 2 w_c^2)`, that is the tensor kernel of ``x / w.view(-1, 1, 1)`` at ``kernel_width=1``. Wickstrøm et al. write the
    kernel in a form that lacks the 2: their width is :math:`\sqrt{2}` times this one.

    The matrix and its eigenvalues are float64: 8 N² bytes, three times that while they are computed, and time as N³,
    half a second of one core for 2 000 samples, half a minute for 8 000. Take a fixed sample of more.

    Args:
        x: real floating point, shape ``(N, D)`` or ``(N, …)``.
        alpha: the order, positive. 1 is the limit, von Neumann's entropy; close to it rounding leaves about
            1e-16 / abs(alpha − 1). Below 1 the smallest eigenvalues count most, and those within rounding,
            below 2e-16 N of the largest, count as 0.
        kernel_width: w, the standard deviation of the kernel; by default :func:`kernel_width_of` x.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The entropy in ``unit``, between 0 and log N.

    Raises:
        TypeError: an argument is of another kind; an integer ``x`` is.
        ValueError: ``x`` has fewer than two rows, or a value that is NaN or infinite, ``alpha`` or ``kernel_width`` is
            0 or less, or a constant ``x`` comes with the default width.

    Example:
        >>> round(entropy_renyi(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), kernel_width=0.01), 6)
        2.0
    """
    checked_unit(unit)
    alpha = checked_number(alpha, "alpha", above=0)
    rows = checked_rows(x, "x", labels="use entropy(x)")
    return add_entropies(in_unit(_entropy(eigvalsh(gram_matrix(rows, kernel_width, "x", "kernel_width")), alpha), unit))


def mutual_information_renyi(
    x: Tensor,
    y: Tensor,
    *,
    alpha: float = 1.01,
    kernel_width_x: float | None = None,
    kernel_width_y: float | None = None,
    unit: Unit = "bits",
) -> float:
    r"""The matrix-based Rényi mutual information of two real variables.

    .. math::

        I_\alpha(X;Y) = S_\alpha(A) + S_\alpha(B) - S_\alpha\left(\frac{A \circ B}{\operatorname{tr}(A \circ B)}\right)

    with the matrices of :func:`entropy_renyi`.

    Source:
        Sanchez Giraldo, Rao & Principe (2015); on layers Wickstrøm et al. (2019).

    Trap:
        It saturates: where x is a width or more apart everywhere, :math:`S_\alpha(A)` and the joint entropy are both
        log N, and the information reads :math:`S_\alpha(B)` for any x. Its scale differs from Shannon's, and a
        variable's information about itself from its entropy.

    It takes twice the memory and three times the time of :func:`entropy_renyi`.

    Args:
        x: real floating point, shape ``(N, D)`` or ``(N, …)``.
        y: real floating point, shape ``(N, D)`` or ``(N, …)``, the same samples in the same order.
        alpha: the order, positive; 1 is the limit.
        kernel_width_x: the standard deviation of the kernel on x; by default :func:`kernel_width_of` x.
        kernel_width_y: the same for y.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``, at most the entropy of either.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: the variables differ in their samples, have fewer than two, or hold NaN or infinity, ``alpha`` or a
            width is 0 or less, or a constant variable comes with the default width.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [98.0], [99.0]])
        >>> round(mutual_information_renyi(x, (x > 50).double(), kernel_width_x=2.0, kernel_width_y=0.1), 6)
        1.0
    """
    checked_unit(unit)
    alpha = checked_number(alpha, "alpha", above=0)
    rows_x, rows_y = checked_pair(x, y, labels="use mutual_information_renyi_labels(t, y)")
    a = gram_matrix(rows_x, kernel_width_x, "x", "kernel_width_x")
    b = gram_matrix(rows_y, kernel_width_y, "y", "kernel_width_y")
    return _information((eigvalsh(a), eigvalsh(b), eigvalsh(a.mul_(b))), alpha, unit)


def mutual_information_renyi_labels(
    t: Tensor, y: Tensor, *, alpha: float = 1.01, kernel_width: float | None = None, unit: Unit = "bits"
) -> float:
    r"""The matrix-based Rényi mutual information of a real variable and class labels.

    The formula of :func:`mutual_information_renyi`, with a kernel on the labels that is 1 for two samples of one class
    and 0 for others: B has the eigenvalues :math:`N_y / N`, and the joint matrix falls into the blocks of the classes.
    It takes little more memory and time than :func:`entropy_renyi`, and saturates as the formula for real variables:
    rows that are all a width or more apart read H(Y).

    Args:
        t: the representation, real floating point, shape ``(N, D)`` or ``(N, …)``.
        y: class labels, integers or booleans, shape ``(N,)``, any values.
        alpha: the order, positive; 1 is the limit.
        kernel_width: the standard deviation of the kernel on t; by default :func:`kernel_width_of` t.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``, at most the Rényi entropy of the labels.

    Raises:
        TypeError: ``t`` is of another kind (integers are), or ``y`` is (real numbers are).
        ValueError: the variables differ in their samples, ``t`` has fewer than two or holds NaN or infinity, ``alpha``
            or the width is 0 or less, or a constant ``t`` comes with the default width.

    Example:
        >>> t, y = torch.tensor([[0.0], [1.0], [98.0], [99.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(mutual_information_renyi_labels(t, y, kernel_width=2.0), 6)
        1.0
    """
    checked_unit(unit)
    alpha = checked_number(alpha, "alpha", above=0)
    rows = checked_rows(t, "t", labels=AS_Y)
    numbers, counts = checked_labels(y, len(rows))
    order = numbers.argsort(stable=True).to(rows.device)
    gram = gram_matrix(rows[order], kernel_width, "t", "kernel_width")
    ends = counts.cumsum(0).tolist()
    joint = [eigvalsh(gram[start:end, start:end]) for start, end in zip([0, *ends], ends)]
    return _information((eigvalsh(gram), counts.double(), torch.cat(joint)), alpha, unit)


def _information(spectra: tuple[Tensor, Tensor, Tensor], alpha: float, unit: Unit) -> float:
    """The information from the eigenvalues of x, of y and of both, each up to a factor."""
    s_x, s_y, s_xy = (in_unit(_entropy(eigenvalues, alpha), unit) for eigenvalues in spectra)
    return add_entropies(s_x, s_y, -s_xy)


def kernel_width_of(x: Tensor) -> float:
    r"""A kernel width from the scale of a variable, its dimension and the number of samples.

    .. math:: w = \sqrt{\sum_d \operatorname{var}(x_d)} \; N^{-1 / (4 + D)}

    This is Scott's (1992) rule, which estimators with this matrix have been given since Sanchez Giraldo et al. (2015),
    with the two factors of Tapia & Estévez (2020): the spread of the variable, which keeps a layer of growing weights
    from seeming to gain information, and :math:`\sqrt{D}`, by which distances grow with the dimension. It is invariant
    under rotations and shifts and scales with x, and so the entropy at this width is invariant under all three.

    Wickstrøm et al. (2019) choose the width of the Gram matrix that is most like that of the labels; that sets the
    resolution by the very relation that is to be measured, and requires labels. Such a width may be given as
    ``kernel_width``.

    Source:
        The rule of Scott (1992) with the two factors of Tapia & Estévez (2020).

    Cost:
        One pass over the rows.

    Samples:
        Two; the width shrinks as :math:`N^{-1 / (4 + D)}`, so that values compare at one N only.

    Trap:
        It follows the variable. To compare epochs at one resolution, take it once and keep it.

    Args:
        x: real floating point, shape ``(N, D)`` or ``(N, …)``.

    Returns:
        The standard deviation of the kernel.

    Raises:
        TypeError: ``x`` is of another kind; integers are.
        ValueError: ``x`` is constant, has fewer than two rows, or a value that is NaN or infinite.

    Example:
        >>> kernel_width_of(torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])) / 2 ** -0.125
        2.0
    """
    return _width(checked_rows(x, "x", labels="use mutual_information_renyi_labels(t, y)"), "x", "kernel_width")


def _width(rows: Tensor, name: str, argument: str) -> float:
    variance = total_variance(rows)
    if variance == 0:
        raise ValueError(f"{name} is constant and has no scale to take a kernel width from: give {argument} yourself.")
    return float(variance**0.5 * len(rows) ** (-1 / (4 + rows.shape[1])))


def gram_matrix(rows: Tensor, width: float | None, name: str, argument: str) -> Tensor:
    """The kernel of all pairs, float64, shape ``(N, N)``, with ones on its diagonal."""
    width = _width(rows, name, argument) if width is None else checked_number(width, argument, above=0)
    gram = rows.new_empty((len(rows), len(rows)), dtype=torch.float64)
    for i, j, kernel in kernel_blocks(rows, width):
        gram[i, j] = kernel
        if i != j:
            gram[j, i] = kernel.T
    return gram


def _entropy(eigenvalues: Tensor, alpha: float) -> float:
    """The Rényi entropy in nats of eigenvalues scaled to a sum of 1; those within rounding of 0 are left out."""
    rounding = len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
    kept = eigenvalues[eigenvalues > rounding]
    log_p = (kept / kept.sum()).log()
    if alpha == 1:
        return float(-(log_p.exp() * log_p).sum())
    return float((alpha * log_p).logsumexp(0)) / (1 - alpha)
