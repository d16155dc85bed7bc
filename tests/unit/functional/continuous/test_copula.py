"""The Gaussian copula: a written-out reference, closed forms, and what a rank cannot see."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma

from lightning_ib.functional.continuous import copula
from lightning_ib.functional.continuous.copula import (
    mutual_information_gaussian_copula,
    mutual_information_gaussian_copula_labels,
)
from tests.helpers.samples import correlated, generator, leaves_alone, normal, two_classes

law = settings(derandomize=True, database=None, deadline=None, max_examples=25)
seeds = st.integers(0, 2**32)


# --- A written-out reference -----------------------------------------------------------------------------------------


def reference_scores(values):
    values = np.asarray(values).reshape(len(values), -1)
    return scipy.stats.norm.ppf(scipy.stats.rankdata(values, axis=0) / (len(values) + 1))


def reference_entropy(scores, corrected):
    """Of a normal variable with the covariance of the rows, without D/2 log 2πe."""
    n, d = scores.shape
    h = 0.5 * np.linalg.slogdet(np.cov(scores.T).reshape(d, d))[1]
    if corrected:  # the mean log determinant of a Wishart matrix of n - 1 degrees, over n - 1
        h -= 0.5 * sum(digamma((n - i) / 2) + math.log(2) - math.log(n - 1) for i in range(1, d + 1))
    return h


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize(("n", "dx", "dy"), [(300, 1, 1), (300, 3, 2), (12, 6, 4), (50, 1, 7)])
def test_agrees_with_the_written_out_estimator(n, dx, dy, corrected):
    x, noise = normal(n, dx), normal(n, dy, seed=1)
    y = (noise + x[:, :1]).exp()
    sx, sy = reference_scores(x), reference_scores(y)
    h_x, h_y, h_xy = (reference_entropy(s, corrected) for s in (sx, sy, np.hstack([sx, sy])))
    ours = mutual_information_gaussian_copula(x, y, bias_correction=corrected, unit="nats")
    assert ours == pytest.approx(h_x + h_y - h_xy, abs=1e-8)


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("d", [1, 4])
def test_agrees_with_the_written_out_estimator_of_classes(d, corrected):
    y = torch.randint(4, (300,), generator=generator()) * 10 - 3
    t = normal(300, d) * (1 + y.unsqueeze(1) ** 2) + y.unsqueeze(1)
    scores = reference_scores(t)
    h_given_y = sum(
        np.mean(y.numpy() == c) * reference_entropy(scores[y.numpy() == c], corrected) for c in np.unique(y)
    )
    ours = mutual_information_gaussian_copula_labels(t, y, bias_correction=corrected, unit="nats")
    assert ours == pytest.approx(reference_entropy(scores, corrected) - h_given_y, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [60, 40_000])
def test_the_scores_are_those_of_the_mean_ranks(n, dtype):
    many = normal(n, 3).to(dtype) * torch.tensor([1, 1e-30, 1e30], dtype=dtype)
    zeros = torch.tensor([0.0, -0.0, 1.0, -1.0], dtype=dtype).repeat(n // 4)[:, None]
    subnormal = torch.tensor([torch.finfo(dtype).tiny / 4, -torch.finfo(dtype).tiny / 8, 0.0], dtype=dtype)
    for rows in (many, many.relu(), torch.cat([many, zeros], 1), subnormal.repeat(n // 3 + 1)[:n, None]):
        np.testing.assert_allclose(copula.normal_scores(rows).T, reference_scores(rows), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("n", [50, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_the_same_whoever_sorts(monkeypatch, n, dtype):
    rows = torch.cat((normal(n, 2), normal(n, 2, seed=1).round()), dim=1).to(dtype)
    scores = []
    for by_numpy in (True, False):
        monkeypatch.setattr(copula, "numpy_sorts_faster", lambda by_numpy=by_numpy: by_numpy)
        scores.append(copula.normal_scores(rows))
    assert torch.equal(*scores)


def test_equal_values_share_their_mean_rank():
    x = (2 * normal(200, 2)).round()
    y = normal(200, seed=1) + x[:, 0]
    sx, sy = reference_scores(x), reference_scores(y)
    expected = sum(s * reference_entropy(v, True) for s, v in ((1, sx), (1, sy), (-1, np.hstack([sx, sy]))))
    assert mutual_information_gaussian_copula(x, y, unit="nats") == pytest.approx(expected, abs=1e-8)


# --- Closed forms, in nats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9, 0.999])
def test_bivariate_normal_behind_monotone_maps(rho):
    x, y = correlated(5000, rho, seed=2)
    truth = -0.5 * math.log(1 - rho**2)
    estimate = mutual_information_gaussian_copula(x.exp(), y**3, unit="nats")
    assert estimate == pytest.approx(truth, abs=0.03 if rho < 0.99 else 0.1)


def test_multivariate_normal():
    x, noise = normal(5000, 4, seed=3), normal(5000, 3, seed=4)
    mix = normal(4, 3, seed=5)
    truth = 0.5 * torch.logdet(mix.T @ mix + torch.eye(3)).item()
    assert mutual_information_gaussian_copula(x, x @ mix + noise, unit="nats") == pytest.approx(truth, abs=0.05)


def test_many_coordinates_read_nothing_only_with_the_correction():
    pairs = [(normal(60, 8, seed=s), normal(60, 6, seed=s + 500)) for s in range(60)]
    with_it, without = (
        np.mean([mutual_information_gaussian_copula(x, y, bias_correction=b, unit="nats") for x, y in pairs])
        for b in (True, False)
    )
    assert without == pytest.approx(8 * 6 / (2 * 60), rel=0.25)
    assert with_it == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0])
def test_two_normals_are_bounded_from_below(a):
    def integrand(t):
        p, q = scipy.stats.norm.pdf(t, a), scipy.stats.norm.pdf(t, -a)
        return 0.5 * (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q)))

    truth = scipy.integrate.quad(integrand, -12, 12)[0]
    estimate = mutual_information_gaussian_copula_labels(*two_classes(5000, a, seed=6), unit="nats")
    assert truth - 0.05 < estimate < truth + 0.01


def test_a_dependence_without_correlation_is_not_seen():
    x = normal(5000, seed=7)
    assert mutual_information_gaussian_copula(x, x**2) == pytest.approx(0.0, abs=0.01)


def test_one_class_has_no_information():
    assert mutual_information_gaussian_copula_labels(normal(50, 2), torch.zeros(50, dtype=torch.long)) == 0.0


# --- Laws ------------------------------------------------------------------------------------------------------------


@law
@given(seeds)
def test_increasing_maps_of_coordinates_do_not_matter(seed):
    x, y = normal(50, 3, seed=seed), normal(50, 2, seed=seed + 1)
    maps = (torch.exp, lambda v: v**3, lambda v: 5 * v - 100)
    mapped = torch.stack([m(column) for m, column in zip(maps, x.T)], dim=1)
    estimate = mutual_information_gaussian_copula
    assert estimate(mapped, 2 * y) == estimate(x, y)
    labels = torch.arange(50) % 3
    of_labels = mutual_information_gaussian_copula_labels
    assert of_labels(mapped, labels) == of_labels(x, labels)
    assert estimate(-x, y) == pytest.approx(estimate(x, y), abs=1e-10)


@law
@given(seeds)
def test_symmetry_and_order(seed):
    x, y = normal(50, 3, seed=seed), normal(50, 2, seed=seed + 1)
    estimate = mutual_information_gaussian_copula
    order = torch.randperm(50, generator=generator(seed))
    assert estimate(y, x) == pytest.approx(estimate(x, y), abs=1e-10)
    assert estimate(x[order], y[order].flip(1)) == pytest.approx(estimate(x, y), abs=1e-10)
    labels, names = torch.arange(50) % 3, torch.tensor([9, -4, 2**40])
    of_labels = mutual_information_gaussian_copula_labels
    assert of_labels(x[order], names[labels][order]) == pytest.approx(of_labels(x, labels), abs=1e-10)


@law
@given(seeds)
def test_without_correction_it_is_not_negative(seed):
    x, y = normal(20, 3, seed=seed), normal(20, 2, seed=seed + 1)
    assert mutual_information_gaussian_copula(x, y, bias_correction=False) >= 0


def test_bits_are_nats_over_log_2():
    x, y = correlated(100, 0.7)
    nats = mutual_information_gaussian_copula(x, y, unit="nats")
    assert mutual_information_gaussian_copula(x, y) == pytest.approx(nats / math.log(2), abs=1e-12)


# --- How it computes -------------------------------------------------------------------------------------------------


def test_any_precision_and_shape():
    x, y = normal(60, 2, 2).float(), normal(60, seed=1)
    first = mutual_information_gaussian_copula(x, y)
    assert mutual_information_gaussian_copula(x.double().flatten(1), y.unsqueeze(1)) == first
    of_labels = mutual_information_gaussian_copula_labels
    assert of_labels(x, y > 0) == of_labels(x, (y > 0).int())


TWO = [
    (mutual_information_gaussian_copula, torch.Tensor.double),
    (mutual_information_gaussian_copula_labels, lambda y: (y > 0).long()),
]
of_both = pytest.mark.parametrize(("estimate", "kind"), TWO, ids=["real", "labels"])


@of_both
def test_leaves_inputs_and_random_state_alone(estimate, kind):
    x, y = normal(50, 2).requires_grad_(), kind(normal(50, seed=1))
    leaves_alone(estimate, x, y)


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_constant_coordinate():
    x = normal(40, 3)
    x[:, 1] = 2.5
    message = r"^coordinate 1 of {} is constant: leave it out, it carries no information\.$"
    with pytest.raises(ValueError, match=message.format("x")):
        mutual_information_gaussian_copula(x, normal(40, seed=1))
    with pytest.raises(ValueError, match=message.format("y")):
        mutual_information_gaussian_copula(normal(40, seed=1), x)
    with pytest.raises(ValueError, match=message.format("t")):
        mutual_information_gaussian_copula_labels(x, torch.arange(40) % 2)


def test_constant_coordinate_in_a_class():
    x, y = normal(40, 2), torch.arange(40) % 2 + 6
    x[y == 7, 0] = 0.0
    with pytest.raises(ValueError, match=r"coordinate 0 of t is constant in class 7: leave it out"):
        mutual_information_gaussian_copula_labels(x, y)


def test_coordinates_that_are_functions_of_each_other():
    x = normal(40, 3)
    singular = "is a function of the coordinates before it, which makes the covariance singular: leave it out"
    with pytest.raises(ValueError, match=f"^coordinate 2 of x {singular}"):
        mutual_information_gaussian_copula(torch.cat((x[:, :2], x[:, :1].exp()), 1), normal(40, seed=1))
    with pytest.raises(ValueError, match=f"^coordinate 1 of y {singular}"):
        mutual_information_gaussian_copula(x, torch.stack((normal(40, seed=1), -x[:, 2]), 1))
    labels = torch.arange(40) % 2
    x[:, 2] = torch.where(labels == 1, x[:, 0] + 100, x[:, 2])
    x[:, 0] = torch.where(labels == 1, x[:, 0] + 100, x[:, 0])
    with pytest.raises(ValueError, match="coordinate 2 of t is a function of the coordinates before it in class 1, "):
        mutual_information_gaussian_copula_labels(x, labels)


@pytest.mark.parametrize("seed", range(20))
def test_no_rounding_hides_a_singular_covariance(seed):
    x = normal(30, 8, seed=seed)
    with pytest.raises(ValueError, match="coordinate 0 of y is a function of the coordinates before it"):
        mutual_information_gaussian_copula(x, 3 * x[:, 4])


def test_too_few_rows():
    x, y = normal(7, 3), normal(7, 3, seed=1)
    message = "a covariance of 6 coordinates needs at least 8 rows, got 7: give more rows or fewer coordinates"
    with pytest.raises(ValueError, match=message):
        mutual_information_gaussian_copula(x, y)
    assert math.isfinite(mutual_information_gaussian_copula(x, y[:, :2]))


@pytest.mark.parametrize("few", [1, 4])
def test_too_few_rows_of_a_class(few):
    y = torch.zeros(40, dtype=torch.long)
    y[:few] = 17
    with pytest.raises(ValueError, match=rf"of 3 coordinates needs at least 5 rows, got {few} in class 17: give more"):
        mutual_information_gaussian_copula_labels(normal(40, 3), y)


def test_unknown_unit():
    with pytest.raises(ValueError, match="unit must be 'bits' or 'nats', got 'bans'"):
        mutual_information_gaussian_copula(normal(40), normal(40, seed=1), unit="bans")


@of_both
def test_not_finite(estimate, kind):
    x = normal(40)
    x[3] = math.nan
    with pytest.raises(ValueError, match="[xt] has NaN or infinite values in 1 of 40 rows"):
        estimate(x, kind(normal(40, seed=1)))


@of_both
def test_different_samples(estimate, kind):
    with pytest.raises(ValueError, match="[xt] and y must be of the same samples, got 40 of one and 41 of the other"):
        estimate(normal(40), kind(normal(41, seed=1)))


def test_no_tensor():
    with pytest.raises(TypeError, match=r"y must be a tensor of shape \(N, D\), got a list"):
        mutual_information_gaussian_copula(normal(40), [1, 2])
