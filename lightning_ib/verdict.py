"""Whether values can be believed: from what was counted to a verdict, and to what is to be changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from lightning_ib.functional import Unit, entropy
from lightning_ib.functional.cells import most_cells
from lightning_ib.functional.checks import logarithm
from lightning_ib.functional.soft import at_chance
from lightning_ib.history import InformationPoint, Measurement
from lightning_ib.quantize import CellQuantizer, Narrowing

if TYPE_CHECKING:
    from lightning_ib.estimators import Estimator, Rows

Verdict = Literal[
    "ok",
    "constant",
    "saturated",
    "clipped",
    "undersampled",
    "too_coarse",
    "target_saturated",
    "target_undersampled",
]

SATURATED = 0.9
"""H(T)/log N above which a point is saturated: most samples then have a symbol of their own."""

CLIPPED = 0.1
"""The share of values outside the bins above which a point is clipped, beyond what its bins leave out by design."""

UNDERSAMPLED = 0.1
"""The share of samples whose symbol was seen once above which a point is undersampled."""

FAR_APART = 0.3
"""The share of H(Y) by which a probe that reads more than the symbols of a layer is worth a word."""

# At most one possible symbol for so many samples, in what is advised.
_SAMPLES_A_SYMBOL = 10

# What rounding may add to a bound that is reached.
_ROUNDING = 1e-9


def seen_once(point: InformationPoint) -> float:
    """The share of the samples whose symbol was seen once, by which a point is ``"undersampled"``; NaN of none."""
    return point.singletons * point.n_codes / point.n_samples if point.n_samples else math.nan


class VerdictWarning(UserWarning):
    """A layer's values cannot be believed; what to change is said. Given once a layer, once for a target."""


def verdict(
    *,
    saturation: float,
    singletons: float,
    n_codes: int,
    n_samples: int,
    outside: float = math.nan,
    tails: float = 0.0,
    target_saturation: float = math.nan,
    target_singletons: float = math.nan,
    below_fano: bool = False,
) -> Verdict:
    r"""Whether the values of a layer can be believed.

    - ``"constant"``: all samples have one symbol. The layer is dead, or its bins are too wide.
    - ``"saturated"``: H(T)/log N > 0.9. The values tell the samples apart, not what was learnt.
    - ``"clipped"``: more than a tenth of the values lie outside the bins, and so in the same few: what looks like
      compression may be the edges' doing.
    - ``"undersampled"``: more than a tenth of the samples have a symbol seen once. By Good and Turing
      :math:`f_1 / N` is the probability that the next sample shows a symbol not seen yet (Good 1953): the counts are
      no sample of the layer's distribution, and the bias of I(T;Y) is large; compare it with the permutation baseline.
    - ``"too_coarse"``: the layer is the head, and its I(T;Y) lies below what its own accuracy proves (Fano), by more
      than two standard errors.
    - ``"target_saturated"``, ``"target_undersampled"``: the same of the target's symbols; I(T;Y) means nothing.
    - ``"ok"``: none of these. Of several the first counts.

    Args:
        saturation: H(T)/log N, H(T) as counted.
        singletons: the share of symbols that were seen once.
        n_codes: the number of symbols seen.
        n_samples: the number of samples.
        outside: the share of values outside the bins; NaN where it is undefined.
        tails: the share that the bins leave outside by design.
        target_saturation: H(Y)/log N; NaN where there is no target.
        target_singletons: the share of samples whose target was seen once.
        below_fano: whether the layer is the head and lies below Fano's bound by more than its error.

    Returns:
        One of :data:`Verdict`.

    Example:
        >>> verdict(saturation=0.5, singletons=0.2, n_codes=100, n_samples=1000, outside=0.4, tails=0.02)
        'clipped'
    """
    if n_codes == 1 and n_samples > 1:
        return "constant"
    if saturation > SATURATED:
        return "saturated"
    if outside > CLIPPED + tails:
        return "clipped"
    if singletons * n_codes > UNDERSAMPLED * n_samples:
        return "undersampled"
    if target_saturation > SATURATED:
        return "target_saturated"
    if target_singletons > UNDERSAMPLED:
        return "target_undersampled"
    return "too_coarse" if below_fano else "ok"


