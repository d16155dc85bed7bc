"""Three variables, and the information that two share given the third."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy import special, stats
from torch import Generator, Tensor

from cases.case import Case, Triple, binary_entropy, bits, normal, uniform
from cases.continuous import chi_entropy, cube, half_cube, normal_truth, pairs

# --- Normals and Student-t -------------------------------------------------------------------------------------------


def cause(d: int, dz: int, rho: float) -> Tensor:
    """The covariance of X and Y = the mean of Z·√dz and normals of d coordinates, the first pair correlated by rho."""
    sigma = torch.eye(2 * d + dz, dtype=torch.float64)
    sigma[: 2 * d, : 2 * d] = pairs(d, rho, 1) + 1
    sigma[: 2 * d, 2 * d :] = sigma[2 * d :, : 2 * d] = 1 / math.sqrt(dz) if dz > 1 else 1.0
    return sigma


def chain(rho: float) -> Tensor:
    """The correlations of X → Z → Y."""
    return torch.tensor([[1, rho**2, rho], [rho**2, 1, rho], [rho, rho, 1]], dtype=torch.float64)


def effect(noise: float) -> Tensor:
    """The covariance of independent X and Y and of Z = X + Y + noise."""
    return torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 2 + noise**2]], dtype=torch.float64)


def conditional_normal_truth(sigma: Tensor, d: int) -> float:
    """½ log2(|Σxz||Σyz| / |Σz||Σxyz|)."""
    x, y, z = torch.arange(d), torch.arange(d, 2 * d), torch.arange(2 * d, len(sigma))
    log_xz, log_yz, log_z, log_xyz = (
        float(torch.linalg.slogdet(sigma[part][:, part]).logabsdet)
        for part in (torch.cat([x, z]), torch.cat([y, z]), z, torch.arange(len(sigma)))
    )
    return bits((log_xz + log_yz - log_z - log_xyz) / 2)


def normals(sigma: Tensor, d: int, n: int, g: Generator) -> Triple:
    """Normals with this covariance: X and Y the first d coordinates and the next, Z the rest."""
    rows = normal(n, len(sigma), g) @ torch.linalg.cholesky(sigma).T
    return rows[:, :d], rows[:, d : 2 * d], rows[:, 2 * d :]


def students(sigma: Tensor, d: int, freedom: int, n: int, g: Generator) -> Triple:
    """Multivariate Student-t: the normals, all divided by the same chi."""
    x, y, z = normals(sigma, d, n, g)
    chi = (normal(n, freedom, g).square().sum(1, keepdim=True) / freedom).sqrt()
    return x / chi, y / chi, z / chi


def students_truth(sigma: Tensor, d: int, freedom: int) -> float:
    """The normals' information, and that of the common chi given Z."""
    dz = len(sigma) - 2 * d
    h = [chi_entropy(size, freedom) for size in (d + dz, dz, 2 * d + dz)]
    return conditional_normal_truth(sigma, d) + bits(2 * h[0] - h[1] - h[2])


def skewed(sigma: Tensor, n: int, g: Generator) -> Triple:
    """Normals, each through a map of its own that can be undone: half-cube, exp, cube."""
    x, y, z = normals(sigma, 1, n, g)
    return half_cube(x), y.exp(), cube(z)


def functions_of_z(scale: float, turns: float, n: int, g: Generator) -> Triple:
    """Z normal, X its square and Y the cosine of turns·Z, both times a scale: given Z, both are constants."""
    z = normal(n, 1, g)
    return scale * z.square(), scale * (turns * z).cos(), z


# --- Groups ----------------------------------------------------------------------------------------------------------


def groups(rhos: tuple[float, ...], shift: float, n: int, g: Generator) -> Triple:
    """Z a group, X and Y normals around shift·Z, correlated by the group's own rho."""
    z = torch.randint(len(rhos), (n,), generator=g)
    rho = torch.tensor(rhos, dtype=torch.float64)[z].unsqueeze(1)
    x = normal(n, 1, g)
    y = rho * x + (1 - rho.square()).sqrt() * normal(n, 1, g)
    return x + shift * z.unsqueeze(1), y + shift * z.unsqueeze(1), z


def groups_truth(rhos: tuple[float, ...]) -> float:
    """The mean of the groups' informations."""
    return sum(normal_truth(pairs(1, rho, 1)) for rho in rhos) / len(rhos)


def label_and_cause(half: float, n: int, g: Generator) -> Triple:
    """Z normal; Y a label, 1 with probability Φ(Z); X = Z ± half, by the label, with normal noise."""
    z = normal(n, 1, g)
    y = (uniform(n, 1, g) < torch.special.ndtr(z))[:, 0].long()
    return z + half * (2 * y.unsqueeze(1) - 1) + normal(n, 1, g), y, z


def label_and_cause_truth(half: float) -> float:
    """E h(Φ(Z)) − E h(P(Y|X, Z)), by sums over a grid; given Z the posterior is logistic in X − Z."""
    t, step = np.linspace(-9 - half, 9 + half, 1201, retstep=True)
    prior = special.ndtr(t)
    posterior = special.expit(np.log(prior / special.ndtr(-t))[:, None] + 2 * half * t)
    density = prior[:, None] * stats.norm.pdf(t - half) + special.ndtr(-t)[:, None] * stats.norm.pdf(t + half)
    unsure = (density * binary_entropy(posterior)).sum(1) * step
    return float((stats.norm.pdf(t) * (binary_entropy(prior) - unsure)).sum() * step)


