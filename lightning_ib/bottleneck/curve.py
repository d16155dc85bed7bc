r"""The curve of a bottleneck: its values at a grid of β, the bound that they prove, and its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_ib.functional.checks import in_unit

_ROUNDING = 1e-9
_VISIBLE = 1e-3
_INFINITE = 1e3


@dataclass(frozen=True)
class BottleneckCurve:
    r"""Optimal encoders at a grid of β. Informations, entropies, objective and gap are in ``unit``, β has none.

    Attributes:
        beta: float64, shape ``(B,)``, in the order given.
        i_xt: I(X;T).
        i_ty: I(T;Y), with p(y|t) by Bayes' rule from the Markov chain T – X – Y.
        h_t: H(T).
        objective: F(β) = min I(X;T) + β E d, or H(T) + β E d for the deterministic bottleneck. For these two kinds
            β E d = β (I(X;Y) − I(T;Y)); for the dual E d is the mean of D[p(y|t)‖p(y|x)].
        n_clusters: int64, clusters with different p(y|t).
        gap: the certificate: the objective exceeds the global optimum by at most this much.
        i_ty_decoder: for the dual, I(T;Ŷ) with p(ŷ|t) from its geometric decoder; None otherwise.
        kind: ``"ib"``, ``"dual"`` or ``"deterministic"``.
        unit: ``"bits"`` or ``"nats"``.
        i_xy: I(X;Y).
        onset: the β where the curve leaves the origin; infinite where X and Y are independent, NaN for the
            deterministic bottleneck.
        p_t: cluster weights, shape ``(B, T)``, padded with 0.
        p_y_given_t: the decoder p(y|t) (the geometric one for the dual), shape ``(B, T, Y)``.
        p_x: p(x), shape ``(X,)``.
        p_y_given_x: p(y|x), shape ``(X, Y)``.
    """

    beta: Tensor
    i_xt: Tensor
    i_ty: Tensor
    h_t: Tensor
    objective: Tensor
    n_clusters: Tensor
    gap: Tensor
    i_ty_decoder: Tensor | None
    kind: str
    unit: str
    i_xy: float
    onset: float
    p_t: Tensor = field(repr=False)
    p_y_given_t: Tensor = field(repr=False)
    p_x: Tensor = field(repr=False)
    p_y_given_x: Tensor = field(repr=False)

    def __len__(self) -> int:
        """The number of β."""
        return len(self.beta)

    def bound(self, i_xt: Any) -> Tensor:
        r"""The largest I(T;Y) that any representation T with this I(X;T) can have.

        .. math:: I^*(r) = \inf_\beta \; I(X;Y) - \frac{F(\beta) - r}{\beta}

        Each β proves a straight line above the curve, since :math:`F(\beta) \le I(X;T) + \beta (I(X;Y) - I(T;Y))` for
        every encoder. The bound is the lowest of these lines, so it holds for every grid of β, includes straight
        segments, and becomes tighter as the grid becomes finer. The gap of each β is allowed for.

        For the deterministic bottleneck it holds for encoders that are functions of x, with I(X;T) = H(T).

        Args:
            i_xt: I(X;T) in the unit of the curve, a number or a tensor of any shape.

        Returns:
            float64, of the shape of ``i_xt``.

        Raises:
            ValueError: an information is negative or NaN, or the curve is one of the dual.

        Example:
            >>> from lightning_ib.bottleneck import ib_curve
            >>> curve = ib_curve(torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64))
            >>> curve.bound(1.0)
            tensor(0.5310, dtype=torch.float64)
        """
        if self.kind == "dual":
            raise ValueError(
                "A curve of the dual bounds no I(T;Y), as its distortion is another one: use the curve of "
                "ib_curve(p_xy, kind='ib')."
            )
        r = checked_informations(i_xt, self.beta.device)
        intercept = self.i_xy - (self.objective - self.gap) / self.beta
        lines = intercept + r[..., None] / self.beta
        best = torch.minimum(r, lines.amin(-1)) if len(self.beta) else r
        if self.kind == "ib":
            best = torch.minimum(best, r / self.onset)
        return best.clamp(min(0.0, self.i_xy), self.i_xy)

    def encoder(self, index: int) -> Tensor:
        """The encoder p(t|x) at one β, shape ``(X, T)``: the clusters of weight 0 are left out.

        Args:
            index: the position in ``beta``.
        """
        from lightning_ib.bottleneck.encoders import encoder_of

        live = self.p_t[index] > 0
        return encoder_of(
            self.kind, float(self.beta[index]), self.p_t[index][live], self.p_y_given_t[index][live], self.p_y_given_x
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw I(T;Y) over I(X;T): the bound as a line, and the points of the grid.

        Args:
            ax: matplotlib's axes; by default those of a new figure.

        Returns:
            The axes.
        """
        ax = _axes(ax)
        i_xt, order = self.i_xt.cpu().sort()
        if self.kind == "dual":
            line = ax.plot(i_xt, self.i_ty.cpu()[order], ".-", label="dual IB")[0]
            assert self.i_ty_decoder is not None
            ax.plot(i_xt, self.i_ty_decoder.cpu()[order], ":", color=line.get_color(), label="dual IB, its decoder")
        else:
            name = "information bottleneck" if self.kind == "ib" else "deterministic bottleneck"
            r = torch.linspace(0, max(float(i_xt.max()), 1e-9), 201, dtype=torch.float64)
            line = ax.plot(r, self.bound(r.to(self.beta.device)).cpu(), label=name)[0]
            ax.plot(i_xt, self.i_ty.cpu()[order], ".", color=line.get_color())
        ax.set_xlabel(f"I(X;T) [{self.unit}]")
        ax.set_ylabel(f"I(T;Y) [{self.unit}]")
        ax.legend(loc="lower right")
        return ax

    def plot_bifurcations(self, ax: Any = None, *, label: int = 0) -> Any:
        """Draw the bifurcation diagram: p(y|t) of every cluster over β, each as large as its weight.

        Args:
            ax: matplotlib's axes; by default those of a new figure.
            label: the y whose probability is drawn.

        Returns:
            The axes.
        """
        from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

        ax = _axes(ax)
        weights = self.p_t.cpu()
        shown = weights > _VISIBLE
        beta = self.beta.cpu()[:, None].expand_as(weights)[shown]
        ax.scatter(beta, self.p_y_given_t[..., label].cpu()[shown], s=2 + 28 * weights[shown], linewidths=0)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("β")
        ax.set_ylabel(f"p(y = {label} | t)")
        return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(layout="constrained").add_subplot()


def checked_informations(i_xt: Any, device: torch.device) -> Tensor:
    """Informations as float64; what rounding puts below 0 is 0, and infinity a large number.

    Raises:
        TypeError: they are of another kind.
        ValueError: one is negative or NaN.
    """
    try:
        r = torch.as_tensor(i_xt, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"i_xt must be informations, a number or a tensor, got {i_xt!r}.") from error
    if not bool((r >= -_ROUNDING).all()):
        raise ValueError(f"i_xt must be informations of at least 0, got {float(r.min()):.4g}.")
    return r.clamp(0, _INFINITE)


def scaled(nats: Tensor, unit: str) -> Tensor:
    """A tensor of nats in the unit."""
    return nats * in_unit(1.0, unit)
