"""The entropy after Chao, Wang & Jost: its second term to all digits, known values, and what unseen symbols change."""

import itertools
import math

import mpmath
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st

import lightning_ib.functional
from lightning_ib.functional import entropy
from lightning_ib.functional.discrete.chao_wang_jost import chao_wang_jost, unseen_tail
from lightning_ib.functional.discrete.multiplicities import counts_of_counts, singleton_probability, unseen_symbols
from tests.helpers.counting import ints, law

some_counts = st.lists(st.integers(0, 3) | st.integers(1, 10**6), min_size=1, max_size=40).filter(any)


# -- the second term ---------------------------------------------------------------------------------------------------

TO_ONE = [(10**18, 1), (10**12, 1), (10**6, 1), (1000, 1), (9, 1), (1, 1), (1, 9), (1, 1000), (1, 10**12), (1, 10**18)]
"""1 − A to A, from A = 1e-18 to 1 − A = 1e-18."""


def brace(n, a, b):
    """The formula as it is printed, with as many digits as the difference and the power need."""
    with mpmath.workdps(40 + int(n * math.log10((a + b) / a))):
        probability = mpmath.mpf(b) / (a + b)
        q = mpmath.mpf(a) / (a + b)
        return q ** (1 - n) * (-mpmath.log(probability) - mpmath.fsum(q**r / r for r in range(1, n)))


@pytest.mark.parametrize(("n", "odds"), list(itertools.product([1, 2, 3, 10, 60], TO_ONE)))
def test_the_second_term_has_all_digits(n, odds):
    assert unseen_tail(n, *odds) == pytest.approx(float(brace(n, *odds)), rel=1e-13)


@pytest.mark.parametrize("n", [10**6, 10**9])
@pytest.mark.parametrize("odds", [(10**18, 1), (10**9, 1), (10**6, 1), (10**5, 1), (10**4, 1)])
def test_the_second_term_of_many_samples_has_all_digits(n, odds):
    """By Euler and Maclaurin, an exponential integral and small terms are left of the sum."""
    with mpmath.workdps(40):
        a, b = map(mpmath.mpf, odds)
        rate = mpmath.log1p(b / a)
        first = mpmath.exp(-rate * n) / n
        scaled = mpmath.e1(rate * n) + first * (mpmath.mpf(1) / 2 + (rate + mpmath.mpf(1) / n) / 12)
        expected = float(scaled * mpmath.exp(rate * (n - 1)))
    assert unseen_tail(n, *odds) == pytest.approx(expected, rel=1e-11)


def test_where_nothing_is_unseen_the_second_term_is_zero():
    assert unseen_tail(5, 0, 2) == 0.0


# -- known values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "nats"),
    [
        ([1, 1, 2], 1.5874599835494996),
        ([1, 1, 2, 2, 5, 80, 300], 0.6783199782193199),
        ([3, 1, 1, 1, 2, 2, 4, 1], 2.349497195412017),
    ],
)
def test_values_of_infomeasure(counts, nats):
    """Of infomeasure 0.6.3."""
    assert chao_wang_jost(torch.tensor(counts), unit="nats") == pytest.approx(nats, abs=1e-13)


def test_closed_forms():
    # Two samples of two symbols: A = 2/3, and psi(2) - psi(1) = 1.
    assert chao_wang_jost(torch.tensor([1, 1]), unit="nats") == pytest.approx(3 * math.log(1.5), abs=1e-14)
    assert chao_wang_jost(torch.tensor([1, 1])) == pytest.approx(3 * math.log2(1.5), abs=1e-14)
    # One symbol was seen once and none twice, or none once: the first sum alone, of harmonic numbers.
    assert chao_wang_jost(torch.tensor([3, 1]), unit="nats") == pytest.approx(3 / 4 / 3 + (1 + 1 / 2 + 1 / 3) / 4)
    assert chao_wang_jost(torch.tensor([2, 2]), unit="nats") == pytest.approx(1 / 2 + 1 / 3)


@pytest.mark.parametrize("n", [10**4, 10**6])
def test_a_symbol_for_every_sample_reads_twice_log_n(n):
    value = chao_wang_jost(torch.ones(n, dtype=torch.int64), unit="nats")
    assert value == pytest.approx(2 * math.log(n) - math.log(2), abs=20 / n * math.log(n))


@pytest.mark.parametrize("seed", [0, 1])
def test_twelve_fair_bits_from_five_thousand_samples(seed):
    ids = ints(2**12, 5000, seed)
    assert entropy(ids) < 11.4
    assert entropy(ids, correction="chao_wang_jost") == pytest.approx(12, abs=0.01)


# -- laws --------------------------------------------------------------------------------------------------------------


@law
@given(some_counts)
def test_unseen_symbols_add_to_what_was_seen(counts):
    n, psi = sum(counts), scipy.special.digamma
    seen = sum(c * (psi(n) - psi(c)) for c in counts if c) / n
    value = chao_wang_jost(torch.tensor(counts), unit="nats")
    assert value >= seen - 1e-12
    if counts.count(1) < 1 + (counts.count(2) == 0):
        assert value == pytest.approx(seen, abs=1e-12)


@law
@given(some_counts)
def test_the_number_of_unseen_symbols_is_chaos(counts):
    n, once, twice = sum(counts), counts.count(1), counts.count(2)
    table = counts_of_counts(torch.tensor(counts))
    # In integers: the smallest number that is no less than the estimate.
    above, below = ((n - 1) * once**2, 2 * n * twice) if twice else ((n - 1) * once * (once - 1), 2 * n)
    unseen = unseen_symbols(table)
    assert below * unseen >= above
    assert below * (unseen - 1) < above or unseen == 0
    a, b = singleton_probability(table)
    assert a >= 0
    assert b >= 2


def test_it_is_exported():
    assert lightning_ib.functional.chao_wang_jost is chao_wang_jost
