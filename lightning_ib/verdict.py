"""Whether figures can be believed: from what was counted to a verdict, and to what is to be changed."""

from __future__ import annotations

import math
from typing import Literal

from lightning_ib.history import InformationPoint
from lightning_ib.quantize import AutoQuantizer, Narrowing

Verdict = Literal["ok", "saturated", "clipped", "undersampled"]

SATURATED = 0.9
"""H(T)/log N above which a point is saturated: most samples then have a symbol of their own."""

CLIPPED = 0.1
"""The share of values outside the bins above which a point is clipped, beyond what its bins leave out by design."""

UNDERSAMPLED = 0.1
"""The share of samples whose symbol was seen once above which a point is undersampled."""

# At most one possible symbol for so many samples, in what is advised.
_SAMPLES_A_SYMBOL = 10


class VerdictWarning(UserWarning):
    """A layer's figures cannot be believed; what to change is said. Given once a layer."""


def verdict(
    *, saturation: float, singletons: float, n_codes: int, n_samples: int, outside: float, tails: float
) -> Verdict:
    r"""Whether the figures of a layer can be believed.

    - ``"saturated"``: H(T)/log N > 0.9. The figures tell the samples apart, not what was learnt.
    - ``"clipped"``: more than a tenth of the values lie outside the bins, and so in the same few: what looks like
      compression may be the edges' doing.
    - ``"undersampled"``: more than a tenth of the samples have a symbol seen once. By Good and Turing
      :math:`f_1 / N` is the probability that the next sample shows a symbol not seen yet (Good 1953): the counts are
      no sample of the layer's distribution, and the bias of I(T;Y) is large; compare it with that of shuffled labels.
    - ``"ok"``: none of these. Of several the first counts.

    Args:
        saturation: H(T)/log N, H(T) as counted.
        singletons: the share of symbols that were seen once.
        n_codes: the number of symbols seen.
        n_samples: the number of samples.
        outside: the share of values outside the bins; NaN where that cannot be told.
        tails: the share that the bins leave outside by design.

    Returns:
        One of :data:`Verdict`.

    Example:
        >>> verdict(saturation=0.5, singletons=0.2, n_codes=100, n_samples=1000, outside=0.4, tails=0.02)
        'clipped'
    """
    if saturation > SATURATED:
        return "saturated"
    if outside > CLIPPED + tails:
        return "clipped"
    return "undersampled" if singletons * n_codes > UNDERSAMPLED * n_samples else "ok"


def advice(point: InformationPoint, narrowing: Narrowing) -> str:
    """What to change about a layer whose figures cannot be believed, with the value to try.

    Args:
        point: its point; the verdict is not ``"ok"``.
        narrowing: how it was narrowed.
    """
    what = f"layer {point.layer!r} is {point.verdict} at epoch {point.epoch}"
    if point.verdict == "clipped":
        return f"{what}: {point.outside:.0%} of its values lie outside its bins, {_other_edges(narrowing)}"
    if point.verdict == "saturated":
        why = f"H(T) is {point.saturation:.2f} of log N: its figures tell the samples apart, not what was learnt"
    else:
        seen_once = point.singletons * point.n_codes / point.n_samples
        why = f"{seen_once:.0%} of the samples have a symbol of their own, and chance has a large part in its figures"
        if not math.isnan(point.i_ty_shuffled):
            why += f" (I(T;Y) is {point.i_ty:.2f} {point.unit}, and {point.i_ty_shuffled:.2f} with shuffled labels)"
    return f"{what}: {why}. {_coarser(point, narrowing)}"


def _other_edges(narrowing: Narrowing) -> str:
    """What to do about values outside."""
    n_bins, (low, high) = narrowing.n_bins, _rounded_outwards(*narrowing.seen())
    shown = f"low={low}, high={high}"
    if isinstance(narrowing.asked, AutoQuantizer):
        bins = f"UniformBins({n_bins}, quantiles=(0.01, 0.99), refit=True)"
        return f"and what looks like compression may be theirs. Try Quantizer(pool, {bins}) with a pool of your own."
    if narrowing.asked.bins.needs_data:
        return (
            "which were fitted at the first measurement and left behind since: what looks like compression may be "
            f"theirs. Try UniformBins({n_bins}, {shown}), which holds what is seen now, or refit=True."
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
    """A narrowing with few enough symbols for the samples there are, and how many samples would do for this one."""
    n_bins, width = narrowing.n_bins, narrowing.n_coordinates or 1
    if n_bins < 2:  # no choice was made yet: too few samples, or all alike
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
