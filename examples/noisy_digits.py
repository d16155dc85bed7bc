"""Small networks of tanh units that learn scikit-learn's handwritten digits, with noise of several kinds.

Used by ``noise_compresses.py``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER = "code"
"""The layer of six tanh units."""
N_TRAIN = 1400
CHECKS = 10
"""How often the loss is looked up in an epoch, at most."""


class Setting(NamedTuple):
    """How networks are trained.

    Attributes:
        batch_size: the number of images a step; ``None`` for all.
        rate: the learning rate.
        dropout: of the 32 units.
        gradient_noise: the standard deviation of noise in every entry of the gradient, drawn at every step.
        weight_decay: the coefficient.
        batch_norm: whether both hidden layers are normalized.
    """

    batch_size: int | None
    rate: float
    dropout: float = 0.0
    gradient_noise: float = 0.0
    weight_decay: float = 0.0
    batch_norm: bool = False


SETTINGS = {
    "full batch": Setting(None, 0.2),
    "slow full batch": Setting(None, 0.01),
    "batch 128": Setting(128, 0.05),
    "batch 16": Setting(16, 0.02),
    "batch 4": Setting(4, 0.01),
    "dropout 0.3": Setting(128, 0.05, dropout=0.3),
    "gradient noise 0.02": Setting(128, 0.05, gradient_noise=0.02),
    "weight decay 0.001": Setting(128, 0.05, weight_decay=0.001),
    "batch norm": Setting(128, 0.05, batch_norm=True),
}
"""The last four differ from ``batch 128`` in one thing, ``slow full batch`` from ``batch 4`` in the size of batches."""


class Data(NamedTuple):
    """Images with pixels in [0, 1], float32 ``(N, 64)``, and their digits, int64 ``(N,)``."""

    x: Tensor
    y: Tensor


def digits() -> tuple[Data, Data]:
    """The 1797 digits that come with scikit-learn, shuffled: 1400 to train on and 397 to test with."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = torch.from_numpy(bunch.data).float() / 16, torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Data(x[order[:N_TRAIN]], y[order[:N_TRAIN]]), Data(x[order[N_TRAIN:]], y[order[N_TRAIN:]])


def network(setting: Setting) -> nn.Sequential:
    """A network of 64-32-6-10 units; the layer of six is named ``code``. Its weights are those of the random state."""
    first, second, last = nn.Linear(64, 32), nn.Linear(32, 6), nn.Linear(6, 10)
    parts: list[tuple[str, nn.Module]] = [("linear1", first)]
    parts += [("norm1", nn.BatchNorm1d(32))] * setting.batch_norm
    parts += [("hidden", nn.Tanh()), ("dropout", nn.Dropout(setting.dropout)), ("linear2", second)]
    parts += [("norm2", nn.BatchNorm1d(6))] * setting.batch_norm
    parts += [(LAYER, nn.Tanh()), ("out", last)]
    return nn.Sequential(OrderedDict(parts))


@torch.no_grad()
def loss_and_accuracy(net: nn.Module, data: Data) -> tuple[float, float]:
    """The cross-entropy in nats and the accuracy, without dropout and with the running statistics of batch norm."""
    net.eval()
    logits = net(data.x)
    net.train()
    return float(F.cross_entropy(logits, data.y)), float((logits.argmax(1) == data.y).double().mean())


def train(net: nn.Module, setting: Setting, data: Data, target: float, max_epochs: int) -> float:
    """Train until the loss on all of the data is at most the target.

    Returns:
        The number of epochs, a multiple of the tenth part of one; infinite where ``max_epochs`` are not enough.
    """
    weights = list(net.parameters())
    sgd = torch.optim.SGD(weights, lr=setting.rate, momentum=0.9, weight_decay=setting.weight_decay)
    size = setting.batch_size or len(data.x)
    # The rest that fills no batch is left out, so that all steps have the same noise.
    n_batches = len(data.x) // size
    every = max(1, n_batches // CHECKS)
    for epoch in range(max_epochs):
        order = torch.randperm(len(data.x))
        for k in range(n_batches):
            chosen = order[k * size : (k + 1) * size]
            sgd.zero_grad()
            F.cross_entropy(net(data.x[chosen]), data.y[chosen]).backward()
            if setting.gradient_noise:
                for weight in weights:
                    assert weight.grad is not None
                    weight.grad += setting.gradient_noise * torch.randn_like(weight)
            sgd.step()
            if (k + 1) % every == 0 and loss_and_accuracy(net, data)[0] <= target:
                return epoch + (k + 1) / n_batches
    return math.inf
