"""Pairs of variables with known mutual information: samplers, and the truth in bits.

A truth comes from a closed form or from quadrature of the densities, independently of any estimator;
``tests/reference/test_truth_cases.py`` gets each in a second, independent way. Most of the cases are those of Czyż et
al. 2023 ("Beyond Normal", NeurIPS) and of Gao et al. 2017 ("Estimating Mutual Information for Discrete-Continuous
Mixtures", NeurIPS).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from scipy import integrate, special, stats
from torch import Generator, Tensor

Kind = Literal["discrete", "continuous", "labeled", "mixed"]
Pair = tuple[Tensor, Tensor]
Sampler = Callable[[int, Generator], Pair]

KINDS: dict[Kind, str] = {
    "discrete": "both variables discrete: int64 ids `(N,)`",
    "continuous": "both continuous: float64 rows `(N, D)`",
    "labeled": "X continuous, float64 rows `(N, D)`; Y a class label, int64 `(N,)`",
    "mixed": "at least one with both atoms and a density: float64 rows `(N, D)`",
}


@dataclass(frozen=True)
class Case:
    """Two variables and their mutual information.

    Attributes:
        name: short, for tables and the command line.
        kind: which of :data:`KINDS` the variables are.
        dims: the dimensions of X and Y.
        truth: I(X;Y) in bits.
        sample: ``(n, generator) -> (x, y)``.
    """

    name: str
    kind: Kind
    dims: tuple[int, int]
    truth: float
    sample: Sampler


def bits(nats: float) -> float:
    """A value in nats, in bits."""
    return float(nats) / math.log(2)


def binary_entropy(p: np.ndarray | float) -> np.ndarray:
    """The entropy of a coin, in bits."""
    return np.asarray((special.entr(p) + special.entr(1 - np.asarray(p))) / math.log(2))


def uniform(n: int, d: int, g: Generator) -> Tensor:
    """Rows on the unit cube."""
    return torch.rand(n, d, generator=g, dtype=torch.float64)


def normal(n: int, d: int, g: Generator) -> Tensor:
    """Rows of independent standard normals."""
    return torch.randn(n, d, generator=g, dtype=torch.float64)


# --- Discrete --------------------------------------------------------------------------------------------------------


def same_symbol(m: int, n: int, g: Generator) -> Pair:
    """One of m symbols over a noiseless channel: I = log2 m. D fair bits are m = 2^D."""
    x = torch.randint(m, (n,), generator=g)
    return x, x.clone()


def binary_symmetric(flip: float, n: int, g: Generator) -> Pair:
    """A fair bit, flipped with a probability: I = 1 − h(flip)."""
    x = torch.randint(2, (n,), generator=g)
    return x, x ^ (uniform(n, 1, g)[:, 0] < flip).long()


# --- Normals and maps of them ----------------------------------------------------------------------------------------


def dense(d: int) -> Tensor:
    """2·d coordinates, each correlated with every other by 1/2."""
    return 0.5 * torch.eye(2 * d, dtype=torch.float64) + 0.5


def pairs(d: int, rho: float, n_pairs: int) -> Tensor:
    """The correlations of d + d coordinates that are independent but for n pairs of one of X's and one of Y's."""
    correlations = torch.eye(2 * d, dtype=torch.float64)
    for i in range(n_pairs):
        correlations[i, d + i] = correlations[d + i, i] = rho
    return correlations


def normal_truth(correlations: Tensor) -> float:
    """½ log2(|Σx||Σy| / |Σ|), X and Y being the first and the second half of the coordinates."""
    d = len(correlations) // 2
    blocks = correlations[:d, :d], correlations[d:, d:], correlations
    log_x, log_y, log_xy = (float(torch.linalg.slogdet(block).logabsdet) for block in blocks)
    return bits((log_x + log_y - log_xy) / 2)


def multivariate_normal(correlations: Tensor, n: int, g: Generator) -> Pair:
    """Normals with these correlations."""
    d = len(correlations) // 2
    z = normal(n, 2 * d, g) @ torch.linalg.cholesky(correlations).T
    return z[:, :d], z[:, d:]


def student(correlations: Tensor, freedom: int, n: int, g: Generator) -> Pair:
    """Multivariate Student-t: normals, all divided by the same chi; finite variance needs three degrees of freedom."""
    x, y = multivariate_normal(correlations, n, g)
    chi = (normal(n, freedom, g).square().sum(1, keepdim=True) / freedom).sqrt()
    return x / chi, y / chi


def student_truth(correlations: Tensor, freedom: int) -> float:
    """The normals' information, and that of the common chi (Arellano-Valle et al. 2013; Czyż et al. 2023).

    The chi adds h(m) + h(n) − h(m + n), where h(d) is the differential entropy of d independent standard coordinates
    divided by the same chi, up to terms proportional to d.
    """

    def h(d: int) -> float:
        low, high = freedom / 2, (freedom + d) / 2
        return float(special.gammaln(low) - special.gammaln(high) + high * (special.psi(high) - special.psi(low)))

    d = len(correlations) // 2
    return normal_truth(correlations) + bits(2 * h(d) - h(2 * d))


def mapped(sampler: Sampler, map_x: Callable[[Tensor], Tensor], map_y: Callable[[Tensor], Tensor]) -> Sampler:
    """Either variable through a map that can be undone, which leaves the information as it is."""

    def sample(n: int, g: Generator) -> Pair:
        x, y = sampler(n, g)
        return map_x(x), map_y(y)

    return sample


def cube(x: Tensor) -> Tensor:
    """X³, coordinate by coordinate."""
    return x**3


def half_cube(x: Tensor) -> Tensor:
    """x·√|x|, coordinate by coordinate: longer tails."""
    return x * x.abs().sqrt()


def spiral(first: int, x: Tensor) -> Tensor:
    """Turn two of the coordinates by an angle that grows with the length of the row, ‖x‖²/3."""
    angle = x.square().sum(1) / 3
    turned = x.clone()
    turned[:, first] = angle.cos() * x[:, first] - angle.sin() * x[:, first + 1]
    turned[:, first + 1] = angle.sin() * x[:, first] + angle.cos() * x[:, first + 1]
    return turned


def swiss_roll(x: Tensor) -> Tensor:
    """A normal, made uniform and rolled up into the plane: one dimension in two."""
    angle = 1.5 * math.pi * (1 + 2 * torch.special.ndtr(x))
    return torch.cat([angle * angle.cos(), angle * angle.sin()], dim=1) / 21


# --- Additive uniform noise ------------------------------------------------------------------------------------------


def uniform_noise(width: float, n: int, g: Generator) -> Pair:
    """X uniform on [0, 1], Y = X + uniform noise of a total width."""
    x = uniform(n, 1, g)
    return x, x + width * (uniform(n, 1, g) - 0.5)


def uniform_noise_truth(width: float) -> float:
    """h(Y) − log width, Y having the density of a trapezium: width/2 − ln width nats, 1/(2 width) where it is wide."""
    return bits(width / 2 - math.log(width) if width <= 1 else 1 / (2 * width))


# --- A class label ---------------------------------------------------------------------------------------------------


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


# --- Mixed variables -------------------------------------------------------------------------------------------------


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


# --- All of them -----------------------------------------------------------------------------------------------------


def _cases() -> list[Case]:
    cases: list[Case] = []

    def add(name: str, kind: Kind, dims: tuple[int, int], truth: float, sample: Sampler) -> None:
        cases.append(Case(name, kind, dims, truth, sample))

    for d in (8, 12, 16):
        add(f"{d} fair bits", "discrete", (1, 1), float(d), partial(same_symbol, 2**d))
    for m in (10, 100, 1000):
        add(f"{m} symbols", "discrete", (1, 1), math.log2(m), partial(same_symbol, m))
    for flip in (0.01, 0.1, 0.25, 0.5):
        truth = 1 - float(binary_entropy(flip))
        add(f"binary channel, flip {flip}", "discrete", (1, 1), truth, partial(binary_symmetric, flip))

    for rho in (0.0, 0.5, 0.75, 0.9, 0.99):
        r = pairs(1, rho, 1)
        add(f"normal, rho {rho}", "continuous", (1, 1), normal_truth(r), partial(multivariate_normal, r))
    for d in (2, 5, 10, 25, 50):
        r = dense(d)
        add(f"normal {d}+{d}, dense", "continuous", (d, d), normal_truth(r), partial(multivariate_normal, r))
    for d in (2, 5, 10, 25, 50):
        r = pairs(d, 0.8, 2)
        add(f"normal {d}+{d}, two pairs", "continuous", (d, d), normal_truth(r), partial(multivariate_normal, r))

    one, three, five = pairs(1, 0.75, 1), pairs(3, 0.8, 2), pairs(5, 0.8, 2)
    base, truth = partial(multivariate_normal, one), normal_truth(one)
    add("log-normal, rho 0.75", "continuous", (1, 1), truth, mapped(base, torch.exp, torch.exp))
    add("normal cubed, rho 0.75", "continuous", (1, 1), truth, mapped(base, cube, cube))
    add("half-cube, rho 0.75", "continuous", (1, 1), truth, mapped(base, half_cube, half_cube))
    uniform_margins = mapped(base, torch.special.ndtr, torch.special.ndtr)
    add("uniform margins, rho 0.75", "continuous", (1, 1), truth, uniform_margins)
    add("swiss roll, rho 0.75", "continuous", (2, 1), truth, mapped(base, swiss_roll, torch.special.ndtr))
    base, truth = partial(multivariate_normal, three), normal_truth(three)
    add("spiral 3+3", "continuous", (3, 3), truth, mapped(base, partial(spiral, 0), partial(spiral, 1)))
    base, truth = partial(multivariate_normal, five), normal_truth(five)
    add("half-cube 5+5", "continuous", (5, 5), truth, mapped(base, half_cube, half_cube))

    for width in (0.1, 0.5, 1.0, 1.5):
        truth = uniform_noise_truth(width)
        add(f"uniform + noise {width}", "continuous", (1, 1), truth, partial(uniform_noise, width))

    for d, rho, freedom in (
        (1, 0.75, 1),
        (1, 0.75, 3),
        (2, 0.0, 1),
        (2, 0.8, 2),
        (3, 0.8, 3),
        (5, 0.8, 2),
        (5, 0.8, 5),
    ):
        r = pairs(d, rho, min(d, 2))
        name = f"Student-t {d}+{d}, {freedom} df" + ("" if rho else ", uncorrelated")
        add(name, "continuous", (d, d), student_truth(r, freedom), partial(student, r, freedom))
    asinh = mapped(partial(student, one, 1), torch.asinh, torch.asinh)
    add("asinh of Student-t 1+1, 1 df", "continuous", (1, 1), student_truth(one, 1), asinh)

    for half in (0.5, 1.0, 2.0):
        add(f"two normals, ±{half}", "labeled", (1, 1), two_normals_truth(half), partial(two_normals, half, 1))
    for d in (5, 10, 50):
        add(f"two normals in {d} dims, ±1.0", "labeled", (d, 1), two_normals_truth(1.0), partial(two_normals, 1.0, d))
    add("four normals, exclusive or", "labeled", (2, 1), xor_normals_truth(1.5), partial(xor_normals, 1.5))
    for m in (5, 20):
        truth = overlapping_steps_truth(m)
        add(f"{m} overlapping steps", "labeled", (1, 1), truth, partial(overlapping_steps, m))
    for p in (0.0, 0.15):
        truth = zero_inflated_poisson_truth(p)
        add(f"Poisson, {p:.0%} zeroed", "labeled", (1, 1), truth, partial(zero_inflated_poisson, p))

    add("normal or points", "mixed", (1, 1), normal_or_points_truth(), normal_or_points)
    for rho, p in ((0.9, 0.3), (0.9, 0.7)):
        truth = (1 - p) * normal_truth(pairs(1, rho, 1))
        add(f"normal, {p:.0%} erased", "mixed", (1, 1), truth, partial(erased_normal, rho, p))
    for rho in (0.5, 0.9):
        add(f"ReLU of normal, rho {rho}", "mixed", (1, 1), relu_normal_truth(rho), partial(relu_normal, rho))
    return cases


CASES: dict[str, Case] = {case.name: case for case in _cases()}
"""The cases by name, grouped by kind."""
