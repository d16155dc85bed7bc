"""The permutation baseline in closed form, against all orders, exact fractions, scikit-learn and shuffles."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.cluster import contingency_matrix
from sklearn.metrics.cluster import expected_mutual_information as sklearns_expected

import lightning_ib.functional
from lightning_ib.functional.discrete import permutation
from lightning_ib.functional.discrete.corrections import COUNT_TERMS
from lightning_ib.functional.discrete.counting import entropy_of_counts, mutual_information
from lightning_ib.functional.discrete.permutation import expected_mutual_information, permuted_mutual_information
from tests.helpers.counting import law

CORRECTIONS = [None, "miller_madow", "grassberger", "jackknife"]


def expected(a, b, unit="nats", correction=None):
    return expected_mutual_information(torch.tensor(a), torch.tensor(b), unit=unit, correction=correction)


def samples_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


def draw(symbols, n, power=1.0, seed=0):
    values = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.bincount((symbols * values**power).long())


# --- References ------------------------------------------------------------------------------------------------------


def over_all_orders(a, b, correction):
    """The mean over the orders, each counted as any two variables are."""
    left = torch.from_numpy(samples_of(a))
    orders = Counter(itertools.permutations(samples_of(b).tolist()))
    values = {
        order: mutual_information(left, torch.tensor(order), unit="nats", correction=correction) for order in orders
    }
    return math.fsum(many * values[order] for order, many in orders.items()) / orders.total()


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1, 2, 3], [2, 4]),
        ([3, 3], [3, 3]),
        ([1, 1, 4], [1, 2, 3]),
        ([2, 2, 2, 1], [6, 1]),
        ([1, 1, 2, 3], [2, 2, 3]),
        ([5], [2, 3]),
        ([1] * 5, [2, 3]),
        ([1] * 4, [4]),
        ([7], [7]),
        ([1, 1], [1, 1]),
        ([1], [1]),
    ],
    ids=str,
)
def test_it_is_the_mean_over_all_orders(a, b, correction):
    value = expected(a, b, correction=correction)
    assert type(value) is float
    assert value == pytest.approx(over_all_orders(a, b, correction), abs=2e-14)


def from_exact_fractions(a, b):
    """The formula with probabilities that are quotients of integers, each rounded once, in nats."""
    n, terms = sum(a), []
    for (i, many_i), (j, many_j) in itertools.product(Counter(a).items(), Counter(b).items()):
        orders = math.comb(n, j)
        for n_ij in range(max(1, i + j - n), min(i, j) + 1):
            probability = math.comb(i, n_ij) * math.comb(n - i, j - n_ij) / orders
            terms.append(many_i * many_j * probability * n_ij / n * math.log(n * n_ij / (i * j)))
    return math.fsum(terms)


MARGINALS = {
    "even": ([100] * 10, [250] * 4),
    "skewed": ([500, 300, 150, 49, 1], [600, 399, 1]),
    "many": ([1] * 200 + [2] * 150 + [25] * 20, [100] * 10),
    "both wide": ([1, 2, 3, 4] * 40, [5] * 80),
    "nearly one symbol": ([1999, 1], [1995, 5]),
    "nearly saturated": ([1] * 398 + [2], [150, 250]),
    "two halves": ([1500, 1500], [1500, 1500]),
}


@pytest.mark.parametrize(("a", "b"), MARGINALS.values(), ids=MARGINALS.keys())
def test_it_is_the_formula(a, b):
    exact = from_exact_fractions(a, b)
    assert expected(a, b) == pytest.approx(exact, rel=1e-11, abs=1e-14)
    assert expected(a, b, unit="bits") == pytest.approx(exact / math.log(2), rel=1e-11, abs=1e-14)


@pytest.mark.parametrize(("a", "b"), MARGINALS.values(), ids=MARGINALS.keys())
def test_it_is_scikit_learns(a, b):
    table = contingency_matrix(samples_of(a), samples_of(b), sparse=True)
    assert expected(a, b) == pytest.approx(sklearns_expected(table, sum(a)), abs=1e-10)


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("marginals", ["skewed", "many", "both wide"])
def test_it_is_what_shuffles_approach(marginals, correction):
    a, b = (torch.tensor(counts) for counts in MARGINALS[marginals])
    shuffled = permuted_mutual_information(a, b, n_permutations=200, unit="nats", correction=correction)
    value = expected_mutual_information(a, b, unit="nats", correction=correction)
    assert value == pytest.approx(shuffled.mean, abs=3.5 * shuffled.standard_deviation / math.sqrt(200))


@pytest.mark.parametrize("correction", CORRECTIONS[1:])
@pytest.mark.parametrize("counts", [[1, 1, 2], [1], [5], [1, 7, 1000, 3, 3], list(range(1, 300))], ids=str)
def test_the_terms_of_a_correction_add_up_to_its_entropy(counts, correction):
    table = torch.tensor([*counts, 0])
    terms = COUNT_TERMS[correction](table.double(), sum(counts))
    assert terms[-1] == 0
    plug_in, corrected = (entropy_of_counts(table, unit="nats", correction=c) for c in (None, correction))
    assert plug_in + float(terms.sum()) / sum(counts) == pytest.approx(corrected, abs=1e-13)


# --- Extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_symbol_for_every_sample_gives_the_entropy_of_the_other(correction):
    ones, counts = torch.ones(60, dtype=torch.int64), torch.tensor([10, 20, 29, 1])
    same = {"unit": "nats", "correction": correction}
    entropy = entropy_of_counts(counts, **same)
    assert expected_mutual_information(ones, counts, **same) == entropy
    assert expected_mutual_information(counts, ones, **same) == entropy


@pytest.mark.parametrize("correction", [None, "miller_madow", "jackknife"])
def test_a_single_symbol_gives_zero(correction):
    assert expected([300], [100, 200], correction=correction) == 0.0
    assert expected([1, 299], [300], correction=correction) == 0.0
    assert expected([1], [1], correction=correction) == 0.0


def test_the_first_order_bias_where_every_cell_holds_many_samples():
    a, b = [10_000 + k for k in range(-3, 4)], [14_000] * 5
    assert expected(a, b) == pytest.approx(6 * 4 / 140_000, rel=1e-3)
    for correction in ("miller_madow", "jackknife"):
        assert expected(a, b, correction=correction) == pytest.approx(0, abs=1e-6)


# Values of the formula with 50 digits, by mpmath.
OF_TEN_MILLION = [
    ([3_000_001, 6_999_999], [5_000_000, 5_000_000], None, 5.00000094047624e-8),
    ([10, 10**7 - 10], [40, 10**7 - 40], None, 4.07640649397569e-11),
    ([10, 10**7 - 10], [40, 10**7 - 40], "miller_madow", 3.87641000394047e-11),
    ([3000, 10**7 - 3000], [1000, 10**7 - 1000], None, 4.20040161948501e-8),
    ([3000, 10**7 - 3000], [1000, 10**7 - 1000], "grassberger", -5.40772906044597e-8),
    ([3000, 10**7 - 3000], [1000, 10**7 - 1000], "jackknife", 1.75242274627723e-8),
]


@pytest.mark.parametrize(("a", "b", "correction", "exact"), OF_TEN_MILLION)
def test_ten_million_samples(a, b, correction, exact):
    assert expected(a, b, correction=correction) == pytest.approx(exact, rel=1e-11, abs=1e-14)


def test_counts_beyond_any_tensor_of_samples():
    n = 10**15
    assert expected([50, n - 50], [40, n - 40]) == pytest.approx(5.39210935308483e-26, rel=1e-11, abs=0)


@pytest.mark.slow
def test_many_large_counts():
    a, b = draw(256, 10**7, 1.3), draw(1000, 10**7, 1.3, seed=1)
    value = expected_mutual_information(a, b, unit="nats")
    assert value == pytest.approx((len(a) - 1) * (len(b) - 1) / (2 * 10**7), rel=0.02)
    # Cells of 30 samples and more: one order of the expansion further, 1 / 12 of the sum of 1 / E n_ij.
    a, b = torch.arange(38_900, 39_156), torch.arange(9_492, 10_492)
    a[-1] += int(b.sum() - a.sum())
    value, n = expected_mutual_information(a, b, unit="nats"), int(b.sum())
    second = (n / a.double()).sum() * (n / b.double()).sum() / n / 12 / n
    assert value == pytest.approx(255 * 999 / (2 * n) + float(second), rel=1e-3)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_how_much_is_computed_at_once_does_not_matter(monkeypatch, correction):
    a, b = draw(300, 2000, 2.0), draw(30, 2000, 1.5, seed=1)
    both = {"unit": "nats", "correction": correction}
    whole = expected_mutual_information(a, b, **both)
    monkeypatch.setattr(permutation, "_PAIRS", 40)
    monkeypatch.setattr(permutation, "_BLOCK", 64)
    assert expected_mutual_information(a, b, **both) == pytest.approx(whole, abs=1e-14)


# --- Laws ------------------------------------------------------------------------------------------------------------


@st.composite
def marginals(draw):
    """Counts of two variables of the same samples."""
    a = draw(st.lists(st.integers(1, 60), min_size=1, max_size=15))
    cuts = draw(st.lists(st.integers(0, sum(a)), max_size=12))
    return a, [high - low for low, high in itertools.pairwise(sorted({0, sum(a), *cuts}))]


@law
@given(marginals())
def test_it_lies_between_zero_and_both_entropies(pair):
    a, b = (torch.tensor(counts) for counts in pair)
    value = expected_mutual_information(a, b)
    assert 0 <= value <= min(entropy_of_counts(a), entropy_of_counts(b)) + 1e-12


@law
@given(marginals())
def test_it_is_the_formula_whatever_the_counts(pair):
    assert expected(*pair) == pytest.approx(from_exact_fractions(*pair), abs=1e-13)


@law
@given(marginals(), st.sampled_from(CORRECTIONS), st.randoms(use_true_random=False), st.integers(0, 3))
def test_order_zeros_and_which_comes_first_change_no_bit(pair, correction, shuffler, zeros):
    a, b = pair
    mixed = [*a, *[0] * zeros], [*b, 0]
    for counts in mixed:
        shuffler.shuffle(counts)
    value = expected(a, b, correction=correction)
    assert expected(*mixed, correction=correction) == value
    assert expected(b, a, correction=correction) == value


# --- What is taken in ------------------------------------------------------------------------------------------------


def test_arguments_are_left_as_they_are():
    a, b = torch.tensor([[3, 9], [1, 9], [2, 9]])[:, 0], torch.tensor([2, 4], dtype=torch.int16)
    before = a.clone(), b.clone()
    with torch.inference_mode():
        value = expected_mutual_information(a, b)
    assert value == expected_mutual_information(a.contiguous(), b.long())
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


def test_it_is_exported():
    assert lightning_ib.functional.expected_mutual_information is expected_mutual_information


@pytest.mark.parametrize("correction", ["chao_shen", "james_stein", "chao_wang_jost", "nsb"])
def test_corrections_that_are_no_sums_need_permutations(correction):
    with pytest.raises(ValueError, match=rf"got '{correction}'.*needs permutations \(permuted_mutual_information\)"):
        expected([2, 2], [2, 2], correction=correction)


def test_both_variables_need_the_same_samples():
    with pytest.raises(ValueError, match="same samples of both variables, got 5 of one and 4 of the other"):
        expected([2, 3], [2, 2])


@pytest.mark.parametrize("swapped", [False, True])
def test_counts_are_checked(swapped):
    def value(counts):
        pair = torch.tensor(counts), torch.tensor([2, 2])
        return expected_mutual_information(*(reversed(pair) if swapped else pair))

    with pytest.raises(TypeError, match=r"counts must be frequencies, a tensor of integers .*, got torch\.float32"):
        value([2.0, 2.0])
    with pytest.raises(ValueError, match="counts must be 0 or more, got -1"):
        value([5, -1])
    with pytest.raises(ValueError, match="counts that add up to none"):
        value([0, 0])


def test_unknown_units_and_corrections_are_refused():
    with pytest.raises(ValueError, match="unit must be 'bits' or 'nats', got 'dits'"):
        expected([2, 2], [2, 2], unit="dits")
    with pytest.raises(ValueError, match="got 'jacknife': did you mean 'jackknife'"):
        expected([2, 2], [2, 2], correction="jacknife")
