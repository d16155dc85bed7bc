"""Counting and discretizing: closed forms, other libraries, laws that hold for any data, and ids that never change."""

import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
import torchmetrics.functional.clustering
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib.functional import (
    NOT_FINITE,
    add_entropies,
    bucketize,
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    entropy_of_counts,
    hash_table,
    information_bottleneck,
    joint,
    mutual_information,
    quantiles,
    row_ids,
    symbols,
)
from tests.helpers import ROOT

LAST_BIT = 1e-12  # what float64 can leave of sums of a few entropies
INT64 = torch.iinfo(torch.int64)

# The same examples at every run, on every machine: a failure is never a matter of luck.
law = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ints(high, n, seed=0):
    return torch.randint(high, (n,), generator=generator(seed))


# --- Closed forms ----------------------------------------------------------------------------------------------------


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


# --- Other libraries -------------------------------------------------------------------------------------------------


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


# --- Laws ------------------------------------------------------------------------------------------------------------

symbol = st.integers(-3, 3) | st.sampled_from([INT64.min, INT64.max, 2**40, -(2**40)])
units = st.sampled_from(["bits", "nats"])


@st.composite
def variables(draw, how_many):
    n = draw(st.integers(1, 60))
    columns = []
    for _ in range(how_many):
        constant = draw(st.booleans()) and draw(st.booleans())
        column = [draw(symbol)] * n if constant else draw(st.lists(symbol, min_size=n, max_size=n))
        columns.append(torch.tensor(column))
    return columns


@law
@given(variables(2), units)
def test_information_is_symmetric_to_the_last_bit(ab, unit):
    a, b = ab
    assert mutual_information(a, b, unit=unit) == mutual_information(b, a, unit=unit)


@law
@given(variables(2), units)
def test_information_lies_between_zero_and_the_smaller_entropy(ab, unit):
    a, b = ab
    h_a, h_b = entropy(a, unit=unit), entropy(b, unit=unit)
    log_n = math.log2(len(a)) if unit == "bits" else math.log(len(a))
    assert 0.0 <= mutual_information(a, b, unit=unit) <= min(h_a, h_b) + LAST_BIT
    assert 0.0 <= h_a <= log_n + LAST_BIT


@law
@given(variables(2))
def test_entropies_follow_the_chain_rule(ab):
    a, b = ab
    h_ab = entropy_of_counts(joint(symbols(a), symbols(b)).counts)
    assert entropy(b) + conditional_entropy(a, given=b) == pytest.approx(h_ab, abs=LAST_BIT)
    assert entropy(a) - conditional_entropy(a, given=b) == pytest.approx(mutual_information(a, b), abs=LAST_BIT)
    assert 0.0 <= conditional_entropy(a, given=b) <= entropy(a) + LAST_BIT


@law
@given(variables(3))
def test_informations_follow_the_chain_rule(abc):
    a, b, c = abc
    bc = joint(symbols(b), symbols(c)).numbers
    conditional = conditional_mutual_information(a, b, given=c)
    assert conditional >= 0.0
    assert conditional + mutual_information(a, c) == pytest.approx(mutual_information(a, bc), abs=LAST_BIT)
    given_c = conditional_entropy(a, given=c) - conditional_entropy(a, given=bc)
    assert conditional == pytest.approx(given_c, abs=LAST_BIT)


@law
@given(variables(3))
def test_processing_cannot_add_information(abc):
    a, b, _ = abc
    coarser = a.remainder(2)
    assert mutual_information(coarser, b) <= mutual_information(a, b) + LAST_BIT


