"""Narrowing: pool a wide, real representation, put each coordinate into bins, and give every sample one symbol."""

from __future__ import annotations

import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ib.functional import codes, entropy, hash_table, quantiles, rounded_up, row_ids
from lightning_ib.recorder import Select, first_tensor, selected

# How many values that were held are put into bins at once.
_BLOCK = 4_000_000

Pool = Callable[[Tensor], Tensor]


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
    """Whether the edges depend on what was seen. Where they do not, nothing is held, not even at the first fit."""

    def __init__(self, *, refit: bool = False) -> None:
        self.refit = refit

    @property
    def tails(self) -> float:
        """The share of values that lie outside the bins by design (see ``InformationPoint.outside``)."""
        return 0.0

    @abstractmethod
    def edges(self, z: Tensor) -> Tensor:
        """The edges for a variable seen as ``z``.

        Args:
            z: the pooled values of all samples, floating point, shape ``(N, D)``.

        Returns:
            Ascending edges, shape ``(E,)`` for all coordinates or ``(D, E)``, one row each. The code of a value is the
            number of edges that are not above it.
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
        ValueError: there is no edge, one is not finite, or they descend.

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
    """Bins of equal width. The outermost two are open: what lies outside the range falls into them.

    The range goes from ``low`` to ``high`` where they are given, else between two ``quantiles``, else from the minimum
    to the maximum seen. A coordinate that never varied gets the widest range of the others, centred on its value.

    Args:
        n_bins: how many bins, at least 2.
        low: the lower end of the range.
        high: the upper end of the range.
        quantiles: two probabilities, ascending, such as ``(0.01, 0.99)``: the range lies between these quantiles.
        per: ``"feature"`` gives each coordinate a range of its own, ``"layer"`` one range to all.
        refit: fit at every measurement.

    Raises:
        ValueError: fewer than two bins, a range that is none, or probabilities that are none.

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
        per: Literal["feature", "layer"] = "feature",
        refit: bool = False,
    ) -> None:
        super().__init__(refit=refit)
        self.n_bins = _at_least_two(n_bins, type(self).__name__)
        for name, value in (("low", low), ("high", high)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"UniformBins: {name} must be a finite number, got {value}.")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"UniformBins: low must lie below high, got low={low} and high={high}.")
        if quantiles is not None and not (len(quantiles) == 2 and 0 <= quantiles[0] < quantiles[1] <= 1):
            raise ValueError(
                f"UniformBins: quantiles must be two ascending probabilities such as (0.01, 0.99), got {quantiles}."
            )
        if per not in ("feature", "layer"):
            raise ValueError(f"UniformBins: per must be 'feature' or 'layer', got {per!r}.")
        self.low, self.high, self.quantiles, self.per = low, high, quantiles, per
        self._known = None if low is None or high is None else torch.tensor([[low, high]], dtype=torch.float64)
        self.needs_data = self._known is None

    @property
    def tails(self) -> float:
        """What lies below the lower quantile or above the upper one."""
        return 0.0 if self.quantiles is None else 1.0 - (self.quantiles[1] - self.quantiles[0])

    def edges(self, z: Tensor) -> Tensor:
        """``n_bins − 1`` edges of equal distance, float64: ``(E,)`` for one range, ``(D, E)`` for one a coordinate."""
        if self._known is not None:
            return self._spread(self._known.to(z.device))[0]
        columns = z.reshape(-1, 1) if self.per == "layer" else z
        if self.quantiles is not None:
            ranges = quantiles(columns, self.quantiles)
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
        n_bins: how many bins, at least 2.
        refit: fit at every measurement.

    Raises:
        ValueError: fewer than two bins.

    Example:
        >>> QuantileBins(2).edges(torch.tensor([[0.0], [1.0], [5.0]]))
        tensor([[1.]], dtype=torch.float64)
    """

    def __init__(self, n_bins: int, *, refit: bool = False) -> None:
        super().__init__(refit=refit)
        self.n_bins = _at_least_two(n_bins, type(self).__name__)

    @property
    def tails(self) -> float:
        """The outermost two bins: as wide as it takes for their share of the samples."""
        return 2.0 / self.n_bins

    def edges(self, z: Tensor) -> Tensor:
        """The ``n_bins − 1`` quantiles between the bins, float64, shape ``(D, n_bins − 1)``."""
        return quantiles(z, [k / self.n_bins for k in range(1, self.n_bins)])


class NormalBins(Bins):
    r"""Bins of equal mass under the standard normal distribution, the same for all coordinates, whatever is seen.

    For coordinates with zero mean and unit variance. As the edges

    .. math:: e_k = \Phi^{-1}(k / n), \quad k = 1, \dots, n - 1

    are fitted to nothing, training cannot leave them behind.

    Args:
        n_bins: how many bins n, at least 2.

    Raises:
        ValueError: fewer than two bins.

    Example:
        >>> NormalBins(4).edges(torch.rand(8, 3))
        tensor([-0.6745,  0.0000,  0.6745], dtype=torch.float64)
    """

    needs_data = False

    def __init__(self, n_bins: int) -> None:
        super().__init__()
        self.n_bins = _at_least_two(n_bins, type(self).__name__)

    @property
    def tails(self) -> float:
        """The outermost two bins: they are open, and hold their share by design."""
        return 2.0 / self.n_bins

    def edges(self, z: Tensor) -> Tensor:
        """The ``n_bins − 1`` edges, float64, on the device of ``z``."""
        return torch.special.ndtri(torch.arange(1, self.n_bins, dtype=torch.float64) / self.n_bins).to(z.device)


def checked_edges(edges: Any, owner: str, n_coordinates: int | None = None) -> Tensor:
    """``edges`` as a tensor, where they are finite, ascending and of a shape that fits.

    Raises:
        ValueError: otherwise; the sentence begins with ``owner``.
    """
    # A copy, and in double precision: 0.1 given as a number is not the float32 next to it.
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
    return edges


def _shown(edges: Tensor, where: Tensor) -> list[float]:
    """The first row of edges that is at fault, the whole of it if it is short."""
    rows, faulty = edges.reshape(-1, edges.shape[-1]), where.reshape(-1, edges.shape[-1])
    row = int(faulty.any(1).nonzero()[0])
    start = max(0, int(faulty[row].nonzero()[0]) - 2)
    return [round(value, 6) for value in rows[row, start : start + 6].tolist()]


def _at_least_two(n_bins: int, owner: str) -> int:
    if isinstance(n_bins, bool) or not isinstance(n_bins, int) or n_bins < 2:
        raise ValueError(
            f"{owner}: n_bins must be an integer of at least 2, got {n_bins!r}: a single bin cannot tell samples apart."
        )
    return n_bins


class Quantizer:
    """Narrow a variable: pool it to few coordinates, put each into bins; the row of bin numbers is its symbol.

    Too fine, and every sample has a symbol of its own: H(T) = log N, I(T;Y) = H(Y), whatever the network does. Too
    coarse, and the figures follow the edges instead of the network. See ``saturation`` beside each figure.

    Args:
        pool: any callable or ``nn.Module`` on the activation ``(B, …)`` that keeps the samples apart and returns
            ``(B, …)``; ``None`` keeps every coordinate. Half precision arrives as float32, integers as float64.
        bins: where the edges lie; by default 30 bins of equal width a coordinate.
        select: what to narrow of an output (of an input, where X is narrowed): any callable on it, as the module gave
            it, that returns a tensor with the batch first. ``None`` takes the first tensor of a tuple, list or mapping,
            and puts the batch first where a module of PyTorch says ``batch_first=False``.

    Raises:
        TypeError: ``pool`` or ``select`` cannot be called, or ``bins`` are no :class:`Bins`.

    Example:
        The input of the thesis' experiments on MNIST: 7 × 7 coordinates, two edges.

        >>> Quantizer(torch.nn.MaxPool2d(4), FixedBins([0.0, 0.5])).pooled(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 49])
    """

    def __init__(
        self, pool: nn.Module | Pool | None = None, bins: Bins | None = None, *, select: Select | None = None
    ) -> None:
        if pool is not None and not callable(pool):
            raise TypeError(f"Quantizer: pool must be a callable on (B, …) or None, got {pool!r}.")
        if bins is not None and not isinstance(bins, Bins):
            raise TypeError(f"Quantizer: bins must be Bins such as FixedBins([0.0, 0.5]), got {bins!r}.")
        if select is not None and not callable(select):
            raise TypeError(f"Quantizer: select must be a callable on the module's output or None, got {select!r}.")
        self.pool, self.select = pool, select
        self.bins = UniformBins(30) if bins is None else bins
        self._in_place: bool | None = None

    def selected(self, value: Any) -> Tensor:
        """The tensor ``(B, …)`` to narrow, of an output or an input.

        Raises:
            ValueError: it holds none, or ``select`` returned none.
        """
        return first_tensor(value) if self.select is None else selected(value, self.select)

    def pooled(self, activation: Tensor) -> Tensor:
        """The coordinates of every sample before they are put into bins.

        Args:
            activation: ``(B, …)``, any real dtype.

        Returns:
            ``(B, D)``, float32 or float64, without gradient; it may share the memory of ``activation``.

        Raises:
            ValueError: there is no batch dimension, or the pool did not keep it.
        """
        z = activation.detach()
        if z.ndim == 0:
            raise ValueError("got a single number, not a batch (B, …): this module's output cannot be told by sample.")
        if self.pool is None:
            z = _real(z)
        else:
            n = len(z)
            device = z.device.type
            autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
            with autocast:
                z = self._pool(z if z.is_complex() else _real(z))
            if not isinstance(z, Tensor) or z.ndim == 0 or len(z) != n:
                raise ValueError(
                    f"the pool {_named(self.pool)} must return a tensor with the batch first, ({n}, …), got "
                    f"{tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__}."
                )
            z = _real(z)
        return z.flatten(1) if z.ndim > 1 else z.unsqueeze(1)

    def _pool(self, z: Tensor) -> Any:
        """Pool, and leave ``z``, which the model goes on with, as it was: a pool that works in place gets a copy."""
        assert self.pool is not None
        if self._in_place is None:  # the first call is made on a copy, and watched
            with torch.inference_mode(False), torch.no_grad():
                copy = z.clone()
                before = copy._version
                pooled = self.pool(copy)
                self._in_place = copy._version != before
                return pooled
        return self.pool(z.clone() if self._in_place else z)

    def fit(self, z: Tensor, shape: Sequence[int]) -> tuple[Quantizer, Tensor]:
        """Fit the edges.

        Args:
            z: the pooled values of all samples, shape ``(N, D)``.
            shape: the shape of one sample's activation.

        Returns:
            The quantizer to use from here on, and its edges.

        Raises:
            ValueError: the bins gave edges that are not finite, do not ascend or do not fit.
        """
        return self, checked_edges(self.bins.edges(z), type(self.bins).__name__, z.shape[1]).to(z.device)

    def from_held(self, z: Tensor, chosen: Quantizer) -> Tensor:
        """The coordinates that ``chosen``, from :meth:`fit`, puts into bins, from the values held for fitting it."""
        return z

    def __repr__(self) -> str:
        return f"Quantizer(pool={_named(self.pool)}, bins={self.bins!r}{self._shown_select()})"

    def _shown_select(self) -> str:
        return "" if self.select is None else f", select={_named(self.select)}"


# The averages are those of float32: some eight times its precision.
_ROUNDING = 1e-6


class GridPool:
    """Average onto a grid, then standardise each sample over the grid: zero mean, unit variance.

    What is left is the pattern of a sample's response, free of the scale and the offset of the layer, both of which
    drift in training far beyond edges frozen before it. A coordinate that is no more than rounding away from the mean
    is zero, as all are of a sample without a pattern. Grids of one or two coordinates are left as they are:
    standardised, they would keep one bit.

    Args:
        finest: the grid that is averaged onto first.
        grid: the grid that is averaged onto from there; each extent at most that of ``finest``.
    """

    def __init__(self, finest: Sequence[int], grid: Sequence[int]) -> None:
        self.finest, self.grid = tuple(finest), tuple(grid)

    def __call__(self, activation: Tensor) -> Tensor:
        """The grid of every sample, shape ``(B, D)``, float64."""
        return self.from_finest(average(activation, self.finest))

    def from_finest(self, z: Tensor) -> Tensor:
        """The same, from the finest grid ``(B, *finest)``."""
        z = average(z, self.grid).flatten(1).double()
        if z.shape[1] <= 2:
            return z
        mean = z.mean(1, keepdim=True)
        z = z - mean
        deviation = z.square().mean(1, keepdim=True).sqrt()
        rounding = _ROUNDING * (mean.abs() + deviation)
        return torch.where(z.abs() <= rounding, 0.0, z / deviation.clamp_min(torch.finfo(z.dtype).tiny))

    def __repr__(self) -> str:
        return f"GridPool({self.finest}, {self.grid})"


def average(z: Tensor, grid: Sequence[int]) -> Tensor:
    """Average ``(B, …)`` onto ``(B, *grid)``, a grid of one to three axes; further leading axes are merged."""
    z = z.unsqueeze(1) if z.ndim == 1 else z
    if z.ndim - 1 > len(grid):
        z = z.flatten(1, z.ndim - len(grid))
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[len(grid) - 1]
    return pool(tuple(grid))(z.unsqueeze(1)).squeeze(1)


def averaged(activation: Tensor) -> Tensor:
    """The finest grid of averages of every sample: ``(B, …)`` to ``(B, D)``, D at most 128, float32 or float64."""
    grid = finest_grid(_at_most_three_axes(activation.shape[1:]))
    return average(_real(activation), grid).flatten(1)


class _Trial(NamedTuple):
    """A grid and its bins, tried on the first measurement."""

    h_t: float
    n_coordinates: int
    quantizer: Quantizer
    edges: Tensor


class AutoQuantizer(Quantizer):
    """Choose pool and bins at the first measurement, then freeze them; believable whatever training does afterwards.

    - *The number of possible symbols is bounded*, not the entropy seen: D coordinates of n bins each are allowed where
      :math:`n^D` is at most N / ``samples_per_symbol``. H(T) before training says little of H(T) later; this bound
      holds for every measurement on as many samples. With 10 samples a symbol at most a tenth of the samples can have
      a symbol of their own, and H(T) stays below log N by at least log 10.
    - *The edges depend on nothing that drifts*: each sample is averaged onto a grid and standardised over it
      (:class:`GridPool`), and the edges are quantiles of the standard normal (:class:`NormalBins`), the same for every
      coordinate and measurement. Edges fitted before training are left behind by it, and what looks like compression
      is theirs.
    - Every grid gets the most bins it is allowed, at most 30, and is tried on the first measurement. Taken is *the
      finest grid whose H(T) comes within a fifth of the greatest*. H(T) finds the grids on which samples differ:
      between the channels of a convolution it is often the biases that differ, alike for all samples. And of two grids
      with much the same H(T), more coordinates tell more of the target than more bins: of the logits of a CNN on 10 000
      images of MNIST 1.73 nats beyond chance after training, where the greatest H(T) alone gives 1.42 (means of eight
      initialisations).

    A layer of one or two coordinates cannot be standardised by sample: there :class:`UniformBins` between the 1 % and
    the 99 % quantile are fitted at the first measurement, which training may leave behind (the verdict is ``"clipped"``
    then). The same holds where the pattern of more coordinates does not vary at first. Where there are too few samples
    for any grid of more than two coordinates (fewer than 80, or 160 in space), the bound gives way: the coarsest of
    them is taken, two bins a coordinate.

    Until the choice is made, the finest grid of every sample is held, at most 128 coordinates of 4 bytes.

    Args:
        samples_per_symbol: how many samples of the first measurement there are to be for every possible symbol, at
            least 1. Fewer give a finer choice, whose figures chance has a larger part in.
        select: what to narrow, see :class:`Quantizer`.

    Raises:
        TypeError: ``select`` cannot be called.
        ValueError: ``samples_per_symbol`` is not a finite number of at least 1.
    """

    _MOST_BINS = 30
    _NEAR = 0.8

    def __init__(self, samples_per_symbol: float = 10, *, select: Select | None = None) -> None:
        if not 1 <= samples_per_symbol < math.inf:
            raise ValueError(
                f"AutoQuantizer: samples_per_symbol must be a finite number of at least 1, got {samples_per_symbol}: "
                "with more symbols than samples, every sample may have one of its own."
            )
        super().__init__(select=select)
        self.samples_per_symbol = float(samples_per_symbol)

    def pooled(self, activation: Tensor) -> Tensor:
        """The finest grid of every sample, shape ``(B, D)``."""
        return averaged(super().pooled(activation).reshape(activation.shape))

    def fit(self, z: Tensor, shape: Sequence[int]) -> tuple[Quantizer, Tensor]:
        """Choose: see the class."""
        finest = finest_grid(_at_most_three_axes(shape))
        grids = list(_grids(finest))
        for standardised in (True, False):
            tried = [grid for grid in grids if (math.prod(grid) > 2) == standardised]
            allowed = {grid: n for grid in tried if (n := self._most_bins(math.prod(grid), len(z)))}
            if not allowed:  # too few samples for any: the fewest symbols there are
                coarsest = min((math.prod(grid) for grid in tried), default=0)
                allowed = {grid: 2 for grid in tried if math.prod(grid) == coarsest}
            trials = [self._trial(z, finest, grid, n_bins) for grid, n_bins in allowed.items()]
            greatest = max((trial.h_t for trial in trials), default=0.0)
            if greatest > 0:
                near = [trial for trial in trials if trial.h_t >= self._NEAR * greatest]
                best = max(near, key=lambda trial: (trial.n_coordinates, trial.h_t))
                return best.quantizer, best.edges
        constant = self._trial(z, finest, (1,) * len(finest), 2)
        return constant.quantizer, constant.edges

    def _most_bins(self, n_coordinates: int, n_samples: int) -> int:
        """The most bins whose possible symbols are few enough; 0 where two are too many."""
        bins = range(2, self._MOST_BINS + 1)
        return max((n for n in bins if n**n_coordinates * self.samples_per_symbol <= n_samples), default=0)

    def from_held(self, z: Tensor, chosen: Quantizer) -> Tensor:
        """The grid of ``chosen``, from the finest one."""
        assert isinstance(chosen.pool, GridPool)
        return chosen.pool.from_finest(z.reshape(len(z), *chosen.pool.finest))

    def _trial(self, z: Tensor, finest: Sequence[int], grid: Sequence[int], n_bins: int) -> _Trial:
        quantizer = self.chosen(finest, grid, n_bins)
        coordinates = self.from_held(z, quantizer)
        edges = quantizer.bins.edges(coordinates)
        ids = row_ids(codes(coordinates, edges), hash_table(coordinates.shape[1], n_bins, z.device))
        return _Trial(entropy(ids), coordinates.shape[1], quantizer, edges)

    @staticmethod
    def chosen(finest: Sequence[int], grid: Sequence[int], n_bins: int) -> Quantizer:
        """The quantizer that a choice stands for."""
        standardised = math.prod(grid) > 2
        bins = NormalBins(n_bins) if standardised else UniformBins(n_bins, quantiles=(0.01, 0.99))
        return Quantizer(GridPool(finest, grid), bins)

    @classmethod
    def chosen_before(cls, choice: Any, shape: Sequence[int]) -> Quantizer:
        """The quantizer that a choice in a checkpoint stands for.

        Args:
            choice: ``[finest, grid, n_bins]``.
            shape: the shape of one sample's activation.

        Raises:
            ValueError: it is no choice for samples of this shape.
        """
        try:
            finest, grid, n_bins = choice
            fits = len(finest) == len(grid) == len(_at_most_three_axes(shape))
            fits = fits and all(isinstance(n, int) and 1 <= n <= most for n, most in zip(grid, finest))
            quantizer = cls.chosen(finest, grid, n_bins)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"has chosen={choice!r}, which is no choice for samples of shape {tuple(shape)}")
        return quantizer

    def __repr__(self) -> str:
        return f"AutoQuantizer(samples_per_symbol={self.samples_per_symbol:g}{self._shown_select()})"


_CAPS = {1: (32,), 2: (8, 4), 3: (8, 4, 4)}


def _at_most_three_axes(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) <= 3:
        return tuple(shape) or (1,)
    return (math.prod(shape[:-2]), *shape[-2:])


def finest_grid(shape: Sequence[int]) -> tuple[int, ...]:
    """The finest grid for a sample of ``shape`` (one to three axes): at most 128 coordinates."""
    return tuple(min(n, cap) for n, cap in zip(shape, _CAPS[len(shape)]))


def _grids(finest: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The grids within ``finest`` that are tried: few enough of them, of all sizes.

    A single axis, and the last of two, takes every extent; the leading of several is halved; of space the grids are
    taken that are square, or nearly so as far as ``finest`` allows.
    """
    if len(finest) == 1:
        yield from ((n,) for n in range(1, finest[0] + 1))
        return
    rest: list[tuple[int, ...]] = [(n,) for n in range(1, finest[1] + 1)]
    if len(finest) == 3:
        most_h, most_w = finest[1:]
        space = [(h, w) for h in range(1, most_h + 1) for w in range(1, most_w + 1)]
        rest = [(h, w) for h, w in space if abs(h - w) <= 1 or h == most_h < w or w == most_w < h]
    for n in _halvings(finest[0]):
        yield from ((n, *extents) for extents in rest)


