"""Nearest-neighbor estimators: written-out references, scikit-learn, closed forms, and laws of any estimate."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.spatial
import scipy.stats
import sklearn.feature_selection
import sklearn.feature_selection._mutual_info as sklearn_private
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma

from lightning_ib.functional import mutual_information
from lightning_ib.functional.checks import numpy_reads_tensors
from lightning_ib.functional.continuous import neighbor_counts, neighbor_search, neighbor_trees, neighbors
from lightning_ib.functional.continuous.neighbors import (
    mutual_information_knn,
    mutual_information_ksg,
    mutual_information_mixed,
)
from tests.helpers.samples import correlated, generator, leaves_alone, normal, two_classes

law = settings(derandomize=True, database=None, deadline=None, max_examples=25)


ESTIMATES = {
    "ksg 1": lambda x, y, **kw: mutual_information_ksg(x, y, **kw),
    "ksg 2": lambda x, y, **kw: mutual_information_ksg(x, y, algorithm=2, **kw),
    "mixed": lambda x, y, **kw: mutual_information_mixed(x, y, **kw),
    "knn": lambda x, y, **kw: mutual_information_knn(x, (y.reshape(len(y), -1)[:, 0] > 0).long(), **kw),
}
every = pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)
of_two_reals = pytest.mark.parametrize("name", ["ksg 1", "ksg 2", "mixed"])


# --- Written-out references ------------------------------------------------------------------------------------------


def to_rows(*values):
    return [np.asarray(v, dtype=np.float64).reshape(len(v), -1) for v in values]


def reference_ksg_1(x, y, k):
    """With trees: neighbors in the joint space, then counts in an open ball."""
    x, y = to_rows(x, y)
    joint = np.hstack([x, y])
    radius = scipy.spatial.cKDTree(joint).query(joint, k + 1, p=np.inf)[0][:, -1]
    n = [
        scipy.spatial.cKDTree(v).query_ball_point(v, np.nextafter(radius, 0), p=np.inf, return_length=True) - 1
        for v in (x, y)
    ]
    return digamma(k) + digamma(len(x)) - np.mean(digamma(n[0] + 1) + digamma(n[1] + 1))


def reference_ksg_2(x, y, k):
    """With trees: the k neighbors span a box, whose sides count."""
    x, y = to_rows(x, y)
    joint = np.hstack([x, y])
    nearest = scipy.spatial.cKDTree(joint).query(joint, k + 1, p=np.inf)[1][:, 1:]
    terms = 0
    for v in (x, y):
        side = np.abs(v[nearest] - v[:, None]).max((1, 2))
        terms += digamma(scipy.spatial.cKDTree(v).query_ball_point(v, side, p=np.inf, return_length=True) - 1)
    return digamma(k) - 1 / k + digamma(len(x)) - np.mean(terms)


def reference_mixed(x, y, k):
    """Sample by sample, from the description of the estimator."""
    x, y = to_rows(x, y)
    x_repeats, y_repeats = (np.array([np.sum((v == row).all(1)) > k for row in v]) for v in (x, y))
    sizes = np.unique(2 * x_repeats + y_repeats, return_counts=True)[1]
    apart = math.inf if sizes.min() > 10 * k else 0
    total = 0.0
    for i in range(len(x)):
        dx, dy = np.abs(x - x[i]).max(1), np.abs(y - y[i]).max(1)
        dx[x_repeats != x_repeats[i]] += apart
        dy[y_repeats != y_repeats[i]] += apart
        joint = np.maximum(dx, dy)
        rho = np.sort(np.delete(joint, i))[k - 1]
        if rho == 0:
            total += digamma(np.sum(joint == 0)) - digamma(np.sum(dx == 0)) - digamma(np.sum(dy == 0))
        else:
            total += digamma(k) - beyond_ties(dx, dy, rho, k) - beyond_ties(dy, dx, rho, k)
    return math.log(len(x)) + total / len(x)


def beyond_ties(own, other, rho, k):
    """The digamma of the samples nearer in one variable; its mean over orders where that variable alone ties."""
    nearer = np.sum(own < rho)
    reached = np.maximum(own, other) == rho
    if np.any(reached & (other == rho)):
        return digamma(nearer)
    chosen, among = np.sum(reached), np.sum(own == rho)
    place = k - (np.sum(np.maximum(own, other) < rho) - 1)
    if among == chosen:
        return digamma(nearer - 1 + place)
    before = np.arange(among - chosen + 1)  # of those not chosen, that come before the k-th neighbor
    share = scipy.stats.nhypergeom.pmf(before, among, among - chosen, place)
    return np.sum(share * digamma(nearer - 1 + place + before))


def reference_knn(t, y, k):
    """Sample by sample, from the description of the estimator."""
    (t,), y = to_rows(t), np.asarray(y)
    terms = []
    for i in range(len(t)):
        others = np.arange(len(t)) != i
        distance = np.abs(t - t[i]).max(1)
        radius = np.sort(distance[others & (y == y[i])])[k - 1]
        terms.append(digamma(np.sum(y == y[i])) + digamma(np.sum(others & (distance <= radius))))
    return digamma(len(t)) + digamma(k) - np.mean(terms)


REFERENCES = {"ksg 1": reference_ksg_1, "ksg 2": reference_ksg_2, "mixed": reference_mixed}


@of_two_reals
@pytest.mark.parametrize(("n", "dx", "dy", "k"), [(400, 1, 1, 3), (300, 3, 2, 1), (300, 2, 4, 5), (5, 1, 1, 4)])
def test_agrees_with_the_written_out_estimator(name, n, dx, dy, k):
    x, noise = normal(n, dx), normal(n, dy, seed=1)
    y = noise + x[:, :1]
    assert ESTIMATES[name](x, y, k=k, unit="nats") == pytest.approx(REFERENCES[name](x, y, k), abs=1e-8)


@pytest.mark.parametrize(("d", "k"), [(1, 3), (4, 1), (4, 7)])
def test_knn_agrees_with_the_written_out_estimator(d, k):
    y = torch.randint(4, (300,), generator=generator())
    t = normal(300, d) + y.unsqueeze(1)
    assert mutual_information_knn(t, y, k=k, unit="nats") == pytest.approx(reference_knn(t, y, k), abs=1e-8)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_mixed_agrees_with_the_written_out_estimator_where_values_repeat(k, seed):
    x = normal(250, 2, seed=seed).relu()  # an atom at zero, lines, and a plane
    counts = torch.poisson(3 * x[:, 0], generator=generator(seed))
    for y in (counts, (x[:, 0] > 0).double(), (normal(250, seed=seed + 9) + x[:, 0]).relu()):
        assert mutual_information_mixed(x, y, k=k, unit="nats") == pytest.approx(reference_mixed(x, y, k), abs=1e-8)


# --- scikit-learn: it divides real variables by their standard deviation, and sets negative estimates to zero ---------


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.99])
def test_ksg_agrees_with_scikit_learn(rho, k):
    x, y = correlated(500, rho, seed=3)
    x, y = (v / v.std(correction=0) for v in (x, y))
    ours = max(0.0, mutual_information_ksg(x, y, k=k, unit="nats"))
    assert ours == pytest.approx(sklearn_private._compute_mi_cc(x.numpy(), y.numpy(), k), abs=1e-8)
    public = sklearn.feature_selection.mutual_info_regression(x.numpy()[:, None], y.numpy(), n_neighbors=k)
    assert ours == pytest.approx(public.item(), abs=1e-3)  # its noise of 1e-10 may swap a neighbor


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("a", [0.0, 1.0, 3.0])
def test_knn_agrees_with_scikit_learn(a, k):
    t, y = two_classes(501, a, seed=4)
    ours = max(0.0, mutual_information_knn(t, y, k=k, unit="nats"))
    assert ours == pytest.approx(sklearn_private._compute_mi_cd(t.numpy(), y.numpy(), k), abs=1e-8)
    public = sklearn.feature_selection.mutual_info_classif(t.numpy()[:, None], y.numpy(), n_neighbors=k)
    assert ours == pytest.approx(public.item(), abs=1e-3)


# --- Closed forms, in nats -------------------------------------------------------------------------------------------


@of_two_reals
@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_bivariate_normal(name, rho):
    x, y = correlated(3000, rho, seed=5)
    truth = -0.5 * math.log(1 - rho**2)
    assert ESTIMATES[name](x, y, unit="nats") == pytest.approx(truth, abs=0.05)


@of_two_reals
def test_multivariate_normal(name):
    x, noise = normal(3000, 2, seed=6), normal(3000, 3, seed=7)
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    truth = 0.5 * torch.logdet(mix.T @ mix + torch.eye(3)).item()
    assert ESTIMATES[name](x, x @ mix + noise, unit="nats") == pytest.approx(truth, abs=0.1)


@of_two_reals
@pytest.mark.parametrize("w", [0.1, 0.5, 1.0])
def test_uniform_noise(name, w):
    x, noise = torch.rand(2, 3000, generator=generator(8), dtype=torch.float64)
    assert ESTIMATES[name](x, x + w * noise, unit="nats") == pytest.approx(w / 2 - math.log(w), abs=0.1)


def information_of_two_normals(a):
    def integrand(t):
        p, q = scipy.stats.norm.pdf(t, a), scipy.stats.norm.pdf(t, -a)
        return 0.5 * (p * math.log(2 * p / (p + q)) + q * math.log(2 * q / (p + q)))

    return scipy.integrate.quad(integrand, -12, 12)[0]


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0, 3.0])
def test_two_normals(a):
    t, y = two_classes(3000, a, seed=9)
    truth = information_of_two_normals(a)
    assert mutual_information_knn(t, y, unit="nats") == pytest.approx(truth, abs=0.03)
    # As numbers, labels must be farther apart than neighbors in t: here by more than its range.
    assert mutual_information_mixed(t, 100.0 * y, unit="nats") == pytest.approx(truth, abs=0.03)


def information_of_zero_inflated_poisson(p):
    """X exponential, Y zero with probability p and else Poisson of rate X: H(Y) - H(Y|X), by quadrature."""
    count = np.arange(150)

    def given_x(x):
        return p * (count == 0) + (1 - p) * scipy.stats.poisson.pmf(count, x)

    def entropy_given_x(x):
        return scipy.stats.entropy(given_x(x)) * math.exp(-x)

    marginal = p * (count == 0) + (1 - p) * 0.5 ** (count + 1)
    return scipy.stats.entropy(marginal) - scipy.integrate.quad(entropy_given_x, 0, 50, limit=200)[0]


def test_without_inflation_the_quadrature_is_the_printed_closed_form():
    k = np.arange(1, 200)
    printed = 2 * math.log(2) - np.euler_gamma - np.sum(np.log(k) * 0.5**k)
    assert printed == pytest.approx(0.3012, abs=1e-4)
    assert information_of_zero_inflated_poisson(0.0) == pytest.approx(printed, abs=1e-6)


@pytest.mark.parametrize("p", [0.0, 0.15])
def test_zero_inflated_poisson(p):
    x = torch.empty(4000, dtype=torch.float64).exponential_(generator=generator(10))
    y = torch.poisson(x, generator=generator(11)) * (torch.rand(4000, generator=generator(12)) > p)
    truth = information_of_zero_inflated_poisson(p)
    assert mutual_information_mixed(x, y, k=5, unit="nats") == pytest.approx(truth, abs=0.04)


def test_half_a_normal_and_half_a_noisy_bit():
    """The example of Gao et al.'s program: a mixture of a continuous and a discrete pair."""
    x, y = correlated(2000, 0.9, seed=13)
    sent = torch.randint(2, (2000,), generator=generator(14))
    received = sent ^ (torch.rand(2000, generator=generator(15)) < 0.1).long()
    x, y = torch.cat((x, 2.0 * sent - 1)), torch.cat((y, 2.0 * received - 1))
    of_bit = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    truth = math.log(2) + 0.5 * of_bit - 0.25 * math.log(1 - 0.9**2)
    for k in (1, 3, 5):
        assert mutual_information_mixed(x, y, k=k, unit="nats") == pytest.approx(truth, abs=0.05)