@law
@given(variables(3), units, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_not_one_bit(abc, unit, shuffler):
    order = list(range(len(abc[0])))
    shuffler.shuffle(order)
    a, b, c = abc
    p, q, r = (v[order] for v in abc)
    assert entropy(p, unit=unit) == entropy(a, unit=unit)
    assert mutual_information(p, q, unit=unit) == mutual_information(a, b, unit=unit)
    assert conditional_entropy(p, given=q, unit=unit) == conditional_entropy(a, given=b, unit=unit)
    assert conditional_mutual_information(p, q, given=r, unit=unit) == conditional_mutual_information(
        a, b, given=c, unit=unit
    )


@law
@given(variables(3), units, st.integers(INT64.min, INT64.max), st.integers(0, 2**62))
def test_the_names_of_the_symbols_change_not_one_bit(abc, unit, offset, half):
    # An odd factor and any offset permute the 64-bit integers: order and gaps of the ids are gone, equality is not.
    renamed = [v * (2 * half + 1) + offset for v in abc]
    assert entropy(renamed[0], unit=unit) == entropy(abc[0], unit=unit)
    assert mutual_information(*renamed[:2], unit=unit) == mutual_information(*abc[:2], unit=unit)
    assert conditional_entropy(renamed[0], given=renamed[1], unit=unit) == conditional_entropy(
        abc[0], given=abc[1], unit=unit
    )
    assert conditional_mutual_information(*renamed[:2], given=renamed[2], unit=unit) == conditional_mutual_information(
        *abc[:2], given=abc[2], unit=unit
    )


@law
@given(variables(1), units)
def test_a_variable_tells_all_of_itself(a, unit):
    (a,) = a
    assert mutual_information(a, a, unit=unit) == entropy(a, unit=unit)
    assert conditional_entropy(a, given=a, unit=unit) == 0.0
    assert mutual_information(a, torch.arange(len(a)), unit=unit) == pytest.approx(entropy(a, unit=unit), abs=LAST_BIT)


@law
@given(variables(2), symbol)
def test_a_constant_tells_nothing(ab, value):
    a, b = ab
    constant = torch.full_like(a, value)
    assert entropy(constant) == 0.0
    assert mutual_information(a, constant) == 0.0
    assert conditional_entropy(a, given=constant) == entropy(a)
    assert conditional_mutual_information(a, b, given=constant) == pytest.approx(mutual_information(a, b), abs=LAST_BIT)


@law
@given(variables(2))
def test_nats_are_bits_times_ln_2(ab):
    a, b = ab
    assert entropy(a, unit="nats") == pytest.approx(entropy(a) * math.log(2), abs=LAST_BIT)
    assert mutual_information(a, b, unit="nats") == pytest.approx(mutual_information(a, b) * math.log(2), abs=LAST_BIT)


@law
@given(variables(2))
def test_symbols_are_numbered_and_counted(ab):
    a, b = ab
    numbers, counts = symbols(a)
    values = sorted(set(a.tolist()))
    assert [values[k] for k in numbers.tolist()] == a.tolist()
    assert counts.tolist() == [a.tolist().count(v) for v in values]
    assert counts.dtype == numbers.dtype == torch.int64
    pairs = sorted(zip(a.tolist(), b.tolist()))
    both = joint(symbols(a), symbols(b))
    assert both.counts.tolist() == [pairs.count(pair) for pair in sorted(set(pairs))]
    assert len(both.numbers) == len(a)


# --- What is taken in ------------------------------------------------------------------------------------------------

INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_integer_dtype_gives_the_same_figures(dtype):
    a, b = ints(2, 400), ints(2, 400, seed=1) | ints(2, 400, seed=2)
    assert entropy(a.to(dtype)) == entropy(a)
    assert mutual_information(a.to(dtype), b) == mutual_information(a, b)
    assert conditional_entropy(a, given=b.to(dtype)) == conditional_entropy(a, given=b)
    assert entropy_of_counts(torch.tensor([1, 1]).to(dtype if dtype != torch.bool else torch.int8)) == 1.0


def test_arguments_are_left_as_they_are_and_need_not_be_contiguous():
    both = torch.stack([ints(5, 100), ints(3, 100, seed=1)], dim=1)
    before = both.clone()
    a, b = both[:, 0], both[:, 1]
    assert mutual_information(a, b) == mutual_information(a.contiguous(), b.contiguous())
    assert torch.equal(both, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_real_values_are_no_symbols(dtype):
    with pytest.raises(TypeError, match=rf"ids must be symbols, a tensor of integers of shape \(N,\), got {dtype}"):
        entropy(torch.zeros(4, dtype=dtype))


@pytest.mark.parametrize("shape", [(), (0,), (4, 1), (2, 3)])
def test_ids_have_one_dimension_and_at_least_one_sample(shape):
    with pytest.raises(ValueError, match=r"ids must have shape \(N,\) with N at least 1, got \("):
        entropy(torch.zeros(shape, dtype=torch.int64))


def test_a_joint_needs_the_same_samples():
    with pytest.raises(ValueError, match="same samples of both variables, got 4 of one and 3 of the other"):
        mutual_information(torch.arange(4), torch.arange(3))
    with pytest.raises(ValueError, match="same samples"):
        conditional_mutual_information(torch.arange(4), torch.arange(4), given=torch.arange(5))


@pytest.mark.parametrize("unit", ["bit", "Bits", "hartley", "", None])
def test_an_unknown_unit_is_refused(unit):
    with pytest.raises(TypeError if unit is None else ValueError, match=f"unit must be 'bits' or 'nats', got {unit!r}"):
        entropy(torch.arange(4), unit=unit)


@pytest.mark.parametrize("counts", [torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)])
def test_counts_of_nothing_have_no_entropy(counts):
    with pytest.raises(ValueError, match="at least one sample"):
        entropy_of_counts(counts)


def test_zero_counts_count_for_nothing():
    assert entropy_of_counts(torch.tensor([0, 3, 0, 1])) == entropy_of_counts(torch.tensor([1, 3]))


def test_only_rounding_is_rounded_away():
    assert add_entropies(1.0, 1.0, -2.0 - 4e-16) == 0.0
    assert add_entropies(1.0, -1.0 - 1e-9) == pytest.approx(-1e-9, rel=1e-6)
    assert math.isnan(add_entropies(1.0, math.nan))


# --- Codes -----------------------------------------------------------------------------------------------------------

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def digitized(z, edges):
    """NumPy's answer, in float64, which holds every smaller dtype exactly."""
    values, edges = z.double().numpy(), edges.double().numpy()
    columns = [np.digitize(values[:, d], edges if edges.ndim == 1 else edges[d]) for d in range(values.shape[1])]
    return torch.from_numpy(np.stack(columns, axis=1))


def neighbors(edges, dtype):
    """Each edge in ``dtype``, and the two numbers of ``dtype`` next to it."""
    near = edges.to(dtype)
    infinity = torch.full_like(near, math.inf)
    return torch.cat([near, near.nextafter(infinity), near.nextafter(-infinity)])


@pytest.mark.parametrize("edge_dtype", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_codes_are_numpys_for_every_pair_of_dtypes(dtype, edge_dtype):
    edges = torch.tensor(
        [-1e30, -65504.0, -3.3, -1.0, -1 / 3, -1e-7, 0.0, 1e-40, 1e-7, 0.1, 0.1, 0.3, 1 / 3, 1.0, 65504.0, 1e30, 1e300],
        dtype=torch.float64,
    ).to(edge_dtype)
    special = torch.tensor([math.inf, -math.inf, -0.0, 0.0, math.nan], dtype=dtype)
    normal = 3 * torch.randn(500, generator=generator()).to(dtype)
    z = torch.cat([neighbors(edges, dtype), special, normal]).unsqueeze(1)
    assert torch.equal(bucketize(z, edges=edges), digitized(z, edges))


def test_a_value_equal_to_an_edge_belongs_above_it_in_every_precision():
    edge = torch.tensor([0.1], dtype=torch.float64)
    # float32's 0.1 lies above float64's, and its 0.7 below: rounded to float32 both edges would seem to be met.
    assert bucketize(torch.tensor([[0.1]]), edges=edge).item() == 1
    assert bucketize(torch.tensor([[0.7]]), edges=torch.tensor([0.7], dtype=torch.float64)).item() == 0
    assert bucketize(edge.unsqueeze(1), edges=edge).item() == 1
    assert bucketize(edge.unsqueeze(1), edges=torch.tensor([0.1])).item() == 0


floats32 = st.floats(width=32, allow_nan=False)
floats64 = st.floats(allow_nan=False)


@law
@given(st.data(), st.booleans(), st.booleans(), st.booleans())
def test_codes_are_numpys_for_any_values(data, wide_values, wide_edges, edges_by_coordinate):
    d, e, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    drawn = st.lists(floats64 if wide_edges else floats32, min_size=e, max_size=e).map(sorted)
    edge_dtype = torch.float64 if wide_edges else torch.float32
    edges = torch.tensor([data.draw(drawn) for _ in range(d)] if edges_by_coordinate else data.draw(drawn)).to(
        edge_dtype
    )
    if wide_edges:
        edges = torch.tensor(edges.tolist(), dtype=torch.float64)
    dtype = torch.float64 if wide_values else torch.float32
    at_edges = st.sampled_from(neighbors(edges.flatten(), dtype).tolist())
    value = (floats64 if wide_values else floats32) | at_edges
    z = torch.tensor(data.draw(st.lists(st.lists(value, min_size=d, max_size=d), min_size=n, max_size=n)), dtype=dtype)
    assert torch.equal(bucketize(z, edges=edges), digitized(z, edges))


@pytest.mark.parametrize("edges", [torch.linspace(-2, 2, 29), torch.randn(40, 7, generator=generator()).sort().values])
def test_codes_are_numpys_on_many_coordinates(edges):
    z = torch.randn(1000, 40, generator=generator(1))
    found = bucketize(z, edges=edges)
    assert found.dtype == torch.int64
    assert found.shape == z.shape
    assert torch.equal(found, digitized(z, edges))


def test_codes_take_any_memory_layout_and_no_rows():
    z, edges = torch.randn(7, 5, generator=generator()), torch.linspace(-1, 1, 5)
    by_coordinate = torch.stack([edges - 1, edges, edges + 1, edges, edges])
    strided = by_coordinate.t().contiguous().t()
    assert torch.equal(bucketize(z.t().contiguous().t(), edges=strided), bucketize(z, edges=by_coordinate))
    assert torch.equal(
        bucketize(torch.cat([z, z], 1)[:, ::2][:, :5], edges=edges),
        bucketize(torch.cat([z, z], 1)[:, ::2], edges=edges),
    )
    assert bucketize(z[:0], edges=edges).shape == (0, 5)


def test_equal_edges_leave_a_bin_empty():
    z = torch.tensor([[-1.0], [0.0], [1.0]])
    assert bucketize(z, edges=torch.tensor([0.0, 0.0, 0.0])).flatten().tolist() == [0, 3, 3]


@pytest.mark.parametrize("shape", [(), (4,), (4, 3, 2)])
def test_bucketize_wants_rows_of_coordinates(shape):
    with pytest.raises(ValueError, match=r"values must have shape \(N, D\), got \("):
        bucketize(torch.zeros(shape), edges=torch.tensor([0.0]))


@pytest.mark.parametrize("shape", [(), (1, 2), (4, 2), (2, 3), (3, 2, 1)])
def test_edges_must_fit_the_coordinates(shape):
    with pytest.raises(ValueError, match=r"edges of shape .* do not fit values of shape \(5, 3\).*\(D, E\) = \(3, E\)"):
        bucketize(torch.zeros(5, 3), edges=torch.zeros(shape))


# --- Quantiles -------------------------------------------------------------------------------------------------------

PROBABILITIES = [0.0, 0.01, 0.1, 1 / 3, 0.5, 0.75, 0.99, 1.0]


def assert_numpys_quantiles(found, z, q):
    """Within two roundings of NumPy's interpolation; a quantile that is a value of the data is that value."""
    expected = np.quantile(z.double().numpy(), q, axis=0).T
    np.testing.assert_allclose(found.numpy(), expected, rtol=5e-16, atol=3e-16 * float(z.double().abs().max()))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 3, 100, 1001])
