"""Two discrete variables."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy import special, stats
from torch import Generator

from cases.case import Case, Pair, binary_entropy, bits, normal, uniform


def same_symbol(m: int, n: int, g: Generator) -> Pair:
    """One of m symbols over a noiseless channel: I = log2 m. D fair bits are m = 2^D."""
    x = torch.randint(m, (n,), generator=g)
    return x, x.clone()


def binary_symmetric(flip: float, n: int, g: Generator) -> Pair:
    """A fair bit, flipped with a probability: I = 1 − h(flip)."""
    x = torch.randint(2, (n,), generator=g)
    return x, x ^ (uniform(n, 1, g)[:, 0] < flip).long()


def rounded_pair(rho: float, step: float, n: int, g: Generator) -> Pair:
    """Two correlated normals, both rounded to multiples of a step: the multiples, as ids."""
    x = normal(n, 1, g)[:, 0]
    y = rho * x + math.sqrt(1 - rho**2) * normal(n, 1, g)[:, 0]
    low = math.ceil(9 / step)
    return torch.round(x / step).long() + low, torch.round(y / step).long() + low


def rounded_pair_truth(rho: float, step: float) -> float:
    """The sum over the table of rectangles, P(row | y) integrated over the density of y by Gauss–Legendre."""
    multiples = np.arange(-math.ceil(9 / step), math.ceil(9 / step) + 1)
    edges = step * (np.append(multiples, multiples[-1] + 1) - 0.5)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    y = step * (multiples[:, None] + nodes / 2)
    below = special.ndtr((edges[:, None, None] - rho * y) / math.sqrt(1 - rho**2))
    table = (np.diff(below, axis=0) * stats.norm.pdf(y) * weights * step / 2).sum(2)
    x_mass, y_mass = table.sum(1), table.sum(0)
    return bits(special.entr(x_mass).sum() + special.entr(y_mass).sum() - special.entr(table).sum())


def cases() -> list[Case]:
    """Noiseless symbols, binary channels, rounded normals."""
    found = [Case(f"{d} fair bits", "discrete", (1, 1), float(d), partial(same_symbol, 2**d)) for d in (8, 12, 16)]
    for m in (10, 100, 1000):
        found.append(Case(f"{m} symbols", "discrete", (1, 1), math.log2(m), partial(same_symbol, m)))
    for flip in (0.01, 0.1, 0.25, 0.5):
        truth = 1 - float(binary_entropy(flip))
        found.append(Case(f"binary channel, flip {flip}", "discrete", (1, 1), truth, partial(binary_symmetric, flip)))
    for rho, step in ((0.9, 1.0), (0.9, 0.25)):
        truth = rounded_pair_truth(rho, step)
        name = f"both rounded to {step}, rho {rho}"
        found.append(Case(name, "discrete", (1, 1), truth, partial(rounded_pair, rho, step)))
    return found
