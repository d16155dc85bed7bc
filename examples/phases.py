"""Does compression begin where the gradients turn from drift to diffusion? Both measured in the same networks.

Shwartz-Ziv & Tishby (2017) saw two phases of training: while the mean gradient outweighs its spread from batch to
batch, layers learn their labels; afterwards weights diffuse, and layers compress. Here the network of their paper, on
twelve bits, and a small CNN, on MNIST, learn with tanh and ReLU in two batch sizes each, and for each layer the moment
of that transition is put beside the moment at which H(T) begins to fall::

    python examples/phases.py

The twelve bits are learned in a plain PyTorch loop, with :class:`lightning_ib.InformationPlane` and
:class:`lightning_ib.measurement.GradientSNR` at work in it, and MNIST by a Trainer with both callbacks.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mnist_cnn import load_data, whole_number
from noise_compresses import positive
from phases_picture import draw
from phases_runs import ACTIVATIONS, Run, mnist_run, twelve_bits_run
from phases_table import findings, table
from tanh_vs_relu import at_least_one, picture
from torch.utils.data import TensorDataset
from tqdm.auto import tqdm
from twelve_bits import BATCH_SIZE, N_PATTERNS, TRAINING_SHARE, patterns, power, rule

from lightning_ib import Record
from lightning_ib.records.files import replacing

TASKS = {"twelve_bits": "binned", "mnist": "cells"}
"""Task → the symbols that its picture shows H(T) of: the field's bins, and cells where bins are saturated."""

MOST = round(TRAINING_SHARE * N_PATTERNS) // 2
"""The largest batch of the twelve bits that an epoch has two of: a spread takes two."""


def twelve_bits_runs(args: argparse.Namespace) -> Iterator[Run]:
    """Train and measure all networks on the twelve bits."""
    p = rule(power(patterns())).p
    y = (torch.rand(len(p), generator=torch.Generator().manual_seed(0), dtype=p.dtype) < p).long()
    x = (2 * patterns() - 1).float()  # ±1: as many above zero as below
    for seed in range(args.seeds):
        for activation in ACTIVATIONS:
            for size in args.batch_sizes:
                yield twelve_bits_run(
                    x, y, activation=activation, batch_size=size, seed=seed, n_epochs=args.epochs, noise=args.noise
                )


def images(args: argparse.Namespace) -> tuple[TensorDataset, TensorDataset]:
    """The images to learn, and those to measure.

    Raises:
        RuntimeError: there are none, or fewer than in a batch; the message gives the reason.
    """
    datasets = load_data(args.data, args.data_dir)
    training, validation = (
        TensorDataset(*(t[:n] for t in of.tensors)) for of, n in zip(datasets, (args.images, args.images // 5))
    )
    if max(args.mnist_batch_sizes) > len(training):
        raise RuntimeError(f"batches of {max(args.mnist_batch_sizes)} take more than the {len(training)} images.")
    return training, validation


def mnist_runs(training: TensorDataset, validation: TensorDataset, args: argparse.Namespace) -> Iterator[Run]:
    """Train and measure all networks on MNIST, one seed of each."""
    kinds = [(activation, size) for activation in ACTIVATIONS for size in args.mnist_batch_sizes]
    for activation, size in tqdm(kinds, desc="MNIST", unit=" networks"):
        options = {"activation": activation, "batch_size": size, "seed": 0, "n_steps": args.steps, "every": args.every}
        yield mnist_run(training, validation, **options)


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """Write every value, one row each, replacing the file as a whole."""
    with replacing(path) as partial_file, partial_file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("task", "activation", "batch_size", "seed", *Record._fields))
        writer.writerows((*run[:4], *record) for run in runs for record in run.history.records())


# -- the run -----------------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Train small networks, and put the phases of their gradients beside the compression of layers."
    )
    p.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help=f"{', '.join(TASKS)}")
    bits = p.add_argument_group("twelve bits")
    bits.add_argument("--epochs", type=at_least_one, default=3000, metavar="N", help="epochs of training (%(default)s)")
    bits.add_argument(
        "--batch-sizes",
        type=whole_number(1, MOST),
        nargs="+",
        default=[BATCH_SIZE, BATCH_SIZE // 4],
        metavar="N",
        help="batch sizes (512 128)",
    )
    bits.add_argument("--seeds", type=at_least_one, default=2, metavar="N", help="networks of each kind (%(default)s)")
    bits.add_argument(
        "--noise", type=positive, default=0.01, metavar="VARIANCE", help="σ² that the bound is given at (%(default)s)"
    )
    mnist = p.add_argument_group("MNIST")
    mnist.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that holds MNIST/raw (%(default)s)")
    mnist.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto", help="which data (%(default)s)")
    mnist.add_argument(
        "--images",
        type=whole_number(50),
        default=10_000,
        metavar="N",
        help="images to learn, a fifth as many to measure (%(default)s)",
    )
    mnist.add_argument("--steps", type=at_least_one, default=640, metavar="N", help="steps of training (%(default)s)")
    mnist.add_argument(
        "--every", type=whole_number(2), default=10, metavar="N", help="measure after so many steps (%(default)s)"
    )
    mnist.add_argument(
        "--mnist-batch-sizes",
        type=at_least_one,
        nargs="+",
        default=[250, 50],
        metavar="N",
        help="batch sizes (250 50)",
    )
    p.add_argument(
        "--out",
        type=picture,
        default=Path("phases.png"),
        metavar="FILE",
        help="where to draw the twelve bits, as .png, .pdf or .svg; MNIST goes into a picture and every value into a "
        ".csv beside it (%(default)s)",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure, and print and draw the results.

    Args:
        argv: the arguments of the command line; by default the real ones.

    Raises:
        SystemExit: an argument is wrong, the data is unavailable, or writing a file failed.
    """
    p = parser()
    args = p.parse_args(argv)
    if args.steps < args.every:
        p.error(f"argument --steps: must be at least --every, {args.every}, got {args.steps}")
    # Layers this small gain nothing from a second thread; beside other programs, waiting for it takes ten times longer.
    torch.set_num_threads(1)
    try:
        data = images(args) if "mnist" in args.tasks else None
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    of_task: dict[str, list[Run]] = {}
    if "twelve_bits" in args.tasks:
        of_task["twelve_bits"] = list(twelve_bits_runs(args))
    if data is not None:
        of_task["mnist"] = list(mnist_runs(*data, args))
    runs = [run for found in of_task.values() for run in found]
    print(f"{table([run for run in runs if run.seed == 0])}\n\n{findings(runs)}\n")
    paths = {"twelve_bits": args.out, "mnist": args.out.with_stem(f"{args.out.stem}_mnist")}
    try:
        write_csv(runs, args.out.with_suffix(".csv"))
        for task, found in of_task.items():
            figure = draw([run for run in found if run.seed == 0], source=TASKS[task], noise=args.noise)
            with replacing(paths[task]) as partial_file:
                figure.savefig(partial_file, format=paths[task].suffix[1:].lower())
    except OSError as error:
        sys.exit(f"error: {args.out} and the files beside it cannot be written: {error}.")
    print(
        f"The pictures: {', '.join(str(paths[task]) for task in of_task)}, every value: {args.out.with_suffix('.csv')}"
    )


if __name__ == "__main__":
    main()
