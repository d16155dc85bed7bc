"""Counting of quantized networks: the levels of torch.fake_quantize, and ids that tell rows apart as they are."""

import math
import random
import re
import struct

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib.functional.discrete.counting import entropy
from lightning_ib.functional.discretize.quantized import _quantized, mutual_information_quantized, quantized_ids

law = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same_partition(ids, rows):
    """Equal ids for equal rows and only for those, by NumPy's own search for distinct rows."""
    _, numbers = np.unique(np.asarray(rows), axis=0, return_inverse=True)
    pairs = set(zip(ids.tolist(), numbers.reshape(-1).tolist()))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def affine(low, high, bits):
    """The scale and zero point in float32, written out."""
    low, high, top = np.float32(min(low, 0)), np.float32(max(high, 0)), np.float32(2**bits - 1)
    scale = high / top - low / top
    return float(scale), int(np.round(-low / scale))


# --- The levels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("shift", [-9.0, 0.0, 0.7, 9.0])
def test_a_layer_has_the_levels_of_fake_quantize(bits, shift):
    t = normal(200, 30) + shift
    scale, zero_point = affine(t.min(), t.max(), bits)
    expected = torch.fake_quantize_per_tensor_affine(t, scale, zero_point, 0, 2**bits - 1)
    assert torch.equal(_quantized(t, bits, "layer", None), expected)
    assert same_partition(quantized_ids(t, bits=bits), expected)


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
def test_bounds_have_the_levels_of_fake_quantize_and_clip_as_it_does(bits):
    t = 3 * normal(200, 5)
    scale, zero_point = affine(-1.5, 2.0, bits)
    expected = torch.fake_quantize_per_tensor_affine(t, scale, zero_point, 0, 2**bits - 1)
    assert torch.equal(_quantized(t, bits, "layer", (-1.5, 2.0)), expected)
    assert same_partition(quantized_ids(t, bits=bits, bounds=(-1.5, 2.0)), expected)


@pytest.mark.parametrize("bits", [2, 8])
def test_a_tensor_has_the_levels_of_fake_quantize_at_its_own_scale(bits):
    t = normal(100, 12) * torch.arange(1, 101).unsqueeze(1)
    scale, zero_point = zip(*(affine(row.min(), row.max(), bits) for row in t))
    scale, zero_point = torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(t, scale, zero_point, 0, 0, 2**bits - 1)
    assert torch.equal(_quantized(t, bits, "tensor", None), expected)
    assert same_partition(quantized_ids(t, bits=bits, per="tensor"), expected)


def test_halves_go_to_the_even_level_as_in_fake_quantize():
    t = ((torch.arange(-20, 20) + 0.5) * 0.25).unsqueeze(1)
    expected = torch.fake_quantize_per_tensor_affine(t, 0.25, 7, 0, 15)
    assert torch.equal(_quantized(t, 4, "layer", (-1.75, 2.0)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_that_are_round_numbers_are_met_exactly(dtype):
    t = torch.arange(-8, 8, dtype=dtype).unsqueeze(1)
    assert torch.equal(_quantized(t, 4, "layer", None), t)
    assert entropy(quantized_ids(t, bits=4)) == 4
    assert entropy(quantized_ids(t, bits=3)) == pytest.approx(_entropy_of(np.round(np.arange(-8, 8) * 7 / 15)))


def _entropy_of(values):
    share = np.unique(values, return_counts=True)[1] / len(values)
    return -(share * np.log2(share)).sum()


def test_zero_stays_zero_where_all_values_are_above_it():
    t = torch.tensor([[5.0], [6.0], [7.0]])
    assert entropy(quantized_ids(t, bits=1)) == 0  # levels 0 and 7
    assert torch.equal(_quantized(t, 1, "layer", None), torch.full((3, 1), 7.0))


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5, 1e-44, 3e38])
@pytest.mark.parametrize("per", ["layer", "tensor"])
def test_constant_activations_say_nothing(value, per):
    assert mutual_information_quantized(torch.full((5, 4), value), per=per) == 0


def test_a_range_that_no_float32_holds_is_no_trouble():
    t = torch.tensor([[-3e38], [0.0], [3e38]])
    assert mutual_information_quantized(t) == pytest.approx(math.log2(3))


