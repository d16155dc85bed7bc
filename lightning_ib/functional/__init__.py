"""Pure functions on tensors: symbols from real numbers, counts, entropies and informations.

This package needs nothing but torch.
"""

from lightning_ib.functional.checks import Unit
from lightning_ib.functional.counting import (
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
from lightning_ib.functional.discretise import NOT_FINITE, codes, hash_table, quantiles, rounded_up, row_ids

__all__ = [
    "NOT_FINITE",
    "Symbols",
    "Unit",
    "add_entropies",
    "codes",
    "conditional_entropy",
    "conditional_mutual_information",
    "entropy",
    "entropy_of_counts",
    "hash_table",
    "information_bottleneck",
    "joint",
    "joint_counts",
    "mutual_information",
    "quantiles",
    "rounded_up",
    "row_ids",
    "symbols",
]
