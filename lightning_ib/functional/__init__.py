"""Pure functions on tensors: symbols from real numbers, counts, entropies and informations.

What counts, and its corrections and errors; and estimators that do not bin. This package needs nothing but torch.
"""

from lightning_ib.functional.checks import Unit
from lightning_ib.functional.continuous.copula import mutual_information_gaussian_copula
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
from lightning_ib.functional.continuous.renyi import entropy_renyi, kernel_width_of, mutual_information_renyi
from lightning_ib.functional.continuous.soft import SoftEntropy, SoftInformation, soft_information
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
from lightning_ib.functional.discrete.fano import fano_information
from lightning_ib.functional.discrete.permutation import expected_mutual_information
from lightning_ib.functional.discrete.standard_errors import (
    Chance,
    shuffled,
    shuffled_mutual_information,
    standard_error,
    standard_error_of_entropy,
)
from lightning_ib.functional.discretize.cells import Cells, cells, most_cells
from lightning_ib.functional.discretize.codes import NOT_FINITE, ceil_to_dtype, codes, hash_table, quantiles, row_ids
from lightning_ib.functional.discretize.quantized import mutual_information_quantised, quantised_ids
from lightning_ib.functional.discretize.sketch import sketch
from lightning_ib.functional.variational.critics import mutual_information_infonce, mutual_information_smile
from lightning_ib.functional.variational.probes import Decoding, decode, usable_information

__all__ = [
    "Bounds",
    "Cells",
    "Chance",
    "Correction",
    "Decoding",
    "NOT_FINITE",
    "SoftEntropy",
    "SoftInformation",
    "Symbols",
    "Unit",
    "add_entropies",
    "ceil_to_dtype",
    "cells",
    "chao_shen",
    "checked_correction",
    "codes",
    "conditional_entropy",
    "conditional_mutual_information",
    "decode",
    "entropy",
    "entropy_bounds_kde",
    "entropy_of_counts",
    "entropy_renyi",
    "expected_mutual_information",
    "fano_information",
    "grassberger",
    "hash_table",
    "information_bottleneck",
    "jackknife",
    "james_stein",
    "joint",
    "joint_counts",
    "kernel_width_of",
    "miller_madow",
    "most_cells",
    "mutual_information",
    "mutual_information_bounds_kde",
    "mutual_information_gaussian_copula",
    "mutual_information_infonce",
    "mutual_information_knn",
    "mutual_information_ksg",
    "mutual_information_mixed",
    "mutual_information_quantised",
    "mutual_information_renyi",
    "mutual_information_smile",
    "noise_variance_of",
    "quantiles",
    "quantised_ids",
    "row_ids",
    "shuffled",
    "shuffled_mutual_information",
    "sketch",
    "soft_information",
    "standard_error",
    "standard_error_of_entropy",
    "symbols",
    "usable_information",
]
