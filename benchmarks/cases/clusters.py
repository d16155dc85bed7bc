"""Centers of clusters of standard normals, and what a draw tells about its cluster.

Two variables that share a cluster, independent given it, have I(X;Y) = I(C;X) + I(C;Y) − I(C;X,Y). Where the centers of
both are alike up to their scale, those of the pair are the same figure again, √2 times as large.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from cases.case import bits


def corners(m: int, d: int, radius: float) -> Tensor:
    """The ends of m orthogonal vectors of one length in d dimensions, all radius·√2 apart, off the axes."""
    direction = torch.arange(1, d + 1, dtype=torch.float64)
    reflection = torch.eye(d, dtype=torch.float64) - 2 * torch.outer(direction, direction) / direction.square().sum()
    return radius * reflection[:m]


def corners_truth(m: int, radius: float) -> float:
    """Log m + r² − E log Σ exp(r x_j), x being N(r, 1) once and standard normal m − 1 times.

    The logarithm is Frullani's integral log S = ∫ (exp(−t) − exp(−t S)) dt/t, and the mean of exp(−t S) the product of
    one-dimensional ones, so that the sum over grids of log t and of one normal
    is exact for any m.
    """
    z, width = np.linspace(-9, 9, 361, retstep=True)
    mass = stats.norm.pdf(z) * width
    top = radius * (radius + 9) + math.log(m)
    u, step = np.linspace(-top - 40, top + 5, 1001, retstep=True)  # u = log t
    others, own = (np.exp(-np.exp(u[:, None] + radius * (z + shift))) @ mass for shift in (0, radius))
    log_sum = (np.exp(-np.exp(u)) - own * others ** (m - 1)).sum() * step
    return bits(math.log(m) + radius**2 - log_sum)


def circle(m: int, radius: float) -> Tensor:
    """M points at equal angles on a circle."""
    angle = 2 * math.pi * torch.arange(m, dtype=torch.float64) / m
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)


def circle_truth(m: int, radius: float) -> float:
    """Log m less the mean logarithm of 1 / P(C = 0 | x) for x around the first center, by the sum over a grid."""
    t, step = np.linspace(-9, 9, 181, retstep=True)
    mass = stats.norm.pdf(t) * step
    angle = 2 * np.pi * np.arange(m) / m
    x, y = radius + t[:, None, None], t[None, :, None]
    log_likelihood = radius * (x * np.cos(angle) + y * np.sin(angle))
    surprise = special.logsumexp(log_likelihood, axis=2) - log_likelihood[:, :, 0]
    return bits(math.log(m) - mass @ surprise @ mass)
