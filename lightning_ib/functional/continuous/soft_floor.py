r"""The permutation baseline of soft entropy in closed form: the mean of I(T;Y) over permutations of the labels.

With :math:`w_k = p(k|x)` over the samples, a class of m random samples contributes

.. math::

    f(m) = \mathrm{E}\, D(\bar p_m \Vert p) = \sum_k \mathrm{E} \Big[ \bar w_k \log \frac{\bar w_k}{p_k} \Big],
    \qquad \text{floor} = \sum_y \frac{N_y}{N} f\Big( N_y \frac{N - 1}{N - N_y} \Big)

the argument accounting for sampling without replacement. Both ends of f are known: :math:`f(1) = I(X;\tilde T)`, and
:math:`f(m) \to \frac{1}{2m} \sum_k \mathrm{Var}(w_k) / p_k`, which makes the floor :math:`\frac{C - 1}{2N} \sum_k
\mathrm{Var}(w_k) / p_k` for C large classes. Between them each :math:`w_k` is taken as a gamma variable, of which the
mean of m has :math:`p_k\, g(m s)` in closed form, with :math:`g(x) = \psi(x + 1) - \log x` and the shape s:

.. math::

    f(m) = \sum_k p_k \big( \omega\, g(m s^1_k) + (1 - \omega)\, g(m s^\infty_k) \big), \quad
    \omega = \frac{1}{1 + (m - 1) s^\infty_k}, \quad
    s^\infty_k = \frac{p_k^2}{\mathrm{Var}(w_k)}, \quad
    g(s^1_k) = \mathrm{E} \Big[ \frac{w_k}{p_k} \log \frac{w_k}{p_k} \Big]

Against permutations of the labels (layers of a network, Gaussian rows and clusters, 2 to 22 000 classes, balanced and
Zipf) it was within 10 %, mostly within 4 % and low; with three samples an anchor or fewer up to 15 % low.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ib.functional.discrete.counting import add_entropies


def permutation_floor(p: Tensor, squares: Tensor, p_log_p: Tensor, sizes: Tensor) -> float:
    """The mean of I(T;Y) over permutations of the labels, in nats.

    Args:
        p: the mean assignment of each anchor, float64, shape ``(K,)``.
        squares: the mean square of its assignments.
        p_log_p: the mean of w log w of its assignments w.
        sizes: the number of samples of each class, at least one each, float64, shape ``(C,)``.
    """
    n = sizes.sum()
    occurs = p > 1e-150  # its square is still a number; the others add 0
    p, squares, p_log_p = p[occurs], squares[occurs], p_log_p[occurs]
    for_many = 1 / (squares / p.square() - 1).clamp_min(1e-15)
    for_one = _inverse_gap(p_log_p / p - p.log())
    sizes, times = sizes.unique(return_counts=True)
    weights = sizes / n * times
    below = sizes < n  # a class of all samples is p itself
    sizes, weights = sizes[below], weights[below]
    total = 0.0
    for size, weight in zip((sizes * (n - 1) / (n - sizes)).tolist(), weights.tolist()):
        share = 1 / (1 + (size - 1) * for_many)
        total += weight * float(p @ (share * _gap(size * for_one) + (1 - share) * _gap(size * for_many)))
    return add_entropies(total)


def _gap(shape: Tensor) -> Tensor:
    """E[v log v] of a gamma variable v of mean 1 and this shape: ψ(s + 1) − log s, falling from ∞ to 0."""
    return torch.where(shape > 1e4, 0.5 / shape - 1 / (12 * shape.square()), (shape + 1).digamma() - shape.log())


def _inverse_gap(value: Tensor) -> Tensor:
    """The shape with this gap, between 1e-16 and 1e16, by bisection."""
    low, high = torch.full_like(value, -37.0), torch.full_like(value, 37.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = _gap(middle.exp()) > value
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return ((low + high) / 2).exp()
