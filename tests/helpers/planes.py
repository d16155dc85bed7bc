"""Networks, quantizers and data that planes are tried with."""

import torch
from torch import nn

from lightning_ib import CellQuantizer, FixedBins, QuantileBins, Quantizer, UniformBins
from tests.helpers.samples import generator

WHOLE = Quantizer(None, FixedBins([k + 0.5 for k in range(-64, 64)]))
"""Tells any two small integers apart."""


def batches(x, y, batch_size):
    return list(zip(x.split(batch_size), y.split(batch_size)))


def hooks_on(model):
    return [
        (name, kind)
        for name, module in model.named_modules()
        for kind, value in vars(module).items()
        if "hook" in kind and isinstance(value, dict)
        for _ in value
    ]


def counted(plane, model, data, **where):
    with plane.attach(model):
        for x, y in data:
            model(x)
            plane.update(x, y)
    return plane.compute(**where)


SIXTEEN = torch.arange(16).repeat(4)
"""64 samples: sixteen integers, four times each. Their class is what is left of them by four."""


QUANTIZERS = {
    "cells": lambda: CellQuantizer(),
    "fixed": lambda: Quantizer(None, FixedBins([-0.5, 0.0, 0.5])),
    "uniform": lambda: Quantizer(None, UniformBins(3)),
    "quantile": lambda: Quantizer(lambda a: a[:, :3], QuantileBins(3)),
    "range": lambda: Quantizer(None, UniformBins(3, low=-2, high=2)),
}


class Exact(nn.Module):
    """Linear layers on eighths: the forward rounds nothing, whatever the batches, so figures can be bit-identical."""

    def __init__(self):
        super().__init__()
        for k in range(2):
            layer = nn.Linear(6, 6)
            layer.weight.data = torch.randint(-8, 9, (6, 6), generator=generator(k)) / 8
            layer.bias.data = torch.randint(-8, 9, (6,), generator=generator(k)) / 8
            self.add_module(f"layer{k}", layer)

    def forward(self, x):
        return self.layer1(self.layer0(x).relu())


def exact_data(n=300):
    x = torch.randint(-8, 9, (n, 6), generator=generator()) / 8
    return x, (x.sum(1) > 0).long() + (x[:, 0] > 0).long()


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.extra, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.use_extra = False

    def forward(self, x):
        x = self.trunk(x)
        return self.head(self.extra(x) if self.use_extra else x)


def branches_data(n=40):
    return [(torch.rand(n, 4, generator=generator()), torch.arange(n) % 2)]


LAYERS = {"layer0": Quantizer(None, FixedBins([0.0, 1.0])), "layer1": None}
SHARES = [slice(0, 40), slice(40, 300)]
