"""Layers as symbols: in bins, counted on every sample, or in cells, fitted on the sampled rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
from lightning_ib.functional import Cells, cells, symbols
from lightning_ib.measurement.head import Head
from lightning_ib.measurement.layer_summary import CountedLayer
from lightning_ib.measurement.reading import finite_symbols, warn_of_missing
from lightning_ib.measurement.sampled import Drawn
from lightning_ib.measurement.variables import Variable
from lightning_ib.warn_once import WarnOnce


def in_bins(variable: Variable, epoch: int, warned: WarnOnce) -> CountedLayer | None:
    """The symbols of a layer in bins; ``None`` if it is non-finite."""
    counted = finite_symbols(variable.name, variable.rows(), epoch, warned)
    if counted is None or variable.fitted is None:
        return None
    return CountedLayer(
        counted, "binned", variable.clipped_fraction(), variable.fitted.quantizer.bins.nominal_tail_mass
    )


class InCells(NamedTuple):
    """A layer that was cut into cells.

    Attributes:
        layer: its name.
        counted: its symbols; ``None`` if its rows are absent or non-finite.
        how: how it was discretized, in words; empty where ``counted`` is ``None``.
    """

    layer: str
    counted: CountedLayer | None
    how: str = ""


def in_cells(
    drawn: Drawn,
    quantizers: Mapping[str, Quantizer | CellQuantizer],
    n_coordinates: Mapping[str, int],
    head: Head | None,
    epoch: int,
    warned: WarnOnce,
) -> Iterator[InCells]:
    """Cut the layers that have a :class:`~lightning_ib.CellQuantizer` into cells, one layer after the other.

    Args:
        drawn: the sampled rows, of the head its probabilities.
        quantizers: of all layers.
        n_coordinates: of the layers, as the modules put them out.
        head: the head, which gets a cell for each of its classes at least.
        epoch: for the warnings.
        warned: takes the warnings.
    """
    for layer, quantizer in quantizers.items():
        if not isinstance(quantizer, CellQuantizer):
            continue
        rows = drawn.layers.get(layer)
        missing = drawn.n if rows is None else int((~rows.isfinite()).any(1).sum())
        if rows is None:
            fault = str(drawn.faults.get(layer, "it has no rows")).rstrip(".")
            warned.warn(f"{layer} rows", f"layer {layer!r} was not measured at epoch {epoch}: {fault}.")
        elif missing:
            warn_of_missing(f"layer {layer!r}", missing, len(rows), epoch, warned)
        if rows is None or missing:
            yield InCells(layer, None)
            continue
        own = head if head is not None and layer == head.layer else None
        found = cells(rows, max_cells=quantizer.max_cells, expected_clusters=2 if own is None else own.n_classes)
        how = described(rows, found, n_coordinates.get(layer, rows.shape[1]), own)
        yield InCells(layer, CountedLayer(symbols(found.numbers), "cells", explained_variance=found.explained), how)


def described(rows: Tensor, found: Cells, n_coordinates: int, head: Head | None) -> str:
    """How rows were cut into cells, in words.

    Args:
        rows: the sketched rows ``(M, D)``.
        found: their cells.
        n_coordinates: how many coordinates a sample has, before it was sketched.
        head: the layer, if it is the head.
    """
    what = f"{n_coordinates} coordinates"
    what += f", sketched to {rows.shape[1]}" if n_coordinates > rows.shape[1] else ""
    if head is not None:
        what = str(head)
    shown = "constant" if found.n_cells == 1 else f"{found.n_cells} cells with {found.explained:.0%} of the variance"
    return f"{what}; {shown}, {len(rows)} samples"
