"""The cases that look like layers and those given a third variable: each truth is got once more."""

import math
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from scipy.stats import qmc

from tests.helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from cases import CASES, clusters, conditional, labeled, mixed, networks

LN2 = math.log(2)
N = 20_000


def drawn(name, n=N, seed=0):
    variables = CASES[name].sample(n, torch.Generator().manual_seed(seed))
    return [v.double().reshape(n, -1).numpy() for v in variables]


def normal_ratio(x, y, rho):
    """log p(x, y) / p(x) p(y) of standard normals, coordinate by coordinate."""
    together = stats.norm.logpdf(y, rho * x, np.sqrt(1 - np.asarray(rho) ** 2))
    return together - stats.norm.logpdf(y)


# --- Ratios of densities, written out --------------------------------------------------------------------------------


def rounded(x, y, step):
    low, high = (stats.norm.cdf((x + side * step / 2 - 0.9 * y) / math.sqrt(0.19)) for side in (-1, 1))
    margin = stats.norm.cdf(x + step / 2) - stats.norm.cdf(x - step / 2)
    return np.log((high - low) / margin)[:, 0]


def level(x, y, step, most):
    edges = np.concatenate([[-np.inf], step * np.arange(-most + 0.5, most), [np.inf]])
    label = y[:, 0].astype(int)
    margin, given = np.diff(stats.norm.cdf(edges)), stats.norm.cdf((edges - 0.9 * x) / math.sqrt(0.19))
    return np.log(np.diff(given, axis=1)[np.arange(len(x)), label] / margin[label])


def rectified(rho, n_pairs):
    corner = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([0, 0])
    s = math.sqrt(1 - rho**2)

    def ratio(x, y):
        x, y = x[:, :n_pairs], y[:, :n_pairs]
        seen = np.maximum(x, y)  # the one that is not zero, where one is
        edge = np.log(2 * stats.norm.cdf(-rho * seen / s))
        inside = normal_ratio(x, y, rho)
        return np.where((x > 0) & (y > 0), inside, np.where(seen > 0, edge, np.log(4 * corner))).sum(1)

    return ratio


def sparse(x, y):
    density = 0.9 * stats.norm.pdf(y, 0, 0.3) + 0.1 * stats.norm.pdf(y, 0, math.sqrt(1.09))
    return (stats.norm.logpdf(y, x, 0.3) - np.log(density)).sum(1)


def both_sparse(x, y):
    return np.where(x == 0, -math.log(0.9), -math.log(0.1) + normal_ratio(x, y, 0.9)).sum(1)


def circle(radius):
    angle = 2 * np.pi * np.arange(10) / 10
    return radius * np.column_stack([np.cos(angle), np.sin(angle)])


def corners(radius):
    v = np.arange(1.0, 17)
    return radius * (np.eye(16) - 2 * np.outer(v, v) / (v @ v))[:10]


def log_likelihoods(rows, centers):
    return -((rows[:, None, :] - centers) ** 2).sum(2) / 2  # the constant cancels


def classes(centers, back=lambda x: x):
    def ratio(x, y):
        log = log_likelihoods(back(x), centers)
        return log[np.arange(len(x)), y[:, 0].astype(int)] - special.logsumexp(log, axis=1) + math.log(10)

    return ratio


def shared_cluster(x_centers, y_centers):
    def ratio(x, y):
        log_x, log_y = log_likelihoods(x, x_centers), log_likelihoods(y, y_centers)
        joint, *margins = (special.logsumexp(log, axis=1) for log in (log_x + log_y, log_x, log_y))
        return joint - sum(margins) + math.log(10)

    return ratio


def lines(apart):
    places = apart * (np.arange(10.0)[:, None] - 4.5)
    return places, places[[3, 8, 1, 6, 0, 9, 4, 7, 2, 5]]


def undone(network):
    """The input of a network, from its output."""

    def back(x):
        for weight, bias in reversed(list(zip(network.weights, network.biases))):
            if network.activation is torch.tanh:
                x = np.arctanh(x)
            elif network.activation is networks.leaky:
                x = np.where(x < 0, x / 0.2, x)
            else:
                assert (np.minimum(x[:, :10], x[:, 10:]) == 0).all()
                x = x[:, :10] - x[:, 10:]
            x = (x - bias.numpy()) @ np.linalg.pinv(weight.numpy()).T
        return x

    return back


