"""Cells: a partition that follows the data, the same for the same rows, and where it is known to fail."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib.functional import cell_limit, cells, entropy, mutual_information
from lightning_ib.functional.discretize.cells import _medians_by_sorting
from tests.helpers.samples import generator


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def clusters(n, n_classes, d=16, apart=10.0, seed=0):
    """Rows around as many random points, which are ``apart`` times their spread from the origin, and their classes."""
    y = torch.arange(n) % n_classes
    centers = torch.nn.functional.normalize(randn(n_classes, d, seed=seed + 100), dim=1) * apart * math.sqrt(d)
    return centers[y] + randn(n, d, seed=seed), y


def same_partition(a, b):
    """Whether two numberings part the samples alike."""
    return len(torch.stack([a, b], 1).unique(dim=0)) == len(a.unique()) == len(b.unique())


def rows_of(n, d, kind, seed):
    """Rows of many kinds: scattered, in clusters, on a lattice (with ties and duplicates), with heavy tails."""
    if kind == "clusters":
        return clusters(n, 5, d, seed=seed)[0]
    if kind == "lattice":
        return torch.randint(-1, 2, (n, d), generator=generator(seed)).double()
    return randn(n, d, seed=seed) if kind == "normal" else randn(n, d, seed=seed) ** 5


KINDS = st.sampled_from(["normal", "clusters", "lattice", "heavy"])
FEW = settings(max_examples=40, deadline=None)


# --- What a partition is ---------------------------------------------------------------------------------------------


@FEW
@given(st.integers(1, 400), st.integers(1, 40), KINDS, st.integers(0, 99))
def test_a_partition_is_well_formed(n, d, kind, seed):
    found = cells(rows_of(n, d, kind, seed))
    assert found.numbers.dtype == torch.int64
    assert found.numbers.shape == (n,)
    assert found.numbers.unique().tolist() == list(range(found.n_cells))
    assert 1 <= found.n_cells <= min(n, cell_limit(n))
    assert n > 1 or math.isnan(found.explained)
    assert math.isnan(found.explained) or -1e-9 <= found.explained <= 1 + 1e-9
    assert entropy(found.numbers, unit="nats") <= math.log(cell_limit(n)) + 1e-12


@FEW
@given(st.integers(1, 400), st.integers(1, 40), KINDS, st.integers(0, 99))
def test_the_same_rows_in_any_order_have_the_same_cells(n, d, kind, seed):
    rows = rows_of(n, d, kind, seed)
    order = torch.randperm(n, generator=generator(seed + 1))
    found, moved = cells(rows), cells(rows[order])
    assert torch.equal(moved.numbers, found.numbers[order])
    assert repr(moved[1:]) == repr(found[1:])


@FEW
@given(st.integers(1, 400), st.integers(1, 20), KINDS, st.integers(0, 99))
def test_equal_rows_share_a_cell(n, d, kind, seed):
    different = rows_of(max(1, n // 7), d, kind, seed)
    of = torch.randint(len(different), (n,), generator=generator(seed))
    numbers = cells(different[of]).numbers
    assert len(torch.stack([different.unique(dim=0, return_inverse=True)[1][of], numbers], 1).unique(dim=0)) == len(
        different[of].unique(dim=0)
    )


@FEW
@given(st.integers(1, 300), st.integers(1, 20), KINDS, st.integers(0, 99), st.integers(-60, 60))
def test_powers_of_two_change_no_cell(n, d, kind, seed, power):
    rows = rows_of(n, d, kind, seed)
    assert repr(cells(2.0**power * rows)) == repr(cells(rows))


@pytest.mark.parametrize("scale", [1e-30, 0.3, -1, 700, 1e200])
@pytest.mark.parametrize("offset", [0, 1, -50, 1000])
def test_scale_and_offset_do_not_matter(scale, offset):
    rows, y = clusters(600, 6, seed=3)
    assert same_partition(cells(scale * (rows + offset)).numbers, cells(rows).numbers)
    assert same_partition(cells(scale * (rows + offset)).numbers, y)
    noise = randn(2000, 10, seed=1) * torch.linspace(0.1, 1, 10)
    moved, found = cells(scale * (noise + offset)), cells(noise)
    assert entropy(moved.numbers, unit="nats") == pytest.approx(entropy(found.numbers, unit="nats"), abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_of_the_same_numbers_does_not_matter(dtype):
    rows = torch.randint(0, 2, (300, 8), generator=generator())
    assert torch.equal(cells(rows.to(dtype)).numbers, cells(rows.double()).numbers)


def test_rows_of_any_shape_are_flattened():
    rows = randn(200, 24)
    assert torch.equal(cells(rows.reshape(200, 2, 3, 4)).numbers, cells(rows).numbers)
    assert torch.equal(cells(rows[:, 0]).numbers, cells(rows[:, :1]).numbers)


def test_no_random_state_is_touched_or_heeded():
    rows = randn(500, 12)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = cells(rows)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    torch.manual_seed(99)
    assert torch.equal(cells(rows).numbers, first.numbers)


def test_it_works_in_inference_mode_and_without_gradient():
    rows = randn(300, 6)
    expected = cells(rows).numbers
    with torch.inference_mode():
        assert torch.equal(cells(rows.clone()).numbers, expected)
    leaf = rows.clone().requires_grad_()
    assert torch.equal(cells(leaf).numbers, expected)
    assert torch.equal(leaf, rows)


# --- How many cells --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "most"),
    [
        (1, 2),
        (2, 2),
        (39, 2),
        (40, 2),
        (80, 4),
        (320, 16),
        (639, 16),
        (640, 32),
        (3199, 32),
        (3200, 64),
        (6400, 128),
        (10_000, 128),
        (12_800, 256),
        (20_000, 256),
        (10**7, 256),
    ],
)
def test_there_is_a_cell_for_every_fifty_samples_or_for_twenty_of_few(n, most):
    assert cell_limit(n) == most


@pytest.mark.parametrize(
    ("n", "at_least", "most"),
    [(300, 10, 16), (300, 17, 16), (320, 17, 32), (100, 100, 8), (10_000, 10, 128), (40, 1, 2)],
)
def test_there_is_a_cell_for_each_cluster_that_is_expected_while_ten_samples_are_left_for_it(n, at_least, most):
    assert cell_limit(n, expected_clusters=at_least) == most


@pytest.mark.parametrize(("max_cells", "most"), [(2, 2), (3, 2), (100, 64), (255, 128), (1024, 256 * 4), (2**20, 1024)])
def test_more_or_fewer_cells_may_be_asked_for(max_cells, most):
    assert cell_limit(51_200, max_cells=max_cells) == most


@pytest.mark.parametrize("max_cells", [2, 5, 16])
def test_no_more_cells_than_asked_for_are_used(max_cells):
    assert cells(randn(3000, 4), max_cells=max_cells).n_cells == 2 ** int(math.log2(max_cells))


@pytest.mark.parametrize("max_cells", [1, 0, -3, 2.0, True, "8", None])
def test_a_number_of_cells_that_is_none_is_refused(max_cells):
    with pytest.raises(
        (TypeError, ValueError), match=rf"max_cells must be an integer of at least 2, got {max_cells!r}: "
    ):
        cells(randn(30, 2), max_cells=max_cells)


# --- What is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 5, 10])
@pytest.mark.parametrize("d", [16, 100])
def test_clusters_well_apart_are_found(n_classes, d):
    rows, y = clusters(2000, n_classes, d)
    found = cells(rows)
    assert same_partition(found.numbers, y)
    assert found.explained > 0.95


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("d", [1, 2])
def test_clusters_on_a_line_or_in_a_ring_are_found(n_classes, d):
    y = torch.arange(2000) % n_classes
    angle = 2 * math.pi * y / n_classes
    rows = 100 * (y[:, None] if d == 1 else torch.stack([angle.sin(), angle.cos()], 1)) + randn(2000, d)
    assert same_partition(cells(rows).numbers, y)


@pytest.mark.parametrize("shares", [[0.9, 0.1], [0.98, 0.01, 0.01], [0.5, 0.3, 0.1, 0.05, 0.05]])
def test_clusters_of_unlike_size_are_told_apart(shares):
    n = 4000
    y = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor([round(n * share) for share in shares]))
    rows = 30 * torch.eye(len(shares), 8, dtype=torch.float64)[y] + randn(len(y), 8)
    found = cells(rows).numbers
    assert mutual_information(found, y) == pytest.approx(entropy(y), abs=1e-9)


def test_an_entropy_falls_where_samples_gather():
    """Ten clusters that draw together around their centers, in five steps."""
    h = [entropy(cells(clusters(4000, 10, 20, apart)[0]).numbers, unit="nats") for apart in (0.5, 1, 2, 4, 16)]
    assert all(after <= before + 1e-9 for before, after in zip(h, h[1:]))
    assert h[0] > 3
    assert h[-1] == pytest.approx(math.log(10), abs=0.01)


def test_isotropic_noise_has_an_entropy_near_the_most_there_is():
    """Which says that there are no clusters, not that there is much information."""
    for n in (600, 5000):
        assert entropy(cells(randn(n, 20)).numbers, unit="nats") > 0.85 * math.log(cell_limit(n))


@pytest.mark.parametrize("n", [2, 3, 9, 50, 1000])
def test_one_coordinate_is_cut_into_intervals(n):
    z = randn(n, 1)
    found = cells(z)
    sequential_loader = found.numbers[z[:, 0].argsort()]
    assert len(sequential_loader.unique_consecutive()) == found.n_cells
    assert found.n_cells > 1


def test_two_points_are_two_cells():
    rows = torch.tensor([[0.0, 1.0], [5.0, 2.0]])
    assert cells(rows).numbers.unique().tolist() == [0, 1]
    found = cells(rows[torch.arange(1000) % 2])
    assert (found.n_cells, found.explained) == (2, pytest.approx(1))
    assert entropy(found.numbers) == 1


def test_a_rare_point_beside_another_is_not_far_enough_to_be_drawn_in():
    """One row in four hundred is drawn in to the others, as an outlier is: all are alike then."""
    rows = torch.zeros(400, 3)
    rows[7] = 1
    assert cells(rows).n_cells in (1, 2)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
@pytest.mark.parametrize("d", [1, 5, 128])
def test_fewer_than_ten_samples_have_at_most_two_cells(n, d):
    found = cells(randn(n, d))
    assert found.n_cells == min(n, 2)
    assert len(found.numbers) == n
    assert math.isnan(found.explained) == (n == 1)


@pytest.mark.parametrize("n", [1, 2, 9, 1000])
@pytest.mark.parametrize("d", [1, 128])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e200, 1e-200])
def test_a_constant_is_one_cell(value, d, n):
    found = cells(torch.full((n, d), value, dtype=torch.float64))
    assert found.n_cells == 1
    assert found.numbers.tolist() == [0] * n
    assert math.isnan(found.explained)


def test_rounding_around_a_constant_is_one_cell():
    assert cells(1e6 + 1e-7 * randn(1000, 20)).n_cells == 1
    assert cells((1e6 + randn(1000, 20)).float().round(decimals=-1) * 0 + 1e6).n_cells == 1
    assert cells(1e6 + 10 * randn(1000, 20)).n_cells > 1


def test_dead_units_beside_live_ones_do_not_matter():
    rows, y = clusters(600, 6)
    assert same_partition(cells(torch.cat([rows, torch.full((600, 40), 3.0)], 1)).numbers, y)


def test_large_numbers_do_not_overflow():
    rows, y = clusters(600, 6)
    assert same_partition(cells(1e200 * rows).numbers, y)
    assert same_partition(cells(1e-200 * rows).numbers, y)
    assert same_partition(cells((1e30 * rows).float()).numbers, y)


@pytest.mark.parametrize("far", [1e3, 1e6, 1e12])
def test_an_outlier_does_not_own_the_cells(far):
    rows, y = clusters(1000, 5)
    rows[3] = far
    found = cells(rows)
    assert mutual_information(found.numbers, y, unit="nats") > math.log(5) - 0.05
    assert found.n_cells <= 8


def test_a_share_of_outliers_does_not_own_the_cells():
    rows, y = clusters(2000, 5, apart=4)
    rows[::25] = 1e4 * randn(80, 16, seed=9)
    kept = torch.arange(2000) % 25 != 0
    assert mutual_information(cells(rows).numbers[kept], y[kept], unit="nats") > 0.95 * math.log(5)


def test_a_small_perturbation_moves_little():
    rows, y = clusters(5000, 10, apart=1.2)
    found, moved = cells(rows), cells(rows + 1e-6 * randn(5000, 16, seed=7))
    assert mutual_information(moved.numbers, y, unit="nats") == pytest.approx(
        mutual_information(found.numbers, y, unit="nats"), abs=0.05
    )
    assert entropy(moved.numbers, unit="nats") == pytest.approx(entropy(found.numbers, unit="nats"), abs=0.15)


# --- Where it fails, known beforehand --------------------------------------------------------------------------------


def test_a_class_in_small_coordinates_beside_others_of_ten_times_the_spread_is_not_seen():
    """Ten classes in ten coordinates, 2.3 nats to be had, beside forty of nuisance: the probe is there to see those."""
    y = torch.arange(4000) % 10
    small = 4 * torch.eye(10, dtype=torch.float64)[y] + 0.5 * randn(4000, 10)
    alone = mutual_information(cells(small).numbers, y, unit="nats")
    beside = mutual_information(cells(torch.cat([small, 20 * randn(4000, 40, seed=1)], 1)).numbers, y, unit="nats")
    assert alone > 2.2
    assert beside < 0.1


def test_an_exclusive_or_of_two_of_many_coordinates_is_not_seen():
    """One bit of two signs out of 64: what chance gives is all there is."""
    rows = randn(4000, 64)
    y = ((rows[:, 3] > 0) ^ (rows[:, 40] > 0)).long()
    assert mutual_information(cells(rows).numbers, y, unit="nats") < 0.03


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad):
    rows = randn(30, 4)
    rows[3, 2] = rows[9, 0] = bad
    with pytest.raises(ValueError, match="t has NaN or infinite values in 2 of 30 rows"):
        cells(rows)


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), ()])
def test_rows_that_are_none_are_refused(shape):
    with pytest.raises(ValueError, match=r"t must have shape \(N, D\) with N at least 1 and D at least 1"):
        cells(torch.zeros(shape))


@pytest.mark.parametrize("t", [[[1.0]], np.zeros((3, 2)), torch.zeros(3, 2, dtype=torch.complex64)])
def test_what_is_no_real_tensor_is_refused(t):
    with pytest.raises(TypeError, match="t must be"):
        cells(t)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "n_classes"), [(600, 10), (2000, 10), (4000, 40), (6400, 100)])
def test_tight_clusters_are_not_left_together(n, n_classes):
    """The softmax of a head that is always right: every class has cells of its own, whatever the splits began with."""
    for seed in range(3):
        y = torch.arange(n) % n_classes
        logits = torch.randn(n, n_classes, generator=generator(seed)) + 12 * torch.nn.functional.one_hot(y, n_classes)
        found = cells(logits.softmax(1))
        assert mutual_information(found.numbers, y) > 0.99 * entropy(y)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_medians_by_sorting_are_the_lower_ones(n):
    rows = (2 * randn(n, 5)).round()
    assert _medians_by_sorting(rows).equal(rows.median(0).values)
