r"""The bottleneck of jointly Gaussian X and Y in closed form, and its dual (Chechik, Globerson, Tishby & Weiss 2005).

The optimal representation is :math:`T = A X + \xi` with :math:`\xi \sim \mathcal N(0, I)`. The rows of A are along the
generalized eigenvectors :math:`\Sigma_{x|y} v_i = \lambda_i \Sigma_x v_i`, each active above its critical
:math:`\beta_i = 1 / (1 - \lambda_i)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_ib.bottleneck.curve import checked_informations, scaled
from lightning_ib.bottleneck.information_bottleneck import checked_betas, default_betas
from lightning_ib.functional.checks import Unit, checked_choice, checked_unit, checked_values, in_unit, plain_tensor

_ROUNDING = 1e-12


@dataclass(frozen=True)
class GaussianCurve:
    r"""The curve of jointly Gaussian X and Y. Informations and objective are in ``unit``.

    Attributes:
        beta: float64, shape ``(B,)``.
        i_xt: I(X;T).
        i_ty: I(T;Y).
        objective: F(β) = min I(X;T) + β E d.
        gap: zeros, as in the certificates of other curves: this one is in closed form.
        n_components: how many components are active, int64.
        i_ty_decoder: for the dual, I(T;Ŷ) with its decoder; None otherwise.
        critical_betas: the β above which each component is active, in ascending order, shape ``(D,)``; infinite for
            directions of X that are independent of Y.
        eigenvalues: λ in ascending order, shape ``(D,)``: the part of each direction's variance that Y leaves open.
        projection: A, shape ``(B, D, D)``; the row of an inactive component is zero.
        kind: ``"ib"`` or ``"dual"``.
        unit: ``"bits"`` or ``"nats"``.
        i_xy: I(X;Y).
    """

    beta: Tensor
    i_xt: Tensor
    i_ty: Tensor
    objective: Tensor
    gap: Tensor
    n_components: Tensor
    i_ty_decoder: Tensor | None
    critical_betas: Tensor
    eigenvalues: Tensor
    projection: Tensor = field(repr=False)
    kind: str
    unit: str
    i_xy: float

    def __len__(self) -> int:
        """The number of β."""
        return len(self.beta)

    def bound(self, i_xt: Any) -> Tensor:
        r"""The largest I(T;Y) at this I(X;T), exactly, for the bottleneck and for its dual, which has the same curve.

        With n active components,

        .. math:: I^*(r) = r - \frac n2 \ln \Big[ \prod_i (1 - \lambda_i)^{1/n}
                           + e^{2r/n} \prod_i \lambda_i^{1/n} \Big]

        Args:
            i_xt: I(X;T) in the unit of the curve, a number or a tensor of any shape.

        Returns:
            float64, of the shape of ``i_xt``.

        Raises:
            ValueError: an information is negative or NaN.
        """
        r = checked_informations(i_xt, self.beta.device)
        r = r / in_unit(1.0, self.unit)
        lam = self.eigenvalues[self.eigenvalues < 1]
        best = torch.zeros_like(r)
        for n in range(1, len(lam) + 1):
            kept, lost = (1 - lam[:n]).log().mean(), lam[:n].log().mean()
            # n components are all of those that are active at this r; fewer or more give less.
            needed = 0.5 * (n * ((1 - lam[n - 1]) / lam[n - 1]).log().neg() + (kept - lost) * n)
            value = r - 0.5 * n * torch.logaddexp(kept, 2 * r / n + lost)
            best = torch.where(r >= needed - _ROUNDING, value, best)
        return scaled(best.clamp_min(0), self.unit)

    def plot(self, ax: Any = None) -> Any:
        """Draw I(T;Y) over I(X;T): the bound as a line, and the points of the grid.

        Args:
            ax: matplotlib's axes; by default those of a new figure.

        Returns:
            The axes.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(layout="constrained").add_subplot()
        r = torch.linspace(0, max(float(self.i_xt.max()), 1e-9), 201, dtype=torch.float64, device=self.beta.device)
        line = ax.plot(r.cpu(), self.bound(r).cpu(), label="Gaussian information bottleneck")[0]
        ax.plot(self.i_xt.cpu(), self.i_ty.cpu(), ".", color=line.get_color())
        ax.set_xlabel(f"I(X;T) [{self.unit}]")
        ax.set_ylabel(f"I(T;Y) [{self.unit}]")
        ax.legend(loc="lower right")
        return ax


