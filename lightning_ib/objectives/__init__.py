"""What a network is trained with: stochastic bottleneck layers and losses, differentiable, in nats.

A bottleneck layer gives a code and its rate, a decoder gives logits, and a loss weighs them. This package requires
torch alone.
"""

from lightning_ib.objectives.dual import DualIBTerms, VariationalDualIBLoss, dual_distortion
from lightning_ib.objectives.gaussian import BottleneckOutput, ConditionalPrior, GaussianBottleneck, gaussian_kl

__all__ = [
    "BottleneckOutput",
    "ConditionalPrior",
    "DualIBTerms",
    "GaussianBottleneck",
    "VariationalDualIBLoss",
    "dual_distortion",
    "gaussian_kl",
]
