"""Measuring a network without a Trainer, in passes that leave no trace."""

from lightning_ib.evaluation.measure import measure
from lightning_ib.evaluation.resolution import ResolutionSweep, resolution_sweep

__all__ = ["ResolutionSweep", "measure", "resolution_sweep"]