def test_atoms_and_other_values_are_told_apart_whatever_their_scale():
    """Of a variable that is zero in half of the samples, in units a billionth or a billion times as large."""
    x, y = correlated(1000, 0.9, seed=2)
    active = torch.rand(1000, generator=generator(3)) < 0.5
    x, y = x.where(active, 0.0), y.where(active, 0.0)
    truth = math.log(2) - 0.25 * math.log(1 - 0.9**2)
    for scale in (2.0**-30, 1.0, 2.0**30):
        assert mutual_information_mixed(scale * x, y, unit="nats") > math.log(2) - 0.02
        assert mutual_information_mixed(scale * x, scale * y, unit="nats") == pytest.approx(truth, abs=0.06)
    few = torch.cat([normal(997), torch.zeros(3, dtype=torch.float64)])  # no more than k on an atom: as it was
    assert mutual_information_mixed(few, y, unit="nats") == pytest.approx(reference_mixed(few, y, 3), abs=1e-8)


def test_samples_drawn_twice_are_no_atom():
    x, y = normal(2000, seed=20), normal(2000, seed=21)
    x[:20], y[:20] = x[20:40], y[20:40]
    assert mutual_information_mixed(x, y) < 0.1  # 0.15 with the twenty pairs told apart from the rest


def test_two_equal_values_by_chance_leave_atoms_apart():
    x, y = correlated(2000, 0.9, seed=2)
    active = torch.rand(2000, generator=generator(3)) < 0.5
    x, y = x.where(active, 0.0), y.where(active, 0.0)
    y[active.nonzero()[0]] = y[active.nonzero()[1]]
    truth = math.log(2) - 0.25 * math.log(1 - 0.9**2)
    assert mutual_information_mixed(x, y, unit="nats") == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("k", [3, 10])
