"""Counting: laws that hold for any data, and what is taken in."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.functional import (
    add_entropies,
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    entropy_of_counts,
    joint,
    mutual_information,
    symbols,
)
from tests.helpers.counting import LAST_BIT, ints, law

INT64 = torch.iinfo(torch.int64)


# -- Laws --------------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("n", [1, 1023, 1024, 5000, 40_000])
@pytest.mark.parametrize("n_symbols", [1, 2, 300, 1000, 2**62])
@pytest.mark.parametrize("spread", ["narrow", "wide", "high bits", "low bits"])
def test_an_entropy_is_that_of_the_counts_however_they_are_found(n, n_symbols, spread):
    """By a table of numbers in a small range, and by sorting."""
    drawn = torch.randint(n_symbols, (n,), generator=torch.Generator().manual_seed(n))
    ids = {
        "narrow": drawn - 7,
        "wide": drawn * 6364136223846793005 + 1442695040888963407,
        "high bits": drawn * 2**52,
        "low bits": drawn * 2**20 - 2**62,
    }[spread]
    counts = np.unique(ids.numpy(), return_counts=True)[1]
    assert entropy(ids) == entropy_of_counts(torch.from_numpy(counts))
    assert entropy(ids, correction="grassberger") == entropy_of_counts(
        torch.from_numpy(counts), correction="grassberger"
    )


# -- What is taken in --------------------------------------------------------------------------------------------------

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
