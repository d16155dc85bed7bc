"""Whether values can be believed: from what was counted to a verdict."""

from __future__ import annotations

import math
from typing import Literal

from lightning_ib.records.history import History
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
"""The share of values outside the bins above which a point is clipped, beyond what its bins leave out by design."""

UNDERSAMPLED = 0.1
"""The share of samples whose symbol was seen once above which a point is undersampled."""

FAR_APART = 0.3
"""The share of H(Y) by which a probe that reads more than the symbols of a layer is worth a word."""


class VerdictWarning(UserWarning):
    """A layer's values cannot be believed; what to change is said. Given once a layer, once for a target."""


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
        singleton_fraction: the share of the samples whose symbol was seen once.
        n_codes: the number of symbols seen.
        n_samples: the number of samples.
        clipped_fraction: the share of values outside the bins; NaN where undefined.
        nominal_tail_mass: the share that the bins leave outside by design.
        target_saturation: H(Y)/log N; NaN where there is no target.
        target_singleton_fraction: the share of samples whose target was seen once.
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


def outread(measured: History) -> str | None:
    """One sentence on the layers of which a linear probe reads far more than their symbols; none where there is none.

    Args:
        measured: one measurement.
    """
    read = {one.layer: one.value for one in measured.estimates() if (one.source, one.quantity) == ("probe", "I_TY")}
    far = [p for p in measured if p.layer in read and read[p.layer] - p.i_ty > FAR_APART * p.h_y]
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