@pytest.mark.parametrize("unit", [1.0, 0.1])
@pytest.mark.parametrize("fine", [32, 64, 256, 1024])
def test_two_independent_grids_share_nothing(fine, unit, k):
    """As many values as bits of an image have: few samples are equal, and many lie equally far."""
    x, y = unit * torch.randint(fine, (2, 2000), generator=generator(22)).double()
    assert mutual_information_mixed(x, y, k=k) == pytest.approx(0, abs=0.1)  # 0.3 to 2 where ties count as nearer


@pytest.mark.parametrize(("rho", "truth"), [(0.6, 0.3177), (0.9, 1.1669)])
def test_rounded_normals_read_the_information_of_their_cells(rho, truth):
    """To a quarter of a standard deviation; the truth in bits, by quadrature over the cells."""
    x, y = (0.25 * (v / 0.25).round() for v in correlated(5000, rho, seed=2))
    assert mutual_information_mixed(x, y) == pytest.approx(truth, abs=0.06)


def test_the_order_of_samples_on_grids_changes_nothing():
    x, y = (10 * torch.rand(2, 500, generator=generator(24), dtype=torch.float64)).round()
    order = torch.randperm(500, generator=generator(25))
    assert mutual_information_mixed(x[order], y[order]) == mutual_information_mixed(x, y)


