"""What a network is trained with: stochastic bottleneck layers and losses, differentiable, in nats.

A bottleneck layer gives a code and its rate, a decoder gives logits, and a loss weighs them. This package requires
torch alone.
"""

from lightning_ib.objectives.batch_losses import NonlinearIBLoss, SurrogateIBLoss
from lightning_ib.objectives.bounds import log_variance_bound, nonlinear_ib_bound
from lightning_ib.objectives.dual import DualIBTerms, VariationalDualIBLoss, dual_distortion
from lightning_ib.objectives.gather import gather_batch
from lightning_ib.objectives.gaussian import BottleneckOutput, ConditionalPrior, GaussianBottleneck, gaussian_kl
from lightning_ib.objectives.hsic import HSICLoss, HSICTerms, hsic
from lightning_ib.objectives.information import (
    InformationLoss,
    InformationTerms,
    bernoulli_reconstruction,
    gaussian_reconstruction,
    information_objective,
)
from lightning_ib.objectives.losses import CEBLoss, RateDistortionLoss, VIBLoss
from lightning_ib.objectives.prediction import mean_log_probabilities
from lightning_ib.objectives.schedules import Annealing
from lightning_ib.objectives.terms import IBTerms

__all__ = [
    "Annealing",
    "BottleneckOutput",
    "CEBLoss",
    "ConditionalPrior",
    "DualIBTerms",
    "GaussianBottleneck",
    "HSICLoss",
    "HSICTerms",
    "IBTerms",
    "InformationLoss",
    "InformationTerms",
    "NonlinearIBLoss",
    "RateDistortionLoss",
    "SurrogateIBLoss",
    "VIBLoss",
    "VariationalDualIBLoss",
    "bernoulli_reconstruction",
    "dual_distortion",
    "gather_batch",
    "gaussian_kl",
    "gaussian_reconstruction",
    "hsic",
    "information_objective",
    "log_variance_bound",
    "mean_log_probabilities",
    "nonlinear_ib_bound",
]