def estimate_verdict(
    values: Mapping[str, float],
    rows: Rows,
    unit: Unit,
    settled: Mapping[str, float],
    estimator: Estimator,
    *,
    n_samples: int | None = None,
) -> dict[str, str]:
    r"""Whether the values of an estimator can be believed, by their names.

    - ``"outgrown"``: the scale of the layer is more than three times, or less than a third of, the one that the width
      of the kernel was set to.
    - ``"above_bound"``: an I(T;Y) above H(Y), which no information about Y can be.
    - ``"saturated"``: an I(X;T) above 0.9 log M, with M rows: they are told apart one by one. It holds for all
      informations of the estimator then, as kernels that no longer overlap read H(Y) for I(T;Y).
    - ``"at_chance"``: an I(T;Y) that is at most twice its own floor, ``I_TY_floor``, the mean under permuted labels.
    - ``"ok"``: none of these. Of several the first counts. Empty for NaN and for what is no information.

    Args:
        values: the values of one estimator for one layer, by name.
        rows: the rows it saw, pooled.
        unit: of the informations.
        settled: what the estimator set at the first measurement.
        estimator: the estimator.
        n_samples: how many samples it saw, where they are not the rows: H(Y) of those is not known here.
    """
    m = len(rows.t) if n_samples is None else n_samples
    known = rows.labels is not None and m == len(rows.t)
    h_y = entropy(rows.labels.flatten(), unit=unit) if known and rows.labels is not None else math.inf
    log_m = logarithm(unit)(max(2, m))
    saturated = any(value > SATURATED * log_m for name, value in values.items() if name.startswith("I_XT"))
    try:
        outgrown = estimator.outgrown(rows, settled)
    except Exception:  # rows without a scale: their values are NaN
        outgrown = False
    found = {}
    for name, value in values.items():
        if math.isnan(value) or not name.startswith("I_"):
            found[name] = "ok" if name.endswith("accuracy") and not math.isnan(value) else ""
        elif outgrown:
            found[name] = "outgrown"
        elif name in ("I_TY", "I_TY_lower") and value > h_y + _ROUNDING:
            found[name] = "above_bound"
        elif saturated:
            found[name] = "saturated"
        else:
            chance = name == "I_TY" and at_chance(value, values.get("I_TY_floor", -math.inf))
            found[name] = "at_chance" if chance else "ok"
    return found


def outread(measured: Measurement) -> str | None:
    """One sentence on the layers of which a linear probe reads far more than their symbols; none where there is none.

    Args:
        measured: the points and estimates of one measurement.
    """
    read = {one.layer: one.value for one in measured.estimates if (one.estimator, one.figure) == ("probe", "I_TY")}
    far = [p for p in measured.points if p.layer in read and read[p.layer] - p.i_ty > FAR_APART * p.h_y]
    if not far:
        return None
    far.sort(key=lambda p: p.i_ty - read[p.layer])
    shown = [f"{p.layer!r} ({read[p.layer]:.2f}, its {p.source} {p.i_ty:.2f})" for p in far[:3]]
    shown += [f"{len(far) - 3} more"] * (len(far) > 3)
    return (
        f"a linear probe reads far more of the {far[0].h_y:.2f} {far[0].unit} of the target than is counted at "
        f"{', '.join(shown)}: their symbols are too few for it, or it lies in directions of small variance. Go by the "
        "probe there."
    )