# --- The ids ---------------------------------------------------------------------------------------------------------


@law
@given(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=40))
def test_activations_counted_as_they_are_tell_rows_apart_as_numpy_does(rows):
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert same_partition(quantized_ids(torch.tensor(rows, dtype=dtype), bits=None), rows)


def test_a_million_distinct_rows_have_distinct_ids():
    t = torch.cartesian_prod(*[torch.arange(100.0)] * 3)
    assert len(quantized_ids(t, bits=None).unique()) == 1_000_000
    nearby = 1 + torch.arange(1_000_000, dtype=torch.float64).unsqueeze(1) * 2**-52  # last bits only
    assert len(quantized_ids(nearby, bits=None).unique()) == 1_000_000


def test_zero_and_minus_zero_are_one():
    a, b = quantized_ids(torch.tensor([[0.0, 1.0], [-0.0, 1.0]]), bits=None).tolist()
    assert a == b


def test_the_order_of_coordinates_matters():
    a, b = quantized_ids(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), bits=None).tolist()
    assert a != b


def test_ids_are_of_the_values_whatever_the_precision():
    t = normal(50, 4)
    assert torch.equal(quantized_ids(t, bits=None), quantized_ids(t.double(), bits=None))
    assert torch.equal(quantized_ids(t.half(), bits=None), quantized_ids(t.half().float(), bits=None))


def test_ids_do_not_depend_on_the_blocks_they_are_computed_in(monkeypatch):
    t = normal(40, 17)
    whole = quantized_ids(t)
    monkeypatch.setattr("lightning_ib.functional.discretize.quantized._BLOCK", 80)
    assert torch.equal(quantized_ids(t), whole)


def test_ids_of_parts_at_the_same_bounds_are_the_ids_of_the_whole():
    t, bounds = normal(60, 3), (-2.0, 2.0)
    parts = [quantized_ids(part, bits=3, bounds=bounds) for part in t.split(25)]
    assert torch.equal(torch.cat(parts), quantized_ids(t, bits=3, bounds=bounds))


def test_an_id_is_the_sum_of_scrambled_bits_in_python_integers_too():
    def splitmix64(x):
        x = ((x + 1) * 0x9E3779B97F4A7C15 + 0x243F6A8885A308D3) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    row = [0.5, -3.25, 0.0]
    patterns = [int.from_bytes(struct.pack("<d", v), "little") for v in row]
    expected = sum(splitmix64(p ^ splitmix64(d)) for d, p in enumerate(patterns)) % 2**64
    assert quantized_ids(torch.tensor([row]), bits=None).item() % 2**64 == expected


# --- The information -------------------------------------------------------------------------------------------------


def test_without_labels_it_is_the_entropy_of_the_activations():
    t = normal(300, 2)
    scale, zero_point = affine(t.min(), t.max(), 3)
    levels = torch.fake_quantize_per_tensor_affine(t, scale, zero_point, 0, 7).numpy()
    share = np.unique(levels, axis=0, return_counts=True)[1] / 300
    expected = -(share * np.log(share)).sum()
    assert mutual_information_quantized(t, bits=3, unit="nats") == pytest.approx(expected, abs=1e-12)
    assert mutual_information_quantized(t, bits=3) == pytest.approx(expected / math.log(2), abs=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_with_labels_it_is_scikit_learns(bits):
    t = normal(500, 2)
    y = (t.sum(1) > 0).long() * 7 - 3
    ids = quantized_ids(t, bits=bits)
    expected = sklearn.metrics.mutual_info_score(y, ids)
    assert mutual_information_quantized(t, y, bits=bits, unit="nats") == pytest.approx(expected, abs=1e-10)


def test_fair_bits_are_counted_in_full():
    t = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 8)
    assert mutual_information_quantized(t, bits=1) == 8
    assert mutual_information_quantized(t, t[:, 3].long(), bits=1) == 1


@law
@given(st.integers(1, 8), st.integers(0, 10**6))
def test_a_network_quantized_already_is_counted_as_it_is_with_its_own_bits_too(bits, seed):
    t = torch.randint(2**bits, (64, 2), generator=torch.Generator().manual_seed(seed)).double()
    t[0], t[1] = 0, 2**bits - 1
    assert torch.equal(quantized_ids(t, bits=bits), quantized_ids(t, bits=None))
    assert mutual_information_quantized(t, bits=1) <= mutual_information_quantized(t, bits=bits) + 1e-12


