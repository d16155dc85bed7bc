"""See what the layers of a network know: the information plane, from one callback.

The names below are imported when they are first used, so that ``import lightning_ib.functional`` needs only torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_HOME = {
    "Bins": "quantize",
    "CellQuantizer": "quantize",
    "Estimate": "history",
    "Estimator": "estimators",
    "FixedBins": "quantize",
    "InformationPlane": "plane",
    "InformationPlaneCallback": "callback",
    "InformationPoint": "history",
    "QuantileBins": "quantize",
    "Quantizer": "quantize",
    "UniformBins": "quantize",
    "measure": "passes",
    "resolution_sweep": "resolution",
}

__all__ = [
    "Bins",
    "CellQuantizer",
    "Estimate",
    "Estimator",
    "FixedBins",
    "InformationPlane",
    "InformationPlaneCallback",
    "InformationPoint",
    "QuantileBins",
    "Quantizer",
    "UniformBins",
    "measure",
    "resolution_sweep",
]

if TYPE_CHECKING:
    from lightning_ib.callback import InformationPlaneCallback
    from lightning_ib.estimators import Estimator
    from lightning_ib.history import Estimate, InformationPoint
    from lightning_ib.passes import measure
    from lightning_ib.plane import InformationPlane
    from lightning_ib.quantize import Bins, CellQuantizer, FixedBins, QuantileBins, Quantizer, UniformBins
    from lightning_ib.resolution import resolution_sweep


def __getattr__(name: str) -> Any:
    if name == "InformationPlaneCallback":  # LightningCLI asks for it by name, and of which namespace it is
        importlib.import_module("lightning_ib.namespaces").follow_imports()
    if name in _HOME:
        return getattr(importlib.import_module(f"lightning_ib.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
