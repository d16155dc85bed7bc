"""Rank correlations over runs, beside SciPy's and beside counting by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib.functional import ranks
from lightning_ib.functional.ranks import kendall, largest_tau, spearman

scipy_stats = pytest.importorskip("scipy.stats")

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.floats(-2, 2, width=16)), min_size=2, max_size=12)


def alone(statistic, x, y):
    return statistic(x, y, bars=False).value


@settings(max_examples=30)
@given(PAIRS)
def test_they_are_those_of_scipy_with_ties_and_without(pairs):
    x, y = ([float(value) for value in column] for column in zip(*pairs))
    varies = len(set(x)) > 1 and len(set(y)) > 1
    for own, other in ((kendall, scipy_stats.kendalltau), (spearman, scipy_stats.spearmanr)):
        found = alone(own, x, y)
        assert math.isnan(found) == (not varies)
        if varies:
            assert found == pytest.approx(other(x, y).statistic, abs=1e-12)


@settings(max_examples=20)
@given(st.permutations(range(7)))
def test_order_alone_counts(order):
    x, y = list(range(7)), list(order)
    assert alone(kendall, x, y) == alone(kendall, [math.exp(value) for value in x], [value**3 for value in y])
    assert alone(kendall, x, y) == -alone(kendall, x, [-value for value in y])
    n_discordant = sum(a > b for a, b in itertools.combinations(y, 2))
    assert alone(kendall, x, y) == pytest.approx(1 - 4 * n_discordant / 42)


def test_a_bar_is_that_of_the_same_runs_resampled_one_by_one():
    x, y = [1.0, 2.0, 2.0, 5.0, 3.0, 9.0], [1.0, 3.0, 2.0, 2.0, 8.0, 7.0]
    drawn = torch.randint(6, (ranks.N_RESAMPLES, 6), generator=torch.Generator().manual_seed(0)).tolist()
    for own, other in ((kendall, scipy_stats.kendalltau), (spearman, scipy_stats.spearmanr)):
        values = []
        for resample in drawn[:40]:
            a, b = ([of[k] for k in resample] for of in (x, y))
            varies = len(set(a)) > 1 and len(set(b)) > 1
            values.append(other(a, b).statistic if varies else 0.0)
        low, high = torch.tensor(values).double().quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranks, "N_RESAMPLES", 40)
            patch.setattr(torch, "randint", lambda *_, **__: torch.tensor(drawn[:40]))
            found = own(x, y)
        assert (found.low, found.high) == pytest.approx((low, high))
        assert found.low < found.value < found.high
    assert kendall(x, y) == kendall(x, y)  # its seed is fixed


def test_one_run_apart_from_equal_ones_proves_nothing():
    found = kendall([0, 0, 0, 0, 7], [1, 2, 3, 4, 5])
    assert found.value > 0.6
    assert found.low == 0  # without that run nothing is left


def test_the_largest_of_several_is_tested_together_over_all_orders():
    quantities = [[1, 2, 3, 4, 5], [2, 1, 3, 3, 0], [4, math.nan, 1, 2, 5], [7, 7, 7, 7, 7]]
    y = [1, 2, 3, 5, 4]

    def largest(order):
        found = []
        for quantity in quantities:
            known = [(x, y[k]) for x, k in zip(quantity, order) if not math.isnan(x)]
            if len({x for x, _ in known}) > 1:
                found.append(abs(scipy_stats.kendalltau(*zip(*known)).statistic))
        return max(found)

    found = largest_tau(quantities, y)
    of_orders = [largest(order) for order in itertools.permutations(range(5))]
    assert found.tau == pytest.approx(largest(range(5)))
    assert found.p_value == pytest.approx(sum(one >= found.tau - 1e-9 for one in of_orders) / 120)
    assert (found.n_orders, found.exact) == (120, True)


def test_of_many_runs_some_orders_are_drawn():
    y = list(range(12))
    found = largest_tau([y, [5, 3, 8, 1, 0, 2, 9, 4, 11, 7, 10, 6]], y)
    assert found == (1.0, 1 / ranks.N_PERMUTATIONS, ranks.N_PERMUTATIONS, False)
    alone = largest_tau([[0, 2, 1, 4, 3, 5, 7, 6, 9, 8, 11, 10][::-1]], y)
    noise = torch.rand(30, 12, generator=torch.Generator().manual_seed(1)).tolist()
    p_values = [largest_tau(noise[:k], y).p_value for k in (1, 10, 30)]
    assert alone.p_value < 0.001
    # The largest of thirty quantities without any connection is no evidence, although it alone would seem so.
    assert p_values[2] > 0.05 > min(scipy_stats.kendalltau(one, y).pvalue for one in noise)


def test_lists_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="x and y must be of the same number, 2 at least, got 3 and 2."):
        kendall([1, 2, 3], [1, 2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_without_a_rank_have_no_correlation(bad):
    for of in (kendall, spearman):
        for x, y in (([1, bad, 3, 4], [1, 2, 3, 4]), ([1, 2, 3, 4], [1, 2, bad, 4])):
            assert all(map(math.isnan, of(x, y)))