@law
@given(st.integers(0, 10**6), st.integers(-6, 6))
def test_scaling_by_a_power_of_two_and_the_order_of_samples_change_nothing(seed, power):
    t = normal(40, 3, seed=seed)
    y = (t[:, 0] > 0).long()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    expected = mutual_information_quantized(t, y, bits=2)
    assert mutual_information_quantized(t * 2.0**power, y, bits=2) == expected
    assert mutual_information_quantized(t[order], y[order], bits=2) == expected


def test_a_scale_of_its_own_tells_samples_apart():
    t = normal(200, 5)
    assert mutual_information_quantized(t, bits=1) < 5.1
    assert mutual_information_quantized(t, bits=1, per="tensor") == pytest.approx(math.log2(200))


def test_the_shape_of_a_sample_does_not_matter():
    t = normal(20, 2, 3, 4)
    assert torch.equal(quantized_ids(t), quantized_ids(t.flatten(1)))
    assert torch.equal(quantized_ids(t[:, 0, 0, 0]), quantized_ids(t[:, 0, 0, :1]))


# --- Its surroundings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_in_evaluation_and_leaves_everything_as_it_was(mode):
    t = normal(50, 3)
    kept, expected = t.clone(), quantized_ids(t)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with mode():
        assert torch.equal(quantized_ids(t.clone()), expected)
        assert torch.equal(quantized_ids(t, bits=None), quantized_ids(t.clone(), bits=None))
    assert torch.equal(t, kept)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"bits": 8.0}, TypeError, "bits must be an integer from 1 to 16, got 8.0: give a whole"),
        ({"bits": True}, TypeError, "bits must be an integer from 1 to 16, got True: give a whole"),
        (
            {"bits": 0},
            ValueError,
            "bits must be an integer from 1 to 16, got 0: give None for a network that is quantized already.",
        ),
        (
            {"bits": 17},
            ValueError,
            "bits must be an integer from 1 to 16, got 17: give None for a network that is quantized already.",
        ),
        ({"per": "channel"}, ValueError, "per must be 'layer' or 'tensor', got 'channel'."),
        ({"bounds": (1.0, 1.0)}, ValueError, "bounds must be two finite numbers in ascending order, got (1.0, 1.0)."),
        ({"bounds": (0, math.inf)}, ValueError, "bounds must be a finite number, got inf."),
        ({"bounds": (math.nan, 1)}, ValueError, "bounds must be a finite number, got nan."),
        ({"bounds": (0, 1, 2)}, ValueError, "bounds must be two finite numbers in ascending order, got (0, 1, 2)."),
        (
            {"bounds": (0, 1), "bits": None},
            ValueError,
            "bounds are of no use with bits=None, which quantizes nothing: leave them out.",
        ),
        (
            {"bounds": (0, 1), "per": "tensor"},
            ValueError,
            "bounds are of no use with per='tensor', which takes each sample's own: leave them out.",
        ),
        ({"unit": "bit"}, ValueError, "unit must be 'bits' or 'nats', got 'bit': did you mean 'bits'?"),
        ({"y": torch.zeros(3)}, TypeError, "y must be class labels, a tensor of integers of shape (N,), got torch.flo"),
        (
            {"y": torch.zeros(3, dtype=torch.long)},
            ValueError,
            "t and y must be of the same samples, got 4 of one and 3 of the other.",
        ),
    ],
)
def test_what_cannot_be_counted_is_named(arguments, error, words):
    with pytest.raises(error, match="^" + re.escape(words)):
        mutual_information_quantized(torch.zeros(4, 2), **arguments)


def test_activations_that_are_none_are_named():
    with pytest.raises(TypeError, match=r"^t must be a tensor of shape \(N, D\), got a list\.$"):
        quantized_ids([1.0])
    with pytest.raises(ValueError, match=r"^t has NaN or infinite values in 1 of 2 rows"):
        quantized_ids(torch.tensor([[1.0], [math.nan]]))