def _halvings(n: int) -> Iterator[int]:
    while n > 1:
        yield n
        n = (n + 1) // 2
    yield 1


def _bounds(edges: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Where the outermost bins would end if they were as wide as those next to them; none where there is one edge."""
    if edges.shape[-1] < 2:
        return None
    slack = 1.001  # a minimum the edges were fitted to is inside, whatever rounding says
    low = edges[..., 0] - slack * (edges[..., 1] - edges[..., 0])
    high = edges[..., -1] + slack * (edges[..., -1] - edges[..., -2])
    return low.to(dtype), high.to(dtype)


def _real(z: Tensor) -> Tensor:
    if z.is_complex():
        raise ValueError("got complex values: give a pool that returns real ones, such as torch.view_as_real.")
    if not z.is_floating_point():
        return z.double()
    return z if z.dtype in (torch.float32, torch.float64) else z.float()


def _named(function: Pool | Select | None) -> str:
    return getattr(function, "__name__", None) or repr(function)


class Binned(NamedTuple):
    """Values that were put into bins.

    Attributes:
        ids: int64, shape ``(N,)``: the symbol of each sample.
        outside: uint8 (int32 of more than 255 coordinates), shape ``(N,)``: how many of its coordinates lie outside the
            bins, beyond the outermost edge by more than the width of the bin next to it; 0 where there is one edge.
    """

    ids: Tensor
    outside: Tensor


class Narrowing:
    """A quantizer at work on one variable: pools every batch, fits once, freezes, and turns batches into ids.

    Args:
        quantizer: how to narrow.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.asked = self.quantizer = quantizer
        self._fingerprint = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(quantizer))
        self.edges: Tensor | None = None
        self.shape: tuple[int, ...] = ()
        self._width: int | None = None
        self._table: Tensor | None = None
        self._ready: Tensor | None = None
        self._bounds: tuple[Tensor, Tensor] | None = None
        self._seen: tuple[Tensor, Tensor] | None = None

    @property
    def n_bins(self) -> int:
        """How many bins a coordinate has; 0 before the edges are known."""
        return 0 if self.edges is None else self.edges.shape[-1] + 1

    @property
    def n_coordinates(self) -> int | None:
        """How many coordinates are put into bins; not known before the first batch."""
        if self._chosen is not None:
            return math.prod(self._chosen.grid)
        return len(self.edges) if self.edges is not None and self.edges.ndim == 2 else self._width

    @property
    def tells_outside(self) -> bool:
        """Whether the share of values outside the bins can be told: two bins have no width to tell it by.

        Of standardised values under edges that were fitted to nothing, none can be outside two bins.
        """
        return self.n_bins > 2 or isinstance(self.quantizer.bins, NormalBins)

    @property
    def _chosen(self) -> GridPool | None:
        """The grid that was chosen automatically, once one was."""
        pool = self.quantizer.pool
        return pool if self.quantizer is not self.asked and isinstance(pool, GridPool) else None

    def adopt(self, shape: Sequence[int], width: int | None) -> None:
        """Take over what another process knows of the samples, where this one has seen none."""
        self.shape = tuple(shape)
        self._width = width if self._width is None else self._width

    def seen(self) -> tuple[float, float]:
        """The least and the greatest value put into bins in this process since the measurement began."""
        return (math.nan, math.nan) if self._seen is None else (float(self._seen[0]), float(self._seen[1]))

    @property
    def width(self) -> int | None:
        """How many coordinates a sample was pooled to; not known before the first batch."""
        return self._width

    def begin(self) -> None:
        """Begin a measurement: bins that are to be fitted every time forget their edges."""
        self._seen = None
        if self.quantizer.bins.refit and self.quantizer.bins.needs_data:
            self._freeze(None)

    def values(self, activation: Tensor) -> Tensor:
        """One batch, pooled: ``(B, D)``, sharing no memory with ``activation``. Nothing waits for the device.

        Raises:
            ValueError: a sample has another number of coordinates than before.
        """
        self.shape = tuple(activation.shape[1:])
        z = self.quantizer.pooled(activation)
        if self._width is None:
            self._width = z.shape[1]
            if self.edges is not None and self.edges.ndim == 2 and len(self.edges) != self._width:
                warnings.warn(
                    f"the checkpoint's edges are for {len(self.edges)} coordinates, and a sample has {self._width} "
                    f"({self._fingerprint}): they are fitted anew at this measurement.",
                    UserWarning,
                    stacklevel=2,
                )
                self._freeze(None)
        elif self._width != z.shape[1]:
            raise ValueError(
                f"a sample has {z.shape[1]} coordinates here and had {self._width} before: give a pool that makes "
                "their number the same for every batch."
            )
        if self.edges is None and not self.quantizer.bins.needs_data:
            # On the host, where the edges are checked: asking the device would wait for it.
            self.fit(torch.empty(0, z.shape[1], dtype=z.dtype))
        return z.clone() if z.untyped_storage().data_ptr() == activation.untyped_storage().data_ptr() else z

    def fit(self, z: Tensor) -> None:
        """Fit the edges on the values ``(N, D)`` of a whole measurement.

        No choice is made for a constant: it would be the finest there is. The next measurement is asked then.
        """
        if isinstance(self.asked, AutoQuantizer) and bool((z == z[:1]).all()):
            return
        self.quantizer, edges = self.quantizer.fit(z, self.shape)
        self._freeze(edges)

    def held_in_bins(self, z: Tensor) -> Binned:
        """The symbols of values ``(N, D)`` that were held to fit the edges, once they are fitted; block by block."""
        blocks = z.split(max(1, _BLOCK // max(1, z.shape[1])))
        binned = [self.in_bins(self.asked.from_held(block, self.quantizer)) for block in blocks]
        return Binned(torch.cat([block.ids for block in binned]), torch.cat([block.outside for block in binned]))

    def in_bins(self, z: Tensor) -> Binned:
        """The symbols of values ``(N, D)`` that were pooled with the edges known."""
        assert self.edges is not None
        if self.edges.device != z.device:
            self._freeze(self.edges.to(z.device, non_blocking=True))
        if self._table is None or self._ready is None or self._ready.dtype != z.dtype:
            self._table = hash_table(z.shape[1], self.n_bins, z.device)
            self._ready = rounded_up(self.edges, z.dtype)
            self._bounds = _bounds(self.edges, z.dtype)
        if len(z):  # a process may have seen none
            least, greatest = z.aminmax()
            if self._seen is not None:
                least, greatest = torch.minimum(least, self._seen[0]), torch.maximum(greatest, self._seen[1])
            self._seen = least, greatest
        dtype = torch.uint8 if z.shape[1] <= torch.iinfo(torch.uint8).max else torch.int32
        if self._bounds is None:
            outside = torch.zeros(len(z), dtype=dtype, device=z.device)
        else:
            low, high = self._bounds
            outside = ((z < low) | (z > high)).sum(1, dtype=dtype)
        return Binned(row_ids(codes(z, self._ready), self._table, z), outside)

    def summary(self) -> str:
        """How the variable is narrowed, in words where the choice was automatic."""
        if self._chosen is None:
            return repr(self.quantizer)
        standardised = ", each sample standardised" if math.prod(self._chosen.grid) > 2 else ""
        return f"{self.shape} averaged onto {self._chosen.grid}{standardised}, {self.n_bins} bins a coordinate"

    def _freeze(self, edges: Tensor | None) -> None:
        self.edges, self._table, self._ready = edges, None, None
        if self.quantizer is not self.asked:  # the automatic choice pools to a width of its own
            self._width = None

    def state_dict(self) -> dict[str, Any]:
        """What was fitted, in tensors and primitives: empty before the first fit."""
        if self.edges is None:
            return {}
        state: dict[str, Any] = {"edges": self.edges.detach().cpu().clone(), "shape": list(self.shape)}
        state["asked"] = self._fingerprint
        if self._chosen is not None:
            state["chosen"] = [list(self._chosen.finest), list(self._chosen.grid), self.n_bins]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was fitted.

        Raises:
            ValueError: ``state`` is not what :meth:`state_dict` gives; nothing is taken up then.
        """
        fitted = self.asked.bins.needs_data and not self.asked.bins.refit
        if not isinstance(state, Mapping):
            raise ValueError(f"is a {type(state).__name__}, not a mapping")
        if not state:
            return
        if lacking := {"edges", "shape", "asked"} - state.keys():
            raise ValueError(f"lacks {sorted(lacking)}")
        shape = state["shape"]
        if not isinstance(shape, (list, tuple)) or not all(isinstance(n, int) for n in shape):
            raise ValueError(f"has shape={shape!r}, not a list of integers")
        self.shape = tuple(shape)
        if not fitted:
            return
        if state["asked"] != self._fingerprint:
            warnings.warn(
                f"the checkpoint's edges were fitted for {state['asked']}, and {self._fingerprint} is asked for now: "
                "its edges are fitted anew at the next measurement.",
                UserWarning,
                stacklevel=2,
            )
            return
        if not isinstance(state["edges"], Tensor):
            raise ValueError(f"has edges that are a {type(state['edges']).__name__}, not a tensor")
        quantizer, n_coordinates = self.asked, None
        if isinstance(self.asked, AutoQuantizer):
            quantizer = self.asked.chosen_before(state.get("chosen"), self.shape)
            assert isinstance(quantizer.pool, GridPool)
            n_coordinates = math.prod(quantizer.pool.grid)
        edges = checked_edges(state["edges"], "is unusable", n_coordinates)
        if quantizer is not self.asked and edges.shape[-1] != state["chosen"][2] - 1:
            raise ValueError(f"has {edges.shape[-1]} edges and chosen={state['chosen']!r}, which is of another number")
        self.quantizer = quantizer
        self._freeze(edges)