def gaussian_ib(
    cov_x: Tensor,
    cov_xy: Tensor,
    cov_y: Tensor,
    betas: Any = None,
    *,
    kind: Literal["ib", "dual"] = "ib",
    unit: Unit = "bits",
) -> GaussianCurve:
    r"""The bottleneck of jointly Gaussian X and Y, or its dual.

    .. math:: I(X;T) = \tfrac12 \sum_{\beta > \beta_i} \ln \frac{(\beta - 1)(1 - \lambda_i)}{\lambda_i}, \qquad
              I(T;Y) = I(X;T) - \tfrac12 \sum_{\beta > \beta_i} \ln \beta (1 - \lambda_i)

    The dual has the mean :math:`W\, \mathbb{E}[x|t]` and the covariance :math:`\Sigma_{y|x}` as its decoder. It fills
    components with :math:`\nu_i = (1 - \lambda_i) / \lambda_i` in reverse, so that its encoder at β is the bottleneck's
    at β + 1 and its critical β are lower by 1.

    Args:
        cov_x: the covariance of X, shape ``(D, D)``.
        cov_xy: the covariance of X with Y, shape ``(D, E)``.
        cov_y: the covariance of Y, shape ``(E, E)``.
        betas: positive numbers; by default 64 from the first critical β to a hundred times it.
        kind: ``"ib"`` or ``"dual"``.
        unit: ``"bits"`` or ``"nats"``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a covariance has another shape, is not symmetric or is singular, alone or jointly; a β is not
            positive; or X and Y are independent and no β was given.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> curve = gaussian_ib(one, 0.8 * one, one, [2.0, 5.0])
        >>> curve.critical_betas
        tensor([1.5625], dtype=torch.float64)
        >>> curve.i_ty
        tensor([0.2370, 0.5760], dtype=torch.float64)
    """
    checked_choice(kind, "kind", ("ib", "dual"))
    checked_unit(unit)
    lam, vectors = _spectrum(*_checked_covariances(cov_x, cov_xy, cov_y))
    shift = 1.0 if kind == "dual" else 0.0
    first = float(1 / (1 - lam[0])) - shift
    beta = default_betas(first, lam.device) if betas is None else checked_betas(betas, lam.device)
    return _curve(lam, vectors, beta, shift, unit)


def _curve(lam: Tensor, vectors: Tensor, beta: Tensor, shift: float, unit: str) -> GaussianCurve:
    """The curve from the spectrum; ``shift`` is what the encoder's β exceeds the curve's by: 1 for the dual."""
    beta_c = 1 / (1 - lam)  # infinite at λ = 1
    encoder_beta = (beta + shift)[:, None]
    active = encoder_beta > beta_c
    nu = (1 - lam) / lam
    ones = torch.ones_like(nu)
    i_xt = 0.5 * torch.where(active, (encoder_beta - 1) * nu, ones).log().sum(1)
    lost = 0.5 * torch.where(active, encoder_beta * (1 - lam), ones).log().sum(1)
    i_ty = (i_xt - lost).clamp_min(0)
    i_xy = float(-0.5 * lam.log().sum())
    decoder = None
    if shift:
        distortion = 0.5 * torch.minimum(nu.expand_as(active), 1 / beta[:, None]).sum(1)
        decoder = scaled(0.5 * torch.where(active, 1 + nu - 1 / beta[:, None], ones).log().sum(1), unit)
    else:
        distortion = i_xy - i_ty
    alpha = torch.where(active, (encoder_beta * (1 - lam) - 1) / lam, torch.zeros_like(nu)).clamp_min(0).sqrt()
    return GaussianCurve(
        beta=beta,
        i_xt=scaled(i_xt, unit),
        i_ty=scaled(i_ty, unit),
        objective=scaled(i_xt + beta * distortion, unit),
        gap=torch.zeros_like(beta),
        n_components=active.sum(1),
        i_ty_decoder=decoder,
        critical_betas=beta_c - shift,
        eigenvalues=lam,
        projection=alpha[:, :, None] * vectors.mT,
        kind="dual" if shift else "ib",
        unit=unit,
        i_xy=in_unit(i_xy, unit),
    )


