"""A layer to measure, and the numbers in what is said of it."""

import re
import warnings

import torch
from torch import nn

from lightning_ib import InformationPlane
from lightning_ib.records.reliability import VerdictWarning


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return self.layer(x)


def measured(z, quantizer, *, again=None):
    """The point of a layer that puts out ``z``, and the advice given, if any; ``again`` is a second measurement."""
    plane = InformationPlane({"layer": quantizer})
    with warnings.catch_warnings(record=True) as caught, plane.attach(model := Layer()):
        warnings.simplefilter("always")
        for k, values in enumerate([z] if again is None else [z, again]):
            plane.reset()
            model(values)
            plane.update(values, torch.arange(len(values)) % 3)
            (point,) = plane.compute(epoch=k)
    told = [str(one.message) for one in caught if one.category is VerdictWarning]
    assert len(told) <= 1
    return point, "".join(told)


def numbers(pattern, text):
    found = re.search(pattern, text)
    return [float(group) for group in found.groups()] if found else None


def first_coordinates(n):
    return lambda z: z[:, : int(n)]