def test_rows_near_the_limit_of_distances_stay_together():
    x = torch.cat([1e300 * normal(50), torch.zeros(50, dtype=torch.float64)])
    assert math.isfinite(mutual_information_mixed(x, x))


def test_discrete_variables_read_their_plug_in_information():
    x = torch.randint(5, (4000,), generator=generator(16))
    y = (x + torch.randint(3, (4000,), generator=generator(17))) % 5
    plug_in = mutual_information(x, y, unit="nats")
    mixed = mutual_information_mixed(x.double(), y.double(), unit="nats")
    assert mixed == pytest.approx(plug_in, abs=3e-3)
    assert abs(mixed - math.log(5 / 3)) < abs(plug_in - math.log(5 / 3)) + 1e-3


def test_mixed_is_ksg_where_nothing_repeats():
    x, y = correlated(500, 0.7)
    difference = mutual_information_mixed(x, y, unit="nats") - mutual_information_ksg(x, y, unit="nats")
    assert difference == pytest.approx(math.log(500) - digamma(500), abs=1e-12)


def test_a_constant_is_a_mixture_without_information():
    assert mutual_information_mixed(torch.zeros(500), normal(500)) == 0
    assert mutual_information_mixed(normal(500), torch.ones(500)) == 0


def test_one_class_has_no_information():
    assert mutual_information_knn(normal(50), torch.zeros(50, dtype=torch.long)) == pytest.approx(0.0, abs=1e-12)


