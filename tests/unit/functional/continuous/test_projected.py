"""Neighbors after a projection, and corrected beside normals: many coordinates, their blind spots, bad input."""

import math

import pytest
import torch

from lightning_ib.functional import (
    mutual_information_gaussian_copula,
    mutual_information_knn,
    mutual_information_ksg,
    mutual_information_ksg_corrected,
    mutual_information_projected,
)
from tests.helpers.samples import generator, leaves_alone, normal

BOTH = {"projected": mutual_information_projected, "corrected": mutual_information_ksg_corrected}
both = pytest.mark.parametrize("estimate", BOTH.values(), ids=BOTH)


def two_pairs(n, d, rho=0.8, seed=0):
    """Of d + d coordinates, two pairs depend."""
    x, noise = normal(n, d, seed=seed), normal(n, d, seed=seed + 1)
    y = noise.clone()
    y[:, :2] = rho * x[:, :2] + math.sqrt(1 - rho**2) * noise[:, :2]
    return x, y, -math.log2(1 - rho**2)


def test_two_pairs_among_fifty():
    x, y, truth = two_pairs(5000, 50)
    assert mutual_information_projected(x, y) == pytest.approx(truth, abs=0.15)


@both
def test_ten_coordinates_where_neighbors_read_a_third(estimate):
    x, y, truth = two_pairs(2000, 10)
    assert mutual_information_ksg(x, y) < truth / 2
    assert estimate(x, y) == pytest.approx(truth, abs=0.15)


def test_heavy_tails_are_read_nearer_by_the_correction():
    x, y, truth = two_pairs(2000, 5)
    chi = (normal(2000, 5, seed=9).square().sum(1, keepdim=True) / 5).sqrt()
    truth += 0.24  # of the common chi: benchmarks/cases
    errors = {
        name: abs(estimate(x / chi, y / chi) - truth)
        for name, estimate in {
            **BOTH,
            "ksg": mutual_information_ksg,
            "copula": mutual_information_gaussian_copula,
        }.items()
    }
    assert errors["corrected"] < 0.15
    assert errors["corrected"] < min(errors["ksg"], errors["copula"]) / 2