def behind(x_network, y_network=None):
    def ratio(x, y):
        x, y = undone(x_network)(x), undone(y_network)(y) if y_network else y
        assert stats.kstest(x[:, -1], stats.norm.cdf).pvalue > 1e-3
        return normal_ratio(x[:, :2], y[:, :2], 0.8).sum(1)

    return ratio


def bits_behind(x, y):
    signs = undone(networks.BITS)(x)
    np.testing.assert_allclose(np.abs(signs), 1, atol=1e-9)
    return np.log(np.where((signs[:, 0] * signs[:, 1] < 0) == y[:, 0], 0.9, 0.1) / 0.5)


def given_cause(x, y, z, rho):
    mean = z.sum(1, keepdims=True) / math.sqrt(z.shape[1])
    return normal_ratio(x[:, 0] - mean[:, 0], y[:, 0] - mean[:, 0], rho)


def given_skewed(x, y, z):
    return given_cause(np.sign(x) * np.abs(x) ** (2 / 3), np.log(y), np.cbrt(z), 0.8)


def given_effect(x, y, z):
    spread = math.sqrt(1 - 1 / 2.09)
    return normal_ratio((x - z / 2.09) / spread, (y - z / 2.09) / spread, -(1 / 2.09) / (1 - 1 / 2.09))[:, 0]


def student_sigma(dz):
    sigma = np.eye(2 + dz)
    sigma[:2, :2] = [[2, 1.8], [1.8, 2]]
    sigma[:2, 2:] = sigma[2:, :2] = 1 / math.sqrt(dz)
    return sigma


def student_parts(dz):
    z = list(range(2, 2 + dz))
    return [0, 1, *z], z, [0, *z], [1, *z]


def given_student(x, y, z, freedom):
    rows, sigma = np.hstack([x, y, z]), student_sigma(z.shape[1])
    log = [
        stats.multivariate_t.logpdf(rows[:, part], np.zeros(len(part)), sigma[np.ix_(part, part)], df=freedom)
        for part in student_parts(z.shape[1])
    ]
    return log[0] + log[1] - log[2] - log[3]


def given_group(rhos, shift):
    def ratio(x, y, z):
        return normal_ratio(x - shift * z, y - shift * z, np.array(rhos)[z.astype(int)])[:, 0]

    return ratio


def given_label(x, y, z):
    likelihoods = np.column_stack([stats.norm.pdf((x - z)[:, 0], mean) for mean in (-1, 1)])
    prior = np.column_stack([stats.norm.cdf(-z), stats.norm.cdf(z)])
    own = likelihoods[np.arange(len(y)), y[:, 0].astype(int)]
    return np.log(own / (likelihoods * prior).sum(1))


