"""Variables with atoms and a density."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy import integrate, special, stats
from torch import Generator

from cases.case import Case, Pair, Sampler, binary_entropy, bits, normal, uniform
from cases.continuous import multivariate_normal, normal_truth, pairs
from cases.labeled import levels_truth


def normal_or_points(n: int, g: Generator) -> Pair:
    """Half the time normals correlated by 0.9, else corners of a square, equal signs with 0.8 (Gao et al. 2017)."""
    x, y = multivariate_normal(pairs(1, 0.9, 1), n, g)
    sign = 2 * torch.randint(2, (n, 1), generator=g) - 1
    other = torch.where(uniform(n, 1, g) < 0.8, sign, -sign)
    at_point = uniform(n, 1, g) < 0.5
    return torch.where(at_point, sign.double(), x), torch.where(at_point, other.double(), y)


def normal_or_points_truth() -> float:
    """One bit for which of the two it is, which X shows and so does Y, and the mean of their informations."""
    return 1 + (normal_truth(pairs(1, 0.9, 1)) + 1 - float(binary_entropy(0.8))) / 2


def erased_normal(rho: float, p: float, n: int, g: Generator) -> Pair:
    """Correlated normals, Y set to zero with probability p. An erasure is visible: I is 1 − p of the original one."""
    x, y = multivariate_normal(pairs(1, rho, 1), n, g)
    return x, torch.where(uniform(n, 1, g) < p, 0.0, y)


def relu_normal(rho: float, n: int, g: Generator) -> Pair:
    """Correlated normals, X through a ReLU: half of it is zero."""
    x, y = multivariate_normal(pairs(1, rho, 1), n, g)
    return x.relu(), y


def relu_normal_truth(rho: float) -> float:
    """The mean over y of the divergence of ReLU(X) given y from ReLU(X), the part above zero by moments."""
    s = math.sqrt(1 - rho**2)

    def divergence(y: float) -> float:
        c = rho * y / s  # x > 0 where z > −c, x being rho y + s z
        m0, m1 = special.ndtr(c), stats.norm.pdf(c)
        m2 = m0 - c * m1
        above = -math.log(s) * m0 - m2 / 2 + ((rho * y) ** 2 * m0 + 2 * rho * y * s * m1 + s**2 * m2) / 2
        return float(above - special.entr(1 - m0) + (1 - m0) * math.log(2))

    return bits(integrate.quad(lambda y: stats.norm.pdf(y) * divergence(y), -12, 12, limit=200)[0])


def both_rectified(sampler: Sampler, n: int, g: Generator) -> Pair:
    """Both variables through a ReLU, coordinate by coordinate."""
    x, y = sampler(n, g)
    return x.relu(), y.relu()


def both_rectified_truth(rho: float) -> float:
    """A normal pair through ReLUs: the corner, the two edges by quadrature, and the moments of the quadrant.

    On the quadrant X, Y > 0 the mass is 1/4 + asin ρ / 2π, E XY = ρ·mass + s/2π and E X² = mass + ρs/2π, where
    s² = 1 − ρ².
    """
    s = math.sqrt(1 - rho**2)
    mass = 0.25 + math.asin(rho) / (2 * math.pi)
    xy, xx = rho * mass + s / (2 * math.pi), mass + rho * s / (2 * math.pi)
    quadrant = -math.log(s) * mass + (rho * xy - rho**2 * xx) / s**2

    def edge(x: float) -> float:
        zero = special.ndtr(-rho * x / s)
        return float(stats.norm.pdf(x) * special.xlogy(zero, 2 * zero))

    return bits(quadrant + 2 * integrate.quad(edge, 0, 12, limit=200)[0] + mass * math.log(4 * mass))


def sparse(d: int, active: float, noise: float, n: int, g: Generator) -> Pair:
    """Coordinates that are normal with a probability and zero otherwise; Y is all of them with normal noise."""
    x = torch.where(uniform(n, d, g) < active, normal(n, d, g), 0.0)
    return x, x + noise * normal(n, d, g)


def sparse_truth(active: float, noise: float) -> float:
    """h(Y) − h(noise) of one coordinate, by the sum over a grid."""
    t, step = np.linspace(-12, 12, 4801, retstep=True)
    spread = math.sqrt(1 + noise**2)
    density = (1 - active) * stats.norm.pdf(t, scale=noise) + active * stats.norm.pdf(t, scale=spread)
    return bits(special.entr(density).sum() * step - stats.norm.entropy(scale=noise))


def both_sparse(d: int, active: float, rho: float, n: int, g: Generator) -> Pair:
    """Coordinates that are zero in both variables but with a probability, and correlated normals then."""
    mask, x = uniform(n, d, g) < active, normal(n, d, g)
    y = rho * x + math.sqrt(1 - rho**2) * normal(n, d, g)
    return torch.where(mask, x, 0.0), torch.where(mask, y, 0.0)


def rounded(step: float, sampler: Sampler, n: int, g: Generator) -> Pair:
    """X to the nearest multiple of a step."""
    x, y = sampler(n, g)
    return step * torch.round(x / step), y


def cases() -> list[Case]:
    """At least one variable with atoms and a density, or with atoms alone beside a density."""
    found: list[Case] = []

    def add(name: str, d: int, truth: float, sample: Sampler) -> None:
        found.append(Case(name, "mixed", (d, d), truth, sample))

    add("normal or points", 1, normal_or_points_truth(), normal_or_points)
    for rho, p in ((0.9, 0.3), (0.9, 0.7)):
        truth = (1 - p) * normal_truth(pairs(1, rho, 1))
        add(f"normal, {p:.0%} erased", 1, truth, partial(erased_normal, rho, p))
    for rho in (0.5, 0.9):
        add(f"ReLU of normal, rho {rho}", 1, relu_normal_truth(rho), partial(relu_normal, rho))

    for rho in (0.5, 0.9):
        pair = partial(multivariate_normal, pairs(1, rho, 1))
        add(f"both rectified, rho {rho}", 1, both_rectified_truth(rho), partial(both_rectified, pair))
    for d, n_pairs in ((2, 2), (5, 3), (10, 5)):
        several = partial(multivariate_normal, pairs(d, 0.8, n_pairs))
        truth = n_pairs * both_rectified_truth(0.8)
        add(f"ReLU layers {d}+{d}, {n_pairs} pairs", d, truth, partial(both_rectified, several))
    for d in (1, 5, 10):
        add(f"sparse {d}+{d}, 10% active", d, d * sparse_truth(0.1, 0.3), partial(sparse, d, 0.1, 0.3))
    for d in (1, 5, 10):
        truth = d * (float(binary_entropy(0.1)) + 0.1 * normal_truth(pairs(1, 0.9, 1)))
        add(f"both sparse {d}+{d}, 10% active", d, truth, partial(both_sparse, d, 0.1, 0.9))
    for step in (0.25, 1.0):
        sample = partial(rounded, step, partial(multivariate_normal, pairs(1, 0.9, 1)))
        add(f"normal rounded to {step}, rho 0.9", 1, levels_truth(0.9, step), sample)
    return found