# --- Laws ------------------------------------------------------------------------------------------------------------

seeds = st.integers(0, 2**32)


@every
@law
@given(seeds, st.integers(1, 5))
def test_the_order_of_the_samples_does_not_matter(estimate, seed, k):
    x, y = normal(60, 2, seed=seed), normal(60, seed=seed + 1)
    x = (4 * x).round() / 4 + 1e-3 * x  # many nearly equal
    order = torch.randperm(60, generator=generator(seed))
    assert estimate(x[order], y[order], k=k) == estimate(x, y, k=k)


@pytest.mark.parametrize("algorithm", [1, 2])
def test_neither_does_it_where_distances_tie(algorithm):
    x = torch.arange(200.0) % 37
    y = (5 * torch.arange(200.0)) % 41
    order = torch.randperm(200, generator=generator())
    first = mutual_information_ksg(x, y, algorithm=algorithm)
    assert mutual_information_ksg(x[order], y[order], algorithm=algorithm) == first


@of_two_reals
@law
@given(seeds, st.integers(1, 5))
def test_symmetry(name, seed, k):
    x, y = normal(60, 2, seed=seed), normal(60, 3, seed=seed + 1)
    assert ESTIMATES[name](x, y, k=k) == pytest.approx(ESTIMATES[name](y, x, k=k), abs=1e-12)


@every
@law
@given(seeds, st.integers(-8, 8), st.permutations(range(3)))
def test_scale_common_to_all_and_order_of_coordinates_do_not_matter(estimate, seed, exponent, coordinates):
    x, y = normal(60, 3, seed=seed), normal(60, seed=seed + 1)
    mapped = estimate(2.0**exponent * x[:, coordinates], 2.0**exponent * y)
    assert mapped == estimate(x, y)


@law
@given(seeds)
def test_names_of_classes_do_not_matter(seed):
    t, y = normal(60, seed=seed), torch.randint(3, (60,), generator=generator(seed))
    names = torch.tensor([7, -2, 2**40])
    assert mutual_information_knn(t, names[y]) == mutual_information_knn(t, y)


@every
@law
@given(seeds)
def test_bits_are_nats_over_log_2(estimate, seed):
    x, y = normal(40, seed=seed), normal(40, seed=seed + 1)
    assert estimate(x, y) * math.log(2) == pytest.approx(estimate(x, y, unit="nats"), abs=1e-12)


# --- How it computes -------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("entries", [1, 1000, 4567])
def test_the_size_of_a_block_does_not_matter(estimate, entries, monkeypatch):
    x, y = normal(203, 3), normal(203, 2, seed=1)
    whole = estimate(x, y)
    monkeypatch.setattr(neighbor_trees, "trees", lambda: None)
    monkeypatch.setattr(neighbor_search, "_BLOCK", entries)
    assert estimate(x, y) == whole


def grid(n, d, seed=0):
    """Numbers of few digits, many of them equal."""
    return (4 * normal(n, d, seed=seed)).round() / 4


@pytest.mark.parametrize("name", ["ksg 1", "ksg 2", "mixed", "knn"])
@pytest.mark.parametrize("sample", [normal, grid], ids=["continuous", "grid"])
@pytest.mark.parametrize(("n", "dx", "dy"), [(2, 1, 1), (7, 1, 2), (230, 1, 1), (230, 3, 2)])
def test_a_tree_reads_what_all_distances_read(name, sample, n, dx, dy, monkeypatch):
    x, y = sample(n, dx), sample(n, dy, seed=1)
    if sample is grid:  # amid continuous values
        y[::2] += normal(len(y[::2]), dy, seed=2)
    k = min(3, n - 1)
    assert neighbor_search.by_tree((x, y))

    def read():
        try:
            return ESTIMATES[name](x, y, k=k)
        except ValueError as error:
            return str(error)

    by_tree = read()
    monkeypatch.setattr(neighbor_trees, "trees", lambda: None)
    assert read() == by_tree


