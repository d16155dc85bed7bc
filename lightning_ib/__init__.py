"""The information plane of a network's layers, from one callback.

The names below are imported when they are first used, so that ``import lightning_ib.functional`` needs only torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Bins": "binning",
    "CellQuantizer": "binning",
    "Estimator": "estimators",
    "FixedBins": "binning",
    "GradientSNRCallback": "callbacks",
    "History": "records",
    "InformationPlane": "measurement",
    "InformationPlaneCallback": "callbacks",
    "InformationPoint": "records",
    "QuantileBins": "binning",
    "Quantizer": "binning",
    "Record": "records",
    "UniformBins": "binning",
    "measure": "evaluation",
    "resolution_sweep": "evaluation",
}

__all__ = [
    "Bins",
    "CellQuantizer",
    "Estimator",
    "FixedBins",
    "GradientSNRCallback",
    "History",
    "InformationPlane",
    "InformationPlaneCallback",
    "InformationPoint",
    "QuantileBins",
    "Quantizer",
    "Record",
    "UniformBins",
    "measure",
    "resolution_sweep",
]

if TYPE_CHECKING:
    from lightning_ib.binning.bins import Bins, FixedBins, QuantileBins, UniformBins
    from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
    from lightning_ib.callbacks.gradients import GradientSNRCallback
    from lightning_ib.callbacks.information_plane import InformationPlaneCallback
    from lightning_ib.estimators.base import Estimator
    from lightning_ib.evaluation.measure import measure
    from lightning_ib.evaluation.resolution import resolution_sweep
    from lightning_ib.measurement.information_plane import InformationPlane
    from lightning_ib.records.history import History
    from lightning_ib.records.points import InformationPoint
    from lightning_ib.records.record import Record


_MOVED = {
    "callback": "callbacks",
    "history": "records",
    "loggers": "report",
    "panels": "plot",
    "passes": "evaluation",
    "plane": "measurement",
    "plotting": "plot",
    "quantize": "binning",
    "recorder": "capture",
    "resolution": "evaluation",
    "tags": "records",
    "verdict": "records",
}


def __getattr__(name: str) -> Any:
    if name.endswith("Callback"):  # LightningCLI takes the class by name and checks its namespace
        importlib.import_module("lightning_ib.callbacks.namespaces").follow_imports()
    if name in _HOME:
        return getattr(importlib.import_module(f"lightning_ib.{_HOME[name]}"), name)
    if name == "Estimate":
        raise AttributeError(f"{__name__}.Estimate is {__name__}.Record now: estimator is source, figure is quantity.")
    if name in _MOVED:  # configurations name classes by their modules
        raise AttributeError(
            f"{__name__}.{name} is in {__name__}.{_MOVED[name]} now: take public names from {__name__} itself, such as "
            f"{__name__}.Quantizer."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