def _checked_covariances(cov_x: Any, cov_xy: Any, cov_y: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, xy, y = (
        plain_tensor(checked_values(value, name, shape).detach()).double()
        for value, name, shape in ((cov_x, "cov_x", "(D, D)"), (cov_xy, "cov_xy", "(D, E)"), (cov_y, "cov_y", "(E, E)"))
    )
    for value, name in ((x, "cov_x"), (xy, "cov_xy"), (y, "cov_y")):
        if value.ndim != 2 or value.numel() == 0:
            raise ValueError(f"{name} must be a matrix, got shape {tuple(value.shape)}.")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} has NaN or infinite entries: estimate it from finite samples.")
    if x.shape[0] != x.shape[1] or y.shape[0] != y.shape[1] or xy.shape != (len(x), len(y)):
        raise ValueError(
            "cov_x, cov_xy and cov_y must have shapes (D, D), (D, E) and (E, E), got "
            f"{tuple(x.shape)}, {tuple(xy.shape)} and {tuple(y.shape)}."
        )
    for value, name in ((x, "cov_x"), (y, "cov_y")):
        if float((value - value.mT).abs().max()) > 1e-8 * float(value.abs().max()):
            raise ValueError(f"{name} must be symmetric: give ({name} + {name}.T) / 2.")
        values = torch.linalg.eigvalsh((value + value.mT) / 2)
        if float(values[0]) <= _ROUNDING * float(values[-1].abs()):
            raise ValueError(
                f"{name} must be positive definite, its eigenvalues are from {float(values[0]):.3g} to "
                f"{float(values[-1]):.3g}: leave out coordinates that depend on others, or add a variance of noise."
            )
    return (x + x.mT) / 2, xy, (y + y.mT) / 2


def _spectrum(x: Tensor, xy: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """λ in ascending order, and v with v'Σ_x v = 1 as columns: from the singular values of the whitened covariance."""
    factor_x, factor_y = torch.linalg.cholesky(x), torch.linalg.cholesky(y)
    half = torch.linalg.solve_triangular(factor_x, xy, upper=False)
    white = torch.linalg.solve_triangular(factor_y, half.mT, upper=False).mT
    left, rho, _ = torch.linalg.svd(white, full_matrices=True)
    lam = torch.ones(len(x), dtype=x.dtype, device=x.device)
    lam[: len(rho)] = 1 - rho.square()
    largest = float(rho.max())
    if largest > 1 + 1e-9:
        raise ValueError(
            f"cov_x, cov_xy and cov_y belong to no joint distribution: a canonical correlation is {largest:.6g}, "
            "above 1. Estimate all three from the same samples."
        )
    if float(lam.min()) <= _ROUNDING:
        raise ValueError(
            f"X and Y determine each other: a canonical correlation is {largest:.6g}, so I(X;Y) is infinite. "
            "Check that the joint covariance is positive definite, or add a variance of noise to cov_y."
        )
    # A direction without Y has λ = 1 up to rounding, and no critical β.
    lam = torch.where(lam > 1 - _ROUNDING, torch.ones_like(lam), lam)
    return lam, torch.linalg.solve_triangular(factor_x.mT, left, upper=True)
