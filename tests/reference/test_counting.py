"""Counted entropies and informations: closed forms, and other libraries on the same symbols."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
import torchmetrics.functional.clustering

from lightning_ib.functional import (
    bucketize,
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    entropy_of_counts,
    hash_table,
    information_bottleneck,
    mutual_information,
    row_ids,
)
from tests.helpers.counting import LAST_BIT, ints
from tests.helpers.samples import generator

# -- Closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_bits", "plug_in"), [(8, 7.98), (12, 11.67), (16, 13.14)])
@pytest.mark.parametrize("seed", [0, 1])
def test_fair_bits_read_their_stated_plug_in_value(n_bits, plug_in, seed):
    bits = torch.randint(2, (10_000, n_bits), generator=generator(seed)).float()
    edges = torch.tensor([0.5])
    ids = row_ids(bucketize(bits, edges=edges), table=hash_table(n_coordinates=n_bits, n_codes=2))
    assert entropy(ids) == pytest.approx(plug_in, abs=0.01)


def test_all_binary_rows_once_carry_as_many_bits_as_coordinates():
    rows = (torch.arange(2**12).unsqueeze(1) >> torch.arange(12)) & 1
    assert entropy(row_ids(rows, table=hash_table(n_coordinates=12, n_codes=2))) == 12.0


@pytest.mark.parametrize("flip", [0.0, 0.05, 0.1, 0.25, 0.5])
def test_binary_symmetric_channel(flip):
    n = 1000
    sent = torch.arange(2 * n) // n
    received = sent ^ (torch.arange(2 * n) % n < round(flip * n)).long()
    h = 0.0 if flip == 0 else -flip * math.log2(flip) - (1 - flip) * math.log2(1 - flip)
    assert mutual_information(sent, received) == pytest.approx(1 - h, abs=LAST_BIT)
    assert conditional_entropy(received, given=sent) == pytest.approx(h, abs=LAST_BIT)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 10, 1000, 20_000])
@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_noiseless_uniform_symbols_tell_log_m(m, unit):
    sent = torch.arange(m).repeat(3)
    log = math.log2 if unit == "bits" else math.log
    assert entropy(sent, unit=unit) == pytest.approx(log(m), abs=LAST_BIT)
    assert mutual_information(sent, -7 * sent + 3, unit=unit) == pytest.approx(log(m), abs=LAST_BIT)


def test_a_symbol_for_every_sample_reads_log_n():
    n = 300_000
    assert entropy(torch.randperm(n, generator=generator())) == math.log2(n)


def test_independent_grid_holds_no_information_at_all():
    a, b = torch.arange(12).repeat(10), torch.arange(10).repeat_interleave(12)
    assert mutual_information(a, b) == 0.0


def test_exclusive_or_is_told_only_by_both():
    a, b = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    assert mutual_information(a, a ^ b) == 0.0
    assert conditional_mutual_information(a, a ^ b, given=b) == 1.0
    assert conditional_mutual_information(a, a ^ b, given=a) == 0.0


def test_information_about_a_label_of_known_share():
    # T tells which pair of four classes; half of H(Y) is left.
    y = torch.arange(4).repeat(25)
    assert mutual_information(y // 2, y) == 1.0
    assert conditional_entropy(y, given=y // 2) == 1.0


def test_counts_beyond_float32_are_counted_exactly():
    # One odd sample among 2**40: float32 arithmetic would read 0 or noise.
    n = 2**40
    p = 1 / (n + 1)
    exact = -(p * math.log2(p) + (1 - p) * math.log1p(-p) / math.log(2))
    assert entropy_of_counts(torch.tensor([n, 1])) == pytest.approx(exact, rel=1e-9)
    assert entropy_of_counts(torch.tensor([10**15, 10**15])) == 1.0


def test_the_information_bottleneck_functional():
    assert information_bottleneck(i_xt=3.0, i_ty=1.25, beta=4.0) == -2.0
    assert math.isnan(information_bottleneck(i_xt=3.0, i_ty=math.nan, beta=0.5))


# -- Other libraries ---------------------------------------------------------------------------------------------------


@pytest.fixture
def float64_by_default():
    # torchmetrics takes logarithms of integers in the default dtype: in float32 it agrees to 5e-7 only.
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("n_symbols", [2, 10, 60])
@pytest.mark.parametrize("noise", [1, 2, 40])
def test_agrees_with_other_libraries_on_the_same_symbols(n_symbols, noise, float64_by_default):
    a = ints(n_symbols, 5000)
    b = (a + ints(noise, 5000, seed=1)) % n_symbols
    nats = mutual_information(a, b, unit="nats")
    assert nats == pytest.approx(sklearn.metrics.mutual_info_score(a, b), abs=1e-8)
    assert nats == pytest.approx(float(torchmetrics.functional.clustering.mutual_info_score(a, b)), abs=1e-8)
    for unit, base in (("bits", 2), ("nats", math.e)):
        expected = scipy.stats.entropy(np.bincount(a.numpy()), base=base)
        assert entropy(a, unit=unit) == pytest.approx(expected, abs=1e-8)


def test_agrees_with_scipy_on_skewed_counts():
    counts = torch.cat([torch.tensor([1_000_000, 1, 0, 17]), torch.randint(1, 9999, (5000,), generator=generator())])
    assert entropy_of_counts(counts) == pytest.approx(scipy.stats.entropy(counts.numpy(), base=2), abs=1e-8)
