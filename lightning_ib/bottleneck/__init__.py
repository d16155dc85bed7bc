"""The theory behind the information plane: the bottleneck of a joint distribution p(x, y), its dual and its bounds."""

from lightning_ib.bottleneck.agglomerative import agglomerative_ib
from lightning_ib.bottleneck.critical import CriticalBetas, critical_betas
from lightning_ib.bottleneck.curve import BottleneckCurve
from lightning_ib.bottleneck.information_bottleneck import ib_curve

__all__ = ["BottleneckCurve", "CriticalBetas", "agglomerative_ib", "critical_betas", "ib_curve"]
