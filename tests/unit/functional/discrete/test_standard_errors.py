"""Standard errors against formulas, bootstrap and repeated draws; the chance baseline against its exact mean."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.functional.discrete.counting import Symbols, entropy, joint, mutual_information, symbols
from lightning_ib.functional.discrete.permutation import (
    PermutationBaseline,
    expected_mutual_information,
    permuted_mutual_information,
    permuted_symbols,
)
from lightning_ib.functional.discrete.standard_errors import standard_error, standard_error_of_entropy
from tests.helpers.counting import ints, law
from tests.helpers.samples import generator


def dependent(k_x, k_t, k_y, n, seed=0):
    """X and Y tell of T, each with noise."""
    t = (k_t * torch.rand(n, generator=generator(seed)) ** 1.5).long()
    x = (t + ints(2, n, seed + 1) * ints(k_x, n, seed + 2)) % k_x
    y = (t + ints(3, n, seed + 3) // 2 * ints(k_y, n, seed + 4)) % k_y
    return x, t, y


def terms(x, t, y):
    """The figures' terms: of T, T and Y, and all three."""
    sx, s_t, sy = symbols(x), symbols(t), symbols(y)
    ty, xy = joint(s_t, sy), joint(sx, sy)
    return {
        "H(T)": [(1, s_t)],
        "I(T;Y)": [(1, s_t), (1, sy), (-1, ty)],
        "H(Y|T)": [(1, ty), (-1, s_t)],
        "I(X;T|Y)": [(1, xy), (1, ty), (-1, sy), (-1, joint(sx, ty))],
    }


FIGURES = ["H(T)", "I(T;Y)", "H(Y|T)", "I(X;T|Y)"]


# --- Formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("counts", [[1, 1, 2], [900, 100], [1, 0, 5, 1000, 7], list(range(1, 500))], ids=str)
def test_the_standard_error_of_an_entropy_is_the_formula(counts, unit):
    p = np.array([c for c in counts if c]) / sum(counts)
    log = np.log2 if unit == "bits" else np.log
    expected = math.sqrt(((p * log(p) ** 2).sum() - (p * log(p)).sum() ** 2) / sum(counts))
    figure = standard_error_of_entropy(torch.tensor(counts), unit=unit)
    assert type(figure) is float
    assert figure == pytest.approx(expected, rel=1e-10)
    ids = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    assert standard_error((1, symbols(ids)), unit=unit) == figure
    assert standard_error((-2.5, symbols(ids)), unit=unit) == 2.5 * figure


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("figure", FIGURES)
def test_the_standard_error_is_that_of_the_mean_surprise(figure, unit):
    x, t, y = (v.numpy() for v in dependent(5, 6, 4, 700))
    log = np.log2 if unit == "bits" else np.log

    def surprise(*variables):
        _, numbers, counts = np.unique(np.stack(variables), axis=1, return_inverse=True, return_counts=True)
        return log(len(t) / counts[numbers.ravel()])

    each = {
        "H(T)": surprise(t),
        "I(T;Y)": surprise(t) + surprise(y) - surprise(t, y),
        "H(Y|T)": surprise(t, y) - surprise(t),
        "I(X;T|Y)": surprise(x, y) + surprise(t, y) - surprise(y) - surprise(x, t, y),
    }[figure]
    got = standard_error(*terms(*dependent(5, 6, 4, 700))[figure], unit=unit)
    assert type(got) is float
    assert got == pytest.approx(each.std() / math.sqrt(len(t)), rel=1e-10)


@pytest.mark.parametrize("flip", [0.0, 0.05, 0.25, 0.5])
def test_the_binary_symmetric_channel(flip):
    n = 1000
    sent = torch.arange(2 * n) // n
    received = sent ^ (torch.arange(2 * n) % n < round(flip * n)).long()
    a, b = symbols(sent), symbols(received)
    # The pointwise information is log2 2(1 - p) or log2 2p.
    spread = math.sqrt(flip * (1 - flip)) * abs(math.log2((1 - flip) / flip)) if flip else 0.0
    assert standard_error((1, a), (1, b), (-1, joint(a, b))) == pytest.approx(spread / math.sqrt(2 * n), abs=1e-12)


