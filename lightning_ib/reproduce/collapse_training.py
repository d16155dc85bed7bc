"""Trains the network of the experiment ``collapse``, and measures it over log time."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_ib.evaluation.measure import measure
from lightning_ib.functional.geometry.classes import class_geometry
from lightning_ib.objectives.hsic import hsic
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.reproduce.experiment import finite, seeded
from lightning_ib.reproduce.finished import Row

N_CLASSES = 10
LAYER = "relu2"
"""The representation: the output of the last hidden layer."""

_SIGMA = 5.0
"""The width of the kernels of inputs and representations, per square root of their dimensions."""
_SIGMA_OF_LABELS = 0.1
"""So narrow that the kernel of one-hot labels is 1 within a class and 0 between classes: the linear kernel."""
_KERNEL_ROWS = 100
"""nHSIC is of so many samples, and averaged over batches."""


class Data(NamedTuple):
    """Standardized pictures, float32 ``(N, 784)``, and labels, int64 ``(N,)``."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


class Grid(NamedTuple):
    """The setting of the runs.

    Attributes:
        weight_decays: of AdamW, the strongest first.
        n_seeds: for each weight decay.
        n_steps: of a run.
        n_measured: about so many steps are measured.
        n_train: the first pictures of MNIST's training part.
        n_test: the first of its test part.
        n_kernel: so many test pictures are used for nHSIC.
        width: of the two hidden layers.
        init_scale: the factor on all weights and biases at the start.
        rate: the learning rate.
        batch: samples in a batch.
    """

    weight_decays: tuple[float, ...]
    n_seeds: int
    n_steps: int
    n_measured: int
    n_train: int = 3000
    n_test: int = 10_000
    n_kernel: int = 10_000
    width: int = 200
    init_scale: float = 8.0
    rate: float = 1e-3
    batch: int = 100


def network(width: int, init_scale: float) -> nn.Sequential:
    """784 inputs, two hidden layers of ReLUs, 10 outputs; PyTorch's initial weights and biases times a factor."""
    model = nn.Sequential(
        OrderedDict(
            hidden1=nn.Linear(784, width),
            relu1=nn.ReLU(),
            hidden2=nn.Linear(width, width),
            relu2=nn.ReLU(),
            output=nn.Linear(width, N_CLASSES),
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(init_scale)
    return model


def measured_steps(n_steps: int, n_measured: int) -> list[int]:
    """About ``n_measured`` steps, equally far apart in their logarithm, with the start and the end.

    Example:
        >>> measured_steps(1000, 7)
        [0, 1, 4, 16, 63, 251, 1000]
    """
    exponents = [math.log(n_steps) * place / (n_measured - 2) for place in range(n_measured - 1)]
    return sorted({0, *(round(math.exp(one)) for one in exponents)})


def work(grid: Grid) -> int:
    """How much :func:`train` has to do, in steps; a measurement counts as some."""
    return grid.n_steps + _measurement(grid) * len(measured_steps(grid.n_steps, grid.n_measured))


def _measurement(grid: Grid) -> int:
    """About how many steps a measurement takes as long as."""
    return max(1, grid.n_test // 20)


def train(
    data: Data, grid: Grid, weight_decay: float, seed: int, advance: Callable[[int], None], device: str = "cpu"
) -> list[Row]:
    """Train one network on the sum of squared errors of one-hot labels; a row for each measured step.

    Args:
        data: on the device.
        grid: the setting.
        weight_decay: of AdamW, which takes ``rate · weight_decay`` of each weight off in a step.
        seed: of the initial weights and the order of the batches.
        advance: takes how much is done, of :func:`work` in all.
        device: where to train.

    Returns:
        Accuracy, loss, class geometry, information and nHSIC, up to the step before a network diverged; the random
        states of the caller are left alone.
    """
    with seeded(seed):
        model = network(grid.width, grid.init_scale).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=grid.rate, weight_decay=weight_decay, fused=True)
        batches = _batches(len(data.x_train), grid.batch)
        targets = torch.eye(N_CLASSES, device=device)[data.y_train]
        rows, done = [], 0
        steps = measured_steps(grid.n_steps, grid.n_measured)
        for step in steps:
            for _ in range(step - done):
                chosen = next(batches).to(device)
                optimizer.zero_grad()
                (model(data.x_train[chosen]) - targets[chosen]).square().sum().backward()
                optimizer.step()
            advance(step - done + _measurement(grid))
            done = step
            if not finite(model, data.x_train) or not finite(model, data.x_test):
                advance(grid.n_steps - step + _measurement(grid) * sum(step < one for one in steps))
                break
            rows.append({"weight_decay": weight_decay, "seed": seed, "step": step} | measured(model, data, grid))
        return rows


def _batches(n: int, size: int) -> Iterator[Tensor]:
    """Indices of batches, each epoch in a new order."""
    while True:
        yield from torch.randperm(n).split(size)


@torch.no_grad()
def measured(model: nn.Sequential, data: Data, grid: Grid) -> Row:
    """All that is measured of a network at one moment."""
    row: Row = {}
    representation = model[:-1]
    for part, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        t = representation(x)
        outputs = model[-1](t).double()
        errors = (outputs - torch.eye(N_CLASSES, dtype=torch.float64, device=x.device)[y]).square().sum(1)
        row[f"{part}_accuracy"] = float((outputs.argmax(1) == y).double().mean())
        row[f"{part}_loss"] = float(errors.mean())
        geometry = class_geometry(t, y)
        row[f"{part}_within"] = geometry.within_variance
        row[f"{part}_nc1"] = geometry.nc1
        length = float(t.double().norm(dim=1).mean())
        row[f"{part}_rnc1"] = geometry.within_variance / length**2 if length else math.nan
    row |= _information(model, data)
    n = grid.n_kernel
    return row | _kernels(t[:n], data.x_test[:n], data.y_test[:n])


def _information(model: nn.Sequential, data: Data) -> Row:
    """What the callback would report of the representation of the test pictures, in bits."""
    batches = list(zip(data.x_test.split(1000), data.y_test.split(1000)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerdictWarning)  # the verdict is in the table
        (point,) = measure(model, batches, [LAYER])
    return {
        "i_xt": point.i_xt,
        "i_ty": point.i_ty,
        "i_xt_given_y": point.i_xt_given_y,
        "i_ty_permuted": point.i_ty_permuted,
        "verdict": point.verdict,
    }


def _kernels(t: Tensor, x: Tensor, y: Tensor) -> Row:
    """The normalized HSIC of the representation with inputs and labels, the mean over batches."""
    with_x, with_y = [], []
    for rows, inputs, labels in zip(t.split(_KERNEL_ROWS), x.split(_KERNEL_ROWS), y.split(_KERNEL_ROWS)):
        if len(rows) < _KERNEL_ROWS:
            break
        widths = [_SIGMA * math.sqrt(values.shape[1]) for values in (rows, inputs)]
        with_x.append(float(hsic(rows, inputs, sigma_x=widths[0], sigma_y=widths[1], estimator="normalized")))
        with_y.append(float(hsic(rows, labels, sigma_x=widths[0], sigma_y=_SIGMA_OF_LABELS, estimator="normalized")))
    return {"nhsic_zx": math.fsum(with_x) / len(with_x), "nhsic_zy": math.fsum(with_y) / len(with_y)}
