"""Discretize a representation: into cells that follow the data, or into bins of every pooled coordinate."""

from __future__ import annotations

import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ib.functional import codes, hash_table, quantiles, rounded_up, row_ids
from lightning_ib.functional.cells import MAX_CELLS, checked_max_cells
from lightning_ib.functional.sketch import real, sketch
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


class _Pooling:
    """What a variable is measured on: a tensor taken out of an output, and pooled."""

    def __init__(self, pool: nn.Module | Pool | None, select: Select | None) -> None:
        owner = type(self).__name__
        if pool is not None and not callable(pool):
            raise TypeError(f"{owner}: pool must be a callable on (B, …) or None, got {pool!r}.")
        if select is not None and not callable(select):
            raise TypeError(f"{owner}: select must be a callable on the module's output or None, got {select!r}.")
        self.pool, self.select = pool, select
        self._in_place: bool | None = None

    def selected(self, value: Any) -> Tensor:
        """The tensor ``(B, …)`` to measure, of an output or an input.

        Raises:
            ValueError: it holds none, or ``select`` returned none.
        """
        return first_tensor(value) if self.select is None else selected(value, self.select)

    def pooled(self, activation: Tensor) -> Tensor:
        """The coordinates of every sample, pooled.

        Args:
            activation: ``(B, …)``, any real dtype.

        Returns:
            ``(B, D)``, float32 or float64, without gradient; it may share the memory of ``activation``.

        Raises:
            ValueError: there is no batch dimension, the pool did not keep it, or a sample has no coordinates.
        """
        z = activation.detach()
        if z.ndim == 0:
            raise ValueError("got a single number, not a batch (B, …): this module's output cannot be told by sample.")
        if self.pool is None:
            z = real(z)
        else:
            n = len(z)
            device = z.device.type
            autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
            with autocast:
                z = self._pool(z if z.is_complex() else real(z))
            if not isinstance(z, Tensor) or z.ndim == 0 or len(z) != n:
                raise ValueError(
                    f"the pool {_named(self.pool)} must return a tensor with the batch first, ({n}, …), got "
                    f"{tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__}."
                )
            z = real(z)
        z = z.flatten(1) if z.ndim > 1 else z.unsqueeze(1)
        if z.shape[1] == 0:
            raise ValueError(f"a sample has no coordinates, in a batch of shape {tuple(activation.shape)}.")
        return z

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

    def _shown_select(self) -> str:
        return "" if self.select is None else f", select={_named(self.select)}"


class CellQuantizer(_Pooling):
    """Cut a layer into at most 256 cells that follow the data, fitted anew at every measurement: the default.

    Each sample is kept as a sketch of at most 128 numbers (:func:`~lightning_ib.functional.sketch`), on a uniform
    sample of bounded size, and the sketches are cut into cells (:func:`~lightning_ib.functional.cells`). A point is a
    function of the activations of its epoch alone: nothing is frozen, nothing clips, and the scale and the offset of
    the layer do not matter. H(T) falls where the layer gathers its samples into few clusters.

    Cells read what stands out. Information in coordinates of small variance is not seen: compare the probe.

    Args:
        max_cells: the most cells, at least 2; few samples have fewer, about one for 50
            (:func:`~lightning_ib.functional.most_cells`).
        pool: any callable on the activation ``(B, …)`` that keeps the samples apart; ``None`` takes all of it.
        select: takes the tensor, batch first, out of the output as the module gave it; ``None`` takes the first one.

    Raises:
        TypeError: ``pool`` or ``select`` cannot be called.
        ValueError: ``max_cells`` is no integer of at least 2.

    Example:
        >>> CellQuantizer(64).rows(torch.rand(8, 16, 28, 28)).shape
        torch.Size([8, 128])
    """

    def __init__(
        self,
        max_cells: int = MAX_CELLS,
        *,
        pool: nn.Module | Pool | None = None,
        select: Select | None = None,
    ) -> None:
        super().__init__(pool, select)
        self.max_cells = checked_max_cells(max_cells, "CellQuantizer: ")

    def rows(self, activation: Tensor) -> Tensor:
        """The sketched rows of a batch: ``(B, …)`` to ``(B, D)``, D at most 128; see :meth:`pooled` for errors."""
        return sketch(self.pooled(activation))

    def __repr__(self) -> str:
        pool = "" if self.pool is None else f", pool={_named(self.pool)}"
        return f"CellQuantizer({self.max_cells}{pool}{self._shown_select()})"


