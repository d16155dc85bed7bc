"""The theory behind the information plane: the bottleneck of a joint distribution p(x, y), its dual and its bounds.

A curve holds the best I(T;Y) for each I(X;T), with a certificate of optimality at every β. This package requires torch
alone; its pictures require matplotlib.
"""

from lightning_ib.bottleneck.agglomerative import agglomerative_ib
from lightning_ib.bottleneck.critical import CriticalBetas, critical_betas
from lightning_ib.bottleneck.curve import BottleneckCurve
from lightning_ib.bottleneck.decoders import (
    ErrorExponent,
    decoder_statistics,
    error_exponent,
    exponential_family,
    geometric_decoder,
)
from lightning_ib.bottleneck.finite_samples import (
    FiniteSampleBound,
    finite_sample_bound,
    input_compression_bound,
)
from lightning_ib.bottleneck.gaussian import GaussianCurve, gaussian_ib
from lightning_ib.bottleneck.information_bottleneck import Kind, ib_curve
from lightning_ib.bottleneck.layers import BoundDistance, distance_to_bound

__all__ = [
    "BottleneckCurve",
    "BoundDistance",
    "CriticalBetas",
    "ErrorExponent",
    "FiniteSampleBound",
    "GaussianCurve",
    "Kind",
    "agglomerative_ib",
    "critical_betas",
    "decoder_statistics",
    "distance_to_bound",
    "error_exponent",
    "exponential_family",
    "finite_sample_bound",
    "gaussian_ib",
    "geometric_decoder",
    "ib_curve",
    "input_compression_bound",
]
