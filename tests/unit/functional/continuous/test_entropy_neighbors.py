"""Differential entropy by nearest neighbors: a written-out reference, closed forms, the conditions of the weights."""

import math

import mpmath
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch
from scipy.special import digamma

from lightning_ib.functional import differential_entropy_knn
from lightning_ib.functional.continuous import neighbor_search
from lightning_ib.functional.continuous.entropy_neighbors import entropy_weights, pointwise_entropy_knn
from tests.helpers.samples import generator, normal

each_form = pytest.mark.parametrize("weighted", [False, True])


def reference(x, weights):
    """Sample by sample, from the formula."""
    x = x.numpy()
    n, d = x.shape
    total = 0.0
    for i in range(n):
        distances = np.sort(np.delete(np.abs(x - x[i]).max(1), i))
        total += sum(w * (d * np.log(2 * distances[j - 1]) - digamma(j)) for j, w in weights.items())
    return digamma(n) + total / n


@each_form
@pytest.mark.parametrize(("d", "k"), [(1, 3), (2, 5), (5, 4), (13, 4)])
def test_agrees_with_the_written_out_estimator(d, k, weighted):
    x = normal(150, d) ** 3
    weights = entropy_weights(d, k) if weighted else {k: 1.0}
    found = differential_entropy_knn(x, k=k, weighted=weighted, unit="nats")
    assert found == pytest.approx(reference(x, weights), abs=1e-9)
    assert differential_entropy_knn(x, k=k, weighted=weighted) == pytest.approx(found / math.log(2))


@each_form
def test_trees_and_all_distances_agree(weighted, monkeypatch):
    x = normal(300, 3)
    by_tree = differential_entropy_knn(x, weighted=weighted)
    monkeypatch.setattr(neighbor_search, "by_tree", lambda parts: False)
    assert differential_entropy_knn(x, weighted=weighted) == by_tree


@pytest.mark.parametrize("d", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize(("k", "weighted", "reached"), [(3, False, 0.25), (20, True, 0.3)])
def test_a_normal_variable(d, k, weighted, reached):
    mix = 0.3 * normal(d, d, seed=1) / math.sqrt(d) + torch.eye(d, dtype=torch.float64)
    truth = d / 2 * math.log2(2 * math.pi * math.e)
    plain = differential_entropy_knn(normal(1500, d), k=k, weighted=weighted)
    assert plain == pytest.approx(truth, abs=reached)
    # A linear map adds the logarithm of its determinant; cubes that it skews add an error.
    mapped = differential_entropy_knn(normal(1500, d) @ mix, k=k, weighted=weighted)
    assert mapped == pytest.approx(truth + float(torch.linalg.slogdet(mix)[1]) / math.log(2), abs=2.5 * reached)


def test_other_distributions():
    rng = np.random.default_rng(0)
    t = torch.from_numpy(rng.standard_t(5, size=3000))
    assert differential_entropy_knn(t, unit="nats") == pytest.approx(scipy.stats.t(5).entropy(), abs=0.06)
    uniform = torch.rand(3000, 2, generator=generator(), dtype=torch.float64) * torch.tensor([1.0, 4.0])
    assert differential_entropy_knn(uniform) == pytest.approx(2, abs=0.08)
    gamma = torch.from_numpy(rng.gamma(3.0, size=3000))
    assert differential_entropy_knn(gamma, unit="nats") == pytest.approx(scipy.stats.gamma(3).entropy(), abs=0.06)


def test_weights_take_the_bias_of_a_cube():
    """Its edges bias the entropy of eight coordinates by more than a nat."""
    x = torch.rand(1500, 8, generator=generator(), dtype=torch.float64)
    assert differential_entropy_knn(x, k=20) > 1
    assert abs(differential_entropy_knn(x, k=20, weighted=True)) < differential_entropy_knn(x, k=20) / 2


@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 7), (4, 5), (8, 5), (11, 20), (16, 5)])
def test_the_conditions_of_the_weights(d, k):
    weights = entropy_weights(d, k)
    assert set(weights) == {i * k // d for i in range(1, d + 1)} - {0}
    assert math.fsum(weights.values()) == pytest.approx(1, abs=1e-8)
    for term in range(1, d // 4 + 1):
        ratios = {j: float(mpmath.gamma(j + mpmath.mpf(2 * term) / d) / mpmath.gamma(j)) for j in weights}
        assert math.fsum(weights[j] * ratios[j] for j in weights) == pytest.approx(0, abs=1e-6)


def test_of_all_such_weights_they_are_the_shortest():
    found = torch.tensor(list(entropy_weights(4, 12).values()), dtype=torch.float64)
    used = torch.tensor(list(entropy_weights(4, 12)), dtype=torch.float64)
    conditions = torch.stack([torch.ones_like(used), (torch.lgamma(used + 0.5) - torch.lgamma(used)).exp()])
    other = found + (torch.eye(4, dtype=torch.float64) - torch.linalg.pinv(conditions) @ conditions) @ normal(4)
    torch.testing.assert_close(conditions @ other, conditions @ found)
    assert found.norm() < other.norm()


def test_an_information_by_three_entropies():
    x, noise = normal(2000, 2), normal(2000, 2, seed=1)
    t = x + noise
    h = [differential_entropy_knn(of) for of in (x, t, torch.cat([x, t], 1))]
    assert h[0] + h[1] - h[2] == pytest.approx(1, abs=0.15)


def test_an_information_with_known_noise():
    x, noise = normal(2000, 3), normal(2000, 3, seed=1)
    of_noise = 1.5 * math.log2(2 * math.pi * math.e)
    assert differential_entropy_knn(x + noise) - of_noise == pytest.approx(1.5, abs=0.15)


def test_scale_and_order_of_the_samples():
    x = normal(200, 3)
    h = differential_entropy_knn(x)
    assert differential_entropy_knn(x * 2 + 7) == pytest.approx(h + 3)
    assert differential_entropy_knn(x.flip(0)) == h
    assert differential_entropy_knn(x.reshape(200, 3, 1)) == h


def test_the_standard_error():
    found, errors = [], []
    for seed in range(20):
        one = pointwise_entropy_knn(normal(400, 2, seed=seed))
        found.append(one.nats)
        errors.append(one.standard_error(unit="nats"))
    assert 0.6 < np.mean(errors) / np.std(found, ddof=1) < 1.7


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (normal(9, 2), {"k": 9}, "k must be an integer from 1 to 8, got 9: there are 9 samples."),
        (
            normal(40, 20),
            {"k": 5, "weighted": True},
            "have 6 conditions, and k = 5 leaves 5 .* k = 6 or",
        ),
        (torch.ones(9, 2), {}, "x has 2 of 2 coordinates that are the same in all 9 rows: leave them out"),
        (normal(9, 1) * torch.tensor([1.0, 0.0]), {}, "x has 1 of 2 coordinates that are the same"),
        (normal(9).relu(), {"k": 1}, "rows of x are repeated k = 1 times or more: .* use entropy"),
        (torch.tensor([-1e308, 1e308], dtype=torch.float64), {"k": 1}, "x spans more than distances hold"),
        (torch.tensor([0.0, math.nan, 1.0]), {"k": 1}, "NaN"),
        (normal(9, 2), {"unit": "bit"}, "unit must be"),
    ],
)
def test_what_has_no_entropy_is_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        differential_entropy_knn(x, **options)


def test_weighted_is_a_boolean():
    with pytest.raises(TypeError, match="weighted must be True or False"):
        differential_entropy_knn(normal(9), weighted=1)
