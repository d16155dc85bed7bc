"""Quantizers: what a pool may do, and what a CellQuantizer is asked for."""

import math
import re

import pytest
import torch
from torch import nn

from lightning_ib import CellQuantizer, FixedBins, QuantileBins, Quantizer
from lightning_ib.functional import sketch
from tests.helpers.quantizers import randn

pytestmark = pytest.mark.usefixtures("one_thread")


# -- Quantizer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "arrives"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.int64, torch.float64),
        (torch.int8, torch.float64),
        (torch.uint8, torch.float64),
        (torch.bool, torch.float64),
    ],
)
@pytest.mark.parametrize("pool", [None, nn.Flatten(), lambda a: a])
def test_every_real_dtype_is_pooled(dtype, arrives, pool):
    x = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 0]]]).to(dtype)
    pooled = Quantizer(pool).pooled(x)
    assert pooled.dtype == arrives
    assert pooled.tolist() == [[0, 1, 1, 1], [1, 0, 0, 0]]


def test_large_integers_keep_their_value():
    x = torch.tensor([2**40, 2**40 + 1])
    assert Quantizer().pooled(x).flatten().tolist() == [2**40, 2**40 + 1]


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (5, 2, 3), (5, 2, 3, 4), (5, 2, 3, 4, 2), (0, 3)])
def test_without_a_pool_every_coordinate_is_kept(shape):
    x = randn(*shape)
    assert torch.equal(Quantizer().pooled(x), x.reshape(shape[0], math.prod(shape[1:])))


def test_pooled_values_have_no_gradient():
    x = randn(4, 3).requires_grad_()
    weights = nn.Linear(3, 2)
    with torch.no_grad():
        assert not Quantizer(weights).pooled(x).requires_grad
    assert not Quantizer().pooled(x * 2).requires_grad