RATIOS = {
    "normal rounded to 0.25, rho 0.9": lambda x, y: rounded(x, y, 0.25),
    "normal rounded to 1.0, rho 0.9": lambda x, y: rounded(x, y, 1.0),
    "5 levels of a normal, rho 0.9": lambda x, y: level(x, y, 1.0, 2),
    "9 levels of a normal, rho 0.9": lambda x, y: level(x, y, 0.5, 4),
    "both rectified, rho 0.5": rectified(0.5, 1),
    "both rectified, rho 0.9": rectified(0.9, 1),
    "ReLU layers 2+2, 2 pairs": rectified(0.8, 2),
    "ReLU layers 5+5, 3 pairs": rectified(0.8, 3),
    "ReLU layers 10+10, 5 pairs": rectified(0.8, 5),
    **{f"sparse {d}+{d}, 10% active": sparse for d in (1, 5, 10)},
    **{f"both sparse {d}+{d}, 10% active": both_sparse for d in (1, 5, 10)},
    **{f"10 classes on a circle of radius {r}": classes(circle(r)) for r in (4.0, 10.0)},
    **{f"10 classes in 16 dims, radius {r}": classes(corners(r)) for r in (2.0, 5.0)},
    **{f"10 clusters on two lines, {apart} apart": shared_cluster(*lines(apart)) for apart in (2.0, 5.0)},
    **{f"10 clusters on circles of radius {r}": shared_cluster(circle(r), circle(r)) for r in (4.0, 10.0)},
    **{f"10 clusters in 16+16 dims, radius {r}": shared_cluster(corners(r), corners(r)) for r in (2.0, 5.0)},
    "leaky-ReLU networks 5+5": behind(*networks.SQUARE),
    "tanh layers 5+5": behind(*networks.TANH),
    "leaky-ReLU network, 3 to 20": behind(networks.WIDE),
    "tanh layers, 3 to 20 each": behind(*networks.WIDE_TANH),
    "ReLU layer, 3 to 20": behind(networks.OPPOSITE),
    "10 classes, leaky-ReLU network": classes(corners(2.0), undone(networks.CLASSES)),
    "10 classes, leaky-ReLU network, 2 to 20": classes(circle(4.0), undone(networks.WIDE_CLASSES)),
    "exclusive or behind a tanh layer, 8 to 20": bits_behind,
    "common cause, rho 0.0": lambda x, y, z: given_cause(x, y, z, 0.0),
    "common cause, rho 0.8": lambda x, y, z: given_cause(x, y, z, 0.8),
    "common causes 1+1 given 3, rho 0.0": lambda x, y, z: given_cause(x, y, z, 0.0),
    "common causes 1+1 given 3, rho 0.8": lambda x, y, z: given_cause(x, y, z, 0.8),
    "common causes 5+5 given 3, rho 0.8": lambda x, y, z: given_cause(x, y, z, 0.8),
    "common cause, skewed": given_skewed,
    "common effect, noise 0.3": given_effect,
    "Student-t 1+1 given 1, 3 df": lambda x, y, z: given_student(x, y, z, 3),
    "Student-t 1+1 given 3, 2 df": lambda x, y, z: given_student(x, y, z, 2),
    "two groups, opposite slopes": given_group((-0.8, 0.8), 0),
    "three groups, means alone": given_group((0, 0, 0), 2),
    "three groups, means and slopes": given_group((0, 0.5, 0.9), 2),
    "label and a cause": given_label,
}
"""Pointwise information, in nats: its mean is I(X;Y) or I(X;Y|Z)."""


@pytest.mark.parametrize("name", RATIOS)
def test_the_mean_pointwise_information_of_the_samples_is_the_truth(name):
    ratio = RATIOS[name](*drawn(name)) / LN2
    error = ratio.std() / math.sqrt(N)
    assert error < max(0.02, 0.01 * CASES[name].truth)
    assert ratio.mean() == pytest.approx(CASES[name].truth, abs=4 * error + 1e-9)


RESIDUALS = {
    "common cause, rho 0.0": 0,
    "common cause, rho 0.8": 0.8,
    "common causes 1+1 given 3, rho 0.0": 0,
    "common causes 1+1 given 3, rho 0.8": 0.8,
    "chain of normals": 0,
    "common effect, noise 0.3": -1 / 1.09,
}
"""Partial correlations."""


@pytest.mark.parametrize("name", RESIDUALS)
def test_partial_correlations_are_those_of_the_samples(name):
    x, y, z = drawn(name)
    left = [v - z @ np.linalg.lstsq(z, v)[0] for v in (x, y)]
    assert np.corrcoef(left[0][:, 0], left[1][:, 0])[0, 1] == pytest.approx(RESIDUALS[name], abs=0.03)
    assert CASES[name].truth == pytest.approx(-0.5 * math.log2(1 - RESIDUALS[name] ** 2), abs=1e-12)
    if "chain" in name or "cause" in name:
        assert abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1]) > 0.3  # without Z they share information


# --- Tables of symbols -----------------------------------------------------------------------------------------------


def channel_table(flips):
    table = np.array([[[1 - f, f], [f, 1 - f]] for f in flips]) / (2 * len(flips))
    return table.transpose(1, 2, 0)


def exclusive_or_table(flip):
    return channel_table([flip, 1 - flip])  # where Z is 1, the sign of Y is another


def chain_table():
    step = 0.9 * np.eye(10) + 0.01
    return np.einsum("xz,zy->xyz", step, step) / 10


def remainder_table():
    table = np.zeros((8, 6, 64))
    z = np.arange(64)
    table[z % 8, z % 6, z] = 1 / 64
    return table


