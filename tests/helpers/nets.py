"""Networks whose layers are functions one knows."""

import torch
from torch import nn


class Function(nn.Module):
    """A layer that is a function one knows."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def known_net(**functions):
    """Layers side by side, each on the input itself."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            for name, function in functions.items():
                self.add_module(name, Function(function))

        def forward(self, x):
            return sum(module(x).sum() for module in self.children()) * self.weight

    return Net()