def test_where_every_surprise_is_the_same_it_is_exactly_zero():
    for ids in (torch.arange(700) % 7, torch.arange(60_000), torch.zeros(5, dtype=torch.int64)):
        assert standard_error_of_entropy(symbols(ids).counts) == 0.0
    # An independent grid: I = 0, and so is its first-order error. The docstring warns of it.
    a, b = symbols(torch.arange(13).repeat(10)), symbols(torch.arange(10).repeat_interleave(13))
    assert standard_error((1, a), (1, b), (-1, joint(a, b))) == 0.0


def test_a_variable_tells_of_itself_with_the_error_of_its_entropy():
    t = symbols(dependent(5, 6, 4, 700)[1])
    assert standard_error((1, t), (1, t), (-1, joint(t, t))) == pytest.approx(standard_error((1, t)), rel=1e-12)


def test_factors_other_than_signs():
    # The functional of the information bottleneck where X is the sample: H(T) - beta I(T;Y).
    _, t, y = dependent(5, 6, 4, 700)
    s_t, sy = symbols(t), symbols(y)
    ty = joint(s_t, sy)
    beta = 3.0
    separately = standard_error((1, s_t), (-beta, s_t), (-beta, sy), (beta, ty))
    assert separately == pytest.approx(standard_error((1 - beta, s_t), (-beta, sy), (beta, ty)), rel=1e-12)


# --- Resampling ------------------------------------------------------------------------------------------------------


def plug_in(tables):
    """The figures of many tables of counts at once, (B, K_X, K_T, K_Y), in bits."""

    def h(*kept):
        summed = tables.sum(axis=tuple(axis for axis in (1, 2, 3) if axis not in kept)).reshape(len(tables), -1)
        p = summed / summed.sum(1, keepdims=True)
        return -(p * np.log2(np.where(p > 0, p, 1))).sum(1)

    return {
        "H(T)": h(2),
        "I(T;Y)": h(2) + h(3) - h(2, 3),
        "H(Y|T)": h(2, 3) - h(2),
        "I(X;T|Y)": h(1, 3) + h(2, 3) - h(3) - h(1, 2, 3),
    }


@pytest.mark.parametrize(("n", "k_x", "k_t", "k_y"), [(1000, 3, 4, 2), (5000, 4, 20, 5), (20_000, 6, 40, 10)])
def test_the_standard_error_is_that_of_the_bootstrap(n, k_x, k_t, k_y):
    x, t, y = dependent(k_x, k_t, k_y, n)
    table = np.zeros((k_x, k_t, k_y))
    np.add.at(table, (x.numpy(), t.numpy(), y.numpy()), 1)
    # Drawing N of N samples with replacement is drawing the table from a multinomial.
    drawn = np.random.default_rng(0).multinomial(n, table.ravel() / n, size=500).reshape(500, *table.shape)
    bootstrapped = plug_in(drawn)
    for figure, its_terms in terms(x, t, y).items():
        assert standard_error(*its_terms) == pytest.approx(bootstrapped[figure].std(), rel=0.15), figure


def test_the_standard_error_is_the_scatter_over_fresh_samples():
    shares = np.random.default_rng(1).dirichlet(np.full(3 * 5 * 4, 0.3))
    tables = np.random.default_rng(2).multinomial(4000, shares, size=500).reshape(500, 3, 5, 4)
    scatter = plug_in(tables)
    x, t, y = (torch.from_numpy(i).repeat_interleave(torch.from_numpy(tables[0].ravel())) for i in _indices(3, 5, 4))
    for figure, its_terms in terms(x, t, y).items():
        assert standard_error(*its_terms) == pytest.approx(scatter[figure].std(), rel=0.15), figure


def _indices(*shape):
    return np.indices(shape).reshape(len(shape), -1)


# --- Laws of the standard error --------------------------------------------------------------------------------------

values = st.integers(0, 6)
samples = st.lists(st.tuples(values, values, values), min_size=1, max_size=80)