TABLES = {
    "exclusive or of bits": exclusive_or_table(0.0),
    "exclusive or of bits, flip 0.1": exclusive_or_table(0.1),
    "three binary channels": channel_table([0.01, 0.1, 0.5]),
    "chain of 10 symbols": chain_table(),
    "remainders of z": remainder_table(),
}


@pytest.mark.parametrize("name", TABLES)
def test_symbols_given_symbols_are_the_sums_over_their_tables(name):
    table = TABLES[name]
    seen = table > 0
    x, y, z = np.nonzero(seen)
    ratio = table[seen] * table.sum((0, 1))[z] / (table.sum(1)[x, z] * table.sum(0)[y, z])
    assert CASES[name].truth == pytest.approx((table[seen] * np.log2(ratio)).sum(), abs=1e-12)
    counts = np.zeros_like(table)
    np.add.at(counts, tuple(v[:, 0].astype(int) for v in drawn(name)), 1)
    assert (counts[~seen] == 0).all()
    assert stats.chisquare(counts[seen], N * table[seen]).pvalue > 1e-3


@pytest.mark.parametrize("step", [1.0, 0.25])
def test_two_rounded_normals_are_the_sum_over_rectangles(step):
    most = math.ceil(5 / step)
    edges = step * (np.arange(-most, most + 2) - 0.5)
    grid = np.stack(np.meshgrid(edges, edges, indexing="ij"), axis=-1)
    below = stats.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]]).cdf(grid)
    table = np.clip(np.diff(np.diff(below, axis=0), axis=1), 0, None)
    terms = [special.entr(mass).sum() for mass in (table.sum(0), table.sum(1), table)]
    name = f"both rounded to {step}, rho 0.9"
    assert CASES[name].truth == pytest.approx((terms[0] + terms[1] - terms[2]) / LN2, abs=1e-4)
    x, y = (v[:, 0].astype(int) - math.ceil(9 / step) + most for v in drawn(name))
    counts = np.zeros_like(table)
    np.add.at(counts, (x, y), 1)
    often = N * table > 5
    assert ((counts - N * table)[often] ** 2 / (N * table[often])).sum() < stats.chi2(often.sum()).ppf(0.999)


@pytest.mark.parametrize(("name", "scale", "turns"), [("functions of z", 1, 1), ("functions of z, steep", 5, 3)])
def test_functions_of_z_are_constant_given_z(name, scale, turns):
    x, y, z = drawn(name)
    np.testing.assert_allclose(np.hstack([x, y]), scale * np.hstack([z**2, np.cos(turns * z)]))
    assert CASES[name].truth == 0


# --- Tighter than samples can be -------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [0.5, 1.0, 2.0])
def test_two_corners_are_two_normals(half):
    assert clusters.corners_truth(2, half * math.sqrt(2)) == pytest.approx(labeled.two_normals_truth(half), abs=1e-10)


@pytest.mark.parametrize("radius", [2.0, 5.0])
def test_corners_by_quasi_random_normals(radius):
    z = stats.norm.ppf(qmc.Sobol(10, seed=0).random_base2(15))
    z[:, 0] += radius
    surprise = special.logsumexp(radius * (z - z[:, :1]), axis=1).mean()
    assert clusters.corners_truth(10, radius) == pytest.approx((math.log(10) - surprise) / LN2, abs=2e-4)