class Quantizer(_Pooling):
    """Pool a variable to few coordinates, put each into bins; the row of bin numbers is the symbol of a sample.

    Every sample of the pass is counted. Too fine, and every sample has a symbol of its own: H(T) = log N,
    I(T;Y) = H(Y), whatever the network does. Too coarse, and the values follow the edges instead of the network. See
    ``saturation`` beside each value.

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
        super().__init__(pool, select)
        if bins is not None and not isinstance(bins, Bins):
            raise TypeError(f"Quantizer: bins must be Bins such as FixedBins([0.0, 0.5]), got {bins!r}.")
        self.bins = UniformBins(30) if bins is None else bins

    def fit(self, z: Tensor) -> Tensor:
        """The edges for the pooled values of all samples, ``(N, D)``.

        Raises:
            ValueError: the bins gave edges that are not finite, do not ascend or do not fit.
        """
        return checked_edges(self.bins.edges(z), type(self.bins).__name__, z.shape[1]).to(z.device)

    def __repr__(self) -> str:
        return f"Quantizer(pool={_named(self.pool)}, bins={self.bins!r}{self._shown_select()})"


def _bounds(edges: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Where the outermost bins would end if they were as wide as those next to them; none where there is one edge."""
    if edges.shape[-1] < 2:
        return None
    slack = 1.001  # a minimum the edges were fitted to is inside, whatever rounding says
    low = edges[..., 0] - slack * (edges[..., 1] - edges[..., 0])
    high = edges[..., -1] + slack * (edges[..., -1] - edges[..., -2])
    return low.to(dtype), high.to(dtype)


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
        self.quantizer = quantizer
        self._fingerprint = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(quantizer))
        self.edges: Tensor | None = None
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
        return len(self.edges) if self.edges is not None and self.edges.ndim == 2 else self._width

    @property
    def tells_outside(self) -> bool:
        """Whether the share of values outside the bins can be told: two bins have no width to tell it by."""
        return self.n_bins > 2

    def adopt(self, width: int | None) -> None:
        """Take over what another process knows of the samples, where this one has seen none."""
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
        """Fit the edges on the values ``(N, D)`` of a whole measurement."""
        self._freeze(self.quantizer.fit(z))

    def held_in_bins(self, z: Tensor) -> Binned:
        """The symbols of values ``(N, D)`` that were held to fit the edges, once they are fitted; block by block."""
        blocks = z.split(max(1, _BLOCK // max(1, z.shape[1])))
        binned = [self.in_bins(block) for block in blocks]
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

    def _freeze(self, edges: Tensor | None) -> None:
        self.edges, self._table, self._ready = edges, None, None

    def state_dict(self) -> dict[str, Any]:
        """What was fitted, in tensors and primitives: empty before the first fit."""
        if self.edges is None:
            return {}
        return {"edges": self.edges.detach().cpu().clone(), "asked": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was fitted.

        Raises:
            ValueError: ``state`` is not what :meth:`state_dict` gives; nothing is taken up then.
        """
        fitted = self.quantizer.bins.needs_data and not self.quantizer.bins.refit
        if not isinstance(state, Mapping):
            raise ValueError(f"is a {type(state).__name__}, not a mapping")
        if not state:
            return
        if lacking := {"edges", "asked"} - state.keys():
            raise ValueError(f"lacks {sorted(lacking)}")
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
        self._freeze(checked_edges(state["edges"], "is unusable"))