@law
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 80), st.booleans())
def test_counts_by_ranks_are_counts_of_distances(seed, d, n, repeated):
    rows = (grid if repeated else normal)(n, d, seed=seed).reshape(n, d)
    reach = normal(n, seed=seed + 1).abs()
    reach[::3] = (rows - rows[:1]).abs().amax(1)[::3]  # exactly as far as another
    reach[::5] = 0
    counted = (torch.cdist(rows, rows, p=math.inf) <= reach.unsqueeze(1)).sum(1)
    assert neighbor_counts.count_within(rows, reach).equal(counted)
    below = reach.nextafter(torch.zeros(()).double())
    nearer, within = neighbor_counts.count_nearer_and_within(*neighbor_counts.rank_ranges(rows, below, reach))
    assert nearer.equal(neighbor_counts.count_within(rows, below))
    assert within.equal(counted)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize(("n", "share"), [(300, 0.3), (300, 0), (1025, 0.3), (2300, 0.9)])
def test_some_rows_are_counted_as_all_are(d, n, share):
    rows = normal(n, d).round(decimals=1)
    reach = normal(n, seed=1).abs()
    chosen = torch.rand(n, generator=generator(2)) < share
    (ranges,) = neighbor_counts.rank_ranges(rows, reach)
    assert neighbor_counts.count(ranges, chosen).equal(neighbor_counts.count(ranges) * chosen)


@pytest.mark.parametrize(("n", "together"), [(1, 64), (64, 64), (130, 64), (1, 7), (150, 7), (1500, 1024)])
def test_the_size_of_a_set_of_rows_does_not_matter(n, together, monkeypatch):
    monkeypatch.setattr(neighbor_counts, "_TOGETHER", together)
    rows = normal(n, 3).reshape(n, 3).round(decimals=1)
    reach = normal(n, seed=1).abs()
    counted = (torch.cdist(rows, rows, p=math.inf) <= reach.unsqueeze(1)).sum(1)
    assert neighbor_counts.count_within(rows, reach).equal(counted)


def test_bits_are_counted_without_the_function_of_numpy_2(monkeypatch):
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    rows, reach = normal(1100, 2), normal(1100, seed=1).abs()
    reach[::2] = math.inf
    counted = (torch.cdist(rows, rows, p=math.inf) <= reach.unsqueeze(1)).sum(1)
    assert neighbor_counts.count_within(rows, reach).equal(counted)


def test_more_rows_are_counted_than_sixteen_bits_number():
    rows = normal(70_000, 2)
    reach = torch.full((len(rows),), 0.002, dtype=torch.float64)
    tree = neighbor_trees.trees()(rows.numpy())
    counted = tree.query_ball_point(rows.numpy(), reach.numpy(), p=math.inf, return_length=True)
    assert neighbor_counts.count_within(rows, reach).equal(torch.from_numpy(counted))


@pytest.mark.parametrize("copies", [3, 4])
def test_a_row_is_an_atom_where_it_is_there_more_than_k_times(copies):
    rows = torch.cat((normal(100, 3), normal(1, 3, seed=1).expand(copies, 3)))
    assert int(neighbors._on_atoms(rows, 3).sum()) == (copies if copies > 3 else 0)


def test_rows_of_a_grid_are_no_atoms():
    side = torch.arange(40, dtype=torch.float64)
    assert not neighbors._on_atoms(torch.cartesian_prod(side, side), 3).any()


def test_zero_of_either_sign_is_one_atom():
    rows = torch.zeros(10, 2, dtype=torch.float64)
    rows[::2, 0], rows[::3, 1] = -0.0, -0.0
    assert neighbors._on_atoms(rows, 9).all()


def test_differences_that_round_to_the_reach_count():
    rows = torch.tensor([[1.0], [1e-17], [-1e-17], [2e-300], [0.0], [1 + 2**-52]], dtype=torch.float64)
    reach = torch.ones(6, dtype=torch.float64)
    counted = (torch.cdist(rows, rows, p=math.inf) <= 1).sum(1)
    assert neighbor_counts.count_within(rows, reach).equal(counted)
    assert counted[0] == 6


