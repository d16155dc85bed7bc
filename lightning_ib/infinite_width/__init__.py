"""Infinite ensembles of infinitely wide networks, of which all informations are formulas: a judge of estimators.

This package requires torch alone.
"""

from lightning_ib.infinite_width.ensemble import EnsembleValues, InfiniteWidthEnsemble

__all__ = ["EnsembleValues", "InfiniteWidthEnsemble"]
