"""The cases of the benchmark: each truth is got once more, from densities and sums written out here with SciPy."""

import math
import re
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from tests.helpers import ROOT
from tests.reference.test_truth_cases_of_layers import RATIOS, TABLES

sys.path.append(str(ROOT / "benchmarks"))

from cases import CASES, KINDS

LN2 = math.log(2)
N = 50_000
WORDS = {kind: [case for case in CASES.values() if case.kind == kind] for kind in KINDS}


def drawn(name, n=N, seed=0):
    return CASES[name].sample(n, torch.Generator().manual_seed(seed))


def numbers(name):
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", name)]


def numpy_rows(name, n=N):
    return [v.double().reshape(n, -1).numpy() for v in drawn(name, n)]


def covariance(dims, rho, n_pairs):
    sigma = np.eye(2 * dims)
    i = np.arange(n_pairs)
    sigma[i, dims + i] = sigma[dims + i, i] = rho
    return sigma


def elliptic_ratio(x, y, sigma, freedom=np.inf):
    """log p(x, y) / p(x) p(y) of normals, or of Student's t."""

    def log_density(rows, part):
        return np.atleast_1d(stats.multivariate_t.logpdf(rows, np.zeros(len(part)), part, df=freedom))

    d = x.shape[1]
    together = log_density(np.hstack([x, y]), sigma)
    return together - log_density(x, sigma[:d, :d]) - log_density(y, sigma[d:, d:])


def unmapped(name, x, y):
    """The normals, or Student's t, that the rows were made of."""
    if name.startswith("log-normal"):
        return np.log(x), np.log(y)
    if name.startswith("normal cubed"):
        return np.cbrt(x), np.cbrt(y)
    if name.startswith("half-cube"):
        return [np.sign(v) * np.abs(v) ** (2 / 3) for v in (x, y)]
    if name.startswith("uniform margins"):
        return stats.norm.ppf(x), stats.norm.ppf(y)
    if name.startswith("swiss roll"):
        angle = 21 * np.hypot(x[:, :1], x[:, 1:])  # the radius is the angle
        np.testing.assert_allclose(x, np.hstack([angle * np.cos(angle), angle * np.sin(angle)]) / 21, atol=1e-12)
        return stats.norm.ppf((angle / (1.5 * np.pi) - 1) / 2), stats.norm.ppf(y)
    if name.startswith("asinh"):
        return np.sinh(x), np.sinh(y)
    if name.startswith("spiral"):
        back = []
        for first, rows in ((0, x), (1, y)):
            plane = (rows[:, first] + 1j * rows[:, first + 1]) * np.exp(-1j * (rows**2).sum(1) / 3)
            rows = rows.copy()
            rows[:, first], rows[:, first + 1] = plane.real, plane.imag
            back.append(rows)
        return back
    return x, y


def trapezium(y, width):
    """The density of uniform + uniform noise."""
    overlap = np.minimum(y + width / 2, 1) - np.maximum(y - width / 2, 0)
    return np.clip(overlap, 0, None) / width