@law
@given(samples, st.sampled_from(FIGURES), st.randoms(use_true_random=False), st.integers(0, 2**62))
def test_order_and_names_of_the_samples_change_nothing(rows, figure, shuffler, half):
    mixed = list(rows)
    shuffler.shuffle(mixed)
    variables = torch.tensor(rows).T
    expected = standard_error(*terms(*variables)[figure])
    assert standard_error(*terms(*torch.tensor(mixed).T)[figure]) == pytest.approx(expected, rel=1e-12)
    assert standard_error(*terms(*(variables * (2 * half + 1) + 5))[figure]) == pytest.approx(expected, rel=1e-12)


@law
@given(samples, st.sampled_from(FIGURES))
def test_nats_are_bits_times_ln_2(rows, figure):
    its_terms = terms(*torch.tensor(rows).T)[figure]
    assert standard_error(*its_terms, unit="nats") == pytest.approx(standard_error(*its_terms) * math.log(2), rel=1e-14)


@law
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_order_and_zeros_of_the_counts_change_not_one_bit(counts, shuffler):
    mixed = [*counts, 0, 0]
    shuffler.shuffle(mixed)
    assert standard_error_of_entropy(torch.tensor(mixed)) == standard_error_of_entropy(torch.tensor(counts))


# --- The chance baseline ---------------------------------------------------------------------------------------------

MARGINALS = {
    "even": ([100] * 10, [250] * 4),
    "skewed": ([500, 300, 150, 49, 1], [600, 399, 1]),
    "many": ([1] * 200 + [2] * 150 + [25] * 20, [100] * 10),
    "both wide": ([1, 2, 3, 4] * 40, [5] * 80),
}


@pytest.mark.parametrize(("a", "b"), MARGINALS.values(), ids=MARGINALS.keys())
def test_the_baseline_is_the_expected_information(a, b):
    chance = permuted_mutual_information(torch.tensor(a), torch.tensor(b), n_permutations=200, unit="nats")
    error = chance.standard_deviation / math.sqrt(200)
    expected = expected_mutual_information(torch.tensor(a), torch.tensor(b), unit="nats")
    assert chance.mean == pytest.approx(expected, abs=3 * error)
    assert error < 0.05 * chance.mean
    bits = permuted_mutual_information(torch.tensor(a), torch.tensor(b), n_permutations=200)
    assert bits == pytest.approx([figure / math.log(2) for figure in chance], rel=1e-9)


def test_the_baseline_of_sixty_thousand_samples():
    a = symbols((20_000 * torch.rand(60_000, generator=generator()) ** 1.2).long()).counts
    b = torch.bincount(ints(10, 60_000))
    chance = permuted_mutual_information(a, b, unit="nats")
    expected = expected_mutual_information(a, b, unit="nats")
    assert chance.mean == pytest.approx(expected, abs=4 * chance.standard_deviation / math.sqrt(10))
    assert chance.mean == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(("a", "b"), [([1, 2, 3], [2, 4]), ([3, 3], [3, 3]), ([1, 1, 4], [1, 2, 3]), ([5], [2, 3])])
def test_the_baseline_is_that_of_all_orders(a, b):
    left = np.repeat(np.arange(len(a)), a)
    orders = set(itertools.permutations(np.repeat(np.arange(len(b)), b).tolist()))  # each is as likely
    exact = [sklearn.metrics.mutual_info_score(left, order) for order in orders]
    chance = permuted_mutual_information(torch.tensor(a), torch.tensor(b), n_permutations=1500, unit="nats")
    assert chance.mean == pytest.approx(np.mean(exact), abs=3 * np.std(exact) / math.sqrt(1500) + 1e-12)
    assert chance.standard_deviation == pytest.approx(np.std(exact), rel=0.1, abs=1e-12)