# --- Symbols ---------------------------------------------------------------------------------------------------------


def exclusive_or(flip: float, n: int, g: Generator) -> Triple:
    """X and Z fair bits, Y their exclusive or, flipped with a probability: independent of X, but not given Z."""
    x, z = torch.randint(2, (n,), generator=g), torch.randint(2, (n,), generator=g)
    return x, x ^ z ^ (uniform(n, 1, g)[:, 0] < flip).long(), z


def channels(flips: tuple[float, ...], n: int, g: Generator) -> Triple:
    """A fair bit through one of several channels: Z says which."""
    x, z = torch.randint(2, (n,), generator=g), torch.randint(len(flips), (n,), generator=g)
    flipped = uniform(n, 1, g)[:, 0] < torch.tensor(flips, dtype=torch.float64)[z]
    return x, x ^ flipped.long(), z


def symbol_chain(m: int, kept: float, n: int, g: Generator) -> Triple:
    """X → Z → Y: one of m symbols, at each step kept with a probability and drawn anew otherwise."""
    x, other_z, other_y = (torch.randint(m, (n,), generator=g) for _ in range(3))
    z = torch.where(uniform(n, 1, g)[:, 0] < kept, x, other_z)
    return x, torch.where(uniform(n, 1, g)[:, 0] < kept, z, other_y), z


def digits(n: int, g: Generator) -> Triple:
    """Z one of 64 symbols, X its remainder by 8 and Y by 6."""
    z = torch.randint(64, (n,), generator=g)
    return z % 8, z % 6, z


def cases() -> list[Case]:
    """Normals and maps of them, groups, symbols."""
    found: list[Case] = []

    def jointly_normal(name: str, sigma: Tensor, d: int) -> None:
        dims, truth = (d, d, len(sigma) - 2 * d), conditional_normal_truth(sigma, d)
        found.append(Case(name, "conditional", dims, truth, partial(normals, sigma, d)))

    jointly_normal("common cause, rho 0.0", cause(1, 1, 0.0), 1)
    jointly_normal("common cause, rho 0.8", cause(1, 1, 0.8), 1)
    jointly_normal("common causes 1+1 given 3, rho 0.0", cause(1, 3, 0.0), 1)
    jointly_normal("common causes 1+1 given 3, rho 0.8", cause(1, 3, 0.8), 1)
    jointly_normal("common causes 5+5 given 3, rho 0.8", cause(5, 3, 0.8), 5)
    jointly_normal("chain of normals", chain(0.8), 1)
    jointly_normal("common effect, noise 0.3", effect(0.3), 1)

    one, three = cause(1, 1, 0.8), cause(1, 3, 0.8)
    truth = conditional_normal_truth(one, 1)
    found.append(Case("common cause, skewed", "conditional", (1, 1, 1), truth, partial(skewed, one)))
    for sigma, freedom in ((one, 3), (three, 2)):
        dz, truth = len(sigma) - 2, students_truth(sigma, 1, freedom)
        name, sample = f"Student-t 1+1 given {dz}, {freedom} df", partial(students, sigma, 1, freedom)
        found.append(Case(name, "conditional", (1, 1, dz), truth, sample))
    found.append(Case("functions of z", "conditional", (1, 1, 1), 0.0, partial(functions_of_z, 1.0, 1.0)))
    found.append(Case("functions of z, steep", "conditional", (1, 1, 1), 0.0, partial(functions_of_z, 5.0, 3.0)))
    for name, rhos, shift in (
        ("two groups, opposite slopes", (-0.8, 0.8), 0.0),
        ("three groups, means alone", (0.0, 0.0, 0.0), 2.0),
        ("three groups, means and slopes", (0.0, 0.5, 0.9), 2.0),
    ):
        found.append(Case(name, "conditional", (1, 1, 1), groups_truth(rhos), partial(groups, rhos, shift), "z"))
    truth = label_and_cause_truth(1.0)
    found.append(Case("label and a cause", "conditional", (1, 1, 1), truth, partial(label_and_cause, 1.0), "y"))

    flips = (0.01, 0.1, 0.5)
    mean = 1 - float(np.mean(binary_entropy(np.array(flips))))
    symbols: tuple[tuple[str, float, Callable[[int, Generator], Triple]], ...] = (
        ("exclusive or of bits", 1.0, partial(exclusive_or, 0.0)),
        ("exclusive or of bits, flip 0.1", 1 - float(binary_entropy(0.1)), partial(exclusive_or, 0.1)),
        ("three binary channels", mean, partial(channels, flips)),
        ("chain of 10 symbols", 0.0, partial(symbol_chain, 10, 0.9)),
        ("remainders of z", 0.0, digits),
    )
    for name, truth, draw in symbols:
        found.append(Case(name, "conditional", (1, 1, 1), truth, draw, "xyz"))
    return found
