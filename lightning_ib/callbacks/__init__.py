"""When to measure: the callbacks of a Trainer."""

from lightning_ib.callbacks.gradients import GradientSNRCallback
from lightning_ib.callbacks.information_plane import InformationPlaneCallback

__all__ = ["GradientSNRCallback", "InformationPlaneCallback"]