def test_quantiles_are_numpys(n, dtype):
    z = torch.randn(n, 4, generator=generator()).to(dtype)
    z[:, 1] = 3.25  # constant
    z[:, 2] = z[:, 2].round()  # ties
    found = quantiles(z, q=PROBABILITIES)
    assert found.dtype == torch.float64
    assert found.shape == (4, len(PROBABILITIES))
    assert_numpys_quantiles(found, z, PROBABILITIES)


@law
@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_are_numpys_for_any_values(values, q):
    z = torch.tensor(values, dtype=torch.float64).unsqueeze(1)
    assert_numpys_quantiles(quantiles(z, q=q), z, q)


def test_a_quantile_that_is_a_value_is_exactly_that_value():
    # The thesis' rule, that a value equal to an edge belongs above it, hangs on this.
    z = torch.randn(1025, 3, generator=generator())
    found = quantiles(z, q=[k / 1024 for k in range(1025)])
    assert torch.equal(found, z.sort(0).values.t().double())


@law
@given(st.floats(0.5, 2), st.integers(1, 40), st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_quantiles_never_descend(value, n, ulps):
    # Values a few roundings apart: interpolating between them must not make edges that descend.
    near = [value]
    for _ in range(3):
        near.append(math.nextafter(near[-1], math.inf))
    z = torch.tensor([[near[k]] for k in ulps], dtype=torch.float64)
    assert (quantiles(z, q=[k / n for k in range(n + 1)]).diff() >= 0).all()


@pytest.mark.slow
def test_quantiles_of_more_than_sixteen_million_values():
    z = torch.randn(1_900_000, 9, generator=generator())
    assert z.numel() > 2**24  # where torch.quantile gives up
    before = z[:1000].clone()
    found = quantiles(z, q=[0.01, 0.5, 0.99])
    assert_numpys_quantiles(found, z, [0.01, 0.5, 0.99])
    assert torch.equal(z[:1000], before)


def test_quantiles_of_many_coordinates_are_those_of_each():
    # Enough values for several blocks of coordinates.
    z = torch.randn(250_000, 30, generator=generator())
    found = quantiles(z, q=[0.25, 0.9])
    for d in (0, 15, 16, 29):
        assert torch.equal(found[d : d + 1], quantiles(z[:, d : d + 1], q=[0.25, 0.9]))


# --- Ids -------------------------------------------------------------------------------------------------------------

GOLDEN, SEED, MASK = 0x9E3779B97F4A7C15, 0x243F6A8885A308D3, 2**64 - 1


def table_entry(coordinate, code):
    """SplitMix64 in Python's own integers."""
    x = (((coordinate << 32) + code + 1) * GOLDEN + SEED) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def signed(x):
    x &= MASK
    return x - 2**64 if x >= 2**63 else x


def test_ids_are_what_they_were_in_every_release():
    # Changing one of these makes checkpoints and histories of two releases disagree. Do not.
    assert hash_table(n_coordinates=3, n_codes=4).tolist() == [
        [3220344897584144929, -7775742627565762167, -2497992216553849341, -2616677897587316736],
        [-744243833831076375, 8918944505510792617, 4561517671403551720, -572265915339843722],
        [-2143560711541882022, 1229439247444673343, 1120975740860474767, 3390498418470400347],
    ]
    rows = torch.tensor([[0, 0, 0], [1, 2, 3], [3, 2, 1]])
    assert row_ids(rows, table=hash_table(n_coordinates=3, n_codes=4)).tolist() == [
        332540352211186532,
        176273462308189900,
        3174279021260908327,
    ]
    assert NOT_FINITE == -9223372036854775808


def test_the_table_is_splitmix64_and_the_id_a_sum():
    table = hash_table(n_coordinates=300, n_codes=256)
    for coordinate, code in [(0, 0), (0, 255), (1, 0), (7, 13), (299, 255)]:
        assert table[coordinate, code].item() == signed(table_entry(coordinate, code))
    rows = torch.randint(256, (5, 300), generator=generator())
    expected = [signed(sum(table_entry(d, c) for d, c in enumerate(row))) for row in rows.tolist()]
    assert row_ids(rows, table=table).tolist() == expected


def test_more_codes_or_coordinates_do_not_change_the_ones_before():
    assert torch.equal(hash_table(n_coordinates=20, n_codes=30)[:7, :3], hash_table(n_coordinates=7, n_codes=3))


def test_no_two_entries_of_a_large_table_are_equal():
    table = hash_table(n_coordinates=3000, n_codes=256)
    assert table.unique().numel() == table.numel()


def test_ids_touch_no_random_state():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = row_ids(torch.tensor([[0, 1]]), table=hash_table(n_coordinates=2, n_codes=2))
    torch.manual_seed(1)
    assert torch.equal(row_ids(torch.tensor([[0, 1]]), table=hash_table(n_coordinates=2, n_codes=2)), first)
    torch.set_rng_state(before[0])
    row_ids(bucketize(torch.zeros(4, 2), edges=torch.tensor([0.5])), table=hash_table(n_coordinates=2, n_codes=2))
    quantiles(torch.zeros(4, 2), q=[0.5])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


@law
@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=30), st.integers(1, 30))
def test_rows_are_equal_where_ids_are_whatever_the_batches(rows, batch_size):
    table = hash_table(n_coordinates=3, n_codes=2)
    grid = torch.tensor(rows)
    ids = row_ids(grid, table=table)
    assert ids.dtype == torch.int64
    for i, row in enumerate(rows):
        assert [other == row for other in rows] == (ids == ids[i]).tolist()
    assert torch.equal(torch.cat([row_ids(batch, table=table) for batch in grid.split(batch_size)]), ids)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_codes_of_any_integer_dtype_give_the_same_ids(dtype):
    rows = torch.randint(100, (50, 9), generator=generator())
    assert torch.equal(
        row_ids(rows.to(dtype), table=hash_table(n_coordinates=9, n_codes=100)),
        row_ids(rows, table=hash_table(n_coordinates=9, n_codes=100)),
    )


