"""How a recorded quantity goes with a value of whole runs: a rank correlation over runs, with bars."""

from __future__ import annotations

from typing import NamedTuple


class RankCorrelation(NamedTuple):
    """The rank correlations of a quantity with one number for each run.

    Attributes:
        layer: the name of the module, or what was taken over layers.
        source: how the quantity was obtained, as in a record.
        quantity: such as ``"I_XT"``.
        n_runs: the number of runs that have both.
        tau: Kendall's tau-b.
        tau_low: the lower end of its bar, the 2.5 % percentile over resampled runs; NaN where it is undefined.
        tau_high: the upper end, the 97.5 % percentile.
        rho: Spearman's rank correlation.
        rho_low: the lower end of its bar.
        rho_high: the upper end.
        n_flagged: in how many of the runs the value has another verdict than ``"ok"``.
    """

    layer: str
    source: str
    quantity: str
    n_runs: int
    tau: float
    tau_low: float
    tau_high: float
    rho: float
    rho_low: float
    rho_high: float
    n_flagged: int
