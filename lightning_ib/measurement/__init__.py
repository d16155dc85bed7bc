"""Instruments: attached to a model, they take in batches and return records."""

from lightning_ib.measurement.information_plane import InformationPlane

__all__ = ["InformationPlane"]
