"""The sketch of a layer: distances kept, whatever its width, its dtype and its batches."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from lightning_ib.functional import cells, sketch
from lightning_ib.functional.discretize import sketch as sketches
from tests.helpers.samples import generator

WIDTHS = [1, 2, 127, 128, 129, 200, 1023, 1024, 1025, 5000]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


@pytest.mark.parametrize("shape", [(), (1,), (128,), (4, 4, 8), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_coordinates_are_kept_as_they_are(shape, dtype):
    x = randn(7, *shape).to(dtype)
    found = sketch(x)
    assert found.dtype == dtype
    assert torch.equal(found, x.reshape(7, -1))


@pytest.mark.parametrize("width", WIDTHS)
def test_at_most_128_coordinates_are_left(width):
    assert sketch(randn(3, width)).shape == (3, min(width, 128))
    assert sketch(randn(3, width), width=16).shape == (3, min(width, 16))


@pytest.mark.parametrize("width", [129, 500, 1025, 4096])
def test_distances_are_kept(width):
    """Of 40 points, 780 distances: their squares scatter with a relative standard deviation of at most sqrt(2/128)."""
    x = randn(40, width) * torch.linspace(0.1, 3, width)
    pairs = torch.pdist(sketch(x).double()).square() / torch.pdist(x.double()).square()
    assert pairs.mean() == pytest.approx(1, abs=0.05)
    assert pairs.std() < 1.2 * math.sqrt(2 / 128)
    assert (pairs - 1).abs().max() < 5 * math.sqrt(2 / 128)


@pytest.mark.parametrize("width", [200, 3000])
def test_the_sketch_of_one_coordinate_has_its_length(width):
    """Each row of the matrix is made of signs: a single coordinate loses nothing."""
    for k in (0, 7, width - 1):
        x = torch.zeros(1, width)
        x[0, k] = 3.0
        assert sketch(x).norm().item() == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("width", [200, 3000])
def test_it_is_linear_and_free_of_powers_of_two(width):
    x, y = randn(5, width).double(), randn(5, width, seed=1).double()
    torch.testing.assert_close(sketch(x + 3 * y), sketch(x) + 3 * sketch(y), rtol=1e-10, atol=1e-10)
    assert torch.equal(sketch(4 * x), 4 * sketch(x))


@settings(max_examples=30, deadline=None)
@given(st.integers(129, 2500), st.integers(0, 2500))
def test_zeros_at_the_end_change_nothing(width, n_zeros):
    x = torch.randint(-8, 9, (3, width), generator=generator(width)) / 8.0
    torch.testing.assert_close(sketch(pad(x, (0, n_zeros))), sketch(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_zeros", [1, 70, 900, 5000])
def test_padded_sequences_have_the_cells_of_those_that_are_not(n_zeros):
    x = randn(200, 40, 4) + 3 * torch.eye(4)[torch.arange(200) % 4][:, None]
    padded = pad(x, (0, 0, 0, n_zeros))
    assert torch.equal(cells(sketch(padded)).numbers, cells(sketch(x)).numbers)


@pytest.mark.parametrize("width", [5, 128, 300, 1500])
@pytest.mark.parametrize("size", [1, 7, 64, 500])
@pytest.mark.parametrize("simple", [False, True], ids=["normal", "eighths"])
def test_the_batch_size_does_not_show(width, size, simple):
    """Nor where coordinates of simple numbers cancel each other to zero."""
    x = torch.randint(-8, 9, (500, width), generator=generator()) / 8 if simple else randn(500, width)
    whole, parts = sketch(x), torch.cat([sketch(part) for part in x.split(size)])
    assert torch.equal(parts, whole)
    assert torch.equal(cells(parts).numbers, cells(whole).numbers)


def test_no_random_state_is_touched_or_heeded():
    x = randn(4, 901)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = sketch(x)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(99)
    assert torch.equal(sketch(x), first)


@pytest.mark.parametrize(
    ("dtype", "arrives"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int64, torch.float64),
        (torch.int8, torch.float64),
        (torch.uint8, torch.float64),
        (torch.bool, torch.float64),
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [3, 128, 700])
def test_every_real_dtype_is_sketched(dtype, arrives, width):
    x = torch.randint(0, 2, (6, width), generator=generator()).to(dtype)
    found = sketch(x)
    assert found.dtype == arrives
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), sketch(x.double()), rtol=1e-6, atol=1e-6)


def test_a_quantized_tensor_is_sketched():
    x = torch.randint(0, 2, (6, 300), generator=generator()).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch say that such tensors are on their way out
        quantized = torch.quantize_per_tensor(x, 0.5, 0, torch.quint8)
    assert torch.equal(sketch(quantized), sketch(x))


def test_complex_values_are_refused_in_words():
    with pytest.raises(ValueError, match=r"got complex values: take real ones, with pool=torch\.view_as_real for"):
        sketch(torch.zeros(3, 2, dtype=torch.complex64))


@pytest.mark.parametrize("n_coordinates", [1024, 1025, 1536, 5000, 40_000])
def test_folds_are_halved_to_the_same_sums_whatever_the_batch(n_coordinates):
    # The way of a GPU, here on the host: simple numbers add up alike in any order, others up to rounding.
    signs = sketches._fold_signs(n_coordinates, torch.device("cpu"))
    simple, rows = randn(6, n_coordinates).round(), randn(6, 2 * n_coordinates)[:, ::2]
    assert torch.equal(sketches._halved_folds(simple, signs), sketches._folded(simple))
    found = sketches._halved_folds(rows, signs)
    exact = pad(rows.double() * signs, (0, -n_coordinates % 512)).unflatten(1, (-1, 512)).sum(1)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6 * n_coordinates**0.5)
    assert torch.equal(torch.cat([sketches._halved_folds(rows[i : i + 2], signs) for i in (0, 2, 4)]), found)
    for more in (1, 100, 436, 1536, 40_000):  # zeros at the end
        padded = pad(rows, (0, more))
        found_of_padded = sketches._halved_folds(padded, sketches._fold_signs(padded.shape[1], torch.device("cpu")))
        assert torch.equal(found_of_padded, found)


def test_a_number_is_no_batch():
    with pytest.raises(ValueError, match=r"got a single number, not a batch \(B, …\)"):
        sketch(torch.tensor(1.0))


@pytest.mark.parametrize("width", [3, 300, 3000])
def test_an_empty_batch_has_an_empty_sketch(width):
    assert sketch(torch.empty(0, width)).shape == (0, min(width, 128))


def test_a_hundred_thousand_coordinates():
    y = torch.arange(60) % 3
    x = randn(60, 100_000)
    x[:, :2000] += 2 * torch.eye(3)[y].repeat_interleave(700, 1)[:, :2000]
    z = sketch(x)
    assert z.shape == (60, 128)
    same = y[:, None] == y
    distances = torch.cdist(z, z)
    torch.testing.assert_close(
        distances[~same].mean() / distances[same].sum() * (same.sum() - 60),
        torch.cdist(x, x)[~same].mean() / torch.cdist(x, x)[same].sum() * (same.sum() - 60),
        rtol=0.02,
        atol=0,
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(bad):
    x = randn(4, 600)
    x[2, 599] = bad
    assert (~sketch(x).isfinite()).any(1).tolist() == [False, False, True, False]


def test_the_gradient_is_left_behind():
    assert not sketch(randn(3, 300).requires_grad_()).requires_grad


# -- folds, in either of two ways --------------------------------------------------------------------------------------


def folded_one_by_one(rows):
    """The sums by the definition: one addition after the other, number by number of a fold."""
    signs = sketches._fold_signs(rows.shape[1], rows.device).to(rows.dtype)
    sums = torch.zeros(len(rows), 512, dtype=rows.dtype)
    for start in range(0, rows.shape[1], 512):
        part = rows[:, start : start + 512] * signs[start : start + 512]
        sums[:, : part.shape[1]] = sums[:, : part.shape[1]] + part
    return sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [513, 1023, 1024, 1025, 3136, 20_000])
@pytest.mark.parametrize("n", [0, 1, 2, 17])
def test_folds_are_added_one_after_the_other_to_the_last_bit(n, width, dtype):
    rows = (randn(n, width) * randn(n, width, seed=1).exp()).to(dtype)
    assert torch.equal(sketches._folded(rows), folded_one_by_one(rows))


@pytest.mark.parametrize("away", ["transposed", "without NumPy", "negated"])
def test_memory_and_libraries_change_no_bit_of_a_sketch(away, monkeypatch):
    rows = randn(9, 5000)
    expected = sketch(rows)
    if away == "transposed":
        rows = rows.t().contiguous().t()
    elif away == "negated":
        rows = torch.complex(torch.zeros(9, 5000), -rows).conj().imag
        assert rows.is_neg()
    else:
        monkeypatch.setattr(sketches, "numpy_reads_tensors", lambda: False)
    assert torch.equal(sketch(rows), expected)


@pytest.mark.filterwarnings("error")
def test_infinite_and_missing_values_pass_through_folds_without_a_warning():
    rows = torch.zeros(2, 2048)
    rows[0, 0], rows[1, 512], rows[1, 1024] = math.nan, math.inf, -math.inf
    assert sketches._folded(rows).isfinite().sum(1).tolist() == [511, 511]
