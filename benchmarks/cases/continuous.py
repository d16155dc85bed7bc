"""Normals, maps of them, Student-t, additive noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy import special, stats
from torch import Generator, Tensor

from cases.case import Case, Pair, Sampler, bits, normal, uniform
from cases.clusters import circle, circle_truth, corners, corners_truth


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


def chi_entropy(d: int, freedom: int) -> float:
    """What the chi adds to the entropy of d standard coordinates, in nats, up to terms proportional to d."""
    low, high = freedom / 2, (freedom + d) / 2
    return float(special.gammaln(low) - special.gammaln(high) + high * (special.psi(high) - special.psi(low)))


def student_truth(correlations: Tensor, freedom: int) -> float:
    """The normals' information, and that of the common chi (Arellano-Valle et al. 2013; Czyż et al. 2023)."""
    d = len(correlations) // 2
    return normal_truth(correlations) + bits(2 * chi_entropy(d, freedom) - chi_entropy(2 * d, freedom))


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


def uniform_noise(width: float, n: int, g: Generator) -> Pair:
    """X uniform on [0, 1], Y = X + uniform noise of a total width."""
    x = uniform(n, 1, g)
    return x, x + width * (uniform(n, 1, g) - 0.5)


def uniform_noise_truth(width: float) -> float:
    """h(Y) − log width, Y having the density of a trapezium: width/2 − ln width nats, 1/(2 width) where it is wide."""
    return bits(width / 2 - math.log(width) if width <= 1 else 1 / (2 * width))


# --- Clusters --------------------------------------------------------------------------------------------------------


def cluster_pairs(x_centers: Tensor, y_centers: Tensor, n: int, g: Generator) -> Pair:
    """X and Y share a cluster, uniform over the rows of the centers; given it they are independent normals."""
    cluster = torch.randint(len(x_centers), (n,), generator=g)
    x = x_centers[cluster] + normal(n, x_centers.shape[1], g)
    return x, y_centers[cluster] + normal(n, y_centers.shape[1], g)


def scattered(apart: float) -> tuple[Tensor, Tensor]:
    """Ten centers on a line, and the same in another order: the dependence has no direction."""
    order = torch.tensor([3, 8, 1, 6, 0, 9, 4, 7, 2, 5])
    places = apart * (torch.arange(10, dtype=torch.float64) - 4.5).unsqueeze(1)
    return places, places[order]


def scattered_truth(apart: float) -> float:
    """The divergence of the joint density from the product of the margins, by the sum over a grid in the plane."""
    x_centers, y_centers = (centers[:, 0].numpy() for centers in scattered(apart))
    end = 4.5 * apart + 9
    t, step = np.linspace(-end, end, 1 + 10 * math.ceil(2 * end), retstep=True)
    x_given, y_given = (stats.norm.pdf(t[:, None] - centers) * step for centers in (x_centers, y_centers))
    joint, x, y = x_given @ y_given.T / 10, x_given.mean(1), y_given.mean(1)
    return bits(special.entr(x).sum() + special.entr(y).sum() - special.entr(joint).sum())


# --- All of them -----------------------------------------------------------------------------------------------------


def cases() -> list[Case]:
    """Both variables continuous."""
    found: list[Case] = []

    def add(name: str, dims: tuple[int, int], truth: float, sample: Sampler) -> None:
        found.append(Case(name, "continuous", dims, truth, sample))

    for rho in (0.0, 0.5, 0.75, 0.9, 0.99):
        r = pairs(1, rho, 1)
        add(f"normal, rho {rho}", (1, 1), normal_truth(r), partial(multivariate_normal, r))
    for d in (2, 5, 10, 25, 50):
        r = dense(d)
        add(f"normal {d}+{d}, dense", (d, d), normal_truth(r), partial(multivariate_normal, r))
    for d in (2, 5, 10, 25, 50):
        r = pairs(d, 0.8, 2)
        add(f"normal {d}+{d}, two pairs", (d, d), normal_truth(r), partial(multivariate_normal, r))

    one, three, five = pairs(1, 0.75, 1), pairs(3, 0.8, 2), pairs(5, 0.8, 2)
    base, truth = partial(multivariate_normal, one), normal_truth(one)
    add("log-normal, rho 0.75", (1, 1), truth, mapped(base, torch.exp, torch.exp))
    add("normal cubed, rho 0.75", (1, 1), truth, mapped(base, cube, cube))
    add("half-cube, rho 0.75", (1, 1), truth, mapped(base, half_cube, half_cube))
    add("uniform margins, rho 0.75", (1, 1), truth, mapped(base, torch.special.ndtr, torch.special.ndtr))
    add("swiss roll, rho 0.75", (2, 1), truth, mapped(base, swiss_roll, torch.special.ndtr))
    base, truth = partial(multivariate_normal, three), normal_truth(three)
    add("spiral 3+3", (3, 3), truth, mapped(base, partial(spiral, 0), partial(spiral, 1)))
    base, truth = partial(multivariate_normal, five), normal_truth(five)
    add("half-cube 5+5", (5, 5), truth, mapped(base, half_cube, half_cube))

    for width in (0.1, 0.5, 1.0, 1.5):
        add(f"uniform + noise {width}", (1, 1), uniform_noise_truth(width), partial(uniform_noise, width))

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
        add(name, (d, d), student_truth(r, freedom), partial(student, r, freedom))
    asinh = mapped(partial(student, one, 1), torch.asinh, torch.asinh)
    add("asinh of Student-t 1+1, 1 df", (1, 1), student_truth(one, 1), asinh)

    for apart in (2.0, 5.0):
        name = f"10 clusters on two lines, {apart} apart"
        add(name, (1, 1), scattered_truth(apart), partial(cluster_pairs, *scattered(apart)))
    for d, radius in ((2, 4.0), (2, 10.0)):
        centers = circle(10, radius)
        truth = 2 * circle_truth(10, radius) - circle_truth(10, math.sqrt(2) * radius)
        add(f"10 clusters on circles of radius {radius}", (d, d), truth, partial(cluster_pairs, centers, centers))
    for d, radius in ((16, 2.0), (16, 5.0)):
        centers = corners(10, d, radius)
        truth = 2 * corners_truth(10, radius) - corners_truth(10, math.sqrt(2) * radius)
        add(f"10 clusters in {d}+{d} dims, radius {radius}", (d, d), truth, partial(cluster_pairs, centers, centers))
    return found
