"""The information plane of infinitely wide networks, where every value is a formula, and estimators beside the truth.

An infinite ensemble of networks of infinite width learns two small data sets, half-moons in two dimensions and two of
scikit-learn's digits. Its output Z at an input is Gaussian over the ensemble at every moment of training, so that
I(X;Z) and I(Y;Z) are known. Then ensembles of finite networks learn the same data, and what they put out is measured by
estimators of the library::

    python examples/infinite_width.py

draws the planes for networks of one, two and four hidden layers of ReLU and of erf, and prints truth beside estimate
for networks of 64, 256 and 1 024 units (two minutes).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mnist_cnn import whole_number
from tanh_vs_relu import picture
from torch import Tensor
from tqdm.auto import tqdm

from lightning_ib.functional import (
    cells,
    mutual_information,
    mutual_information_bounds_kde,
    mutual_information_knn,
    soft_information,
)
from lightning_ib.infinite_width import EnsembleValues, InfiniteWidthEnsemble
from lightning_ib.plot.labels import depth_colors
from lightning_ib.records.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTHS, ACTIVATIONS, WIDTHS = (1, 2, 4), ("relu", "erf"), (64, 256, 1024)
WEIGHT_VARIANCE, BIAS_VARIANCE = 2.0, 0.1
N_TRAINING, N_TEST = 40, 50
STEPS = (0, 8, 64, 512)
"""The moments at which finite networks are measured."""

RATE = 0.5
"""Of gradient descent, over the largest eigenvalue of the kernel: at 2 it diverges."""


class Task(NamedTuple):
    """Training inputs and targets, then test inputs and targets, float64; targets are 1 and −1."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def half_moons(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles with noise, ``(n, 2)``, and their targets."""
    y = 1 - 2 * (torch.arange(n) % 2).double()
    angle = math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    x = torch.stack([y * angle.cos() + (1 - y) / 2 - 0.5, y * angle.sin() + (1 - y) / 4 - 0.25], 1)
    return 1.5 * (x + 0.15 * torch.randn(n, 2, generator=generator, dtype=torch.float64)), y


def tasks(seed: int = 0) -> dict[str, Task]:
    """Both data sets; inputs have a mean square of about one."""
    from sklearn.datasets import load_digits

    generator = torch.Generator().manual_seed(seed)
    found = {"half-moons": half_moons(N_TRAINING + N_TEST, generator)}
    pixels, digits = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    chosen = ((digits == 4) | (digits == 9)).nonzero().flatten()
    chosen = chosen[torch.randperm(len(chosen), generator=generator)[: N_TRAINING + N_TEST]]
    x = pixels[chosen].double() - pixels.double().mean(0)
    found["digits 4 and 9"] = (x / x.square().mean().sqrt(), (digits[chosen] == 4).double() * 2 - 1)
    n = N_TRAINING
    return {name: Task(x[:n], y[:n], x[n:], y[n:]) for name, (x, y) in found.items()}


def ensemble(task: Task, depth: int, activation: Any) -> InfiniteWidthEnsemble:
    """The infinite ensemble, trained."""
    infinite = InfiniteWidthEnsemble(
        depth, activation=activation, weight_variance=WEIGHT_VARIANCE, bias_variance=BIAS_VARIANCE
    )
    return infinite.fit(task.x, task.y)


# -- finite networks ---------------------------------------------------------------------------------------------------