def distinct(rows_of, n, table, chunk=100_000):
    """How many different ids the rows 0 … n − 1 get; ``rows_of`` makes a chunk of them from their numbers."""
    return torch.cat([row_ids(rows_of(k), table=table) for k in torch.arange(n).split(chunk)]).unique().numel()


def test_a_million_binary_rows_do_not_collide():
    places = torch.arange(20)
    assert distinct(lambda k: (k.unsqueeze(1) >> places) & 1, 2**20, hash_table(n_coordinates=20, n_codes=2)) == 2**20


def test_a_million_numbers_in_base_256_do_not_collide():
    # Neighboring rows differ in one coordinate by one; most coordinates are zero.
    places = 8 * torch.arange(4)
    assert (
        distinct(lambda k: (k.unsqueeze(1) >> places) & 255, 2**20, hash_table(n_coordinates=4, n_codes=256)) == 2**20
    )


@pytest.mark.slow
def test_millions_of_random_rows_do_not_collide():
    table, n = hash_table(n_coordinates=40, n_codes=3), 2_500_000
    rng = generator()
    assert distinct(lambda k: torch.randint(3, (len(k), 40), generator=rng), n, table) == n  # 3**40 rows to draw from


def test_rows_with_one_hot_coordinate_do_not_collide():
    d = 3000
    one_hot = torch.cat([torch.zeros(1, d, dtype=torch.uint8), torch.eye(d, dtype=torch.uint8)])
    assert row_ids(one_hot, table=hash_table(n_coordinates=d, n_codes=256)).unique().numel() == d + 1
    powers = torch.cat([one_hot[1:301, :300] * 2**k for k in range(8)])
    assert row_ids(powers, table=hash_table(n_coordinates=300, n_codes=256)).unique().numel() == len(powers)


