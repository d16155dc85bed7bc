"""The curve of the bottleneck, its dual or the deterministic bottleneck, for a joint distribution.

Each is solved for the minimal sufficient statistic: rows with equal p(y|x) are merged first.

For the bottleneck and its dual, the certificate comes from convex duality and needs the highest maximum of a function
on the simplex of Y. For two labels the search for it is exhaustive. For more it starts from every p(y|x) (1024 of
them where there are more), their mixtures and, up to five labels, a grid. The deterministic bottleneck is solved
exactly up to fourteen different p(y|x), with gap 0; above, the gap is the distance from the bottleneck with soft
clusters, an upper bound that can be large.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_ib.bottleneck.critical import critical
from lightning_ib.bottleneck.curve import BottleneckCurve, scaled
from lightning_ib.bottleneck.deterministic import deterministic_curve
from lightning_ib.bottleneck.distortion import Distortion, distortion
from lightning_ib.bottleneck.encoders import informations
from lightning_ib.bottleneck.joint import Joint, check_memory, checked_joint
from lightning_ib.bottleneck.newton import encode
from lightning_ib.bottleneck.solver import solve
from lightning_ib.functional.checks import Unit, checked_choice, checked_unit, in_unit

Kind = Literal["ib", "dual", "deterministic"]

_DEFAULT_BETAS = 64


def ib_curve(
    p_xy: Tensor,
    betas: Any = None,
    *,
    kind: Kind = "ib",
    unit: Unit = "bits",
    smoothing: float | None = None,
) -> BottleneckCurve:
    r"""The globally optimal trade-off between I(X;T) and I(T;Y), with a certificate at every β.

    .. math:: F(\beta) = \min_{p(t|x)} I(X;T) + \beta\, \mathbb{E}\, d

    with :math:`d = D[p(y|x) \| p(y|t)]` for the information bottleneck (Tishby, Pereira & Bialek 1999), where this is
    the minimum of :math:`I(X;T) - \beta I(T;Y)` up to the constant β I(X;Y), and :math:`d = D[p(y|t) \| p(y|x)]` for
    the dual (Piran, Shwartz-Ziv & Tishby 2020). The deterministic bottleneck (Strouse & Schwab 2017) has H(T) in place
    of I(X;T).

    ``gap`` bounds the distance of ``objective`` from the global optimum.

    Args:
        p_xy: p(x, y), shape ``(X, Y)``, summing to 1, on any device. The work is done in float64.
        betas: positive numbers; by default 64 from the onset to a hundred times the onset.
        kind: ``"ib"``, ``"dual"`` or ``"deterministic"``.
        unit: of informations, entropies, objective and gap: ``"bits"`` or ``"nats"``. β has no unit.
        smoothing: the part of each p(y|x) that is replaced by the uniform distribution; by default none is. The dual
            needs it where labels are hard.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: ``p_xy`` is no joint distribution, has zeros in the dual, or needs too much memory; a β is not
            positive; or X and Y are independent and no β was given.

    Example:
        >>> curve = ib_curve(torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64), [1.5, 2.0, 5.0])
        >>> curve.i_xt
        tensor([0.0000, 0.6964, 0.9978], dtype=torch.float64)
        >>> curve.i_ty
        tensor([0.0000, 0.4072, 0.5306], dtype=torch.float64)
        >>> bool((curve.gap < 1e-8).all())
        True
    """
    checked_choice(kind, "kind", ("ib", "dual", "deterministic"))
    checked_unit(unit)
    joint = checked_joint(p_xy, smoothing)
    beta = None if betas is None else checked_betas(betas, joint.p_x.device)
    check_memory(joint, "ib_curve")
    problem = distortion(joint, dual=kind == "dual")
    (onset, _), seeds = critical(problem)
    beta = default_betas(onset, joint.p_x.device) if beta is None else beta
    if kind == "deterministic":
        return deterministic_curve(joint, beta, unit, lambda: _solved(problem, beta, onset, seeds, "ib", unit))
    return _solved(problem, beta, onset, seeds, kind, unit)


def default_betas(onset: float, device: torch.device) -> Tensor:
    """Betas from just above the onset to a hundred times it, closer together near the onset.

    Raises:
        ValueError: the onset is infinite.
    """
    if math.isinf(onset):
        raise ValueError(
            "X and Y are independent, so the curve is the point (0, 0) at every β: give betas, or a joint "
            "distribution that is no product of its marginals."
        )
    return onset * (1 + torch.logspace(-3, 2, _DEFAULT_BETAS, dtype=torch.float64, device=device))


def checked_betas(betas: Any, device: torch.device) -> Tensor:
    """Positive finite numbers as a float64 tensor of one dimension.

    Raises:
        TypeError: they are of another kind.
        ValueError: one is not positive and finite, or there are none.
    """
    try:
        beta = torch.as_tensor(betas, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"betas must be positive numbers, got {betas!r}: give a list of floats.") from error
    beta = beta.detach().reshape(1) if beta.ndim == 0 else beta.detach()
    if beta.ndim != 1 or len(beta) == 0:
        raise ValueError(f"betas must have shape (B,) with B at least 1, got {tuple(beta.shape)}.")
    wrong = ~((beta > 0) & beta.isfinite())
    if bool(wrong.any()):
        raise ValueError(f"betas must be positive finite numbers, got {float(beta[wrong][0]):g}: give β > 0.")
    return beta


def _solved(problem: Distortion, beta: Tensor, onset: float, seeds: Tensor, kind: str, unit: str) -> BottleneckCurve:
    joint = problem.joint
    solution = solve(problem, beta, onset, seeds)
    values, implied = informations(problem, beta, solution.clusters)
    f = values.i_xt + beta * values.distortion
    lower = encode(problem, beta, solution.clusters).objective - solution.gap
    return BottleneckCurve(
        beta=beta,
        i_xt=scaled(values.i_xt, unit),
        i_ty=scaled(values.i_ty, unit),
        h_t=scaled(values.h_t, unit),
        objective=scaled(f, unit),
        n_clusters=(implied.weights > 0).sum(1),
        gap=scaled((f - lower).clamp_min(0), unit),
        i_ty_decoder=scaled(values.i_ty_decoder, unit) if kind == "dual" else None,
        kind=kind,
        unit=unit,
        i_xy=in_unit(joint.information, unit),
        onset=onset,
        p_t=implied.weights,
        p_y_given_t=implied.s,
        **originals(joint),
    )


def originals(joint: Joint) -> dict[str, Tensor]:
    """p(x) and p(y|x) before merging."""
    return {"p_x": joint.p_original, "p_y_given_x": joint.rows[joint.merged]}