def turned_twice(n=2000):
    """A point on a circle, and one at twice its angle: no direction of either correlates with one of the other."""
    angle = 2 * math.pi * torch.rand(n, generator=generator(), dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    return x, torch.stack([(2 * angle).cos(), (2 * angle).sin()], 1) + 0.1 * normal(n, 2)


def test_few_coordinates_are_read_as_they_are():
    x, y = turned_twice()
    assert mutual_information_projected(x, y) == pytest.approx(mutual_information_ksg(x, y), rel=0.1)


@pytest.mark.parametrize(("d", "least", "most"), [(2, 0.85, 1.0), (15, -0.1, 0.1)])
def test_an_exclusive_or_is_read_in_few_coordinates_alone(d, least, most):
    """As the docstring says: no direction tells the classes apart."""
    x = normal(2000, d)
    y = (x[:, 0] * x[:, 1] > 0).long()
    assert least < mutual_information_projected(x, y) < most


def clusters(n, radius):
    """Ten clusters in 16 + 16 coordinates, each on axes of its own in both: log2(10) bits where they lie far apart."""
    cluster = torch.randint(10, (n,), generator=generator())
    centers = torch.nn.functional.one_hot(cluster, 16) * radius
    return centers + normal(n, 16, seed=1), centers + normal(n, 16, seed=2)


def test_clusters_in_many_coordinates():
    """Ranks close the gaps between them, and they take nine pairs."""
    assert mutual_information_projected(*clusters(2000, 6.0)) == pytest.approx(math.log2(10), abs=0.1)
    x, y = clusters(4000, 2.5)
    assert mutual_information_projected(x, y) > 1.3 * mutual_information_ksg(x, y)


def test_a_scale_that_both_share():
    """Without any correlation of the coordinates themselves."""
    scale = normal(2000, 1, seed=7).exp()
    x, y = (scale * normal(2000, 10, seed=seed) for seed in (8, 9))
    assert mutual_information_projected(x, y) > mutual_information_ksg(x, y) + 0.1


def test_a_few_pairs_are_read_where_a_few_are_asked_for():
    x, y, truth = two_pairs(2000, 10)
    assert mutual_information_projected(x, y, pairs=1) == pytest.approx(truth / 2, abs=0.1)
    assert mutual_information_projected(x, y, pairs=2) == pytest.approx(truth, abs=0.15)


@pytest.mark.parametrize("n", [13, 14, 22, 40])
def test_the_fewest_samples_are_read(n):
    x, y, _ = two_pairs(n, 3)
    assert -1.5 < mutual_information_projected(x, y) < 1.5


@pytest.mark.parametrize("n", [500, 540])  # quarters of fewer rows than two per coordinate, and of more
def test_ten_classes_are_told_apart_in_nine_directions_by_few_samples(n):
    y = torch.arange(n) % 10
    t = normal(n, 64) + 2.0 * normal(10, 64, seed=1)[y]
    assert mutual_information_projected(t, y) > 3.2


def test_many_classes_of_a_few_samples():
    """In a quarter three of each, which are too few for the neighbors that are read in a half."""
    y = torch.arange(600) % 50
    t = normal(600, 20) + 2.0 * normal(50, 20, seed=1)[y]
    assert mutual_information_projected(t, y) > 5.0


def test_one_pair_of_one_coordinate_each_is_the_coordinates():
    x = normal(2000)
    y = x.abs() + 0.5 * (4 * x).sin() + 0.05 * normal(2000, seed=1)
    assert mutual_information_projected(x, y, pairs=1) == pytest.approx(mutual_information_ksg(x, y), abs=0.2)


@pytest.mark.parametrize("labels", [False, True])
def test_what_the_samples_of_a_group_share_is_no_information(labels):
    """Sequences of ten tokens that lie close together, and a target of each sequence that does not depend on where."""
    sequence = torch.arange(100).repeat_interleave(10)
    t = normal(1000, 6) + 2.0 * normal(100, 6, seed=1)[sequence]
    y = (sequence % 2) if labels else (normal(1000, 5, seed=2) + 2.0 * normal(100, 5, seed=3)[sequence])
    assert mutual_information_projected(t, y, groups=sequence) == pytest.approx(0, abs=0.2)


def test_two_groups_are_enough():
    x, y, _ = two_pairs(200, 3)
    assert mutual_information_projected(x, y, groups=torch.arange(200) % 2) > 0.3


def test_classes_in_many_coordinates():
    """Four classes along two of sixty coordinates, where neighbors of all coordinates read little."""
    y = torch.randint(4, (2000,), generator=generator())
    t = normal(2000, 60)
    t[:, 0] += 3 * (y % 2)
    t[:, 1] += 3 * (y // 2)
    truth = 2 * 0.760  # twice that of two normals 3 apart
    assert mutual_information_knn(t, y) < 1.2
    assert mutual_information_projected(t, y) == pytest.approx(truth, abs=0.15)


def test_independent_variables_have_none():
    assert mutual_information_projected(normal(1000, 20), normal(1000, 10, seed=1)) == pytest.approx(0, abs=0.12)
    assert mutual_information_ksg_corrected(normal(1000, 5), normal(1000, 3, seed=1)) == pytest.approx(0, abs=0.1)


def test_dead_and_repeated_units_change_nothing():
    x, y, _ = two_pairs(1000, 4)
    layer = torch.cat([x, torch.zeros(1000, 3), x[:, :2]], 1)
    assert mutual_information_projected(layer, y) == pytest.approx(mutual_information_projected(x, y), abs=0.05)


def test_rectified_units():
    x, y, truth = two_pairs(1000, 4)
    found = mutual_information_projected(x.relu(), y.relu())
    assert 0.3 < found < truth


@both
def test_the_seed_alone_decides(estimate):
    x, y, _ = two_pairs(300, 3)
    torch.manual_seed(1)
    first = estimate(x, y, seed=4)
    torch.manual_seed(2)
    assert estimate(x, y, seed=4) == first
    assert estimate(x, y, seed=5) != first


def test_increasing_maps_of_coordinates_change_nothing():
    x, y, _ = two_pairs(300, 3)
    estimate = mutual_information_ksg_corrected
    assert estimate(x.exp(), y**3) == pytest.approx(estimate(x, y), abs=1e-9)


def test_heavy_tails_change_little():
    x, y, _ = two_pairs(1000, 3)
    expected = mutual_information_projected(x, y)
    assert mutual_information_projected((4 * x).exp(), y**5) == pytest.approx(expected, abs=0.05)


@both
def test_bits_are_nats_over_log_2(estimate):
    x, y, _ = two_pairs(300, 3)
    assert estimate(x, y) * math.log(2) == pytest.approx(estimate(x, y, unit="nats"), abs=1e-12)


@both
def test_leaves_inputs_and_random_state_alone(estimate):
    x, y, _ = two_pairs(200, 3)
    leaves_alone(estimate, x, y)


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_too_few_samples_for_the_split():
    x, y, _ = two_pairs(199, 50)
    with pytest.raises(
        ValueError, match="canonical pairs of 50 coordinates .* at least 100 in either half, got 99: give more"
    ):
        mutual_information_projected(x, y)


def test_rare_classes_and_repeated_rows_are_read():
    t, y = normal(300, 2), torch.arange(300) % 2
    y[:2] = 7
    t[10:60] = 0
    assert mutual_information_projected(t, y) == pytest.approx(0, abs=0.1)


@both
def test_not_finite_constant_or_different(estimate):
    x, y, _ = two_pairs(100, 2)
    with pytest.raises(ValueError, match="y has NaN or infinite values in 100 of 100 rows"):
        estimate(x, y * math.nan)
    with pytest.raises(ValueError, match="constant|the same in all 100 rows"):
        estimate(x, 0 * y)
    with pytest.raises(ValueError, match="x and y must be of the same samples, got 100 of one and 99 of the other"):
        estimate(x, y[1:])
    with pytest.raises(ValueError, match="k must be"):
        estimate(x, y, k=100)


def test_one_class():
    with pytest.raises(ValueError, match="y is the same in all 100 rows"):
        mutual_information_projected(normal(100, 2), torch.zeros(100, dtype=torch.long))


@pytest.mark.parametrize("pairs", [0, 1.5])
def test_pairs_out_of_range(pairs):
    x, y, _ = two_pairs(100, 2)
    with pytest.raises((TypeError, ValueError), match="pairs must be an integer"):
        mutual_information_projected(x, y, pairs=pairs)


@pytest.mark.parametrize("scale", [1e200, 1e-170, 1e-300])
def test_any_scale_is_read(scale):
    x, y, _ = two_pairs(300, 2)
    labels = (y[:, 0] > 0).long()
    assert mutual_information_projected(scale * x, y) == pytest.approx(mutual_information_projected(x, y), abs=1e-9)
    expected = mutual_information_projected(x, labels)
    assert mutual_information_projected(scale * x, labels) == pytest.approx(expected, abs=1e-9)


def test_one_simulation_has_no_scatter():
    x, y, _ = two_pairs(100, 2)
    with pytest.raises(ValueError, match="simulations must be an integer of at least 2, got 1"):
        mutual_information_ksg_corrected(x, y, simulations=1)
