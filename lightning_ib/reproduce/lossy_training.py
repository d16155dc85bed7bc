"""Trains the networks of the experiment ``lossy``, and measures their layers epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ib.functional import mutual_information_knn
from lightning_ib.reproduce.compressed import N_COORDINATES, K, compress, information, information_of_labels, ksg
from lightning_ib.reproduce.experiment import finite, seeded
from lightning_ib.reproduce.finished import Row

LAYERS = ("conv1", "conv2", "conv3", "fc1", "output")
_IN_BATCH = 1000


class RelativeNoise(nn.Module):
    """Adds noise to every value, in training and in evaluation: x + sigma · x · ε with standard normal ε.

    Args:
        sigma: the ratio of noise to signal.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """With noise, or as it is where ``sigma`` is 0."""
        return x * (1 + self.sigma * torch.randn_like(x)) if self.sigma else x


class Classifier(nn.Module):
    """Three convolutions and two dense layers, leaky ReLUs, noise at the input of each.

    Args:
        sigma: of the noise.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.dropout, self.noise = nn.Dropout(0.1), RelativeNoise(sigma)
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 32, 3)
        self.fc1, self.fc2 = nn.Linear(32, 32), nn.Linear(32, 10)

    def layers(self, x: Tensor) -> dict[str, Tensor]:
        """The output of every layer; the last one is the logarithm of probabilities."""
        found = {}
        for name in ("conv1", "conv2", "conv3"):
            x = self.get_submodule(name)(self.noise(self.dropout(x)))
            x = found[name] = F.leaky_relu(F.max_pool2d(x, 2))
        x = found["fc1"] = F.leaky_relu(self.fc1(self.noise(x.flatten(1))))
        found["output"] = self.fc2(self.noise(x)).log_softmax(1)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The logarithm of probabilities."""
        return self.layers(x)["output"]


class Autoencoder(nn.Module):
    """Compresses pictures to four numbers between 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(part for n, m in ((1, 8), (8, 16), (16, 32)) for part in _encoding(n, m)),
            nn.Flatten(),
            nn.Linear(288, 128),
            nn.LeakyReLU(),
            nn.Linear(128, N_COORDINATES),
            nn.Sigmoid(),
        )
        self.decoder = nn.Sequential(
            nn.Linear(N_COORDINATES, 128),
            nn.LeakyReLU(),
            nn.Linear(128, 1568),
            nn.LeakyReLU(),
            nn.Unflatten(1, (32, 7, 7)),
            *(part for n, m in ((32, 16), (16, 8)) for part in _decoding(n, m)),
            nn.Conv2d(8, 1, 3, padding="same"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The pictures again; a little noise is on the four numbers in training."""
        z = self.encoder(x)
        if self.training:
            z = z * (1 + 0.1 * torch.randn_like(z))
        reconstruction: Tensor = self.decoder(z)
        return reconstruction


def _encoding(n: int, m: int) -> list[nn.Module]:
    return [nn.Dropout(0.1), nn.Conv2d(n, m, 3, padding="same"), nn.MaxPool2d(2), nn.LeakyReLU()]


def _decoding(n: int, m: int) -> list[nn.Module]:
    return [nn.Conv2d(n, m, 3, padding="same"), nn.Upsample(scale_factor=2), nn.LeakyReLU()]


