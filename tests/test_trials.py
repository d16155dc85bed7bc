"""What the trials of the default found (``benchmarks/trials.py``): sentences that send no one astray."""

import math

import pytest
import torch
from torch import nn

from lightning_ib import Quantizer, UniformBins, measure


@pytest.mark.parametrize("shape", [(400,), (400, 1)])
def test_class_labels_that_came_as_real_numbers_are_taken_as_the_refusal_says(shape):
    # Bins of equal mass, which other real values are offered, would put all but the rarest class into one.
    y = (torch.arange(400) % 20 == 0).float().reshape(shape)
    model, batch = nn.Sequential(nn.Linear(1, 1)), (y.reshape(-1, 1), y)
    with pytest.raises(ValueError, match=r"but whole numbers: .* unpack=lambda batch: \(batch\[0\], batch\[1\].long"):
        measure(model, [batch], ["0"])
    unpack, target = lambda batch: (batch[0], batch[1].long()), Quantizer(bins=UniformBins(10))
    for options in ({"unpack": unpack}, {"target": target}):
        (point,) = measure(model, [batch], ["0"], **options)
        assert point.h_y == pytest.approx(-0.05 * math.log2(0.05) - 0.95 * math.log2(0.95))