@pytest.mark.parametrize(
    "correction",
    [None, "miller_madow", "grassberger", "chao_shen", "james_stein", "jackknife", "chao_wang_jost", "nsb"],
)
def test_each_shuffle_is_counted_as_any_two_variables(correction):
    a, b = ints(30, 400), ints(5, 400, seed=1)
    same = {"correction": correction, "unit": "nats"}
    chance = permuted_mutual_information(symbols(a).counts, symbols(b).counts, n_permutations=6, seed=3, **same)
    by_count = symbols(a).counts.sort().values
    ordered = torch.arange(len(by_count)).repeat_interleave(by_count)
    drawn = permuted_symbols(symbols(b).counts, n_permutations=6, seed=3)
    figures = [mutual_information(ordered, s.numbers, **same) for s in drawn]
    assert chance == PermutationBaseline(statistics.fmean(figures), statistics.stdev(figures))
    assert type(chance.mean) is type(chance.standard_deviation) is float


@pytest.mark.parametrize("correction", ["miller_madow", "grassberger", "jackknife"])
def test_a_corrected_baseline_is_near_zero(correction):
    a, b = torch.arange(295, 305), torch.tensor([498, 501, 500, 497, 500, 499])
    both = {"n_permutations": 400, "unit": "nats"}
    assert permuted_mutual_information(a, b, **both).mean == pytest.approx(45 / 5990, rel=0.1)
    assert permuted_mutual_information(a, b, correction=correction, **both).mean == pytest.approx(0, abs=0.0006)


def test_information_that_stands_out_and_information_that_does_not():
    y = torch.arange(2000) % 4
    unrelated, related = ints(50, 2000), 4 * ints(10, 2000) + torch.where(ints(5, 2000, seed=1) == 0, y, 0)
    for t, stands_out in ((unrelated, False), (related, True)):
        chance = permuted_mutual_information(symbols(t).counts, symbols(y).counts)
        assert (mutual_information(t, y) - chance.mean > 4 * chance.standard_deviation) is stands_out


def test_a_symbol_for_every_sample_shows_all_of_y_whatever_the_order():
    y = ints(10, 300)
    chance = permuted_mutual_information(torch.ones(300, dtype=torch.int64), symbols(y).counts)
    assert chance == (pytest.approx(entropy(y), abs=1e-12), 0.0)


def test_a_constant_shows_nothing_whatever_the_order():
    assert permuted_mutual_information(torch.tensor([300]), torch.tensor([100, 200])) == (0.0, 0.0)


