"""A quantizer fitted to one variable: its edges at work."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ib.binning.bins import checked_edges
from lightning_ib.binning.quantizer import Quantizer
from lightning_ib.functional import bucketize, ceil_to_dtype, hash_table, row_ids
from lightning_ib.functional.checks import moved
from lightning_ib.functional.discretize.ids import finite_ids
from lightning_ib.functional.discretize.packed import MAX_EDGES, packed_ids, packed_table

# How many held values are put into bins at once.
_BLOCK = 4_000_000


def _bounds(edges: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Where the outermost bins would end if they were as wide as those next to them; None for a single edge."""
    if edges.shape[-1] < 2:
        return None
    slack = 1.001  # a minimum the edges were fitted to is inside, rounding included
    low = edges[..., 0] - slack * (edges[..., 1] - edges[..., 0])
    high = edges[..., -1] + slack * (edges[..., -1] - edges[..., -2])
    return low.to(dtype), high.to(dtype)


class Binned(NamedTuple):
    r"""Values that were put into bins, and which of them lie outside the outermost ones.

    With the edges :math:`e_1 \ldots e_E` of a coordinate, a value z is outside where

    .. math:: z < e_1 - (e_2 - e_1) \quad \text{or} \quad z > e_E + (e_E - e_{E-1})

    Source:
        A diagnostic of this package, for bins of one range on layers of another (Saxe et al. 2018).

    Cost:
        A part of putting values into bins: about 0.2 ms a batch of 100 and layer.

    Samples:
        Any number: it is a share of all values, samples times coordinates.

    Trap:
        With a single edge it is undefined (NaN). Bins that leave tails outside by design have a share above 0, and a
        layer inside its bins may still be cut too coarsely.

    Attributes:
        ids: int64, shape ``(N,)``: the symbol of each sample.
        out_of_bounds: uint8 (int32 of more than 255 coordinates), shape ``(N,)``: the number of its coordinates outside
            the bins, beyond the outermost edge by more than the width of the bin next to it; 0 for a single edge.
    """

    ids: Tensor
    out_of_bounds: Tensor


class FittedQuantizer:
    """A quantizer at work on one variable: pools every batch, fits once, freezes, and turns batches into ids.

    Args:
        quantizer: how to discretize.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self._fingerprint = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(quantizer))
        self.edges: Tensor | None = None
        self._width: int | None = None
        self._table: Tensor | None = None
        self._packed: Tensor | None = None
        self._ready: Tensor | None = None
        self._bounds: tuple[Tensor, Tensor] | None = None
        self._range: tuple[Tensor, Tensor] | None = None

    @property
    def n_bins(self) -> int:
        """The number of bins of a coordinate; 0 before the edges are known."""
        return 0 if self.edges is None else self.edges.shape[-1] + 1

    @property
    def n_coordinates(self) -> int | None:
        """The number of coordinates that are put into bins; None before the first batch."""
        return len(self.edges) if self.edges is not None and self.edges.ndim == 2 else self._width

    @property
    def has_bounds(self) -> bool:
        """Whether the clipped fraction is defined: two bins have a single edge and no width."""
        return self.n_bins > 2

    def set_width(self, width: int | None) -> None:
        """Set the width of the samples from another process, if this one is still without a batch.

        Args:
            width: the number of coordinates of a sample.
        """
        self._width = width if self._width is None else self._width

    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value put into bins in this process since the measurement began."""
        return (math.nan, math.nan) if self._range is None else (float(self._range[0]), float(self._range[1]))

    @property
    def width(self) -> int | None:
        """The number of coordinates that a sample was pooled to; None before the first batch."""
        return self._width

    def begin(self) -> None:
        """Begin a measurement: bins with ``refit`` forget their edges."""
        self._range = None
        if self.quantizer.bins.refit and self.quantizer.bins.needs_data:
            self._freeze(None)

    def values(self, activation: Tensor) -> Tensor:
        """One batch, pooled: ``(B, D)``, in memory of its own, and asynchronously on the device.

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

    def discretize_held(self, z: Tensor) -> Binned:
        """The symbols of values ``(N, D)`` that were held to fit the edges, once they are fitted; block by block."""
        blocks = z.split(max(1, _BLOCK // max(1, z.shape[1])))
        binned = [self.discretize(block) for block in blocks]
        return Binned(torch.cat([block.ids for block in binned]), torch.cat([block.out_of_bounds for block in binned]))

    def discretize(self, z: Tensor) -> Binned:
        """The symbols of values ``(N, D)`` that were pooled with the edges known."""
        assert self.edges is not None
        if self.edges.device != z.device:
            self._freeze(moved(self.edges, z.device))
        if self._table is None or self._ready is None or self._ready.dtype != z.dtype:
            self._table = hash_table(n_coordinates=z.shape[1], n_codes=self.n_bins, device=z.device)
            self._packed = packed_table(self._table) if self.n_bins <= MAX_EDGES + 1 else None
            self._ready = ceil_to_dtype(self.edges, z.dtype)
            self._bounds = _bounds(self.edges, z.dtype)
        if len(z):  # a process may be idle
            least, greatest = z.aminmax()
            if self._range is not None:
                least, greatest = torch.minimum(least, self._range[0]), torch.maximum(greatest, self._range[1])
            self._range = least, greatest
        dtype = torch.uint8 if z.shape[1] <= torch.iinfo(torch.uint8).max else torch.int32
        if self._bounds is None:
            out_of_bounds = torch.zeros(len(z), dtype=dtype, device=z.device)
        else:
            low, high = self._bounds
            out_of_bounds = ((z < low) | (z > high)).sum(1, dtype=dtype)
        if self._packed is None:
            ids = row_ids(bucketize(z, edges=self._ready), table=self._table, values=z)
        else:
            ids = finite_ids(packed_ids(z, edges=self._ready, packed=self._packed), z)
        return Binned(ids, out_of_bounds)

    def _freeze(self, edges: Tensor | None) -> None:
        self.edges, self._table, self._ready = edges, None, None

    def state_dict(self) -> dict[str, Any]:
        """The fitted edges, in tensors and primitives: empty before the first fit."""
        if self.edges is None:
            return {}
        return {"edges": self.edges.detach().cpu().clone(), "asked": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the fitted edges.

        Args:
            state: from :meth:`state_dict`.

        Raises:
            ValueError: ``state`` has another form; the edges then stay as they were.
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
