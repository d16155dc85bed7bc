"""Instruments: attached to a model, they take in batches and return records."""

from lightning_ib.measurement.gradients import GradientSNR
from lightning_ib.measurement.information_plane import InformationPlane

__all__ = ["GradientSNR", "InformationPlane"]
