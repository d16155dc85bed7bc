"""The runs of ``phases.py``: networks that learn while their information and their gradients are measured."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from mnist_cnn import MNISTNet
from tanh_vs_relu import PANELS, moments, plane
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm
from twelve_bits import LAYERS, LEARNING_RATE, TRAINING_SHARE, network

from lightning_ib import GradientSNRCallback, History, InformationPlane, InformationPlaneCallback, Record
from lightning_ib.functional import gaussian_compression_bound
from lightning_ib.measurement import GradientSNR
from lightning_ib.records.reliability import VerdictWarning

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "ReLU": nn.ReLU}
BOUND = "gaussian"
"""The source of the records of the bound on compression."""
MNIST_LAYERS = ("conv1", "conv2", "out")
EVAL_BATCH = 1000


class Run(NamedTuple):
    """A network that was trained.

    Attributes:
        task: ``"twelve bits"`` or ``"MNIST"``.
        activation: of the hidden layers.
        batch_size: of its training.
        seed: of its weights, its training data and their order.
        clock: the unit of its time, ``"epoch"`` or ``"step"``.
        history: what was measured of its layers: information, gradients and, of twelve bits, the bound.
    """

    task: str
    activation: str
    batch_size: int
    seed: int
    clock: str
    history: History

    def __str__(self) -> str:
        return f"{self.task}, {self.activation}, batches of {self.batch_size}"


# -- twelve bits: a plain loop -----------------------------------------------------------------------------------------


def twelve_bits_run(
    x: Tensor, y: Tensor, *, activation: str, batch_size: int, seed: int, n_epochs: int, noise: float
) -> Run:
    """Train the network of Shwartz-Ziv & Tishby (2017), and measure it at epochs that are evenly spaced in log time.

    The gradients of a moment are those of the epoch that ends there, all of its steps, so that their number M, and with
    it the floor of the SNR, is the same at all moments. The information is that of the weights after it.

    Args:
        x: all patterns, ±1, float32 ``(4096, 12)``.
        y: their labels, int64 ``(4096,)``.
        activation: one of ``ACTIVATIONS``.
        batch_size: of the training.
        seed: draws the weights, the patterns to train on and their order.
        n_epochs: how long.
        noise: the variance σ² that the bound is given at.
    """
    generator = torch.Generator().manual_seed(seed)
    net = network(ACTIVATIONS[activation], generator)
    n = round(TRAINING_SHARE * len(x))
    rows = torch.randperm(len(x), generator=generator)[:n]
    adam = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, fused=True)
    due = set(moments(n_epochs))
    bins = PANELS[activation.lower()].bins
    planes = [plane(bins), plane(None)]
    gradients = GradientSNR(list(LAYERS))
    gradients.attach(net)
    history, step = measured(net, planes, x, y, noise, epoch=0, step=0), 0
    for epoch in tqdm(range(1, n_epochs + 1), desc=f"{activation}, batches of {batch_size}", unit=" epochs"):
        for batch in rows[torch.randperm(n, generator=generator)].split(batch_size):
            adam.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            if epoch in due:
                gradients.see(n_samples=len(batch))
            adam.step()
            step += 1
        if epoch in due:
            history.put(gradients.compute(epoch=epoch, step=step))
            history.put(measured(net, planes, x, y, noise, epoch=epoch, step=step))
            gradients.reset()
    return Run("twelve bits", activation, batch_size, seed, "epoch", history)


@torch.no_grad()
def measured(
    net: nn.Sequential, planes: Sequence[InformationPlane], x: Tensor, y: Tensor, noise: float, *, epoch: int, step: int
) -> History:
    """The information of all layers in each of the planes, and the bound on compression."""
    history = History()
    for one in planes:
        with one.attach(net), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=VerdictWarning)  # the verdicts are in the file of all values
            net(x)
            one.update(x, y)
            history += one.compute(epoch=epoch, step=step)
        one.reset()
    return history + History(bounds(net, x, noise, epoch=epoch, step=step))


@torch.no_grad()
def bounds(net: nn.Sequential, x: Tensor, noise: float, *, epoch: int, step: int) -> list[Record]:
    r"""For each layer the bound on what it can take over from the layer before, through Gaussian noise.

    The covariance S is that of the layer before, over all patterns: :math:`\tfrac12 \log\det(I + W S W^\top/\sigma^2)`.
    The network has no noise: the bound is that of a network with so much of it, and of its own information it says
    nothing.

    Args:
        net: layer → its linear map and its activation.
        x: all patterns.
        noise: σ², the variance of the noise in each unit.
        epoch: of the records.
        step: of the records.
    """
    records, t = [], x
    for name, layer in net.named_children():
        weight = layer.get_parameter("0.weight")
        s = torch.cov(t.double().T, correction=0)
        value = gaussian_compression_bound(weight, covariance=s, noise_covariance=noise).joint
        records.append(Record(epoch, step, name, BOUND, "compression_bound", value, unit="bits", n_samples=len(x)))
        t = layer(t)
    return records


# -- MNIST: a Trainer --------------------------------------------------------------------------------------------------


def mnist_network(activation: str) -> MNISTNet:
    """The network of ``mnist_cnn.py`` with another activation."""
    net = MNISTNet()
    for block in (net.conv1, net.conv2):
        block[1] = ACTIVATIONS[activation]()
    return net


def mnist_run(
    training: TensorDataset,
    validation: TensorDataset,
    *,
    activation: str,
    batch_size: int,
    seed: int,
    n_steps: int,
    every: int,
) -> Run:
    """Train the network of ``mnist_cnn.py`` with both callbacks, which share one history.

    Args:
        training: the images to learn.
        validation: the images that layers are measured on, in cells.
        activation: one of ``ACTIVATIONS``.
        batch_size: of the training.
        seed: draws the weights and the order of images.
        n_steps: how long.
        every: how many steps there are between two moments: the M steps whose gradients are compared.
    """
    information = InformationPlaneCallback(MNIST_LAYERS, every_n_train_steps=every, estimators=(), verbose=False)
    gradients = GradientSNRCallback(MNIST_LAYERS, every_n_train_steps=every, verbose=False)
    trainer = pl.Trainer(
        max_steps=n_steps,
        devices=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        callbacks=[information, gradients],
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", category=VerdictWarning)
        torch.manual_seed(seed)
        trainer.fit(
            mnist_network(activation),
            DataLoader(training, batch_size=batch_size, shuffle=True, drop_last=True),
            DataLoader(validation, batch_size=EVAL_BATCH),
        )
    return Run("MNIST", activation, batch_size, seed, "step", information.history)
