"""Estimators that do not bin, as choices of a measurement: what each needs, what it sets once, what it gives.

The arithmetic is in :mod:`lightning_ib.functional`; the rows are a sample of the pass, see
:class:`~lightning_ib.measurement.reservoir.Reservoir`.
"""

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.estimators.copula import GaussianCopula
from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.neighbors import KNN, KSG, MixedKNN
from lightning_ib.estimators.quantized import Quantised
from lightning_ib.estimators.registry import BY_NAME
from lightning_ib.estimators.soft import Soft
from lightning_ib.estimators.variational import SMILE, InfoNCE, Probe

__all__ = [
    "BY_NAME",
    "KDE",
    "KNN",
    "KSG",
    "SMILE",
    "Estimator",
    "GaussianCopula",
    "InfoNCE",
    "MixedKNN",
    "Probe",
    "Quantised",
    "Renyi",
    "Rows",
    "Soft",
]