class Plan(NamedTuple):
    """The setting.

    Attributes:
        n_epochs: of the classifier.
        every: after so many epochs each it is measured.
        n_autoencoder: epochs of the autoencoder.
        n_train: the first pictures of MNIST's training part.
        n_test: the first of its test part, which are measured.
        rate: the learning rate of Adam.
        batch: samples in a batch.
        autoencoder_batch: of the autoencoder.
        autoencoder_rate: of Adam, the autoencoder's.
        sigma: of the noise, relative to each value.
        window: of the smoothed curves, in measurements.
        order: of their polynomials.
    """

    n_epochs: int
    every: int
    n_autoencoder: int
    n_train: int
    n_test: int
    rate: float
    batch: int
    autoencoder_batch: int
    autoencoder_rate: float = 1e-2
    sigma: float = 1e-3
    window: int = 31
    order: int = 4


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation and no gradients; the mode of each module is put back."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def train(
    data: Sequence[Tensor], plan: Plan, seed: int, advance: Callable[[int], None], device: str = "cpu"
) -> list[Row]:
    """Train an autoencoder and a classifier; a row for each epoch and layer, up to where the network diverges.

    Args:
        data: pictures ``(N, 1, 28, 28)`` and labels for training, and those for measuring.
        plan: the setting.
        seed: of the initial weights, the order of the batches and the noise.
        advance: takes how many epochs were done, of either network.
        device: where to train.
    """
    x, y, x_test, y_test = (of.to(device) for of in data)
    with seeded(seed):
        inputs = compressed_inputs(x, x_test, plan, advance)
        model = Classifier(plan.sigma).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=plan.rate)
        rows, loss = [], math.nan
        for epoch in range(plan.n_epochs + 1):
            if epoch > 0:
                losses = []
                for chosen in torch.randperm(len(x)).split(plan.batch):
                    optimizer.zero_grad()
                    of_batch = F.nll_loss(model(x[chosen]), y[chosen])
                    of_batch.backward()
                    optimizer.step()
                    losses.append(float(of_batch.detach()) * len(chosen))
                loss = math.fsum(losses) / len(x)
                advance(1)
                if not finite(model, x_test):
                    advance(plan.n_epochs - epoch)
                    break
            if epoch % plan.every == 0:
                common = {"seed": seed, "epoch": epoch, "train_loss": loss}
                rows += [common | row for row in measured(model, inputs, x_test, y_test)]
        return rows


def compressed_inputs(x: Tensor, x_test: Tensor, plan: Plan, advance: Callable[[int], None]) -> Tensor:
    """The four numbers of every test picture, float64 on the host."""
    model = Autoencoder().to(x.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.autoencoder_rate)
    for _ in range(plan.n_autoencoder):
        for chosen in torch.randperm(len(x)).split(plan.autoencoder_batch):
            optimizer.zero_grad()
            F.l1_loss(model(x[chosen]), x[chosen]).backward()
            optimizer.step()
        advance(1)
    with evaluating(model):
        found = torch.cat([model.encoder(part) for part in x_test.split(_IN_BATCH)])
    return found.cpu().double()


def measured(model: Classifier, inputs: Tensor, x: Tensor, y: Tensor) -> list[Row]:
    """A row for each layer, informations in bits; the mode of every module stays."""
    with evaluating(model):
        noisy = _outputs(model, x)
        sigma, model.noise.sigma = model.noise.sigma, 0.0
        silent = _outputs(model, x)
        model.noise.sigma = sigma
    labels, log_p = y.cpu(), noisy["output"].cpu().double()
    loss, accuracy = float(F.nll_loss(log_p, labels)), float((log_p.argmax(1) == labels).double().mean())
    rows = []
    for layer in LAYERS:
        t = compress(noisy[layer])
        of_x, of_y = information(inputs, t), information_of_labels(t, labels)
        rows.append(
            {
                "layer": layer,
                "test_loss": loss,
                "test_accuracy": accuracy,
                "i_xt": of_x.bits,
                "i_xt_error": of_x.error,
                "i_ty": of_y.bits,
                "i_ty_error": of_y.error,
                "i_xt_unweighted": information(inputs, t, weighted=False).bits,
                "i_xt_ksg": ksg(inputs, t),
                "i_xt_without_noise": information(inputs, compress(silent[layer])).bits,
                "i_ty_knn": mutual_information_knn(t, labels, k=K),
            }
        )
    return rows


def _outputs(model: Classifier, x: Tensor) -> dict[str, Tensor]:
    parts = [model.layers(part) for part in x.split(_IN_BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in LAYERS}
