"""Trains the networks of the experiment ``generalization`` on clusters, and measures what they keep of the input."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_ib.evaluation.measure import measure
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.reproduce.experiment import finite, seeded
from lightning_ib.reproduce.finished import Row

N_CLASSES = 5
_SPREAD = 0.7
_SIDE = 10.0
_LEAST_STD = 1e-10
_AT_ONCE = 1 << 20
"""Coordinates of pairs of points that are worked on at once."""


class Model(NamedTuple):
    """Which network is trained, and on what.

    Attributes:
        constraint: the rate of the multiplier that holds I(X;Z) at a value; 0 leaves it free.
        width: of the first two layers; the next two have half of it.
        weight_decay: of SGD.
        draw: of the data.
        seed: of the initial weights and the noise.
    """

    constraint: float
    width: int
    weight_decay: float
    draw: int
    seed: int


class Training(NamedTuple):
    """How networks are trained and measured.

    Attributes:
        n_train: training samples.
        n_test: test samples.
        n_information: samples that the information is estimated on.
        n_epochs: steps on the whole training set.
        rate: the learning rate of SGD.
        momentum: of SGD.
        held: what I(X;Z) is held at where it is constrained, in nats.
        n_draws: of the code, that losses are averaged over.
    """

    n_train: int = 50
    n_test: int = 250
    n_information: int = 500
    n_epochs: int = 300
    rate: float = 1e-2
    momentum: float = 0.9
    held: float = 1.5
    n_draws: int = 32


def clusters(n: int, draw: int) -> tuple[Tensor, Tensor]:
    """Points of five Gaussian clusters in the plane, those of scikit-learn's ``make_blobs``.

    The centers are uniform in a square of side 20, and the standard deviation is 0.7.

    Args:
        n: how many, a multiple of five.
        draw: the seed of centers, points and order.

    Returns:
        Points, float32, shape ``(n, 2)``, and labels, int64, shape ``(n,)``.
    """
    import numpy as np

    generator = np.random.RandomState(draw)
    centers = generator.uniform(-_SIDE, _SIDE, size=(N_CLASSES, 2))
    points = np.concatenate([generator.normal(center, _SPREAD, size=(n // N_CLASSES, 2)) for center in centers])
    order = np.arange(n)
    generator.shuffle(order)
    labels = np.arange(N_CLASSES).repeat(n // N_CLASSES)
    return torch.from_numpy(points[order]).float(), torch.from_numpy(labels[order])


class StochasticNetwork(nn.Module):
    """A network that draws its last hidden layer Z from a Gaussian, whose mean and deviations are two networks of x.

    Args:
        width: of the first two layers of each; the next two have half of it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = _layers(width)
        self.std = nn.Sequential(_layers(width), nn.Softplus())
        self.classifier = nn.Linear(width // 2, N_CLASSES)

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The means and the standard deviations of the code, shape ``(N, width // 2)``."""
        return self.mean(x), self.std(x).clamp_min(_LEAST_STD)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of one draw of the code."""
        mean, std = self.code(x)
        logits: Tensor = self.classifier(mean + std * torch.randn_like(mean))
        return logits


def _layers(width: int) -> nn.Sequential:
    half = width // 2
    parts = [nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, half), nn.ReLU(), nn.Linear(half, half))


class CodeInformation(NamedTuple):
    """I(X;Z) of n samples that are equally likely, in nats.

    Attributes:
        monte_carlo: the mean of log p(z|x) − log p(z), one z drawn for each x, p(z) the mixture over the samples; at
            most log n, since x itself is in the mixture.
        upper: the same with the mean of log p(z|x') over the samples in place of log p(z), by Jensen's inequality
            no less.
    """

    monte_carlo: Tensor
    upper: Tensor


def code_information(mean: Tensor, std: Tensor) -> CodeInformation:
    r"""The information in a Gaussian code, from its density.

    .. math::

        \hat I = \frac{1}{n} \sum_i \left[ \log p(z_i \vert x_i) - \log \frac{1}{n} \sum_j p(z_i \vert x_j) \right],
        \qquad z_i \sim p(z \vert x_i)

    Args:
        mean: of the code of each sample, shape ``(n, D)``.
        std: its standard deviations, likewise; the sums are in float64.

    Example:
        Four samples that are far apart are told apart, all log 4 nats of them.

        >>> found = code_information(100 * torch.eye(4), torch.ones(4, 4))
        >>> round(float(found.monte_carlo), 4)
        1.3863
    """
    mean, std = mean.double(), std.double()
    mean = mean - mean.mean(0)
    z = mean + std * torch.randn_like(mean)
    # log p(z_i|x_j) without the constant, which cancels. An expanded square would lose its digits where std is small.
    size = max(1, _AT_ONCE // mean.numel())
    squares = torch.cat([((rows[:, None] - mean) / std).square().sum(2) for rows in z.split(size)])
    logs = -squares / 2 - std.log().sum(1)
    own = logs.diagonal()
    return CodeInformation((own - logs.logsumexp(1)).mean() + math.log(len(z)), (own - logs.mean(1)).mean())


def train(model: Model, training: Training) -> Row:
    """Train one network, and measure it unless it diverged; the random states of the caller are left alone."""
    x, y = clusters(training.n_train + training.n_test, model.draw)
    n = training.n_train
    with seeded(model.seed):
        network = StochasticNetwork(model.width)
        optimizer = torch.optim.SGD(
            network.parameters(), lr=training.rate, momentum=training.momentum, weight_decay=model.weight_decay
        )
        multiplier = 0.0
        for _ in range(training.n_epochs):
            optimizer.zero_grad()
            loss = cross_entropy(network(x[:n]), y[:n])
            if model.constraint:
                excess = training.held - code_information(*network.code(x[:n])).monte_carlo
                loss = loss + multiplier * excess
                multiplier += model.constraint * float(excess.detach())
            loss.backward()
            optimizer.step()
        if not finite(network, x):
            return model._asdict() | {"train_accuracy": math.nan, "verdict": "diverged"}
        return model._asdict() | _measured(network, x, y, model.draw, training)


@torch.no_grad()
def _measured(network: StochasticNetwork, x: Tensor, y: Tensor, draw: int, training: Training) -> Row:
    """Losses and errors on both parts, the information in the code, the size of the weights."""
    row: Row = {}
    n = training.n_train
    for part, points, labels in (("train", x[:n], y[:n]), ("test", x[n:], y[n:])):
        mean, std = (values.expand(training.n_draws, -1, -1) for values in network.code(points))
        logits = network.classifier(mean + std * torch.randn_like(mean)).double()
        losses = cross_entropy(logits.flatten(0, 1), labels.repeat(training.n_draws), reduction="none")
        row[f"{part}_loss"] = float(losses.mean())
        row[f"{part}_accuracy"] = float((logits.argmax(2) == labels).double().mean())
    row["gap_loss"] = row["test_loss"] - row["train_loss"]
    row["gap_error"] = row["train_accuracy"] - row["test_accuracy"]
    of_all, classes = clusters((training.n_train + training.n_test) * training.n_information // n, draw)
    return (
        row
        | _information(network, of_all[: training.n_information], classes[: training.n_information])
        | _size(network)
    )


def _information(network: StochasticNetwork, x: Tensor, y: Tensor) -> Row:
    """Of the code and the input, in bits: from its density, and counted as the library counts."""
    mean, std = network.code(x)
    whole = code_information(mean, std)
    shares = [float((y == c).double().mean()) for c in y.unique()]
    of_classes = [code_information(mean[y == c], std[y == c]) for c in y.unique()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerdictWarning)  # the verdict is in the table
        (point,) = measure(network, [(x, y)], ["mean"], head=False)
    nats = {
        "i_xz": float(whole.monte_carlo),
        "i_xz_given_y": math.fsum(p * float(of.monte_carlo) for p, of in zip(shares, of_classes)),
        "i_xz_given_y_upper": math.fsum(p * float(of.upper) for p, of in zip(shares, of_classes)),
    }
    row: Row = {name: value / math.log(2) for name, value in nats.items()}
    return row | {"i_xt_given_y_counted": point.i_xt_given_y, "verdict": point.verdict}


def _size(network: nn.Module) -> Row:
    parameters = list(network.parameters())
    norms = [float(one.double().norm()) for one in parameters]
    return {"n_parameters": sum(one.numel() for one in parameters), "weight_norms": math.fsum(norms)}
