"""The reliability of the values of an estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.functional import Unit, entropy_of_counts, symbols
from lightning_ib.functional.checks import in_unit, logarithm
from lightning_ib.functional.continuous.soft import at_chance
from lightning_ib.functional.discretize.ids import value_ids
from lightning_ib.records.reliability import SATURATED, UNDERSAMPLED

# The rounding by which a value may exceed a bound that it reaches.
_ROUNDING = 1e-9

BELOW_ZERO = 4
"""The standard errors by which an information must lie below 0 to be flagged: chance alone rarely takes it there."""


def estimate_verdict(
    values: Mapping[str, float],
    rows: Rows,
    unit: Unit,
    calibration: Mapping[str, float],
    estimator: Estimator,
    *,
    n_samples: int | None = None,
    errors: Mapping[str, float] | None = None,
    bound: float | None = None,
) -> dict[str, str]:
    r"""The reliability of the values of an estimator, by their names.

    - ``"outgrown"``: the scale of the layer is more than three times, or less than a third of, the one that the width
      of the kernel was calibrated to.
    - ``"above_bound"``: an I(T;Y) above :func:`bound_of_target`, or an I(X;T) above log M, the entropy of M rows that
      all differ.
    - ``"below_zero"``: an information below 0 by more than four of its standard errors: the estimator misleads here.
      A probe predicts worse than the class shares then.
    - ``"saturated"``: an I(X;T) above 0.9 log M, with M rows: nearly every row is unique. It holds for all
      informations of the estimator then, as kernels that hardly overlap read H(Y) for I(T;Y).
    - ``"at_chance"``: an I(T;Y) that is at most twice its own floor, ``I_TY_floor``, the mean under permuted labels.
    - ``"ok"``: otherwise. Of several the first counts. Empty for NaN and for hyperparameters.

    Args:
        values: the values of one estimator for one layer, by name.
        rows: the rows it saw, pooled.
        unit: of the informations.
        calibration: the result of ``calibrate`` at the first measurement.
        estimator: the estimator.
        n_samples: the number of samples it saw, where they are others than the rows: their H(Y) is unknown here.
        errors: the standard errors of the values that have one, by their names.
        bound: on I(T;Y), from :func:`bound_of_target` on the same rows; found here where it is left out.
    """
    m = len(rows.t) if n_samples is None else n_samples
    bound = bound_of_target(rows, unit) if bound is None else bound
    bounds = {"I_TY": bound if m == len(rows.t) else math.inf}
    bounds["I_XT"] = log_m = logarithm(unit)(max(2, m))
    errors = {} if errors is None else errors
    saturated = any(value > SATURATED * log_m for name, value in values.items() if name.startswith("I_XT"))
    try:
        outgrown = estimator.outgrown(rows, calibration)
    except Exception:  # constant rows: their values are NaN
        outgrown = False
    found = {}
    for name, value in values.items():
        if math.isnan(value) or not name.startswith("I_"):
            found[name] = "ok" if name.endswith("accuracy") and not math.isnan(value) else ""
        elif outgrown:
            found[name] = "outgrown"
        elif value > bounds.get(name[:4], math.inf) + _ROUNDING:
            found[name] = "above_bound"
        elif name != "I_TY_above_floor" and value < -BELOW_ZERO * errors.get(name, math.nan) - _ROUNDING:
            found[name] = "below_zero"
        elif saturated:
            found[name] = "saturated"
        else:
            chance = name == "I_TY" and at_chance(value, values.get("I_TY_floor", -math.inf))
            found[name] = "at_chance" if chance else "ok"
    return found


def bound_of_target(rows: Rows, unit: Unit) -> float:
    """The most that an information about the target may be: H(Y) and K/M nats where it is discrete, else infinity.

    H(Y) bounds any information about Y. It is counted: of class labels, and of real values where at most a tenth of the
    rows have a value of their own, so that they are discrete. Counts of K classes in M rows read it low by about K/2M
    nats (Miller 1955), which nearest neighbors of classes apart do not.

    Args:
        rows: the rows that an estimator saw.
        unit: ``"bits"`` or ``"nats"``.
    """
    y = rows.y
    if y is None or len(y) == 0:
        return math.inf
    counts = symbols(y.flatten() if rows.labels is not None else value_ids(y)).counts
    discrete = rows.labels is not None or int((counts == 1).sum()) / len(y) <= UNDERSAMPLED
    return entropy_of_counts(counts, unit=unit) + in_unit(len(counts) / len(y), unit) if discrete else math.inf
