"""Reliability flags: from the counts of a layer to a verdict."""

from __future__ import annotations

import math
from typing import Literal

from lightning_ib.records.history import History
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import IN_WORDS

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
"""The clipped fraction, beyond the nominal tail mass of the bins, above which a point is clipped."""

UNDERSAMPLED = 0.1
"""The fraction of samples with a symbol seen once above which a point is undersampled."""

PROBE_EXCESS = 0.3
"""The fraction of H(Y) by which a probe must exceed the counted I(T;Y) to be reported."""


class VerdictWarning(UserWarning):
    """The values of a layer are unreliable, with advice. Issued once for each layer, and once for the target."""


def verdict(
    *,
    saturation: float,
    singleton_fraction: float,
    n_codes: int,
    n_samples: int,
    clipped_fraction: float = math.nan,
    nominal_tail_mass: float = 0.0,
    target_saturation: float = math.nan,
    target_singleton_fraction: float = math.nan,
    below_fano: bool = False,
) -> Verdict:
    r"""The reliability flag of a layer.

    - ``"constant"``: all samples have one symbol. The layer is dead, or its bins are too wide.
    - ``"saturated"``: H(T)/log N > 0.9. The values count samples instead of learned features.
    - ``"clipped"``: more than a tenth of the values lie outside the bins, and so share the outermost ones: apparent
      compression may be an artifact of the edges.
    - ``"undersampled"``: more than a tenth of the samples have a symbol seen once. By Good and Turing
      :math:`f_1 / N` is the probability that the next sample shows an unseen symbol (Good 1953): the counts poorly
      represent the layer's distribution, and the bias of I(T;Y) is large; compare it with the permutation baseline.
    - ``"too_coarse"``: the layer is the head, and its I(T;Y) lies below the Fano bound from its own accuracy, by more
      than two standard errors.
    - ``"target_saturated"``, ``"target_undersampled"``: the same of the target's symbols; I(T;Y) is meaningless.
    - ``"ok"``: otherwise. Of several flags the first counts.

    Args:
        saturation: H(T)/log N, H(T) as counted.
        singleton_fraction: the fraction of the samples with a symbol seen once.
        n_codes: the number of symbols seen.
        n_samples: the number of samples.
        clipped_fraction: the fraction of values outside the bins; NaN where undefined.
        nominal_tail_mass: the fraction that the bins leave outside by design.
        target_saturation: H(Y)/log N; NaN without a target.
        target_singleton_fraction: the fraction of samples with a target seen once.
        below_fano: whether the layer is the head and lies below Fano's bound by more than its error.

    Returns:
        One of :data:`Verdict`.

    Example:
        >>> verdict(saturation=0.5, singleton_fraction=0.02, n_codes=100, n_samples=1000, clipped_fraction=0.4)
        'clipped'
    """
    if n_codes == 1 and n_samples > 1:
        return "constant"
    if saturation > SATURATED:
        return "saturated"
    if clipped_fraction > CLIPPED + nominal_tail_mass:
        return "clipped"
    if singleton_fraction > UNDERSAMPLED:
        return "undersampled"
    if target_saturation > SATURATED:
        return "target_saturated"
    if target_singleton_fraction > UNDERSAMPLED:
        return "target_undersampled"
    return "too_coarse" if below_fano else "ok"


def reason(point: InformationPoint) -> str:
    """The reason for the reliability flag of a point, in one sentence without a full stop; empty for ``"ok"``.

    Example:
        >>> point = InformationPoint.missing("out", n_samples=80, unit="bits")
        >>> reason(point._replace(saturation=0.95, verdict="saturated"))
        'H(T) is 0.95 of log N: its values tell the samples apart, not what was learned'
    """
    match point.verdict:
        case "constant":
            return "all its samples have one symbol, and H(T) and I(T;Y) are 0"
        case "saturated":
            return f"H(T) is {point.saturation:.2f} of log N: its values tell the samples apart, not what was learned"
        case "clipped":
            return f"{point.clipped_fraction:.0%} of its values lie outside its bins"
        case "undersampled":
            share = f"{point.singleton_fraction:.0%} of the samples"
            why = f"{share} have a symbol of their own, and chance has a large part in its values"
            if math.isnan(point.i_ty_permuted):
                return why
            return (
                f"{why} (I(T;Y) is {point.i_ty:.2f} {point.unit}, and {point.i_ty_permuted:.2f} with permuted labels)"
            )
        case "too_coarse":
            return (
                f"its I(T;Y) of {point.i_ty:.2f} {point.unit} lies below the {point.i_ty_fano:.2f} that its accuracy "
                f"of {point.accuracy:.3f} proves (Fano)"
            )
        case "target_saturated":
            log_n = math.log2(point.n_samples) if point.unit == "bits" else math.log(point.n_samples)
            return (
                f"H(Y) is {point.h_y:.2f} {point.unit} of log N = {log_n:.2f}, so most samples have a target of their "
                "own"
            )
        case "target_undersampled":
            return f"more than {UNDERSAMPLED:.0%} of the samples have a target of their own"
    return ""


def probe_exceeds_counts(measured: History) -> str | None:
    """One sentence on the layers where I(T;Y) of a linear probe far exceeds the counted one; ``None`` without such.

    Args:
        measured: one measurement.
    """
    read = {one.layer: one.value for one in measured.estimates() if (one.source, one.quantity) == ("probe", "I_TY")}
    far = [p for p in measured if p.layer in read and read[p.layer] - p.i_ty > PROBE_EXCESS * p.h_y]
    if not far:
        return None
    far.sort(key=lambda p: p.i_ty - read[p.layer])
    shown = [f"{p.layer!r} ({read[p.layer]:.2f}, its {IN_WORDS[p.source]} {p.i_ty:.2f})" for p in far[:3]]
    shown += [f"{len(far) - 3} more"] * (len(far) > 3)
    return (
        f"a linear probe reads far more of the {far[0].h_y:.2f} {far[0].unit} of the target than is counted at "
        f"{', '.join(shown)}: their symbols are too few for it, or it lies in directions of small variance. Go by the "
        "probe there."
    )
