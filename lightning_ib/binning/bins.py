"""Bins: the edges at which a coordinate is cut, fixed or fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ib.functional import quantiles
from lightning_ib.functional.checks import checked_choice, checked_integer, checked_number

Per = Literal["feature", "layer"]


class Bins(ABC):
    """Where the edges between the bins of a variable lie.

    To make your own, override :meth:`edges`. Edges are fitted at the first measurement and frozen, so that later
    measurements compare like with like; with ``refit=True`` they are fitted anew at every measurement, which holds the
    pooled activations of the whole measurement in memory (4 bytes a sample and coordinate).

    Args:
        refit: fit at every measurement.
    """

    refit: bool = False
    needs_data: bool = True
    """Whether the edges depend on the data. Bins with known edges hold no activations."""

    def __init__(self, *, refit: bool = False) -> None:
        self.refit = refit

    @property
    def nominal_tail_mass(self) -> float:
        """The share of values that lie outside the bins by design (see ``InformationPoint.clipped_fraction``)."""
        return 0.0

    @abstractmethod
    def edges(self, z: Tensor) -> Tensor:
        """The edges for a variable seen as ``z``.

        Args:
            z: the pooled values of all samples, floating point, shape ``(N, D)``.

        Returns:
            Ascending edges, shape ``(E,)`` for all coordinates or ``(D, E)``, one row each. The code of a value is the
            number of edges at or below it.
        """

    def __repr__(self) -> str:
        hidden = {"needs_data": self.needs_data, "per": "feature"}
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_") and v is not None and v is not False}
        options = {k: v for k, v in shown.items() if k not in hidden or v != hidden[k]}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


class FixedBins(Bins):
    """Edges that are known beforehand.

    Args:
        edges: ascending numbers: E for all coordinates, or D rows of E.

    Raises:
        ValueError: there are no edges, one is NaN or infinite, or they descend.

    Example:
        >>> FixedBins([0.0, 0.5]).edges(torch.rand(8, 3))
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """

    needs_data = False

    def __init__(self, edges: Sequence[float] | Sequence[Sequence[float]] | Tensor) -> None:
        super().__init__()
        self._edges = checked_edges(edges, "FixedBins")

    def edges(self, z: Tensor) -> Tensor:
        """The given edges, float64, on the device of ``z``."""
        return self._edges.to(z.device)

    def __repr__(self) -> str:
        return f"FixedBins({self._edges.tolist()})"


class UniformBins(Bins):
    """Bins of equal width. The outermost two are open: values outside the range fall into them.

    The range goes from ``low`` to ``high`` where they are given, else between two ``quantiles``, else from the minimum
    to the maximum seen. A constant coordinate gets the widest range of the others, centered on its value.

    Args:
        n_bins: the number of bins, at least 2.
        low: the lower end of the range.
        high: the upper end of the range.
        quantiles: two probabilities, ascending, such as ``(0.01, 0.99)``: the range lies between these quantiles.
        per: ``"feature"`` gives each coordinate a range of its own, ``"layer"`` one range to all.
        refit: fit at every measurement.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: there are fewer than two bins, ``low`` is above ``high``, or the probabilities are out of range.

    Example:
        >>> UniformBins(4, low=0, high=1).edges(torch.rand(8, 3))
        tensor([0.2500, 0.5000, 0.7500], dtype=torch.float64)
    """

    def __init__(
        self,
        n_bins: int,
        *,
        low: float | None = None,
        high: float | None = None,
        quantiles: tuple[float, float] | None = None,
        per: Per = "feature",
        refit: bool = False,
    ) -> None:
        super().__init__(refit=refit)
        self.n_bins = _at_least_two(n_bins, type(self).__name__)
        for name, value in (("low", low), ("high", high)):
            if value is not None:
                checked_number(value, f"UniformBins: {name}")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"UniformBins: low must lie below high, got low={low} and high={high}.")
        if quantiles is not None and not (len(quantiles) == 2 and 0 <= quantiles[0] < quantiles[1] <= 1):
            raise ValueError(
                f"UniformBins: quantiles must be two ascending probabilities such as (0.01, 0.99), got {quantiles}."
            )
        self.low, self.high, self.quantiles = low, high, quantiles
        self.per = checked_choice(per, "UniformBins: per", get_args(Per))
        self._known = None if low is None or high is None else torch.tensor([[low, high]], dtype=torch.float64)
        self.needs_data = self._known is None

    @property
    def nominal_tail_mass(self) -> float:
        """The share below the lower quantile or above the upper one."""
        return 0.0 if self.quantiles is None else 1.0 - (self.quantiles[1] - self.quantiles[0])

    def edges(self, z: Tensor) -> Tensor:
        """``n_bins − 1`` edges of equal distance, float64: ``(E,)`` for one range, ``(D, E)`` for one a coordinate."""
        if self._known is not None:
            return self._spread(self._known.to(z.device))[0]
        columns = z.reshape(-1, 1) if self.per == "layer" else z
        if self.quantiles is not None:
            ranges = quantiles(columns, q=self.quantiles)
        else:
            ranges = torch.stack([columns.amin(0), columns.amax(0)], dim=1).double()
        if self.low is not None:
            ranges[:, 0] = self.low
        if self.high is not None:
            ranges[:, 1] = self.high
        edges = self._spread(ranges)
        return edges[0] if self.per == "layer" else edges

    def _spread(self, ranges: Tensor) -> Tensor:
        low, width = ranges[:, :1], ranges[:, 1:] - ranges[:, :1]
        widest = torch.where(width.amax() > 0, width.amax(), 1.0)
        constant = width <= 0
        low = torch.where(constant, low - widest / 2, low)
        steps = torch.arange(1, self.n_bins, device=ranges.device, dtype=torch.float64) / self.n_bins
        return low + torch.where(constant, widest, width) * steps


class QuantileBins(Bins):
    """Bins of equal mass: every bin of a coordinate holds the same share of the samples the edges were fitted on.

    Args:
        n_bins: the number of bins, at least 2.
        refit: fit at every measurement.

    Raises:
        TypeError: ``n_bins`` is of another kind than an integer.
        ValueError: it is below 2.

    Example:
        >>> QuantileBins(2).edges(torch.tensor([[0.0], [1.0], [5.0]]))
        tensor([[1.]], dtype=torch.float64)
    """

    def __init__(self, n_bins: int, *, refit: bool = False) -> None:
        super().__init__(refit=refit)
        self.n_bins = _at_least_two(n_bins, type(self).__name__)

    @property
    def nominal_tail_mass(self) -> float:
        """The share of the outermost two bins: as wide as it takes for their share of the samples."""
        return 2.0 / self.n_bins

    def edges(self, z: Tensor) -> Tensor:
        """The ``n_bins − 1`` quantiles between the bins, float64, shape ``(D, n_bins − 1)``."""
        return quantiles(z, q=[k / self.n_bins for k in range(1, self.n_bins)])


def checked_edges(edges: Any, owner: str, n_coordinates: int | None = None) -> Tensor:
    """Edges as a float64 tensor that are finite, ascending and of a shape that fits.

    Args:
        edges: numbers, shape ``(E,)`` or ``(D, E)``.
        owner: how a message begins.
        n_coordinates: D, where it is known.

    Raises:
        ValueError: they are otherwise; the sentence begins with ``owner``.
    """
    # A copy, and in double precision: 0.1 as a number differs from the float32 next to it.
    edges = edges.detach().clone() if isinstance(edges, Tensor) else torch.tensor(edges, dtype=torch.float64)
    edges = edges.double()
    fits = edges.ndim == 1 or (edges.ndim == 2 and n_coordinates in (None, edges.shape[0]))
    if not fits or edges.numel() == 0:
        raise ValueError(
            f"{owner}: edges must have shape (E,) or (D, E) with at least one edge"
            f"{'' if n_coordinates is None else f', here D = {n_coordinates}'}, got {tuple(edges.shape)}."
        )
    if not edges.isfinite().all():
        raise ValueError(f"{owner}: edges must be finite numbers, got {_shown(edges, ~edges.isfinite())}.")
    descends = edges.diff(dim=-1) < 0
    if descends.any():
        raise ValueError(f"{owner}: edges must ascend, got {_shown(edges, F.pad(descends, (0, 1)))}. Sort them.")
    checked: Tensor = edges
    return checked


def _shown(edges: Tensor, where: Tensor) -> list[float]:
    """The first row of edges that is at fault, the whole of it if it is short."""
    rows, faulty = edges.reshape(-1, edges.shape[-1]), where.reshape(-1, edges.shape[-1])
    row = int(faulty.any(1).nonzero()[0])
    start = max(0, int(faulty[row].nonzero()[0]) - 2)
    return [round(value, 6) for value in rows[row, start : start + 6].tolist()]


def _at_least_two(n_bins: int, owner: str) -> int:
    return checked_integer(n_bins, f"{owner}: n_bins", at_least=2, advice="a single bin cannot tell samples apart")