def log_ratio(name, x, y):
    """The pointwise information of the samples, in nats: its mean is I(X;Y)."""
    figures = numbers(name)
    if name.startswith("uniform + noise"):
        return -math.log(figures[0]) - np.log(trapezium(y[:, 0], figures[0]))
    if name.startswith("two normals"):
        d, half = x.shape[1], figures[-1]
        mean = np.full(d, half / math.sqrt(d))
        densities = np.array([stats.multivariate_normal.logpdf(x, m, np.eye(d)) for m in (-mean, mean)])
        own = densities[y[:, 0].astype(int), np.arange(len(x))]
        return own - special.logsumexp(densities, axis=0) + LN2
    if name.startswith("four normals"):
        corners = [[(-1, -1), (1, 1)], [(-1, 1), (1, -1)]]
        log = np.array(
            [
                special.logsumexp([stats.multivariate_normal.logpdf(x, 1.5 * np.array(c)) for c in of], axis=0)
                for of in corners
            ]
        )
        return log[y[:, 0].astype(int), np.arange(len(x))] - special.logsumexp(log, axis=0) + LN2
    if name.endswith("overlapping steps"):
        m = int(figures[0])
        density = sum((x[:, 0] >= k) & (x[:, 0] < k + 2) for k in range(m)) / (2 * m)
        return np.log(0.5 / density)
    if name.startswith("Poisson"):
        p, k = figures[0] / 100, y[:, 0]
        given = p * (k == 0) + (1 - p) * stats.poisson.pmf(k, x[:, 0])
        return np.log(given / (p * (k == 0) + (1 - p) * stats.geom.pmf(k + 1, 0.5)))
    if name == "normal or points":
        at_point = np.abs(x[:, 0]) == 1
        points = np.log(np.where(x[:, 0] == y[:, 0], 0.4, 0.1) * 0.5 / 0.25**2)
        return np.where(at_point, points, elliptic_ratio(x, y, covariance(1, 0.9, 1)) + LN2)
    if name.endswith("erased"):
        return np.where(y[:, 0] == 0, 0, elliptic_ratio(x, y, covariance(1, 0.9, 1)))
    if name.startswith("ReLU"):
        rho = figures[0]
        zero = np.log(2 * stats.norm.cdf(-rho * y[:, 0] / math.sqrt(1 - rho**2)))
        return np.where(x[:, 0] == 0, zero, elliptic_ratio(x, y, covariance(1, rho, 1)))
    x, y = unmapped(name, x, y)
    d = y.shape[1]
    if name.endswith("dense"):
        return elliptic_ratio(x, y, np.full((2 * d, 2 * d), 0.5) + 0.5 * np.eye(2 * d))
    if "Student" in name:
        rho = 0 if "uncorrelated" in name else (0.75 if d == 1 else 0.8)
        return elliptic_ratio(x, y, covariance(d, rho, min(d, 2)), freedom=figures[2])
    if "rho" in name:
        return elliptic_ratio(x, y, covariance(1, figures[-1], 1))
    return elliptic_ratio(x, y, covariance(d, 0.8, 2))


ELSEWHERE = {*RATIOS, *TABLES, "chain of normals", "functions of z", "functions of z, steep"}
"""In ``test_truth_cases_of_layers.py``."""


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.kind != "discrete" and n not in ELSEWHERE])
def test_the_mean_pointwise_information_of_the_samples_is_the_truth(name):
    ratio = log_ratio(name, *numpy_rows(name)) / LN2
    error = ratio.std() / math.sqrt(N)
    assert error < 0.02
    assert ratio.mean() == pytest.approx(CASES[name].truth, abs=4 * error + 1e-9)


@pytest.mark.parametrize("name", [case.name for case in WORDS["discrete"] if "rounded" not in case.name])
def test_discrete_truths_are_the_sums_over_their_tables(name):
    if name.startswith("binary"):
        flip = numbers(name)[0]
        table = np.array([[1 - flip, flip], [flip, 1 - flip]]) / 2
        symbols = 2
    else:
        symbols = 2 ** int(numbers(name)[0]) if name.endswith("bits") else int(numbers(name)[0])
        table = None  # diagonal: Σ 1/m log2 (1/m) / (1/m)²
    if table is None:
        assert CASES[name].truth == pytest.approx(-math.log2(1 / symbols), abs=1e-12)
    else:
        terms = table[table > 0] * np.log2((table / np.outer(table.sum(1), table.sum(0)))[table > 0])
        assert CASES[name].truth == pytest.approx(terms.sum(), abs=1e-12)
    x, y = drawn(name)
    assert stats.chisquare(torch.bincount(x, minlength=symbols).numpy()).pvalue > 1e-3
    if table is None:
        assert torch.equal(x, y)
    else:
        pairs = torch.bincount(2 * x + y, minlength=4).numpy()
        assert stats.chisquare(pairs, N * table.ravel()).pvalue > 1e-3


