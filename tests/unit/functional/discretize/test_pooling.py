"""Maxima over windows: PyTorch's, to the last bit."""

import math

import pytest
import torch
from torch import nn

from lightning_ib import Quantizer
from lightning_ib.functional.discretize.pooling import max_pool
from tests.helpers.samples import generator

POOLS = [
    ((5, 3, 14, 15), nn.MaxPool2d(4), (4, 4)),
    ((5, 16, 14, 14), nn.MaxPool3d((4, 4, 4)), (4, 4, 4)),
    ((5, 32, 7, 7), nn.MaxPool3d((4, 3, 3)), (4, 3, 3)),
    ((2, 3, 4, 5, 6), nn.MaxPool3d((1, 2, 6)), (1, 2, 6)),
    ((5, 9), nn.MaxPool1d(2), (2,)),
    ((5, 2, 9), nn.MaxPool1d(1), (1,)),
]


def values(shape, dtype=torch.float32):
    z = torch.randn(shape, generator=generator(0)).to(dtype)
    z.view(-1)[:: 2 * shape[-1] + 1] = math.nan
    z.view(-1)[1 :: 3 * shape[-1] + 1] = -math.inf
    return z


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "pool", "window"), POOLS, ids=str)
def test_maxima_are_those_of_pytorch(shape, pool, window, dtype):
    z = values(shape, dtype)
    torch.testing.assert_close(max_pool(z, window), pool(z), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_maximum(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    z = values((100, 16, 14, 14))
    torch.testing.assert_close(max_pool(z, (4, 4, 4)), nn.MaxPool3d(4)(z), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_changes_no_maximum_and_the_values_stay(format):
    z = values((4, 8, 12, 12)).to(memory_format=format)
    before = z.clone()
    expected = nn.MaxPool3d((2, 3, 4))(z.contiguous())
    torch.testing.assert_close(max_pool(z, (2, 3, 4)), expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(z, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(4),
        nn.MaxPool2d((2, 7)),
        nn.MaxPool2d(3, stride=2),
        nn.MaxPool2d(3, padding=1),
        nn.MaxPool2d(3, ceil_mode=True),
        nn.MaxPool2d(3, stride=3, dilation=2),
        nn.MaxPool3d((4, 4, 4)),
        nn.Sequential(nn.MaxPool2d(2)),
        nn.AvgPool2d(2),
    ],
    ids=str,
)
def test_a_quantizer_pools_as_its_pool_does(pool):
    z, quantizer = torch.randn(3, 8, 14, 14, generator=generator(1)), Quantizer(pool)
    for _ in range(2):
        assert torch.equal(quantizer.pooled(z), pool(z).flatten(1))


def test_hooks_and_subclasses_of_a_pool_are_respected():
    class Doubled(nn.MaxPool2d):
        def forward(self, z):
            return 2 * super().forward(z)

    hooked = nn.MaxPool2d(2)
    hooked.register_forward_hook(lambda module, args, output: 2 * output)
    z = torch.randn(3, 2, 4, 4, generator=generator(1))
    for pool in (Doubled(2), hooked):
        assert torch.equal(Quantizer(pool).pooled(z), 2 * nn.MaxPool2d(2)(z).flatten(1))


def test_a_window_larger_than_the_activation_is_refused_as_by_pytorch():
    with pytest.raises(RuntimeError):
        Quantizer(nn.MaxPool2d(8)).pooled(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize("window", [(2, 2), (3, 3)])
def test_values_that_require_a_gradient_are_detached(window):
    z = torch.randn(2, 3, 6, 6, generator=generator(1)).requires_grad_()
    found = max_pool(z, window)
    assert not found.requires_grad
    assert torch.equal(found, nn.MaxPool2d(window)(z.detach()))
