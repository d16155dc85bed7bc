"""Trains the networks of the experiment ``dropout``, and measures the layer with noise epoch by epoch."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ib.evaluation.measure import measure
from lightning_ib.functional import entropy_of_counts
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.reproduce.experiment import finite, seeded
from lightning_ib.reproduce.finished import Row
from lightning_ib.reproduce.known_noise import known_noise_information

LAYER = "noise"
_IN_BATCH = 1000


class GaussianDropout(nn.Module):
    """Multiplies every unit by 1 + noise, in training: T = z (1 + std ε) with standard normal ε.

    Given the input T is normal, with the mean z and the standard deviation ``std`` |z|.

    Args:
        std: of the factor.
    """

    rate: Tensor | float = 0.0

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, z: Tensor) -> Tensor:
        """T in training, z in evaluation."""
        return z * (1 + self.std * torch.randn_like(z)) if self.training else z

    def channel(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation of T given the input, float64."""
        z = z.double()
        return z, self.std * z.abs()


class InformationDropout(nn.Module):
    """Multiplies every unit by a log-normal factor of a width that the input decides, in training: T = z exp(a(x) ε).

    Given the input ln T is normal, with the mean ln z and the standard deviation a(x); it has the information of T.

    Args:
        n_in: units of the layer before.
        n_out: units of this one.
        widest: the widths are up to about so much.
    """

    _NARROWEST, _LEAST = 1e-3, 1e-4

    def __init__(self, n_in: int, n_out: int, widest: float = 0.7) -> None:
        super().__init__()
        self.widest = widest
        self.units = nn.Linear(n_in, n_out)
        self.widths = nn.Linear(n_in, n_out)
        self.rate: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """T in training, z in evaluation; ``rate`` becomes the mean divergence from a standard log-normal prior."""
        mean, std = self._log(x)
        self.rate = ((std.square() + mean.square() - 1) / 2 - std.log()).sum(1).mean()
        return (mean + std * torch.randn_like(mean)).exp() if self.training else mean.exp()

    def _log(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = F.softplus(self.units(x)).clamp_min(self._LEAST)
        return z.log(), self._NARROWEST + self.widest * torch.sigmoid(self.widths(x))

    def channel(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation of ln T given the input, float64."""
        mean, std = self._log(x)
        return mean.double(), std.double()


class Plan(NamedTuple):
    """The setting of the runs.

    Attributes:
        methods: ``"gaussian"`` and ``"information"``.
        n_seeds: for each method.
        n_epochs: of a run; the rate falls along a cosine.
        measured: after which epochs.
        n_train: the first pictures of MNIST's training part.
        n_components: the first pictures of its test part: components of the mixture.
        draws: of T for each of them.
        n_pairwise: so many of them are compared pair by pair.
        p: of the dropout: the factor has the standard deviation p/(1 − p).
        beta: the weight of the divergence over 60 000, of information dropout.
        batch: samples in a batch.
        rate: the learning rate of SGD with momentum 0.9.
        decay: its weight decay.
    """

    methods: tuple[str, ...]
    n_seeds: int
    n_epochs: int
    measured: tuple[int, ...]
    n_train: int
    n_components: int
    draws: int = 4
    n_pairwise: int = 500
    p: float = 0.2
    beta: float = 3.0
    batch: int = 256
    rate: float = 0.1
    decay: float = 1e-3

    @property
    def std(self) -> float:
        """Of the factor."""
        return self.p / (1 - self.p)


def network(method: str, std: float) -> nn.Sequential:
    """LeNet with softplus units on 28 × 28 pixels; the layer ``noise`` has 84 units."""
    front = OrderedDict(
        conv1=nn.Conv2d(1, 6, 5),
        act1=nn.Softplus(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        act2=nn.Softplus(),
        pool2=nn.MaxPool2d(2),
        flat=nn.Flatten(),
        fc1=nn.Linear(256, 120),
        act3=nn.Softplus(),
    )
    if method == "gaussian":
        noisy = OrderedDict(fc2=nn.Linear(120, 84), act4=nn.Softplus(), noise=GaussianDropout(std))
    else:
        noisy = OrderedDict(noise=InformationDropout(120, 84))
    return nn.Sequential(OrderedDict([*front.items(), *noisy.items(), ("fc3", nn.Linear(84, 10))]))


def noisy_layer(model: nn.Sequential) -> GaussianDropout | InformationDropout:
    """The layer with noise."""
    layer = model.get_submodule(LAYER)
    assert isinstance(layer, (GaussianDropout, InformationDropout))
    return layer


@contextmanager
def noise_on(model: nn.Module) -> Iterator[None]:
    """Let the dropout of a model draw, every other module as it is; the mode of each is put back."""
    layers = [module for module in model.modules() if isinstance(module, (GaussianDropout, InformationDropout))]
    modes = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer, mode in zip(layers, modes):
            layer.training = mode


def train(
    data: Sequence[Tensor], plan: Plan, method: str, seed: int, advance: Callable[[int], None], device: str = "cpu"
) -> list[Row]:
    """Train one network; a row for each measured epoch, up to where it diverges.

    Args:
        data: pictures ``(N, 1, 28, 28)`` and labels for training, and those for measuring.
        plan: the setting.
        method: ``"gaussian"`` or ``"information"``.
        seed: of the initial weights, the order of the batches and the noise.
        advance: takes how many epochs were done.
        device: where to train.
    """
    x, y, x_test, y_test = (of.to(device) for of in data)
    with seeded(seed):
        model = network(method, plan.std).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=plan.rate, momentum=0.9, weight_decay=plan.decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=plan.n_epochs)
        rows = []
        for epoch in range(plan.n_epochs + 1):
            if epoch > 0:
                for chosen in torch.randperm(len(x)).split(plan.batch):
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(x[chosen]), y[chosen])
                    if method == "information":
                        loss = loss + plan.beta / 60_000 * noisy_layer(model).rate
                    loss.backward()
                    optimizer.step()
                schedule.step()
                advance(1)
                if not finite(model, x_test):
                    advance(plan.n_epochs - epoch)
                    break
            if epoch in plan.measured:
                rows.append({"method": method, "seed": seed, "epoch": epoch} | measured(model, x_test, y_test, plan))
        return rows


@torch.no_grad()
def measured(model: nn.Sequential, x: Tensor, y: Tensor, plan: Plan) -> Row:
    """All that is measured of a network at one moment, informations in bits; the mode of every module stays."""
    layer = noisy_layer(model)
    before, after = nn.Sequential(), nn.Sequential()
    for k, (name, module) in enumerate(model.named_children()):
        (before if k < list(model._modules).index(LAYER) else after).add_module(name, module)
    mean, std = (torch.cat(of) for of in zip(*(layer.channel(before(part)) for part in x.split(_IN_BATCH))))
    drawn = torch.Generator().manual_seed(0)
    of_x = known_noise_information(mean.cpu(), std.cpu(), draws=plan.draws, generator=drawn, n_pairwise=plan.n_pairwise)
    with noise_on(model):
        logits = torch.cat([model(part) for _ in range(plan.draws) for part in x.split(_IN_BATCH)]).double()
    labels = y.repeat(plan.draws)
    surprise = F.cross_entropy(logits, labels, reduction="none")
    h_y = entropy_of_counts(torch.bincount(y.cpu()))
    bits = {name: value / math.log(2) for name, value in of_x._asdict().items()}
    return {
        "i_xt_lower": bits["lower"],
        "i_xt_lower_error": bits["lower_error"],
        "i_xt_upper": bits["upper"],
        "i_xt_upper_error": bits["upper_error"],
        "i_xt_pairwise_lower": bits["pairwise_lower"],
        "i_xt_pairwise_upper": bits["pairwise_upper"],
        "i_xt_most": math.log2(len(x)),
        "h_t_given_x": bits["noise_entropy"],
        "i_ty_lower": h_y - math.fsum(surprise.tolist()) / len(labels) / math.log(2),
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
    } | _counted(model, x, y)


def _counted(model: nn.Sequential, x: Tensor, y: Tensor) -> Row:
    """What the callback reports of the layer: its network is in evaluation, without noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerdictWarning)  # the verdict is in the table
        (point,) = measure(model, list(zip(x.split(_IN_BATCH), y.split(_IN_BATCH))), [LAYER])
    return {"cells_i_xt": point.i_xt, "cells_i_ty": point.i_ty, "cells_verdict": point.verdict}