def outputs(weights: Sequence[Tensor], x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """What networks put out, ``(M, n)``; weights and biases by turns, ``(M, out, in)`` and ``(M, out, 1)``."""
    h = x.T.expand(len(weights[0]), -1, -1)
    for k in range(0, len(weights), 2):
        h = math.sqrt(WEIGHT_VARIANCE / h.shape[1]) * weights[k] @ h + math.sqrt(BIAS_VARIANCE) * weights[k + 1]
        h = h if k == len(weights) - 2 else activation(h)
    return h[:, 0]


def trained(
    task: Task, width: int, activation: str, rate: float, networks: int, seed: int, depth: int = 1, at_once: int = 50
) -> list[Tensor]:
    """What finite networks put out at the test inputs after each of ``STEPS`` of gradient descent, ``(M, n)``."""
    function = {"relu": torch.relu, "erf": torch.erf}[activation]
    generator = torch.Generator().manual_seed(seed)
    x, y, x_test = (part.float() for part in task[:3])
    sizes = [x.shape[1], *[width] * depth, 1]
    found: list[list[Tensor]] = [[] for _ in STEPS]
    for start in range(0, networks, at_once):
        m = min(at_once, networks - start)
        shapes = [shape for i, o in zip(sizes, sizes[1:]) for shape in ((m, o, i), (m, o, 1))]
        weights = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        for step in range(STEPS[-1] + 1):
            if step in STEPS:
                with torch.no_grad():
                    found[STEPS.index(step)].append(outputs(weights, x_test, function).double())
            loss = (outputs(weights, x, function) - y).square().sum() / 2
            with torch.no_grad():
                for weight, gradient in zip(weights, torch.autograd.grad(loss, weights)):
                    weight -= rate * gradient
    return [torch.cat(parts) for parts in found]


def estimates(z: Tensor, label: Tensor) -> dict[str, float]:
    """What estimators say that outputs know about a label, in bits.

    Args:
        z: shape ``(N,)``.
        label: int64, ``(N,)``.
    """
    rows = z[:, None]
    noise = float(torch.stack([rows[label == k].var() for k in label.unique()]).mean()) / 100
    kde = mutual_information_bounds_kde(rows, label, noise_variance=noise)
    soft = soft_information(rows, label)
    return {
        "cells": mutual_information(cells(rows).numbers, label),
        "kde": (kde.lower + kde.upper) / 2,
        "knn": mutual_information_knn(rows, label),
        "soft": soft.i_ty - soft.i_ty_floor,
    }


class Row(NamedTuple):
    """An ensemble at a moment: truth and estimates of one information, in bits."""

    task: str
    width: int
    steps: int
    quantity: str
    truth: float
    found: dict[str, float]


def rows_of(task: str, data: Task, width: int, activation: str, networks: int) -> Iterator[Row]:
    """Train finite networks of one hidden layer, and measure them at every moment."""
    infinite = ensemble(data, 1, activation)
    rate = RATE / float(torch.linalg.eigvalsh(infinite.ntk(data.x)).max())
    truth = infinite.at([rate * step for step in STEPS], data.x_test, data.y_test)
    kind = (data.y_test > 0).long()
    for k, z in enumerate(trained(data, width, activation, rate, networks, seed=0)):
        for quantity, label, values in (
            ("I(X;Z)", torch.arange(len(kind)), truth.i_xz),
            ("I(Y;Z)", kind, truth.i_yz),
        ):
            found = estimates(z.flatten(), label.expand(len(z), -1).flatten())
            yield Row(task, width, STEPS[k], quantity, float(values[k]), found)


def table(rows: Sequence[Row], networks: int, activation: str) -> str:
    """Truth beside estimate, as Markdown."""
    names = list(rows[0].found)
    lines = [
        f"Ensembles of {networks} networks of one hidden layer of {activation} units; {N_TRAINING} training inputs, X "
        f"uniform on {N_TEST} test inputs: bits. Truth is that of infinite width. Bold: off by more than 0.1 bit and "
        "10 %.",
        "",
        "| data | steps | width | information | truth | " + " | ".join(names) + " |",
        "| --- | ---: | ---: | --- | ---: |" + " ---: |" * len(names),
    ]
    for row in rows:
        shown = []
        for value in row.found.values():
            off, number = abs(value - row.truth), f"{value:.2f}".replace("-0.00", "0.00")
            shown.append(f"**{number}**" if off > max(0.1, 0.1 * row.truth) else number)
        start = f"| {row.task} | {row.steps} | {row.width} | {row.quantity} | {row.truth:.2f} | "
        lines.append(start + " | ".join(shown) + " |")
    return "\n".join(lines)


# -- the picture -------------------------------------------------------------------------------------------------------


def draw(data: dict[str, Task]) -> Figure:
    """The planes of infinite ensembles over training time: data sets down, activations across."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.1 * len(data)), dpi=100, layout="constrained")
    grid: Any = figure.subplots(len(data), len(ACTIVATIONS), squeeze=False, sharey="row")
    for line, (name, task) in zip(grid, data.items()):
        for axes, activation in zip(line, ACTIVATIONS):
            for depth, color in zip(DEPTHS, depth_colors(len(DEPTHS))):
                infinite = ensemble(task, depth, activation)
                largest = float(torch.linalg.eigvalsh(infinite.ntk(task.x)).max())
                times = torch.cat([torch.zeros(1), torch.logspace(-2, 6, 65) / largest, torch.tensor([math.inf])])
                draw_path(axes, infinite.at(times.double(), task.x_test, task.y_test), depth, color)
            axes.set_title(f"{name}, {activation}", fontsize=11)
            axes.set_xlabel("I(X;Z) [bits]")
            axes.grid(alpha=0.25, linewidth=0.6)
        line[0].set_ylabel("I(Y;Z) [bits]")
    grid[0, 0].legend(title="hidden layers", fontsize=9)
    figure.suptitle(
        "Infinite ensembles of infinitely wide networks (open: before training, square: after)", fontsize=12
    )
    return figure


def draw_path(axes: Axes, found: EnsembleValues, depth: int, color: Any) -> None:
    """One ensemble from the start to the end of training."""
    x, y = found.i_xz.tolist(), found.i_yz.tolist()
    axes.plot(x, y, color=color, linewidth=1.5, label=str(depth))
    axes.plot(x[:1], y[:1], "o", color="white", markeredgecolor=color, markersize=7)
    axes.plot(x[-1:], y[-1:], "s", color=color, markeredgecolor="black", markersize=7)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    flags.add_argument("--networks", type=whole_number(5), default=200, help="of an ensemble (%(default)s)")
    flags.add_argument("--widths", type=whole_number(1), nargs="+", default=list(WIDTHS), help="of finite networks")
    flags.add_argument("--activation", choices=ACTIVATIONS, default="erf", help="of finite networks (%(default)s)")
    flags.add_argument("--out", type=picture, default=Path("infinite_width.png"), help="the picture (%(default)s)")
    flags.add_argument("--table", type=Path, help="write the table to this file, too")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the planes, and print truth beside estimate."""
    args = parser().parse_args(arguments)
    data = tasks()
    with replacing(args.out) as temporary:
        draw(data).savefig(temporary, format=args.out.suffix[1:])
    print(f"The planes are in {args.out}.")
    kinds = [(name, task, width) for name, task in data.items() for width in args.widths]
    rows = [
        row
        for name, task, width in tqdm(kinds, desc="finite networks", unit=" ensembles")
        for row in rows_of(name, task, width, args.activation, args.networks)
    ]
    found = table(sorted(rows, key=lambda row: (row.task, row.steps, row.quantity)), args.networks, args.activation)
    print(found)
    if args.table is not None:
        args.table.write_text(found + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
