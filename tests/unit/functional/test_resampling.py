"""Standard errors by influences and by parts, beside closed forms, brute force and repetition."""

import math

import numpy as np
import pytest
import torch

from lightning_ib.functional import mutual_information_knn, mutual_information_ksg, resampled_standard_error
from lightning_ib.functional.resampling import Pointwise, spread_rows, standard_error_of_mean


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean(values):
    return float(values.mean())


def test_the_error_of_a_mean_is_the_deviation_over_the_root_of_the_number():
    values = normal(101)
    expected = float(values.std()) / math.sqrt(101)
    assert standard_error_of_mean(values) == pytest.approx(expected, rel=1e-12)
    assert standard_error_of_mean(values, n_samples=404) == pytest.approx(expected / 2, rel=1e-12)
    shuffled = values[torch.randperm(101, generator=torch.Generator().manual_seed(1))]
    assert standard_error_of_mean(shuffled) == standard_error_of_mean(values)


def test_clusters_of_equal_size_are_as_good_as_their_means():
    values, clusters = normal(120), torch.arange(120) % 12 * 7 - 3
    values = values + normal(12)[torch.arange(120) % 12]
    means = torch.stack([values[clusters == name].mean() for name in clusters.unique()])
    assert standard_error_of_mean(values, clusters) == pytest.approx(standard_error_of_mean(means), rel=1e-12)
    assert standard_error_of_mean(values, torch.arange(120)) == pytest.approx(standard_error_of_mean(values), rel=1e-12)


def test_some_of_the_rows_of_every_cluster_stand_for_all():
    clusters = torch.arange(6000) // 20
    values = normal(300)[clusters] + normal(6000, seed=1)
    all_of_it = standard_error_of_mean(values, clusters)
    assert all_of_it > 2 * standard_error_of_mean(values), "tokens of a sequence count as dependent"
    found = []
    for seed in range(10):
        some = torch.randperm(6000, generator=torch.Generator().manual_seed(seed))[:1500]
        found.append(standard_error_of_mean(values[some], clusters[some], n_samples=6000))
    assert sum(found) / 10 == pytest.approx(all_of_it, rel=0.05)
    assert Pointwise(0.0, values[some], some, 6000).standard_error(clusters, unit="nats") == found[-1]


@pytest.mark.parametrize("clusters", [None, torch.tensor([3])])
def test_one_sample_has_no_error(clusters):
    assert math.isnan(standard_error_of_mean(torch.ones(1), clusters))
    assert math.isnan(standard_error_of_mean(torch.ones(5), torch.zeros(5, dtype=torch.int64)))


def test_parameters_that_were_fitted_to_nothing_scatter_as_chi_squared():
    """A normal variable beside an independent one: 2 N I is χ² of one degree of freedom, of standard deviation √2."""
    n = 400
    zero = Pointwise(0.0, torch.zeros(n), fitted=1 / (2 * n)).standard_error(unit="nats")
    assert zero == pytest.approx(math.sqrt(2) / (2 * n), rel=1e-12)


def test_rows_are_spread_from_the_first_on():
    assert spread_rows(5).tolist() == [0, 1, 2, 3, 4]
    chosen = spread_rows(1999, 500)
    assert len(chosen.unique()) == 500
    assert set(chosen.diff().tolist()) == {3, 4}


@pytest.mark.parametrize("method", ["parts", "jackknife"])
def test_of_a_mean_both_methods_are_the_deviation_of_the_means_of_parts(method):
    values, groups = normal(100), torch.arange(100) // 10
    means = values.view(10, 10).mean(1)
    found = resampled_standard_error(mean, values, groups=groups, method=method)
    assert found == pytest.approx(float(means.std()) / math.sqrt(10), rel=1e-9)


def test_it_is_the_same_at_every_call_and_leaves_the_random_state_alone():
    values = normal(200)
    before = torch.get_rng_state()
    found = resampled_standard_error(mean, values)
    assert found == resampled_standard_error(mean, values) != resampled_standard_error(mean, values, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_part_has_every_class_and_names_of_classes_mean_nothing():
    y = torch.arange(210) % 7 * 3
    seen = []

    def estimate(t, y):
        seen.append(y.bincount().max() - y.bincount()[y.unique()].min())
        assert len(y.unique()) == 7
        return float(t.mean())

    found = resampled_standard_error(estimate, normal(210), y)
    assert max(seen) <= 0
    assert resampled_standard_error(estimate, normal(210), 40 - y) == found


def test_groups_stay_together():
    groups = torch.arange(120) // 5
    found = []
    resampled_standard_error(lambda g: found.append(set(g.tolist())) or 0.0, groups, groups=groups, n_parts=4)
    assert sum(map(len, found)) == 24
    assert set.union(*found) == set(range(24))


def test_nan_stays_nan():
    assert math.isnan(resampled_standard_error(lambda t: math.nan, normal(50)))


@pytest.mark.parametrize(
    ("error", "sentence", "call"),
    [
        (ValueError, "need at least 20 samples", lambda: resampled_standard_error(mean, normal(19))),
        (ValueError, "of the same samples", lambda: resampled_standard_error(mean, normal(40), normal(41))),
        (ValueError, "did you mean 'parts'", lambda: resampled_standard_error(mean, normal(40), method="part")),
        (ValueError, "n_parts must be", lambda: resampled_standard_error(mean, normal(40), n_parts=1)),
        (TypeError, "got none", lambda: resampled_standard_error(mean)),
        (TypeError, "got a list", lambda: resampled_standard_error(mean, [1.0])),
        (
            ValueError,
            "groups must be at least 10",
            lambda: resampled_standard_error(mean, normal(40), groups=torch.arange(40) % 9),
        ),
    ],
)
def test_a_wrong_argument_is_named(error, sentence, call):
    with pytest.raises(error, match=sentence):
        call()


@pytest.mark.parametrize("labeled", [False, True])
def test_parts_hold_against_repetition(labeled):
    values, errors = [], []
    for seed in range(20):
        x, noise = normal(2, 300, seed=seed)
        estimate = mutual_information_knn if labeled else mutual_information_ksg
        y = (x + noise > 0).long() if labeled else x + noise
        values.append(estimate(x, y))
        errors.append(resampled_standard_error(estimate, x, y))
    assert 0.6 < sum(errors) / 20 / torch.tensor(values).std() < 1.6


@pytest.mark.parametrize(("method", "where"), [("parts", "on"), ("jackknife", "without")])
def test_the_part_that_fails_is_named(method, where):
    rare = (torch.arange(200) < 25).long()
    k = 3 if method == "parts" else 22

    def estimate(t, y):
        return mutual_information_knn(t, y, k=k)

    with pytest.raises(ValueError, match=rf"^{where} part \d+ of 10: class 1 of y has \d+ of \d+ samples"):
        resampled_standard_error(estimate, normal(200), rare, method=method)


@pytest.mark.parametrize(
    ("returned", "came"), [(None, "NoneType"), ((1.0, 2.0), "tuple"), (torch.zeros(2), "Tensor"), ("1", "str")]
)
def test_an_estimate_that_is_no_number_is_named(returned, came):
    message = rf"^estimate must return a number, got a {came}: give a function that takes the number out of it\.$"
    with pytest.raises(TypeError, match=message):
        resampled_standard_error(lambda t: returned, normal(40))


@pytest.mark.parametrize("kind", [np.float32, torch.tensor, int, lambda value: torch.tensor([value])])
def test_numbers_of_any_kind_are_taken(kind):
    assert resampled_standard_error(lambda t: kind(2.0), normal(40)) == 0
