"""Real rows and a class label."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy import integrate, special, stats
from torch import Generator, Tensor

from cases.case import Case, Pair, Sampler, binary_entropy, bits, normal, uniform
from cases.clusters import circle, circle_truth, corners, corners_truth


def two_normals(half: float, d: int, n: int, g: Generator) -> Pair:
    """Two standard normals in d dimensions, means 2·half apart on the diagonal, and which of them it is."""
    y = torch.randint(2, (n,), generator=g)
    return normal(n, d, g) + (half / math.sqrt(d)) * (2 * y - 1).unsqueeze(1), y


def two_normals_truth(half: float) -> float:
    """1 − E h(P(Y|x)): only the coordinate along the means matters, where the posterior is logistic in 2·half·t."""
    unsure = integrate.quad(
        lambda t: stats.norm.pdf(t - half) * binary_entropy(special.expit(2 * half * t)),
        half - 12,
        half + 12,
        limit=200,
    )[0]
    return 1 - float(unsure)


def xor_normals(half: float, n: int, g: Generator) -> Pair:
    """Four normals at the corners of a square, opposite corners sharing a label: not linearly separable."""
    signs = torch.randint(2, (n, 2), generator=g)
    return normal(n, 2, g) + half * (2 * signs - 1), signs[:, 0] ^ signs[:, 1]


def xor_normals_truth(half: float) -> float:
    """1 − E h(P(Y|x)), where P(Y=0|x) = (1 + tanh(half·x1)·tanh(half·x2)) / 2; the sum over a grid is exact here."""
    t, step = np.linspace(-half - 12, half + 12, 1201, retstep=True)
    density = (stats.norm.pdf(t - half) + stats.norm.pdf(t + half)) / 2 * step
    unsure = binary_entropy((1 + np.outer(np.tanh(half * t), np.tanh(half * t))) / 2)
    return 1 - float(density @ unsure @ density)


def overlapping_steps(m: int, n: int, g: Generator) -> Pair:
    """A label, uniform over m, and a number that is uniform on [label, label + 2] (Gao et al. 2017)."""
    label = torch.randint(m, (n,), generator=g)
    return label.unsqueeze(1) + 2 * uniform(n, 1, g), label


def overlapping_steps_truth(m: int) -> float:
    """H(label) less one bit wherever two labels are possible: all but the two ends, (m − 1)/m of the mass."""
    return math.log2(m) - (m - 1) / m


def zero_inflated_poisson(p: float, n: int, g: Generator) -> Pair:
    """X exponential; Y, a count, Poisson with mean X, but zero with probability p (Gao et al. 2017)."""
    x = -torch.log1p(-uniform(n, 1, g))
    count = torch.poisson(x[:, 0], generator=g).long()
    return x, count * (uniform(n, 1, g)[:, 0] >= p)


def zero_inflated_poisson_truth(p: float) -> float:
    """H(Y) − E H(Y|x), by quadrature.

    The paper's (1 − p)(2 ln 2 − γ − Σ ln k / 2^k) nats is right for p = 0 only: for p > 0 it is the information of Y
    together with *whether* it was set to zero, which a count of zero leaves open.
    """
    k = np.arange(200)

    def given(x: float) -> np.ndarray:
        mass: np.ndarray = p * (k == 0) + (1 - p) * stats.poisson.pmf(k, x)
        return mass

    unsure = integrate.quad(lambda x: math.exp(-x) * special.entr(given(x)).sum(), 0, 60, limit=500)[0]
    marginal = p * (k == 0) + (1 - p) * 0.5 ** (k + 1)
    return bits(special.entr(marginal).sum() - unsure)


def clusters(centers: Tensor, n: int, g: Generator) -> Pair:
    """A label, uniform over the rows of the centers, and a normal around its center."""
    label = torch.randint(len(centers), (n,), generator=g)
    return centers[label] + normal(n, centers.shape[1], g), label


def levels(rho: float, step: float, most: int, n: int, g: Generator) -> Pair:
    """A normal, and a label: a correlated one, rounded to multiples of a step and held to ``most`` of them a side."""
    x = normal(n, 1, g)
    y = rho * x[:, 0] + math.sqrt(1 - rho**2) * normal(n, 1, g)[:, 0]
    return x, torch.round(y / step).clamp(-most, most).long() + most


def levels_truth(rho: float, step: float, most: float = math.inf) -> float:
    """H(label) − E H(label | x), by the sum over a grid of x."""
    top = min(most, math.ceil(9 / step))
    edges = np.concatenate([[-np.inf], step * (np.arange(-top, top) + 0.5), [np.inf]])
    t, width = np.linspace(-9, 9, 3001, retstep=True)
    mass = stats.norm.pdf(t) * width
    given = np.diff(special.ndtr((edges[:, None] - rho * t) / math.sqrt(1 - rho**2)), axis=0)
    return bits(special.entr(given @ mass).sum() - special.entr(given).sum(0) @ mass)


def cases() -> list[Case]:
    """Real rows and a class label."""
    found: list[Case] = []

    def add(name: str, d: int, truth: float, sample: Sampler) -> None:
        found.append(Case(name, "labeled", (d, 1), truth, sample))

    for half in (0.5, 1.0, 2.0):
        add(f"two normals, ±{half}", 1, two_normals_truth(half), partial(two_normals, half, 1))
    for d in (5, 10, 50):
        add(f"two normals in {d} dims, ±1.0", d, two_normals_truth(1.0), partial(two_normals, 1.0, d))
    add("four normals, exclusive or", 2, xor_normals_truth(1.5), partial(xor_normals, 1.5))
    for m in (5, 20):
        add(f"{m} overlapping steps", 1, overlapping_steps_truth(m), partial(overlapping_steps, m))
    for p in (0.0, 0.15):
        add(f"Poisson, {p:.0%} zeroed", 1, zero_inflated_poisson_truth(p), partial(zero_inflated_poisson, p))

    for radius in (4.0, 10.0):
        name = f"10 classes on a circle of radius {radius}"
        add(name, 2, circle_truth(10, radius), partial(clusters, circle(10, radius)))
    for d, radius in ((16, 2.0), (16, 5.0)):
        name = f"10 classes in {d} dims, radius {radius}"
        add(name, d, corners_truth(10, radius), partial(clusters, corners(10, d, radius)))
    for step, most in ((1.0, 2), (0.5, 4)):
        name = f"{2 * most + 1} levels of a normal, rho 0.9"
        add(name, 1, levels_truth(0.9, step, most), partial(levels, 0.9, step, most))
    return found
