"""Conditional information of real variables and labels: written-out references, closed forms, limits, bad input."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma

from lightning_ib.functional import (
    conditional_mutual_information,
    conditional_mutual_information_gaussian_copula,
    conditional_mutual_information_ksg,
    conditional_mutual_information_mixed,
    mutual_information_gaussian_copula,
    mutual_information_gaussian_copula_labels,
    mutual_information_ksg,
    mutual_information_mixed,
)
from lightning_ib.functional.continuous import neighbor_trees
from tests.helpers.samples import generator, leaves_alone, normal

NEIGHBORS = {"ksg": conditional_mutual_information_ksg, "mixed": conditional_mutual_information_mixed}
ALL = {**NEIGHBORS, "copula": conditional_mutual_information_gaussian_copula}
neighbors = pytest.mark.parametrize("estimate", NEIGHBORS.values(), ids=NEIGHBORS)
every = pytest.mark.parametrize("estimate", ALL.values(), ids=ALL)


def common_cause(n, rho=0.0, dz=1, seed=0):
    """Two noisy copies of a cause, whose noises correlate: I(X;Y|Z) is that of the noises."""
    z = normal(n, dz, seed=seed).reshape(n, dz)
    a, b = normal(n, seed=seed + 1), normal(n, seed=seed + 2)
    return z[:, 0] + a, z[:, 0] + rho * a + math.sqrt(1 - rho**2) * b, z


def reference(x, y, z, k):
    """Sample by sample."""
    x, y, z = (np.asarray(of).reshape(len(of), -1) for of in (x, y, z))
    total = 0.0
    for i in range(len(x)):
        dx, dy, dz = (np.abs(of - of[i]).max(1) for of in (x, y, z))
        rho = np.sort(np.delete(np.maximum(np.maximum(dx, dy), dz), i))[k - 1]
        n_xz, n_yz, n_z = (np.sum(of < rho) - 1 for of in (np.maximum(dx, dz), np.maximum(dy, dz), dz))
        total += digamma(n_z + 1) - digamma(n_xz + 1) - digamma(n_yz + 1)
    return digamma(k) + total / len(x)


@neighbors
@pytest.mark.parametrize("trees", [True, False])
@pytest.mark.parametrize(("dz", "k"), [(1, 1), (3, 4)])
def test_agrees_with_the_written_out_estimator(estimate, trees, dz, k, monkeypatch):
    if not trees:
        monkeypatch.setattr(neighbor_trees, "trees", lambda: None)
    x, y, z = common_cause(250, 0.5, dz)
    assert estimate(x, y, given=z, k=k, unit="nats") == pytest.approx(reference(x, y, z, k), abs=1e-8)


@every
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_what_is_left_beyond_a_common_cause(estimate, rho):
    x, y, z = common_cause(2000, rho)
    assert estimate(x, y, given=z) == pytest.approx(-math.log2(1 - rho**2) / 2, abs=0.06)


@every
def test_symmetry(estimate):
    x, y, z = common_cause(300, 0.6)
    assert estimate(x, y, given=z) == pytest.approx(estimate(y, x, given=z), abs=1e-12)


def test_a_constant_condition_leaves_the_information():
    x, y, _ = common_cause(300, 0.6)
    z = torch.zeros(300)
    assert conditional_mutual_information_ksg(x, y, given=z) == pytest.approx(mutual_information_ksg(x, y), abs=1e-12)
    rounding = (math.log(300) - digamma(300)) / math.log(2)
    expected = mutual_information_mixed(x, y) - rounding
    assert conditional_mutual_information_mixed(x, y, given=z.long()) == pytest.approx(expected, abs=1e-12)
    within = conditional_mutual_information_gaussian_copula(x, y, given=z.long())
    assert within == pytest.approx(mutual_information_gaussian_copula(x, y), abs=1e-12)


@neighbors
def test_a_condition_that_determines_everything_leaves_nothing(estimate):
    z = normal(400, 1)
    assert estimate(z, z, given=z) == 0
    assert estimate(z.sin(), z.cos(), given=z) == 0


@neighbors
def test_a_condition_that_varies_more_slowly_leaves_bits_that_are_not_there(estimate):
    """As the docstrings say: distances in x and y hide those in z, until z has their scale."""
    z = normal(400, 1)
    x, y = 5 * z.square(), 5 * (3 * z).cos()
    assert estimate(x, y, given=z) > 0.5
    assert estimate(x, y, given=100 * z) == pytest.approx(0, abs=0.02)


@neighbors
def test_values_farther_apart_than_a_float_holds(estimate):
    x, y, z = common_cause(50)
    far = torch.cat([x[:25] + 1.7e308, x[:25] - 1.7e308])
    message = "spans? more than distances hold in float64: divide"
    with pytest.raises(ValueError, match=f"^x {message} it"):
        estimate(far, y, given=z)
    with pytest.raises(ValueError, match=f"^given {message} it"):
        estimate(x, y, given=far)


def test_a_condition_that_determines_a_variable_is_named():
    x, y, _ = common_cause(100, 0.6)
    with pytest.raises(ValueError, match="coordinate 0 of x is a function of the coordinates before it"):
        conditional_mutual_information_gaussian_copula(x, y, given=2 * x)


def test_symbols_near_the_plug_in_information():
    a, b = torch.randint(2, (2, 1000), generator=generator())
    for x, y, z in ((a, b, a ^ b), (a, b, a), (a, a, b)):
        counted = conditional_mutual_information(x, y, given=z)
        assert conditional_mutual_information_mixed(x, y, given=z) == pytest.approx(counted, abs=0.01)


def test_labels_are_classes_without_order():
    label = torch.randint(3, (600,), generator=generator())
    x = 0.3 * normal(600, 2) + label.unsqueeze(1)
    y = x[:, 0] + normal(600, seed=1)
    first = conditional_mutual_information_mixed(x, y, given=label)
    assert conditional_mutual_information_mixed(x, y, given=torch.tensor([7, -5, 2])[label]) == first
    assert conditional_mutual_information_mixed(x, y, given=label.bool().logical_not()) != first


@pytest.mark.parametrize(
    "estimate", [conditional_mutual_information_mixed, conditional_mutual_information_gaussian_copula]
)
def test_a_label_that_explains_both(estimate):
    label = torch.randint(3, (1500,), generator=generator())
    x, y = normal(1500) + 3 * label, normal(1500, seed=1) - 3 * label
    assert mutual_information_ksg(x, y) > 0.8
    assert estimate(x, y, given=label) == pytest.approx(0, abs=0.05)


def test_the_copula_of_labels_is_a_mean_and_a_difference():
    label, other = torch.randint(2, (2, 500), generator=generator())
    x, y = normal(500, 2) + label.unsqueeze(1), normal(500, seed=3) * (1 + other)
    shares = [(own, float(own.double().mean())) for own in (label == 0, label == 1)]
    for target, of in ((y, mutual_information_gaussian_copula), (other, mutual_information_gaussian_copula_labels)):
        mean = sum(share * of(x[own], target[own]) for own, share in shares)
        found = conditional_mutual_information_gaussian_copula(x, target, given=label)
        assert found == pytest.approx(mean, abs=1e-12)
    chain = mutual_information_gaussian_copula_labels(torch.cat((y.unsqueeze(1), x), 1), other)
    chain -= mutual_information_gaussian_copula_labels(y, other)
    assert conditional_mutual_information_gaussian_copula(x, other, given=y) == pytest.approx(chain, abs=1e-12)


def test_variables_that_are_zero_at_once_are_read_beside_a_condition():
    """A bit, whether they are zero, and where they are not the information of two normals."""
    a, b, z = normal(1000, 3, seed=5).t()
    active = normal(1000, seed=6) > 0
    x, y = a.where(active, 0.0), (0.9 * a + math.sqrt(0.19) * b).where(active, 0.0)
    truth = 1 - 0.25 * math.log2(0.19)
    assert conditional_mutual_information_mixed(x, y, given=z) == pytest.approx(truth, abs=0.08)


def test_a_class_of_one_sample_is_too_small_for_a_covariance():
    with pytest.raises(ValueError, match=r"^class 1 of given has one of 100 samples, .* leave the class out, or use "):
        conditional_mutual_information_gaussian_copula(normal(100), normal(100, seed=1), given=torch.arange(100) // 99)


def test_grids_share_nothing_beyond_what_they_are_given():
    z = torch.randint(4, (2000,), generator=generator(1)).double()
    x, y = z + torch.randint(32, (2, 2000), generator=generator(2)).double()
    assert conditional_mutual_information_mixed(x, y, given=z) == pytest.approx(0, abs=0.1)


def test_a_tie_is_broken_as_noise_breaks_it_on_average():
    x, y, z = common_cause(400, 0.8)
    x = x.round()
    noisy = [
        conditional_mutual_information_mixed(x + 1e-9 * normal(400, seed=seed), y, given=z) for seed in range(10, 26)
    ]
    found = conditional_mutual_information_mixed(x, y, given=z)
    assert found == pytest.approx(np.mean(noisy), abs=4 * np.std(noisy) / 4)


@every
def test_leaves_inputs_and_random_state_alone(estimate):
    x, y, z = common_cause(60, 0.5)
    leaves_alone(lambda a, b: estimate(a, b, given=z), x, y)


# --- Bad input -------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("which", range(3))
def test_not_finite(estimate, which):
    variables = list(common_cause(50, 0.5))
    variables[which] = variables[which].clone()
    variables[which][3] = math.nan
    name = ("x", "y", "given")[which]
    with pytest.raises(ValueError, match=f"{name} has NaN or infinite values in 1 of 50 rows: leave those rows out"):
        estimate(variables[0], variables[1], given=variables[2])


@every
def test_different_samples(estimate):
    x, y, z = common_cause(50, 0.5)
    with pytest.raises(ValueError, match="x and given must be of the same samples, got 50 of one and 49 of the other"):
        estimate(x, y, given=z[1:])
    with pytest.raises(ValueError, match="x and y must be of the same samples, got 50 of one and 49 of the other"):
        estimate(x, y[1:], given=z)


@neighbors
@pytest.mark.parametrize("k", [0, 50])
def test_k_out_of_range(estimate, k):
    x, y, z = common_cause(50)
    with pytest.raises(ValueError, match=f"k must be an integer in 1 … 49, got {k}|k must be .*got {k}: there are 50"):
        estimate(x, y, given=z, k=k)


def test_the_neighbors_of_continuous_variables_name_those_of_others():
    x, y, z = common_cause(50)
    with pytest.raises(
        TypeError, match=r"or use conditional_mutual_information_mixed\(x, y, given=z\) if they are class labels"
    ):
        conditional_mutual_information_ksg(x, y, given=(z[:, 0] > 0))
    with pytest.raises(ValueError, match="use conditional_mutual_information_mixed, or add a little noise"):
        conditional_mutual_information_ksg((x > 0).double(), (y > 0).double(), given=(z > 0).double())
    with pytest.raises(ValueError, match="x is the same in all 50 rows"):
        conditional_mutual_information_ksg(0 * x, y, given=z)


def test_a_small_class_is_named():
    x, y, z = common_cause(50)
    label = torch.zeros(50, dtype=torch.long)
    label[:3] = 4
    with pytest.raises(
        ValueError, match="within class 4 of given: a covariance of 2 coordinates needs at least 4 rows"
    ):
        conditional_mutual_information_gaussian_copula(x, y, given=label)
