"""When to measure: the callbacks of a Trainer."""

from lightning_ib.callbacks.information_plane import InformationPlaneCallback

__all__ = ["InformationPlaneCallback"]
