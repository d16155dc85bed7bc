"""Advice on layers whose values are flagged as unreliable."""

from __future__ import annotations

import math

from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.binning.quantizer import CellQuantizer
from lightning_ib.functional.discretize.cells import cell_limit
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.reliability import CLIPPED, reason

# The advised settings have at least this many samples per possible symbol.
_SAMPLES_A_SYMBOL = 10


def advice(point: InformationPoint, quantizer: FittedQuantizer | CellQuantizer) -> str:
    """The reason why a layer is flagged as unreliable, and the change to try.

    Args:
        point: its point, with a verdict other than ``"ok"``.
        quantizer: how it was discretized.
    """
    what, why = f"layer {point.layer!r} is {point.verdict} at epoch {point.epoch}", reason(point)
    if point.verdict == "constant":
        if isinstance(quantizer, FittedQuantizer):
            low, high = quantizer.value_range()
            if point.clipped_fraction > CLIPPED and low < high:
                clipped = f"{point.clipped_fraction:.0%} of its values lie outside its bins"
                return f"{what}: {why}. {clipped}, {_wider_edges(quantizer)}"
            seen = f"Its values lie between {low:.4g} and {high:.4g}"
            return f"{what}: {why}. {seen}: use finer bins, or look for dead units."
        return f"{what}: {why}. Its activations do not depend on the input: look for dead units."
    if point.verdict.startswith("target_"):
        of = f"the target {point.target!r}" if point.target else "the target"
        return (
            f"{of} is {point.verdict.removeprefix('target_')} at epoch {point.epoch}: {why}, and I(T;Y) says "
            "nothing of any layer. Give class labels, or for real values target=Quantizer(bins=QuantileBins(10)), with "
            "a pool to one coordinate where they have several; where each token or pixel has a label, tokens=True."
        )
    if point.verdict == "too_coarse":
        return f"{what}: {why}: its symbols mix what it tells apart. {_more_symbols(point, quantizer)}"
    if point.verdict == "clipped":
        assert isinstance(quantizer, FittedQuantizer)
        return f"{what}: {why}, {_wider_edges(quantizer)}"
    if isinstance(quantizer, CellQuantizer):
        return f"{what}: {why}. Measure on more than the {point.n_samples} samples: at least 100."
    return f"{what}: {why}. {_fewer_symbols(point, quantizer)}"


def _more_symbols(point: InformationPoint, quantizer: FittedQuantizer | CellQuantizer) -> str:
    """Advice for too few symbols."""
    if isinstance(quantizer, FittedQuantizer):
        return "Try more bins, or CellQuantizer()."
    twice, n = 2 * quantizer.max_cells, point.n_samples
    classes = math.ceil((math.e if point.unit == "nats" else 2) ** point.h_y)  # at least so many
    now = cell_limit(n, max_cells=quantizer.max_cells, expected_clusters=classes)
    if cell_limit(n, max_cells=twice, expected_clusters=classes) > now:
        return f"Try CellQuantizer({twice})."
    if cell_limit(2 * n, max_cells=quantizer.max_cells, expected_clusters=classes) == now:
        return "Compare the probe, which reads what is linear, however small."
    return f"Try more samples than {n} (max_samples=, and enough data), which allows more cells."


def _wider_edges(fitted: FittedQuantizer) -> str:
    """Advice for values outside the bins."""
    n_bins, (low, high) = fitted.n_bins, _rounded_outwards(*fitted.value_range())
    shown = f"low={low}, high={high}"
    bins = fitted.quantizer.bins
    if bins.needs_data:
        whence = "fitted at the first measurement and left behind since"
        again = ", or refit=True"
        if bins.refit:
            whence, again = "fitted at this measurement to a part of the values", ""
        return (
            f"which were {whence}: what looks like compression may be theirs. Try UniformBins({n_bins}, {shown}), "
            f"which holds what is seen now{again}."
        )
    return f"and what looks like compression may be theirs. Try UniformBins({n_bins}, {shown})."


def _rounded_outwards(low: float, high: float) -> tuple[float, float]:
    """A range of few digits that holds ``low`` and ``high``."""
    if not math.isfinite(high - low):
        return low, high
    width = high - low or abs(high) or 1.0
    digits = 2 - math.floor(math.log10(width))
    step = 10.0**-digits
    below, above = math.floor(low / step), math.ceil(high / step)
    return round(below * step, max(0, digits)), round((above + (above == below)) * step, max(0, digits))


def _fewer_symbols(point: InformationPoint, fitted: FittedQuantizer) -> str:
    """Bins with few enough symbols for the samples there are, and how many samples would do for these."""
    n_bins, width = fitted.n_bins, fitted.n_coordinates or 1
    if n_bins < 2:  # constant values, or too few samples to fit edges to
        return "Try more samples."
    symbols = max(2.0, point.n_samples / _SAMPLES_A_SYMBOL)
    coordinates = int(math.log(symbols) / math.log(n_bins) + 1e-9)
    bins = int(symbols ** (1 / width) + 1e-9)
    tries = []
    if 1 <= coordinates < width:
        tries.append(f"a coarser pool, to at most {coordinates} of its {width} coordinates with {n_bins} bins each")
    if 2 <= bins < n_bins:
        tries.append(f"at most {bins} bins for its {width} coordinates")
    if point.verdict == "undersampled":
        tries.append(f"at least {_SAMPLES_A_SYMBOL * point.n_codes} samples")
    if not tries:
        few = next((c for c in range(width, 0, -1) if symbols ** (1 / c) >= 2), 1)
        bins = int(symbols ** (1 / few) + 1e-9)
        tries.append(f"a coarser pool, to at most {few} of its {width} coordinates with {bins} bins each")
    return f"Try {', or '.join(tries)}."