@law
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.randoms(use_true_random=False), st.integers(0, 3))
def test_order_and_zeros_of_the_counts_change_no_bit_of_the_baseline(a, shuffler, zeros):
    b = [sum(a) // 3, sum(a) - sum(a) // 3]
    mixed = [*a, *[0] * zeros]
    shuffler.shuffle(mixed)
    expected = permuted_mutual_information(torch.tensor(a), torch.tensor(b))
    assert permuted_mutual_information(torch.tensor(mixed), torch.tensor([b[1], 0, b[0]])) == expected


def test_the_order_and_the_names_of_the_samples_change_no_bit_of_the_baseline():
    a, b, order = ints(40, 500), ints(4, 500, seed=1), torch.randperm(500, generator=generator())
    renamed = symbols(-3 * a[order]).counts, symbols(7 - b[order]).counts
    expected = permuted_mutual_information(symbols(a).counts, symbols(b).counts)
    assert permuted_mutual_information(*renamed) == expected


def test_shuffles_are_the_samples_in_other_orders():
    counts = torch.tensor([40, 0, 10, 50])
    drawn = list(permuted_symbols(counts, n_permutations=4))
    assert len(drawn) == 4
    for variable in drawn:
        assert isinstance(variable, Symbols)
        assert variable.counts.tolist() == [10, 40, 50]
        assert torch.bincount(variable.numbers).tolist() == [10, 40, 50]
        assert variable.numbers.dtype == variable.counts.dtype == torch.int64
    assert len({tuple(variable.numbers.tolist()) for variable in drawn}) == 4


def test_every_position_is_equally_likely():
    drawn = torch.stack([s.numbers for s in permuted_symbols(torch.tensor([3, 5]), n_permutations=4000)]).double()
    assert drawn.mean(0) == pytest.approx(torch.full((8,), 5 / 8), abs=4 * math.sqrt(15 / 64 / 4000))


# --- Randomness ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_figures_and_no_random_state_moves():
    a, b = torch.tensor([30, 50, 20]), torch.tensor([60, 40])
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = permuted_mutual_information(a, b)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    torch.manual_seed(123)
    assert permuted_mutual_information(a, b) == first
    assert permuted_mutual_information(a, b, seed=1) != first
    longer = permuted_symbols(b, n_permutations=12)
    assert all(torch.equal(s.numbers, t.numbers) for s, t in zip(permuted_symbols(b), longer))


# --- What is taken in ------------------------------------------------------------------------------------------------


def test_arguments_are_left_as_they_are():
    a, b = torch.tensor([[3, 9], [1, 9], [2, 9]])[:, 0], torch.tensor([2, 4], dtype=torch.int16)
    t = symbols(torch.arange(6) % 3)
    before = [v.clone() for v in (a, b, *t)]
    with torch.inference_mode():
        inside = permuted_mutual_information(a, b), standard_error_of_entropy(a), standard_error((1, t), (1, t))
    assert inside == (
        permuted_mutual_information(a.contiguous(), b.long()),
        standard_error_of_entropy(a),
        standard_error((1, t), (1, t)),
    )
    assert all(torch.equal(now, then) for now, then in zip((a, b, *t), before))


def test_a_single_sample():
    one = symbols(torch.tensor([7]))
    assert standard_error((1, one)) == standard_error((1, one), (1, one), (-1, joint(one, one))) == 0.0
    assert permuted_mutual_information(torch.tensor([1]), torch.tensor([1])) == (0.0, 0.0)


def test_a_standard_error_needs_terms_of_the_same_samples():
    with pytest.raises(ValueError, match=r"needs terms \(sign, symbols\) of the same samples, got no term"):
        standard_error()
    three, four = symbols(torch.arange(3)), symbols(torch.arange(4))
    with pytest.raises(ValueError, match="of the same samples, got variables of 3 and 4 samples"):
        standard_error((1, four), (-1, three))


@pytest.mark.parametrize("n", [0, 1])
def test_one_permutation_has_no_standard_deviation(n):
    with pytest.raises(ValueError, match=f"n_permutations must be an integer of at least 2, got {n}: give at least 2"):
        permuted_mutual_information(torch.tensor([2, 2]), torch.tensor([2, 2]), n_permutations=n)


def test_a_baseline_needs_the_same_samples():
    with pytest.raises(ValueError, match="same samples of both variables, got 5 of one and 4 of the other"):
        permuted_mutual_information(torch.tensor([2, 3]), torch.tensor([2, 2]))


NEEDS_COUNTS = [
    standard_error_of_entropy,
    permuted_symbols,
    lambda counts: permuted_mutual_information(counts, torch.tensor([2, 2])),
    lambda counts: permuted_mutual_information(torch.tensor([2, 2]), counts),
]


@pytest.mark.parametrize("function", NEEDS_COUNTS)
def test_counts_are_checked(function):
    with pytest.raises(TypeError, match="counts must be frequencies, a tensor of integers .*, got torch.float32"):
        function(torch.tensor([2.0, 2.0]))
    with pytest.raises(ValueError, match="counts must be 0 or more, got -1"):
        function(torch.tensor([5, -1]))
    with pytest.raises(ValueError, match="counts that add up to none"):
        function(torch.tensor([0, 0]))


def test_unknown_units_and_corrections_are_refused():
    counts, t = torch.tensor([2, 2]), symbols(torch.arange(4) // 2)
    for figure in (
        lambda unit: standard_error_of_entropy(counts, unit=unit),
        lambda unit: standard_error((1, t), (1, t), unit=unit),
        lambda unit: permuted_mutual_information(counts, counts, unit=unit),
    ):
        with pytest.raises(ValueError, match="unit must be 'bits' or 'nats', got 'dits'"):
            figure("dits")
    with pytest.raises(ValueError, match="got 'jacknife': did you mean 'jackknife'"):
        permuted_mutual_information(counts, counts, correction="jacknife")