# --- Tighter than samples can be: integrals over the densities -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "freedom", "limit"),
    [("normal, rho 0.5", np.inf, 9), ("normal, rho 0.9", np.inf, 9), ("Student-t 1+1, 3 df", 3, None)],
)
def test_two_numbers_by_integration(name, freedom, limit):
    rho = 0.75 if freedom == 3 else numbers(name)[0]

    def density(x, y):
        kernel = (x * x - 2 * rho * x * y + y * y) / (1 - rho**2)
        shape = np.exp(-kernel / 2) if limit else (1 + kernel / freedom) ** (-(freedom + 2) / 2)
        return shape / (2 * np.pi * math.sqrt(1 - rho**2))

    def log_margin(x):
        return stats.norm.logpdf(x) if limit else stats.t.logpdf(x, freedom)

    # Where the tails are heavy, x = sinh u makes them light.
    u, step = np.linspace(-(limit or 14), limit or 14, 2001, retstep=True)
    x, weight = (u, np.full_like(u, step)) if limit else (np.sinh(u), np.cosh(u) * step)
    p = density(x[:, None], x[None, :])
    margins = log_margin(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - margins[:, None] - margins[None, :]), 0)
    assert weight @ p @ weight == pytest.approx(1, abs=1e-6)
    assert weight @ terms @ weight / LN2 == pytest.approx(CASES[name].truth, abs=1e-5)


@pytest.mark.parametrize("name", [case.name for case in CASES.values() if case.name.startswith("uniform + noise")])
def test_uniform_noise_by_integration(name):
    width = numbers(name)[0]
    ends = [-width / 2, min(width / 2, 1 - width / 2), max(width / 2, 1 - width / 2), 1 + width / 2]
    entropy = sum(integrate.quad(lambda y: special.entr(trapezium(y, width)), a, b)[0] for a, b in zip(ends, ends[1:]))
    assert CASES[name].truth == pytest.approx((entropy - math.log(width)) / LN2, abs=1e-9)


@pytest.mark.parametrize("name", [case.name for case in CASES.values() if case.name.startswith("two normals")])
def test_two_normals_are_the_entropy_of_the_mixture_less_that_of_one(name):
    half = numbers(name)[-1]

    def term(t):
        return special.entr((stats.norm.pdf(t - half) + stats.norm.pdf(t + half)) / 2)

    mixture = integrate.quad(term, -half - 10, half + 10, limit=200)[0]
    assert CASES[name].truth == pytest.approx((mixture - stats.norm.entropy()) / LN2, abs=1e-8)


def test_exclusive_or_by_integration():
    def term(v, u):
        p = [
            [stats.norm.pdf(u, a, 1) * stats.norm.pdf(v, b, 1) for a, b in corners]
            for corners in (((-1.5, -1.5), (1.5, 1.5)), ((-1.5, 1.5), (1.5, -1.5)))
        ]
        even, odd = (sum(of) / 4 for of in p)
        return (special.entr(even + odd) - special.entr(even) - special.entr(odd)) + (even + odd) * LN2

    u, step = np.linspace(-10, 10, 801, retstep=True)
    assert term(*np.meshgrid(u, u)).sum() * step**2 / LN2 == pytest.approx(
        CASES["four normals, exclusive or"].truth, abs=1e-8
    )


@pytest.mark.parametrize("m", [5, 20])
def test_overlapping_steps_by_unit_intervals(m):
    joint = np.zeros((m, m + 1))
    for label in range(m):
        joint[label, label : label + 2] = 1 / (2 * m)
    independent = np.outer(joint.sum(1), joint.sum(0))
    seen = joint > 0
    expected = (joint[seen] * np.log2(joint[seen] / independent[seen])).sum()
    assert CASES[f"{m} overlapping steps"].truth == pytest.approx(expected, abs=1e-12)


