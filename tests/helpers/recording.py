"""A network to watch, and the hooks that are on it."""

from collections import OrderedDict

import torch
from torch import nn


def clone(layer, activation):
    return activation.clone()


def net():
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(first=nn.Linear(4, 8), act=nn.Tanh(), last=nn.Linear(8, 2)))
