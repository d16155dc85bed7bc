"""The entropy after Nemenman, Shafee & Bialek: quadratures, closed forms, limits, K known and unknown."""

import math

import pytest
import scipy.integrate
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lightning_ib.functional
from lightning_ib.functional import entropy, entropy_of_counts, miller_madow, symbols
from lightning_ib.functional.discrete.multiplicities import counts_of_counts, unseen_symbols
from lightning_ib.functional.discrete.nsb import nsb
from tests.helpers.counting import ints, law

TWENTY = [12, 4, 12, 4, 5, 3, 1, 5, 1, 2, 2, 2, 2, 11, 3, 4, 12, 12, 1, 2]


def nats(counts, k=None):
    return nsb(torch.as_tensor(counts), unit="nats", n_symbols=k)


# -- known values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "k", "expected"),
    [
        (TWENTY, 100, 2.840012048897977),
        ([1, 1, 2], 3, 0.9776853280894696),
        ([5], 2, 0.1483046718750644),
        ([7], 10**6, 0.1855765241545048),
        ([1] * 5, 5, 1.498443019672291),
        ([1] * 5, 100, 3.589270963903211),
        ([1, 1], 10**6, 7.517260344608862),
        ([4, 4, 4, 4], 4, 1.34375033517573),
        ([4, 4], 1000, 0.950790084147364),
        ([1000, 1], 2, 0.008925554587011584),
        ([1, 1, 1, 1, 1, 30], 10**6, 0.8311018042019098),
        ([50, 50], 2, 0.6887252803443131),
        ([1, 1, 1], 10**13, 16.04250405361398),
    ],
)
def test_quadratures_of_mpmath(counts, k, expected):
    """``mpmath.quad`` over log beta, with 30 digits."""
    assert nats(counts, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "k", "expected"),
    [
        (torch.full((10**5,), 100), 10**5, 11.512925364970255),
        (torch.ones(10**6, dtype=torch.int64), 10**12, 27.160875997272885),
        (10**6 // torch.arange(1, 201), 10**6, 4.1489613192191635),
    ],
    ids=["even", "no coincidence", "skewed"],
)
def test_many_samples_and_many_symbols(counts, k, expected):
    """The same integrals in mpmath with 40 digits, for posteriors between 0.01 and 50 wide."""
    assert nats(counts, k) == pytest.approx(expected, abs=1e-9)


def test_the_example_of_ndd():
    """Its integrals are good to five digits."""
    assert nats(TWENTY, 100) == pytest.approx(2.8400090835681375, abs=1e-5)


@pytest.mark.parametrize("k", [2, 10, 10**6, 10**18])
def test_one_sample_leaves_the_uniform_prior(k):
    assert nats([1], k) == pytest.approx(math.log(k) / 2, rel=1e-12)


@pytest.mark.parametrize("k", [2, 5, 1000])
def test_the_mean_over_all_outcomes_is_the_mean_of_the_prior(k):
    """Of two samples: the law of total expectation, with the chance of a coincidence by SciPy."""
    trigamma = lambda z: scipy.special.polygamma(1, z)  # noqa: E731

    def integrand(log_beta):
        beta = math.exp(log_beta)
        return beta * (k * trigamma(k * beta + 1) - trigamma(beta + 1)) * (beta + 1) / (k * beta + 1)

    integral = scipy.integrate.quad(integrand, -math.log(k) - 25, 15, epsabs=1e-11, limit=200)[0]
    coincide = integral / math.log(k)
    assert coincide * nats([2], k) + (1 - coincide) * nats([1, 1], k) == pytest.approx(math.log(k) / 2, abs=1e-6)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_one_possible_symbol_is_certain():
    assert nsb(torch.tensor([7]), n_symbols=1) == 0.0
    assert nsb(torch.tensor([7])) == nsb(torch.tensor([1])) == 0.0


def test_many_samples_of_few_symbols_leave_no_choice():
    counts = torch.bincount(ints(10, 1_000_000))
    value = nsb(counts, n_symbols=10)
    assert value == pytest.approx(miller_madow(counts), abs=1e-5)
    assert value == pytest.approx(entropy_of_counts(counts), abs=1e-5)


def test_a_symbol_for_every_sample_says_what_the_estimated_k_assumes():
    for n in (1000, 100_000):
        assert nats(torch.ones(n, dtype=torch.int64)) == pytest.approx(2 * math.log(n) - 1, abs=0.01)


# -- the number of symbols ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_twelve_fair_bits_with_k_known_estimated_and_seen(seed):
    ids = ints(2**12, 5000, seed)
    counts = symbols(ids).counts
    assert nsb(counts, n_symbols=2**12) == pytest.approx(12, abs=0.02)
    assert entropy(ids, correction="nsb") == nsb(counts) == pytest.approx(12, abs=0.02)
    assert nsb(counts, n_symbols=len(counts)) < 11.6
    assert nsb(counts, n_symbols=10**9) > 12.3


@settings(law, max_examples=40)
@given(st.lists(st.integers(0, 3) | st.integers(1, 10**6), min_size=1, max_size=40).filter(any), st.integers(0, 10**9))
def test_the_entropy_is_between_zero_and_log_k(counts, unseen):
    k = sum(c > 0 for c in counts) + unseen
    assert 0 <= nats(counts, k) <= math.log(k) + 1e-12


@pytest.mark.parametrize("counts", [[1], [1, 1], [1, 1, 2, 0], [2, 2, 9], [1] * 30, TWENTY])
def test_by_default_k_is_estimated(counts):
    k = sum(c > 0 for c in counts) + unseen_symbols(counts_of_counts(torch.tensor(counts)))
    assert nats(counts) == nats(counts, k)


@pytest.mark.parametrize("k", [2, 0, -1, 10**18 + 1])
def test_a_k_out_of_range_is_refused(k):
    with pytest.raises(
        ValueError, match=rf"n_symbols must be an integer from 3 to 10+, got {k}: .* of which 3 were seen"
    ):
        nsb(torch.tensor([1, 0, 2, 3]), n_symbols=k)


@pytest.mark.parametrize("k", [4.0, "4", True])
def test_a_k_of_another_kind_is_refused(k):
    with pytest.raises(TypeError, match="n_symbols must be an integer"):
        nsb(torch.tensor([1, 2]), n_symbols=k)


def test_it_is_exported():
    assert lightning_ib.functional.nsb is nsb


@pytest.mark.parametrize("counts", [[2**62, 1, 1], [2**53, 1], [2**62, 2**61]])
def test_more_samples_than_float64_counts(counts):
    with pytest.raises(ValueError, match=rf"at most 2\*\*53 samples, got {sum(counts)}: leave the correction out"):
        nsb(torch.tensor(counts))
    assert nsb(torch.tensor([2**53 - 1, 1])) == pytest.approx(0, abs=1e-13)