def test_rows_with_two_hot_coordinates_do_not_collide():
    d = 400
    first, second = torch.triu_indices(d, d, offset=1)
    rows = torch.zeros(len(first), d, dtype=torch.uint8)
    rows.scatter_(1, torch.stack([first, second], 1), 1)
    assert row_ids(rows, table=hash_table(n_coordinates=d, n_codes=2)).unique().numel() == len(rows)


def test_wide_rows_that_differ_in_one_coordinate_do_not_collide():
    d = 3000
    base = torch.randint(256, (d,), generator=generator(), dtype=torch.int64)
    rows = base.repeat(d, 1)
    rows.diagonal().add_(1).remainder_(256)
    ids = row_ids(torch.cat([base.unsqueeze(0), rows]), table=hash_table(n_coordinates=d, n_codes=256))
    assert ids.unique().numel() == d + 1


@pytest.mark.parametrize(("n_coordinates", "n_codes"), [(32, 3), (8, 16)])
def test_every_sixteen_bits_of_the_ids_are_spread_evenly(n_coordinates, n_codes):
    n, cells = 2**20, 2**16
    rows = torch.randint(n_codes, (n, n_coordinates), generator=generator(), dtype=torch.uint8)
    table = hash_table(n_coordinates=n_coordinates, n_codes=n_codes)
    ids = torch.cat([row_ids(chunk, table=table) for chunk in rows.split(2**16)])
    expected = n / cells
    for shift in (0, 16, 32, 48):
        counts = torch.bincount((ids >> shift) & (cells - 1), minlength=cells).double()
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        # The mean is cells − 1, the standard deviation sqrt(2 (cells − 1)): six of them either way.
        assert abs(chi_square - (cells - 1)) < 6 * math.sqrt(2 * (cells - 1)), shift