def advice(point: InformationPoint, quantizer: Narrowing | CellQuantizer) -> str:
    """What to change about a layer whose values cannot be believed, with the value to try.

    Args:
        point: its point; the verdict is not ``"ok"``.
        quantizer: how it was discretized.
    """
    what = f"layer {point.layer!r} is {point.verdict} at epoch {point.epoch}"
    if point.verdict == "constant":
        why = "all its samples have one symbol, and H(T) and I(T;Y) are 0"
        if isinstance(quantizer, Narrowing):
            low, high = quantizer.seen()
            if point.outside > CLIPPED and low < high:
                return (
                    f"{what}: {why}. {point.outside:.0%} of its values lie outside its bins, {_other_edges(quantizer)}"
                )
            seen = f"Its values lie between {low:.4g} and {high:.4g}"
            return f"{what}: {why}. {seen}: use finer bins, or look for dead units."
        return f"{what}: {why}. Its activations do not depend on the input: look for dead units."
    if point.verdict.startswith("target_"):
        why = (
            f"H(Y) is {point.h_y:.2f} {point.unit} of log N = {logarithm(point.unit)(point.n_samples):.2f}, so most "
            "samples have a target of their own"
            if point.verdict == "target_saturated"
            else f"more than {UNDERSAMPLED:.0%} of the samples have a target of their own"
        )
        return (
            f"the target is {point.verdict.removeprefix('target_')} at epoch {point.epoch}: {why}, and I(T;Y) says "
            "nothing of any layer. Give class labels, or for real values target=Quantizer(bins=QuantileBins(10)), with "
            "a pool to one coordinate where they have several; where each token or pixel has a label, tokens=True."
        )
    if point.verdict == "too_coarse":
        return (
            f"{what}: its I(T;Y) of {point.i_ty:.2f} {point.unit} lies below the {point.i_ty_fano:.2f} that its "
            f"accuracy of {point.accuracy:.3f} proves (Fano): its symbols mix what it tells apart. "
            f"{_finer(point, quantizer)}"
        )
    if point.verdict == "clipped":
        assert isinstance(quantizer, Narrowing)
        return f"{what}: {point.outside:.0%} of its values lie outside its bins, {_other_edges(quantizer)}"
    if point.verdict == "saturated":
        why = f"H(T) is {point.saturation:.2f} of log N: its values tell the samples apart, not what was learnt"
    else:
        share = f"{seen_once(point):.0%} of the samples"
        why = f"{share} have a symbol of their own, and chance has a large part in its values"
        if not math.isnan(point.i_ty_shuffled):
            why += f" (I(T;Y) is {point.i_ty:.2f} {point.unit}, and {point.i_ty_shuffled:.2f} with permuted labels)"
    if isinstance(quantizer, CellQuantizer):
        return f"{what}: {why}. Measure on more than the {point.n_samples} samples: at least 100."
    return f"{what}: {why}. {_coarser(point, quantizer)}"


def _finer(point: InformationPoint, quantizer: Narrowing | CellQuantizer) -> str:
    """What to do about symbols that are too few."""
    if isinstance(quantizer, Narrowing):
        return "Try more bins, or CellQuantizer()."
    twice, n = 2 * quantizer.max_cells, point.n_samples
    classes = math.ceil((math.e if point.unit == "nats" else 2) ** point.h_y)  # at least so many
    now = most_cells(n, quantizer.max_cells, classes)
    if most_cells(n, twice, classes) > now:
        return f"Try CellQuantizer({twice})."
    if most_cells(2 * n, quantizer.max_cells, classes) == now:
        return "Compare the probe, which reads what is linear, however small."
    return f"Try more samples than {n} (max_samples=, and enough data), which allows more cells."


def _other_edges(narrowing: Narrowing) -> str:
    """What to do about values outside."""
    n_bins, (low, high) = narrowing.n_bins, _rounded_outwards(*narrowing.seen())
    shown = f"low={low}, high={high}"
    bins = narrowing.quantizer.bins
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


def _coarser(point: InformationPoint, narrowing: Narrowing) -> str:
    """Bins with few enough symbols for the samples there are, and how many samples would do for these."""
    n_bins, width = narrowing.n_bins, narrowing.n_coordinates or 1
    if n_bins < 2:  # all alike, or too few samples to fit edges to
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
