"""A network, data and made-up figures for sweeps of the resolution."""

import math

import torch
from torch import nn

from lightning_ib.records.resolution import Resolution


class Exact(nn.Module):
    """Layers that round the same way however the samples are batched."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.same, self.relu, self.image = nn.Identity(), nn.ReLU(), nn.Unflatten(1, (2, 2))

    def forward(self, x):
        return self.image(self.relu(self.same(x))) * self.weight


def exact_data(n=300, d=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, d, generator=generator)
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0.5).long()


def batches(x, y, size=64):
    return list(zip(x.split(size), y.split(size)))


def mean(z):
    return z.mean(1)


def made_up(layers, pools=("none",), sizes=(100, 1000), n_bins=(2, 3, 10), unit="bits"):
    scale = 1.0 if unit == "bits" else math.log(2)
    rows = []
    for layer in layers:
        for pool in pools:
            for b in n_bins:
                for n in sizes:
                    saturation = min(1.0, 0.3 * math.log2(b))
                    h_t = scale * saturation * math.log2(n)
                    rows.append(Resolution(layer, pool, b, n, h_t, scale, scale * 1.5, saturation, b, 0.25, unit))
    return rows