def test_truncated_ids_collide_as_often_as_chance():
    n, bits = 2**20, 32
    rows = torch.randint(3, (n, 32), generator=generator(1), dtype=torch.uint8)
    table = hash_table(n_coordinates=32, n_codes=3)
    ids = torch.cat([row_ids(chunk, table=table) for chunk in rows.split(2**16)])
    expected = n * (n - 1) / 2 / 2**bits  # 128
    for half in (ids & (2**bits - 1), (ids >> bits) & (2**bits - 1)):
        assert abs(n - half.unique().numel() - expected) < 6 * math.sqrt(expected)


def test_rows_that_are_not_finite_are_marked():
    z = torch.tensor([[0.0, 1.0], [math.nan, 1.0], [1.0, math.inf], [-math.inf, 0.0], [0.0, 1.0]])
    table = hash_table(n_coordinates=2, n_codes=2)
    rows = bucketize(z, edges=torch.tensor([0.5]))
    ids = row_ids(rows, table=table, values=z)
    assert (ids == NOT_FINITE).tolist() == [False, True, True, True, False]
    assert torch.equal(ids[[0, 4]], row_ids(rows, table=table)[[0, 4]])


# --- Nothing but torch -----------------------------------------------------------------------------------------------

OPTIONAL = ["pytorch_lightning", "lightning", "torchmetrics", "matplotlib", "tensorboard"]


def python_without(blocked, code):
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"
    return subprocess.run(
        [sys.executable, "-c", f"{block}\n{code}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )


@pytest.mark.parametrize("blocked", [OPTIONAL, [*OPTIONAL, "numpy", "scipy", "sklearn"]], ids=["above", "numpy too"])
def test_the_functional_package_needs_only_torch(blocked):
    code = (
        "import torch, lightning_ib.functional as f\n"
        "z = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])\n"
        "table = f.hash_table(n_coordinates=2, n_codes=2)\n"
        "ids = f.row_ids(f.bucketize(z, edges=f.quantiles(z, q=[0.5])), table=table, values=z)\n"
        "assert f.mutual_information(ids, ids) == f.entropy(ids) > 0\n"
        "assert not {f'lightning_ib.{room}' for room in ('measurement', 'binning', 'callbacks')} & sys.modules.keys()\n"
    )
    done = python_without(blocked, code)
    assert done.returncode == 0, done.stderr


def test_everything_public_in_the_functional_package_is_there():
    import lightning_ib.functional

    assert sorted(lightning_ib.functional.__all__) == lightning_ib.functional.__all__
    assert all(hasattr(lightning_ib.functional, name) for name in lightning_ib.functional.__all__)