def test_zero_inflated_poisson_by_a_sum_over_counts():
    """∫ e^-x p(k|x) log p(k|x) for each count; zeroing loses more than its share, since a zero may be a count."""
    k = np.arange(1, 300)
    without = (2 * LN2 - np.euler_gamma - (np.log(k) / 2.0**k).sum()) / LN2
    assert CASES["Poisson, 0% zeroed"].truth == pytest.approx(without, abs=1e-8)

    p = 0.15
    zero = integrate.quad(lambda x: math.exp(-x) * special.entr(p + (1 - p) * math.exp(-x)), 0, np.inf)[0]
    total = special.entr(p + (1 - p) / 2) - zero
    for count in range(1, 60):
        # E[log p(k|x)] under x given k, a gamma distribution of shape k + 1 and rate 2
        mean_log = count * (special.psi(count + 1) - LN2) - (count + 1) / 2 - special.gammaln(count + 1)
        total += (1 - p) * 0.5 ** (count + 1) * (mean_log + (count + 1) * LN2)
    assert CASES["Poisson, 15% zeroed"].truth == pytest.approx(total / LN2, abs=1e-8)
    assert CASES["Poisson, 15% zeroed"].truth < (1 - p) * without - 0.03


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_a_rectified_normal_by_integration_over_both(rho):
    s = math.sqrt(1 - rho**2)
    y, step_y = np.linspace(-9, 9, 1201, retstep=True)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    x, weights = 5 * (nodes + 1), 5 * weights
    ratio = stats.norm.logpdf(x[:, None], rho * y, s) - stats.norm.logpdf(x)[:, None]
    above = (weights[:, None] * stats.norm.pdf(x[:, None], rho * y, s) * ratio).sum(0)
    below = stats.norm.cdf(-rho * y / s)
    divergence = above + special.xlogy(below, 2 * below)
    expected = (stats.norm.pdf(y) * divergence).sum() * step_y / LN2
    assert CASES[f"ReLU of normal, rho {rho}"].truth == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("d", [2, 5, 10, 25, 50])
def test_dense_normals_by_canonical_correlation(d):
    """One canonical pair: the sums, of variance d(d + 1)/2 and covariance d²/2."""
    rho = d / (d + 1)
    assert CASES[f"normal {d}+{d}, dense"].truth == pytest.approx(-0.5 * math.log2(1 - rho**2), abs=1e-10)
    assert CASES[f"normal {d}+{d}, two pairs"].truth == pytest.approx(-math.log2(1 - 0.64), abs=1e-10)


# --- Samplers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "margin"),
    [
        ("normal, rho 0.99", stats.norm),
        ("normal 50+50, dense", stats.norm),
        ("log-normal, rho 0.75", stats.lognorm(1)),
        ("uniform margins, rho 0.75", stats.uniform),
        ("Student-t 1+1, 1 df", stats.t(1)),
        ("Student-t 5+5, 5 df", stats.t(5)),
    ],
)
def test_margins(name, margin):
    for rows in numpy_rows(name):
        assert stats.kstest(rows[:, -1], margin.cdf).pvalue > 1e-3


def test_a_spiral_leaves_lengths_alone():
    for rows in numpy_rows("spiral 3+3"):
        assert stats.kstest((rows**2).sum(1), stats.chi2(3).cdf).pvalue > 1e-3


def test_there_are_at_least_thirty_cases_and_each_kind_is_there():
    assert len(CASES) >= 30
    assert all(WORDS.values())
    assert len({case.name for case in CASES.values()}) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_samples_have_the_shape_of_their_kind_and_belong_to_their_seed(name):
    case = CASES[name]
    before = torch.get_rng_state()
    variables = drawn(name, 7)
    assert torch.equal(torch.get_rng_state(), before)
    again, other = drawn(name, 7), drawn(name, 7, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(variables, again))
    assert not all(torch.equal(a, b) for a, b in zip(variables, other))
    assert case.truth >= 0
    ids = {"discrete": "xy", "labeled": "y"}.get(case.kind, case.symbols)
    assert len(variables) == len(case.dims) == (3 if case.kind == "conditional" else 2)
    for letter, variable, dims in zip("xyz", variables, case.dims):
        expected = ((7,), torch.int64) if letter in ids else ((7, dims), torch.float64)
        assert (variable.shape, variable.dtype) == expected