def test_pools_run_in_full_precision_under_autocast():
    pool = nn.Linear(64, 4)
    x = randn(32, 64)
    with torch.no_grad():
        expected = Quantizer(pool).pooled(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(Quantizer(pool).pooled(x), expected)
            assert torch.is_autocast_enabled("cpu")


def test_what_a_pool_puts_out_is_made_real_too():
    assert Quantizer(lambda a: a > 0).pooled(torch.tensor([-1.0, 2.0])).tolist() == [[0.0], [1.0]]
    assert Quantizer(lambda a: a.argmax(1)).pooled(torch.eye(3)).dtype == torch.float64


@pytest.mark.parametrize(
    ("pool", "came"),
    [
        (lambda a: a.mean(), r"\(\)"),
        (lambda a: a.mean(0), r"\(3,\)"),
        (lambda a: a.flatten(), r"\(15,\)"),
        (lambda a: a.t(), r"\(3, 5\)"),
        (lambda a: (a, a), "tuple"),
        (lambda a: a.numpy(), "ndarray"),
        (lambda a: None, "NoneType"),
    ],
)
def test_a_pool_that_breaks_the_batch_is_refused(pool, came):
    with pytest.raises(
        ValueError, match=rf"the pool <lambda> must return a tensor with the batch first, \(5, …\), got {came}"
    ):
        Quantizer(pool).pooled(randn(5, 3))


def test_the_pool_is_named_in_the_refusal():
    with pytest.raises(ValueError, match=r"the pool Flatten\(start_dim=0, end_dim=-1\) must return"):
        Quantizer(nn.Flatten(0)).pooled(randn(5, 3))


def test_a_number_is_no_batch():
    with pytest.raises(ValueError, match=r"got a single number, not a batch \(B, …\)"):
        Quantizer().pooled(torch.tensor(1.0))


def test_complex_values_need_a_pool_that_is_refused_or_real():
    with pytest.raises(ValueError, match="got complex values: take real ones, with pool=torch.view_as_real for one"):
        Quantizer().pooled(torch.zeros(3, 2, dtype=torch.complex64))


def test_the_pool_that_the_refusal_of_complex_values_asks_for_works():
    assert Quantizer(torch.view_as_real).pooled(torch.zeros(3, 2, dtype=torch.complex64)).shape == (3, 4)


@pytest.mark.parametrize("pool", [3, "max", [nn.MaxPool2d(4)]])
def test_a_pool_must_be_callable(pool):
    with pytest.raises(TypeError, match=r"Quantizer: pool must be a callable on \(B, …\) or None, got"):
        Quantizer(pool)


@pytest.mark.parametrize("bins", [30, [0.0, 0.5], FixedBins])
def test_bins_must_be_bins(bins):
    with pytest.raises(TypeError, match=r"Quantizer: bins must be Bins such as FixedBins\(\[0.0, 0.5\]\), got"):
        Quantizer(None, bins)


@pytest.mark.parametrize("make", [Quantizer, CellQuantizer])
def test_select_takes_the_tensor_to_discretize(make):
    pair = (torch.rand(4, 3), torch.rand(4, 2))
    assert make().selected(pair) is pair[0]
    assert make(select=lambda output: output[1]).selected(pair) is pair[1]
    with pytest.raises(ValueError, match="select must return a tensor with the batch first, got tuple"):
        make(select=lambda output: output).selected(pair)
    with pytest.raises(TypeError, match="Quantizer: select must be a callable on the module's output or None, got 1"):
        make(select=1)
    assert repr(make(select=abs)) == repr(make())[:-1] + ", select=abs)"


def test_bins_given_as_the_pool_are_refused():
    with pytest.raises(TypeError, match="pool must be a callable"):
        Quantizer(FixedBins([0.0]))


def test_the_pool_of_the_thesis():
    x = randn(3, 1, 28, 28)
    assert torch.equal(Quantizer(nn.MaxPool2d(4)).pooled(x), nn.functional.max_pool2d(x, 4).flatten(1))


@pytest.mark.parametrize("pool", [nn.ReLU(inplace=True), lambda a: a.clamp_(0, 1)], ids=["relu", "clamp_"])
def test_a_pool_that_works_in_place_leaves_the_activation_alone(pool):
    x = randn(6, 4)
    before = x.clone()
    Quantizer(pool).pooled(x)
    assert torch.equal(x, before)


# -- CellQuantizer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (10,), (128,), (129,), (6, 20), (500, 768), (16, 28, 28)], ids=str)
def test_cells_are_fitted_to_the_sketch_of_the_whole_layer(shape):
    x = randn(6, *shape)
    rows = CellQuantizer().rows(x)
    assert rows.shape == (6, min(128, math.prod(shape)))
    assert torch.equal(rows, sketch(x.reshape(6, -1)))


def test_cells_are_fitted_to_the_sketch_of_what_a_pool_leaves():
    x = randn(6, 3, 20, 20)
    pool = nn.AdaptiveAvgPool2d(2)
    assert torch.equal(CellQuantizer(pool=pool).rows(x), pool(x).flatten(1))
    assert torch.equal(CellQuantizer(pool=lambda a: a[:, 0]).rows(x), sketch(x[:, 0]))


@pytest.mark.parametrize("max_cells", [1, 0, -4, 2.0, True, "16", None])
def test_a_number_of_cells_that_is_none_is_refused(max_cells):
    sentence = f"CellQuantizer: max_cells must be an integer of at least 2, got {max_cells!r}: "
    with pytest.raises((TypeError, ValueError), match=re.escape(sentence)):
        CellQuantizer(max_cells)


@pytest.mark.parametrize("pool", [3, "max", FixedBins([0.0])])
def test_the_pool_of_cells_must_be_callable(pool):
    with pytest.raises(TypeError, match=r"CellQuantizer: pool must be a callable on \(B, …\) or None, got"):
        CellQuantizer(pool=pool)


def test_cells_know_no_bins():
    with pytest.raises(TypeError, match="bins"):
        CellQuantizer(bins=QuantileBins(4))
