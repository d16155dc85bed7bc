"""Instruments: attached to a model, they see batches and give records."""

from lightning_ib.measurement.information_plane import InformationPlane

__all__ = ["InformationPlane"]
