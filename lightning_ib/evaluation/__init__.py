"""Measures a network outside a Trainer, in passes that restore all state."""

from lightning_ib.evaluation.measure import measure
from lightning_ib.evaluation.resolution import ResolutionSweep, resolution_sweep

__all__ = ["ResolutionSweep", "measure", "resolution_sweep"]
