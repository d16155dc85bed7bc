"""Estimators as choices of a measurement: inputs, hyperparameters calibrated at the first measurement, and outputs.

The arithmetic is in :mod:`lightning_ib.functional`; the rows are a sample of the pass, see
:class:`~lightning_ib.measurement.reservoir.Reservoir`.
"""

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.estimators.copula import GaussianCopula
from lightning_ib.estimators.gaussian import GaussianChannel
from lightning_ib.estimators.geometry import LayerClasses, LayerDrift, LayerSpectrum
from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.neighbors import KNN, KSG, MixedKNN, Projected
from lightning_ib.estimators.quantized import Quantized
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
    "GaussianChannel",
    "GaussianCopula",
    "InfoNCE",
    "LayerClasses",
    "LayerDrift",
    "LayerSpectrum",
    "MixedKNN",
    "Probe",
    "Projected",
    "Quantized",
    "Renyi",
    "Rows",
    "Soft",
]
