r"""How far informations counted on a finite sample may be from the true ones, and what compression may promise.

The first is a theorem (Shamir, Sabato & Tishby 2010), and loose: it needs many more samples than T has symbols. The
second (Shwartz-Ziv, Painsky & Tishby 2018) is a heuristic.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ib.bottleneck.curve import checked_informations
from lightning_ib.bottleneck.joint import checked_joint, entropies
from lightning_ib.bottleneck.layers import checked_encoder
from lightning_ib.functional.checks import Unit, checked_integer, checked_number, checked_unit, in_unit


class FiniteSampleBound(NamedTuple):
    """How far plug-in informations may be from the true ones, in the unit asked for.

    Attributes:
        i_xt: the most by which I(X;T) is off.
        i_ty: the most by which I(T;Y) is off.
        i_xt_vacuous: whether ``i_xt`` is at least the largest I(X;T) that there can be, so that nothing is learned.
        i_ty_vacuous: whether ``i_ty`` is at least the largest I(T;Y) that there can be.
    """

    i_xt: float
    i_ty: float
    i_xt_vacuous: bool
    i_ty_vacuous: bool


def finite_sample_bound(
    p_t_given_x: Tensor, p_xy: Tensor, n_samples: int, *, delta: float = 0.05, unit: Unit = "bits"
) -> FiniteSampleBound:
    r"""How far informations that were counted on a sample may be from the true ones.

    For a fixed encoder p(t|x) and a p(x, y) counted on m independent samples, with probability 1 − δ,

    .. math:: |I(X;T) - \hat I(X;T)| &\le \sum_t f\Big(\tfrac{n}{\sqrt m} \|p(t|x) - b_t\|\Big)
                                         + \tfrac{n}{\sqrt m} \|H(T|x) - a\| \\
              |I(T;Y) - \hat I(T;Y)| &\le 2 \sum_t f\Big(\tfrac{n}{\sqrt m} \|p(t|x) - b_t\|\Big)
                                         + \tfrac{n}{\sqrt m} \|\hat H(T|y) - c\|

    where :math:`n = 2 + \sqrt{2 \ln((|Y| + 2) / \delta)}`, the norms are over x (over y in the last term) of vectors
    less their mean, and :math:`f(z) = z \ln(1/z)`, from z = 1/e on its largest value 1/e.

    Source:
        Shamir, Sabato & Tishby (2010).

    Cost:
        About 1 ms for 256 x, 16 symbols and ten classes, on one core.

    Samples:
        Very many: with two x and two classes, a million leave 0.06 and 0.11 bits.

    Trap:
        X is finite: where every sample is an x of its own, the norms grow as fast as √m and the bound says nothing.

    Args:
        p_t_given_x: the encoder, shape ``(X, T)``, rows summing to 1.
        p_xy: p(x, y) as counted, shape ``(X, Y)``, summing to 1.
        n_samples: m.
        delta: δ, the probability that the bound fails.
        unit: ``"bits"`` or ``"nats"``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is no distribution, they are of different X, or a number is out of its range.

    Example:
        >>> p_xy = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
        >>> found = finite_sample_bound(torch.eye(2, dtype=torch.float64), p_xy, 1_000_000)
        >>> round(found.i_xt, 4), round(found.i_ty, 4)
        (0.0572, 0.1144)
    """
    checked_unit(unit)
    m = checked_integer(n_samples, "n_samples", at_least=1)
    checked_number(delta, "delta", above=0, at_most=1)
    joint = checked_joint(p_xy)
    encoder = checked_encoder(p_t_given_x, len(joint.merged)).to(joint.p_x.device)
    rows = joint.rows[joint.merged]
    p_t_given_y = (joint.p_original[:, None] * rows / joint.p_y).mT @ encoder
    found = deviations(
        encoder.square().sum(0), encoder.sum(0), entropies(encoder), entropies(p_t_given_y), m, delta=delta
    )
    of_t = math.log(int((encoder.sum(0) > 0).sum()))
    most_of_x = min(of_t, float(entropies(joint.p_original)))
    most_of_y = min(most_of_x, float(entropies(joint.p_y)))
    vacuous = found[0] >= most_of_x, found[1] >= most_of_y
    return FiniteSampleBound(in_unit(found[0], unit), in_unit(found[1], unit), *vacuous)


def deviations(
    squares: Tensor, sums: Tensor, h_t_given_x: Tensor, h_t_given_y: Tensor, n_samples: int, *, delta: float
) -> tuple[float, float]:
    """The two sides of :func:`finite_sample_bound`, in nats.

    Args:
        squares: the sum of p(t|x)² over x, float64 ``(T,)``.
        sums: the sum of p(t|x) over x, float64 ``(T,)``.
        h_t_given_x: H(T|x) in nats, float64 ``(X,)``.
        h_t_given_y: H(T|y) in nats, float64 ``(Y,)``.
        n_samples: m.
        delta: δ.
    """
    scale = (2 + math.sqrt(2 * math.log((len(h_t_given_y) + 2) / delta))) / math.sqrt(n_samples)
    norms = (squares - sums.square() / len(h_t_given_x)).clamp_min(0).sqrt()
    z = (scale * norms).clamp_max(1 / math.e)
    of_t = float(-torch.special.xlogy(z, z).sum())
    of_x, of_y = (float((h - h.mean()).norm()) for h in (h_t_given_x, h_t_given_y))
    return of_t + scale * of_x, 2 * of_t + scale * of_y


def input_compression_bound(i_xt: Any, n_samples: int, *, delta: float = 0.05, unit: Unit = "bits") -> Tensor:
    r"""The generalization error that compression would allow, a heuristic.

    .. math:: \epsilon = \sqrt{\frac{2^{I(X;T)} + \ln(2/\delta)}{2 m}}

    with I(X;T) in bits. It counts the typical cells that T cuts X into and takes the hypotheses to be all labelings of
    those.

    Source:
        Shwartz-Ziv, Painsky & Tishby (2018).

    Cost:
        None: one formula.

    Samples:
        More than :math:`2^{I(X;T)} / 2`, or ε is above 1 and says nothing about an error rate.

    Trap:
        An argument about typical partitions and no theorem for a given network. I(X;T) depends on the bins, and so does
        ε.

    Args:
        i_xt: I(X;T), a number or a tensor of any shape.
        n_samples: m, the number of training samples.
        delta: δ, the probability that the bound fails.
        unit: of ``i_xt``, ``"bits"`` or ``"nats"``.

    Returns:
        ε, float64 of the shape of ``i_xt``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        >>> input_compression_bound(8.0, 10_000)
        tensor(0.1139, dtype=torch.float64)
    """
    m = checked_integer(n_samples, "n_samples", at_least=1)
    checked_number(delta, "delta", above=0, at_most=1)
    r = checked_informations(i_xt, i_xt.device if isinstance(i_xt, Tensor) else torch.device("cpu"))
    bits = r if checked_unit(unit) == "bits" else r / math.log(2)
    return ((bits.exp2() + math.log(2 / delta)) / (2 * m)).sqrt()