def test_two_clusters_shared_by_integration():
    """I(C;X) + I(C;Y) − I(C;X,Y), where the centers of the pair are as those of one, √2 times as large."""
    t, step = np.linspace(-9, 9, 361, retstep=True)
    at = [stats.norm.pdf(t, mean) * step for mean in (-1, 1)]
    joint = sum(np.outer(a, a) for a in at) / 2
    expected = (special.rel_entr(joint, np.outer(joint.sum(0), joint.sum(1)))).sum() / LN2
    radius = math.sqrt(2)
    assert 2 * clusters.corners_truth(2, radius) - clusters.corners_truth(2, 2.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("radius", [4.0, 10.0])
def test_a_circle_is_the_entropy_of_the_mixture_less_that_of_one(radius):
    t, step = np.linspace(-radius - 8, radius + 8, 301, retstep=True)
    density = sum(np.outer(stats.norm.pdf(t, a), stats.norm.pdf(t, b)) for a, b in circle(radius)) / 10
    entropy = special.entr(density).sum() * step**2 - 2 * stats.norm.entropy()
    assert clusters.circle_truth(10, radius) == pytest.approx(entropy / LN2, abs=1e-8)


@pytest.mark.parametrize("apart", [2.0, 5.0])
def test_two_lines_by_the_divergence_at_nodes(apart):
    x_centers, y_centers = (centers[:, 0] for centers in lines(apart))
    nodes, weights = np.polynomial.legendre.leggauss(400)
    end = 4.5 * apart + 8
    given = [stats.norm.pdf(end * nodes[:, None], centers) for centers in (x_centers, y_centers)]
    joint, margins = given[0] @ given[1].T / 10, [of.mean(1) for of in given]
    terms = special.rel_entr(joint, np.outer(*margins))
    expected = end**2 * weights @ terms @ weights / LN2
    assert CASES[f"10 clusters on two lines, {apart} apart"].truth == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_two_rectified_normals_by_integration_over_the_quadrant(rho):
    s = math.sqrt(1 - rho**2)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t, weights = 4.5 * (nodes + 1), 4.5 * weights
    inside = stats.norm.pdf(t)[:, None] * stats.norm.pdf(t, rho * t[:, None], s) * normal_ratio(t[:, None], t, rho)
    zero = stats.norm.cdf(-rho * t / s)
    corner = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([0, 0])
    total = weights @ inside @ weights + 2 * weights @ (stats.norm.pdf(t) * special.xlogy(zero, 2 * zero))
    expected = (total + corner * math.log(4 * corner)) / LN2
    assert mixed.both_rectified_truth(rho) == pytest.approx(expected, abs=1e-7)


def test_sparse_coordinates_are_the_mean_divergence_from_the_margin():
    y, step = np.linspace(-9, 9, 1201, retstep=True)
    margin = 0.9 * stats.norm.pdf(y, 0, 0.3) + 0.1 * stats.norm.pdf(y, 0, math.sqrt(1.09))

    def divergence(x):
        return special.rel_entr(stats.norm.pdf(y, x, 0.3), margin).sum() * step

    active = integrate.quad(lambda x: 2 * stats.norm.pdf(x) * divergence(x), 0, 7, epsabs=1e-9)[0]
    assert CASES["sparse 1+1, 10% active"].truth == pytest.approx((0.9 * divergence(0) + 0.1 * active) / LN2, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "step", "most"),
    [("5 levels of a normal", 1.0, 2), ("9 levels of a normal", 0.5, 4), ("normal rounded to 0.25", 0.25, 36)],
)
def test_levels_are_the_entropy_of_the_normal_less_those_given_a_level(name, step, most):
    edges = np.concatenate([[-np.inf], step * np.arange(-most + 0.5, most), [np.inf]])
    x, width = np.linspace(-8, 8, 1601, retstep=True)
    joint = stats.norm.pdf(x) * np.diff(stats.norm.cdf((edges[:, None] - 0.9 * x) / math.sqrt(0.19)), axis=0)
    mass = np.diff(stats.norm.cdf(edges))
    given = special.entr(joint).sum() * width - special.entr(mass).sum()
    assert CASES[f"{name}, rho 0.9"].truth == pytest.approx((stats.norm.entropy() - given) / LN2, abs=1e-8)


def test_a_label_and_a_cause_are_mixtures_less_one_normal():
    t, step = np.linspace(-10, 10, 501, retstep=True)
    prior = stats.norm.cdf(t)[:, None]
    density = prior * stats.norm.pdf(t, 1) + (1 - prior) * stats.norm.pdf(t, -1)
    entropies = special.entr(density).sum(1) * step
    expected = ((entropies - stats.norm.entropy()) * stats.norm.pdf(t)).sum() * step / LN2
    assert conditional.label_and_cause_truth(1.0) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("dz", "freedom"), [(1, 3), (3, 2)])
def test_student_given_student_by_the_entropies_of_scipy(dz, freedom):
    sigma = student_sigma(dz)
    h = [
        stats.multivariate_t(np.zeros(len(part)), sigma[np.ix_(part, part)], df=freedom).entropy()
        for part in student_parts(dz)
    ]
    expected = (h[2] + h[3] - h[0] - h[1]) / LN2
    assert CASES[f"Student-t 1+1 given {dz}, {freedom} df"].truth == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_names_are_fit_for_tables(name):
    assert not set(name) & set("|*_`;")