def test_many_values_that_round_to_the_reach_count():
    tiny = torch.arange(-80, 80, dtype=torch.float64) * 2e-18  # 1 less any of them is 1, or next to it
    rows = torch.cat((torch.tensor([1.0, -1.0]).double(), tiny)).unsqueeze(1)
    reach = torch.ones(len(rows), dtype=torch.float64)
    counted = (torch.cdist(rows, rows, p=math.inf) <= 1).sum(1)
    assert 80 < counted[0] < len(rows)
    assert neighbor_counts.count_within(rows, reach).equal(counted)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_a_tie_is_broken_as_noise_breaks_it_on_average(rho):
    x, y = correlated(400, rho, seed=2)
    x = x.round()
    noisy = [mutual_information_mixed(x + 1e-9 * normal(400, seed=seed), y, unit="nats") for seed in range(10, 30)]
    assert mutual_information_mixed(x, y, unit="nats") == pytest.approx(np.mean(noisy), abs=4 * np.std(noisy) / 20**0.5)


@every
def test_no_more_than_a_block_of_distances_at_once(estimate, monkeypatch):
    sizes = []
    cdist = torch.cdist

    def recorded(*args, **kwargs):
        distances = cdist(*args, **kwargs)
        sizes.append(distances.numel())
        return distances

    monkeypatch.setattr(neighbor_trees, "trees", lambda: None)
    monkeypatch.setattr(neighbor_search, "_BLOCK", 5000)
    monkeypatch.setattr(torch, "cdist", recorded)
    estimate(normal(400, 2), normal(400, seed=1))
    assert max(sizes) <= 5000
    assert sum(sizes) % 400**2 == 0


@every
def test_single_precision_reads_as_double(estimate):
    # Distances that single precision would round into one another.
    x, y = (1000 + v.float() for v in (normal(500, 2), normal(500, seed=1)))
    y = y - 1000
    assert estimate(x, y) == estimate(x.double(), y.double())
    assert estimate(x.half(), y.bfloat16(), k=20) == estimate(x.half().double(), y.bfloat16().double(), k=20)


@every
def test_any_shape_of_rows(estimate):
    x, y = normal(50, 2, 3, 1), normal(50, seed=1)
    assert estimate(x, y) == estimate(x.flatten(1), y.unsqueeze(1))


@every
def test_leaves_inputs_and_random_state_alone(estimate):
    x, y = normal(50, 2).requires_grad_(), normal(50, seed=1)
    leaves_alone(estimate, x, y)


# --- Bad input -------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("k", [0, -1, 40, 41, 2.0, True, None])
def test_k_out_of_range(estimate, k):
    with pytest.raises((ValueError, TypeError), match=rf"k must be an integer from 1 to 39, got {k}: "):
        estimate(normal(40), normal(40, seed=1), k=k)


@every
def test_unknown_unit(estimate):
    with pytest.raises(ValueError, match="unit must be 'bits' or 'nats', got 'bans'"):
        estimate(normal(40), normal(40, seed=1), unit="bans")


def test_unknown_algorithm():
    with pytest.raises(ValueError, match=r"algorithm must be 1 or 2, got 3\."):
        mutual_information_ksg(normal(40), normal(40, seed=1), algorithm=3)


@every
def test_not_finite(estimate):
    x = normal(40)
    x[[3, 5]] = torch.tensor([math.nan, math.inf], dtype=torch.float64)
    with pytest.raises(ValueError, match="has NaN or infinite values in 2 of 40 rows: leave those rows out"):
        estimate(x, normal(40, seed=1))


@every
def test_different_samples(estimate):
    with pytest.raises(ValueError, match="must be of the same samples, got 40 of one and 41 of the other"):
        estimate(normal(40), normal(41, seed=1))


