r"""What the dual bottleneck is made of: geometric decoders, exponential families that it preserves, error exponents."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_ib.bottleneck.distortion import distortion
from lightning_ib.bottleneck.joint import checked_joint, divergence, joint_of
from lightning_ib.bottleneck.layers import checked_encoder
from lightning_ib.functional.checks import Unit, checked_unit, checked_values, in_unit, plain_tensor


class ErrorExponent(NamedTuple):
    """The rate at which the error of the best test between two distributions falls.

    Attributes:
        exponent: the Chernoff information per sample, in the unit asked for.
        weight: the weight of the first distribution in the geometric mean.
        center: that geometric mean, equally far from both, shape ``(Y,)``.
    """

    exponent: float
    weight: float
    center: Tensor


def geometric_decoder(p_t_given_x: Tensor, p_xy: Tensor, *, smoothing: float | None = None) -> Tensor:
    r"""The decoder of the dual bottleneck: the geometric mean of p(y|x) in each cluster.

    .. math:: p(y|t) = \frac{1}{Z_t} \prod_x p(y|x)^{p(x|t)}

    It minimizes :math:`\sum_x p(x|t)\, D[p(y|t) \| p(y|x)] = -\ln Z_t`.

    Args:
        p_t_given_x: the encoder, shape ``(X, T)``, rows summing to 1; every t with some probability.
        p_xy: p(x, y), shape ``(X, Y)``, summing to 1, with every p(y|x) positive.
        smoothing: the part of each p(y|x) that is replaced by the uniform distribution; by default none is.

    Returns:
        p(y|t), float64, shape ``(T, Y)``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is no distribution, p(y|x) has zeros, or a t has no probability.

    Example:
        >>> import torch
        >>> p_xy = torch.tensor([[0.45, 0.05], [0.1, 0.4]], dtype=torch.float64)
        >>> geometric_decoder(torch.ones(2, 1).double(), p_xy)
        tensor([[0.6000, 0.4000]], dtype=torch.float64)
    """
    joint = checked_joint(p_xy, smoothing)
    problem = distortion(joint_of(joint.p_original, joint.rows[joint.merged]), dual=True)
    share = _p_x_given_t(p_t_given_x, joint.p_original)
    return problem.centroid(share.mT @ problem.features)


def exponential_family(statistics: Tensor, multipliers: Tensor) -> Tensor:
    r"""The conditional distributions of an exponential family.

    .. math:: p(y|x) \propto \exp\Big(-\sum_r \lambda_r(y) A_r(x)\Big)

    Args:
        statistics: :math:`A_r(x)`, shape ``(X, R)``.
        multipliers: :math:`\lambda_r(y)`, shape ``(Y, R)``.

    Returns:
        p(y|x), float64, shape ``(X, Y)``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the two have different numbers of statistics.
    """
    a, m = (
        plain_tensor(checked_values(value, name, shape).detach()).double()
        for value, name, shape in ((statistics, "statistics", "(X, R)"), (multipliers, "multipliers", "(Y, R)"))
    )
    if a.ndim != 2 or m.ndim != 2 or a.shape[1] != m.shape[1]:
        raise ValueError(
            f"statistics and multipliers must have shapes (X, R) and (Y, R), got {tuple(a.shape)} and {tuple(m.shape)}."
        )
    return (-a @ m.mT).softmax(1)


def decoder_statistics(p_t_given_x: Tensor, p_x: Tensor, statistics: Tensor) -> Tensor:
    r"""The statistics of the dual's decoder where p(y|x) is an exponential family: their means in each cluster.

    .. math:: A_r(t) = \sum_x p(x|t) A_r(x)

    The dual preserves the family: :func:`geometric_decoder` equals :func:`exponential_family` of these statistics and
    the same multipliers. The mixture decoder of the bottleneck is in no such family.

    Args:
        p_t_given_x: the encoder, shape ``(X, T)``, rows summing to 1.
        p_x: p(x), shape ``(X,)``.
        statistics: :math:`A_r(x)`, shape ``(X, R)``.

    Returns:
        float64, shape ``(T, R)``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one has another shape or is no distribution, or a t has no probability.

    Example:
        >>> import torch
        >>> a, m = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [0.5], [2.0]])
        >>> p_x, encoder = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1]]).double()
        >>> own = exponential_family(decoder_statistics(encoder, p_x, a), m)
        >>> bool(torch.allclose(own, geometric_decoder(encoder, p_x[:, None] * exponential_family(a, m))))
        True
    """
    checked_values(statistics, "statistics", "(X, R)")
    checked_values(p_x, "p_x", "(X,)")
    a, p = plain_tensor(statistics.detach()).double(), plain_tensor(p_x.detach()).double()
    if p.ndim != 1 or not bool((p >= 0).all()) or not abs(float(p.sum()) - 1) <= 1e-6:
        raise ValueError(
            "p_x must be a distribution of shape (X,), not negative and summing to 1: give p_x / p_x.sum()."
        )
    if a.ndim != 2 or len(a) != len(p):
        raise ValueError(f"statistics must have shape (X, R) with X = {len(p)} as in p_x, got {tuple(a.shape)}.")
    return _p_x_given_t(p_t_given_x, p).mT @ a


def error_exponent(p0: Tensor, p1: Tensor, *, unit: Unit = "bits") -> ErrorExponent:
    r"""The Chernoff information of two distributions: the best exponent of the error in telling them apart.

    .. math:: C(p_0, p_1) = -\min_{0 \le \lambda \le 1} \ln \sum_y p_0(y)^\lambda p_1(y)^{1 - \lambda}
                          = D[s \| p_0] = D[s \| p_1]

    (Chernoff 1952; Cover & Thomas 2006, theorem 11.9.1.) The center s is the geometric mean of the two at the best λ,
    which is the dual bottleneck's decoder of a cluster of both.

    Args:
        p0: a distribution, shape ``(Y,)``, all positive.
        p1: another one.
        unit: ``"bits"`` or ``"nats"``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is no distribution, or has zeros.

    Example:
        >>> import torch
        >>> found = error_exponent(torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.1, 0.3, 0.6]).double())
        >>> round(found.exponent, 6), round(found.weight, 6)
        (0.406744, 0.512756)
    """
    checked_unit(unit)
    a, b = (_checked_distribution(value, name) for value, name in ((p0, "p0"), (p1, "p1")))
    if a.shape != b.shape:
        raise ValueError(f"p0 and p1 must be of the same y, got {len(a)} and {len(b)} probabilities.")
    log_a, log_b = a.log(), b.log()
    low, high = 0.0, 1.0
    for _ in range(60):  # the slope of the convex function is the mean log-likelihood ratio
        weight = (low + high) / 2
        center = (weight * log_a + (1 - weight) * log_b).softmax(0)
        low, high = (weight, high) if float(center @ (log_a - log_b)) < 0 else (low, weight)
    nats = float(0.5 * (divergence(center, a) + divergence(center, b)))
    return ErrorExponent(in_unit(nats, unit), weight, center)


def _p_x_given_t(p_t_given_x: Tensor, p_x: Tensor) -> Tensor:
    """p(x|t), shape ``(X, T)``."""
    flow = p_x[:, None] * checked_encoder(p_t_given_x, len(p_x)).to(p_x.device)
    w = flow.sum(0)
    if bool((w == 0).any()):
        raise ValueError("p_t_given_x has a t without probability: leave such columns out.")
    return flow / w


def _checked_distribution(value: Tensor, name: str) -> Tensor:
    checked_values(value, name, "(Y,)")
    p = plain_tensor(value.detach()).double()
    if p.ndim != 1 or len(p) < 2 or not bool((p > 0).all()) or abs(float(p.sum()) - 1) > 1e-6:
        raise ValueError(
            f"{name} must be a distribution of shape (Y,) with positive probabilities that sum to 1, got "
            f"{p.tolist() if p.numel() < 9 else tuple(p.shape)}."
        )
    return p / p.sum()
