r"""The Hilbert–Schmidt independence criterion, and the bottleneck made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from lightning_ib.functional.checks import check_same_samples, checked_choice, checked_flag, checked_number, kind_of
from lightning_ib.objectives.gather import gather_batch
from lightning_ib.objectives.labels import checked_class_numbers
from lightning_ib.objectives.terms import Weight, checked_code

HSICEstimator = Literal["biased", "unbiased", "normalized"]

EPSILON = 1e-5
"""The regularization of the normalized estimator, times the number of samples."""

_FEWEST = {"biased": 2, "unbiased": 4, "normalized": 2}


def hsic(x: Tensor, y: Tensor, *, sigma_x: float, sigma_y: float, estimator: HSICEstimator = "biased") -> Tensor:
    r"""The dependence of two variables by their kernels (Gretton et al. 2005), which is no information in nats.

    With the kernels :math:`K_{ij} = \exp(-\|x_i - x_j\|^2 / 2 \sigma_x^2)` and L of y alike, and
    :math:`H = I - 1 1^\top / m`,

    .. math::

        \text{biased} &= \frac{\mathrm{tr}\, K H L H}{(m - 1)^2} \\
        \text{unbiased} &= \frac{1}{m (m - 3)} \left[ \mathrm{tr}\, \tilde K \tilde L
        + \frac{1^\top \tilde K 1 \cdot 1^\top \tilde L 1}{(m - 1)(m - 2)} - \frac{2}{m - 2} 1^\top \tilde K \tilde L 1
        \right] \\
        \text{normalized} &= \mathrm{tr}\, R_x R_y, \qquad R_x = H K H\, (H K H + \epsilon m I)^{-1}, \quad
        \epsilon = 10^{-5}

    where K̃ and L̃ have zeros on the diagonal (Song et al. 2012), and the normalized one is that of Fukumizu et al.
    (2007) and of the HSIC bottleneck (Ma, Lewis & Kleijn 2020). HSIC is 0 for independent variables; how large it is
    depends on the kernels and, for the normalized one, which is at most m − 1, on the number of samples. So values
    compare for the same σ, m and ε alone. It takes ``(m, m)`` numbers of memory, and the normalized one :math:`m^3`
    steps, in double precision. NaN gives NaN.

    In training with several processes, give the samples of all: see :func:`gather_batch`.

    Args:
        x: floating point, shape ``(m, D)``; further dimensions are flattened. Or class labels, integers ``(m,)``, which
            stand for one-hot rows.
        y: likewise.
        sigma_x: the width of the kernel of x, positive; for D standardized dimensions, about √D.
        sigma_y: the width of the kernel of y.
        estimator: which of the three; at least two samples, and four for the unbiased one, which can be negative.

    Returns:
        A scalar: float32 for half precision and labels, else the dtype of the arguments.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: shapes differ, there are too few samples, or a width is 0 or negative.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> hsic(x, torch.tensor([0, 0, 1, 1]), sigma_x=1.0, sigma_y=1.0)
        tensor(0.2802)
    """
    checked_choice(estimator, "estimator", get_args(HSICEstimator))
    rows = _checked_variable(x, "x"), _checked_variable(y, "y")
    check_same_samples(len(rows[0]), len(rows[1]), ("x", "y"))
    m, dtype = len(rows[0]), torch.promote_types(*(v.dtype if v.ndim == 2 else torch.float32 for v in rows))
    if m < _FEWEST[estimator]:
        raise ValueError(f"The {estimator} estimator needs at least {_FEWEST[estimator]} samples, got {m}.")
    # A condition number of 1/ε is too large for single precision.
    wide = torch.float64 if estimator == "normalized" and rows[0].device.type != "mps" else dtype
    k, ell = (_kernel(v, sigma, wide) for v, sigma in zip(rows, _checked_widths(sigma_x, sigma_y)))
    if estimator == "unbiased":
        return _unbiased(k, ell)
    k, ell = _centered(k), _centered(ell)
    if estimator == "biased":
        return (k * ell).sum() / (m - 1) ** 2
    return (_regularized(k) * _regularized(ell)).sum().to(dtype)


def _checked_widths(*sigmas: Any) -> list[float]:
    advice = "give the width of the kernel, a typical distance"
    return [checked_number(s, name, above=0, advice=advice) for s, name in zip(sigmas, ("sigma_x", "sigma_y"))]


def _checked_variable(values: Any, name: str) -> Tensor:
    """Rows ``(m, D)`` in floating point, or class labels ``(m,)``."""
    labels = isinstance(values, Tensor) and not values.is_floating_point()
    return checked_class_numbers(values, None, name) if labels else checked_code(values, name)


def _kernel(values: Tensor, sigma: float, dtype: torch.dtype) -> Tensor:
    if values.ndim == 1:
        distances = 2 * (values[:, None] != values).to(dtype)  # of one-hot rows
    else:
        rows = values.to(dtype)
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (-distances / (2 * sigma**2)).exp()


def _centered(kernel: Tensor) -> Tensor:
    rows = kernel.mean(0)
    return kernel - rows - rows[:, None] + rows.mean()


def _regularized(centered: Tensor) -> Tensor:
    """R, symmetric."""
    eye = torch.eye(len(centered), dtype=centered.dtype, device=centered.device)
    inverse: Tensor = torch.linalg.inv(centered + EPSILON * len(centered) * eye)
    return eye - EPSILON * len(centered) * inverse


def _unbiased(k: Tensor, ell: Tensor) -> Tensor:
    m = len(k)
    off = 1 - torch.eye(m, dtype=k.dtype, device=k.device)
    k, ell = k * off, ell * off
    sums = k.sum() * ell.sum() / ((m - 1) * (m - 2)) - 2 / (m - 2) * (k.sum(0) * ell.sum(0)).sum()
    return ((k * ell).sum() + sums) / (m * (m - 3))


def _checked_layers(layers: Any) -> list[Tensor]:
    if not isinstance(layers, (list, tuple)) or len(layers) == 0:
        raise ValueError(
            f"layers must be a list of at least one tensor of shape (B, …), got "
            f"{'none' if isinstance(layers, (list, tuple)) else kind_of(layers)}: give [t], say."
        )
    return list(layers)


class HSICTerms(NamedTuple):
    """A loss and its parts, scalars with gradients, ready for ``self.log_dict``. They are dependences, not nats.

    Attributes:
        loss: ``hsic_x − beta · hsic_y``.
        hsic_x: the sum over the layers of their dependence with the input.
        hsic_y: the sum over the layers of their dependence with the labels.
    """

    loss: Tensor
    hsic_x: Tensor
    hsic_y: Tensor


class HSICLoss(nn.Module):
    r"""The loss of the HSIC bottleneck (Ma, Lewis & Kleijn 2020), a dependence and no information in nats.

    .. math:: L = \sum_{\text{layers}} \mathrm{nHSIC}(T, X) - \beta\, \mathrm{nHSIC}(T, Y)

    with the normalized estimator of :func:`hsic`. The authors train each layer by its own term and detach what it gets
    from the layer before; a classifier is then trained on the last one. In one step of usual training the sum is a
    regularizer of the layers, added to the cross-entropy.

    σ of a variable is ``sigma`` times the square root of its number of dimensions, and ``sigma`` itself for class
    labels. ``beta`` can be set between two steps: see :class:`Annealing`.

    Args:
        beta: the weight of the dependence on the labels, at least 0; hundreds, where a layer should learn.
        sigma: the width of the kernels per square root of the dimensions, positive.
        gather: whether the terms are those of the batch of all processes, by :func:`gather_batch`, where several train.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        In ``training_step``, with ``self.log_dict(terms._asdict())``:

        >>> hidden, loss = nn.Linear(784, 256), HSICLoss(beta=500)
        >>> x, y = torch.randn(100, 784), torch.randint(10, (100,))
        >>> t = hidden(x).relu()
        >>> terms = loss([t], x, y)
        >>> terms.loss.backward()
    """

    beta = Weight("The weight of the dependence on the labels.")

    def __init__(self, beta: float, *, sigma: float = 1.0, gather: bool = True) -> None:
        super().__init__()
        self.beta = beta
        self.sigma = checked_number(sigma, "HSICLoss: sigma", above=0)
        self.gather = checked_flag(gather, "HSICLoss: gather")

    def forward(self, layers: Sequence[Tensor], x: Tensor, y: Tensor) -> HSICTerms:
        """The loss of a batch.

        Args:
            layers: their activations, floating point, each of shape ``(B, …)``.
            x: the input, floating point, shape ``(B, …)``.
            y: class labels, integers ``(B,)``; or the target, floating point ``(B, …)``.

        Raises:
            TypeError: an argument is of another kind.
            ValueError: shapes differ, or there is no layer.
        """
        layers = _checked_layers(layers)
        if self.gather:
            layers, x, y = [gather_batch(t) for t in layers], gather_batch(x), gather_batch(y)
        of_x, of_y = (torch.stack([self._dependence(t, other) for t in layers]).sum() for other in (x, y))
        return HSICTerms(of_x - self.beta * of_y, of_x, of_y)

    def _dependence(self, t: Tensor, other: Tensor) -> Tensor:
        return hsic(t, other, sigma_x=self._width(t), sigma_y=self._width(other), estimator="normalized")

    def _width(self, values: Tensor) -> float:
        return self.sigma * math.sqrt(max(1, values[0].numel())) if values.is_floating_point() else self.sigma

    def extra_repr(self) -> str:
        """What it is made from."""
        return f"beta={self.beta:g}, sigma={self.sigma:g}, gather={self.gather}"