@pytest.mark.parametrize("algorithm", [1, 2])
def test_constant(algorithm):
    constant, x = torch.ones(40, 2), normal(40)
    message = "is the same in all 40 rows: leave it out, a constant carries no information"
    with pytest.raises(ValueError, match=f"^x {message}"):
        mutual_information_ksg(constant, x, algorithm=algorithm)
    with pytest.raises(ValueError, match=f"^y {message}"):
        mutual_information_ksg(x, constant, algorithm=algorithm)
    with pytest.raises(ValueError, match=f"^t {message}"):
        mutual_information_knn(constant, torch.arange(40) % 2)


@pytest.mark.parametrize("algorithm", [1, 2])
def test_repeated_rows(algorithm):
    x, y = normal(40, 2), normal(40, seed=1)
    x[:4], y[:4] = x[0].clone(), y[0].clone()
    repeated = (
        r"^4 of 40 rows of x and y together are repeated k = 3 times or more: their k-th neighbor is at distance 0, "
        r"where the estimator is undefined; use mutual_information_mixed, or add a little noise\.$"
    )
    with pytest.raises(ValueError, match=repeated):
        mutual_information_ksg(x, y, algorithm=algorithm)
    assert math.isfinite(mutual_information_ksg(x, y, k=4, algorithm=algorithm))
    assert math.isfinite(mutual_information_mixed(x, y))


def test_repeated_rows_of_a_class():
    t, y = normal(40), torch.arange(40) % 2
    t[:8] = 0.0  # four in each class
    with pytest.raises(ValueError, match="8 of 40 rows of t within a class are repeated k = 3 times or more"):
        mutual_information_knn(t, y)


@pytest.mark.parametrize("few", [1, 3])
def test_small_class(few):
    y = torch.zeros(40, dtype=torch.long)
    y[:few] = 17
    message = rf"class 17 of y has {few} of 40 samples, and k = 3 neighbors of the same class need at least 4: leave "
    with pytest.raises(ValueError, match=message):
        mutual_information_knn(normal(40), y)


def test_labels_that_are_not_integers():
    with pytest.raises(TypeError, match="y must be class labels, a tensor of integers"):
        mutual_information_knn(normal(40), normal(40))


@pytest.mark.parametrize("trees", [True, False])
def test_values_farther_apart_than_a_float_holds(trees, monkeypatch):
    """Half of the neighbors are at an infinite distance, where a tree finds none."""
    if not trees:
        monkeypatch.setattr(neighbor_trees, "trees", lambda: None)
    far, other = normal(200), normal(200, seed=1)
    far = torch.cat([far[:100] + 1.7e308, far[100:] - 1.7e308])
    message = "^{} spans more than distances hold in float64: divide it.$"
    for algorithm in (1, 2):
        with pytest.raises(ValueError, match=message.format("x")):
            mutual_information_ksg(far, other, k=120, algorithm=algorithm)
        with pytest.raises(ValueError, match=message.format("y")):
            mutual_information_ksg(other, far, k=120, algorithm=algorithm)
    with pytest.raises(ValueError, match=message.format("y")):
        mutual_information_mixed(other, far)
    with pytest.raises(ValueError, match=message.format("t")):
        mutual_information_knn(far, torch.arange(200) % 2)
    assert mutual_information_ksg(far / 4, other, algorithm=2) == mutual_information_ksg(far / 8, other, algorithm=2)


def test_without_a_bridge_to_numpy_there_are_no_trees(monkeypatch):
    """SciPy is there, and this PyTorch shares no memory with its NumPy: all distances give the same."""
    x, y, labels = normal(60, 2), normal(60, seed=1), torch.arange(60) % 2
    estimates = [
        lambda: mutual_information_ksg(x, y),
        lambda: mutual_information_ksg(x, y, algorithm=2),
        lambda: mutual_information_mixed(x, y),
        lambda: mutual_information_knn(x, labels),
    ]
    with_trees = [estimate() for estimate in estimates]

    def refuse(self):
        raise RuntimeError("Numpy is not available")

    monkeypatch.setattr(torch.Tensor, "numpy", refuse)
    caches = (neighbor_trees.trees, numpy_reads_tensors)
    for of in caches:
        of.cache_clear()
    try:
        assert neighbor_trees.trees() is None
        assert [estimate() for estimate in estimates] == with_trees
    finally:
        for of in caches:
            of.cache_clear()
