"""Pure functions on tensors: symbols from real numbers, counts, entropies and informations.

Counting, its corrections, standard errors and baselines; and estimators for real numbers. This package requires torch
alone; nearest neighbors are found faster where SciPy is there.
"""

from lightning_ib.functional.checks import Unit
from lightning_ib.functional.continuous.conditional import (
    conditional_mutual_information_gaussian_copula,
    conditional_mutual_information_ksg,
    conditional_mutual_information_mixed,
)
from lightning_ib.functional.continuous.copula import (
    mutual_information_gaussian_copula,
    mutual_information_gaussian_copula_labels,
)
from lightning_ib.functional.continuous.corrected import mutual_information_ksg_corrected
from lightning_ib.functional.continuous.entropy_neighbors import differential_entropy_knn
from lightning_ib.functional.continuous.kde import (
    Bounds,
    entropy_bounds_kde,
    mutual_information_bounds_kde,
    noise_variance_of,
)
from lightning_ib.functional.continuous.neighbors import (
    mutual_information_knn,
    mutual_information_ksg,
    mutual_information_mixed,
)
from lightning_ib.functional.continuous.projected import mutual_information_projected
from lightning_ib.functional.continuous.renyi import (
    entropy_renyi,
    kernel_width_of,
    mutual_information_renyi,
    mutual_information_renyi_labels,
)
from lightning_ib.functional.continuous.soft import SoftEntropy, SoftInformation, soft_information
from lightning_ib.functional.discrete.chao_wang_jost import chao_wang_jost
from lightning_ib.functional.discrete.corrections import (
    Correction,
    chao_shen,
    checked_correction,
    grassberger,
    jackknife,
    james_stein,
    miller_madow,
)
from lightning_ib.functional.discrete.counting import (
    Symbols,
    add_entropies,
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    entropy_of_counts,
    information_bottleneck,
    joint,
    joint_counts,
    mutual_information,
    symbols,
)
from lightning_ib.functional.discrete.coverage import saturation, singleton_fraction
from lightning_ib.functional.discrete.fano import fano_information
from lightning_ib.functional.discrete.nsb import nsb
from lightning_ib.functional.discrete.permutation import (
    PermutationBaseline,
    expected_mutual_information,
    permuted_mutual_information,
    permuted_symbols,
)
from lightning_ib.functional.discrete.standard_errors import standard_error, standard_error_of_entropy
from lightning_ib.functional.discretize.bucketize import bucketize, ceil_to_dtype, quantiles
from lightning_ib.functional.discretize.cells import Cells, cell_limit, cells
from lightning_ib.functional.discretize.ids import NOT_FINITE, hash_table, row_ids
from lightning_ib.functional.discretize.quantized import mutual_information_quantized, quantized_ids
from lightning_ib.functional.discretize.sketch import sketch
from lightning_ib.functional.gaussian_bound import GaussianBound, gaussian_compression_bound, weight_noise_variance
from lightning_ib.functional.geometry.classes import ClassGeometry, ClassSums, class_geometry
from lightning_ib.functional.geometry.similarity import cka_of_sketches, cka_sketch, linear_cka
from lightning_ib.functional.geometry.spectrum import Spectrum, participation_ratio, spectrum
from lightning_ib.functional.gradients import GradientSignal, WeightDiffusion, gradient_signal, weight_diffusion
from lightning_ib.functional.resampling import resampled_standard_error
from lightning_ib.functional.variational.critics import (
    CriticResult,
    critic_information,
    mutual_information_infonce,
    mutual_information_smile,
)
from lightning_ib.functional.variational.probes import ProbeResult, probe_information, usable_information

__all__ = [
    "Bounds",
    "Cells",
    "ClassGeometry",
    "ClassSums",
    "Correction",
    "CriticResult",
    "GaussianBound",
    "GradientSignal",
    "NOT_FINITE",
    "PermutationBaseline",
    "ProbeResult",
    "SoftEntropy",
    "SoftInformation",
    "Spectrum",
    "Symbols",
    "Unit",
    "WeightDiffusion",
    "add_entropies",
    "bucketize",
    "ceil_to_dtype",
    "cell_limit",
    "cells",
    "chao_shen",
    "chao_wang_jost",
    "checked_correction",
    "cka_of_sketches",
    "cka_sketch",
    "class_geometry",
    "conditional_entropy",
    "conditional_mutual_information",
    "conditional_mutual_information_gaussian_copula",
    "conditional_mutual_information_ksg",
    "conditional_mutual_information_mixed",
    "critic_information",
    "differential_entropy_knn",
    "entropy",
    "entropy_bounds_kde",
    "entropy_of_counts",
    "entropy_renyi",
    "expected_mutual_information",
    "fano_information",
    "gaussian_compression_bound",
    "gradient_signal",
    "grassberger",
    "hash_table",
    "information_bottleneck",
    "jackknife",
    "james_stein",
    "joint",
    "joint_counts",
    "kernel_width_of",
    "linear_cka",
    "miller_madow",
    "mutual_information",
    "mutual_information_bounds_kde",
    "mutual_information_gaussian_copula",
    "mutual_information_gaussian_copula_labels",
    "mutual_information_infonce",
    "mutual_information_knn",
    "mutual_information_ksg",
    "mutual_information_ksg_corrected",
    "mutual_information_mixed",
    "mutual_information_projected",
    "mutual_information_quantized",
    "mutual_information_renyi",
    "mutual_information_renyi_labels",
    "mutual_information_smile",
    "noise_variance_of",
    "nsb",
    "participation_ratio",
    "permuted_mutual_information",
    "permuted_symbols",
    "probe_information",
    "quantiles",
    "quantized_ids",
    "resampled_standard_error",
    "row_ids",
    "saturation",
    "singleton_fraction",
    "sketch",
    "soft_information",
    "spectrum",
    "standard_error",
    "standard_error_of_entropy",
    "symbols",
    "usable_information",
    "weight_diffusion",
    "weight_noise_variance",
]
