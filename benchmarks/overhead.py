"""The cost of the default callback: CPU time of an epoch with it and without, run in turn in one process.

``python benchmarks/overhead.py --data-dir DATA`` trains the network of ``examples/mnist_cnn.py`` on MNIST (60 000
images, 10 000 to validate on) with the callback and without, round after round, and prints the CPU time of the epochs
and their ratio; then the cost of a measurement of a twelve-layer perceptron on scikit-learn's digits, with every layer
watched. Ratios are more reliable than seconds. The epochs exclude the point before training, which is measured once.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import InformationPlaneCallback

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
from mnist_cnn import MNISTNet, load_data


class Stopwatch(pl.Callback):
    """The CPU seconds of each epoch, its validation included; put it last."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start."""
        self._start = time.process_time()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop."""
        self.seconds.append(time.process_time() - self._start)


class DeepMLP(pl.LightningModule):
    """Twelve linear layers with ReLU: 8 × 8 pixels to the logits of ten classes."""

    def __init__(self, width: int = 32, depth: int = 12) -> None:
        super().__init__()
        widths = [64, *[width] * (depth - 1), 10]
        layers = [nn.Linear(n_in, n_out) for n_in, n_out in zip(widths, widths[1:])]
        self.layers = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]

    def forward(self, x: Tensor) -> Tensor:
        """Pixels ``(B, 64)`` → logits ``(B, 10)``."""
        logits: Tensor = self.layers(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The forward pass."""
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def epochs(
    model: pl.LightningModule, loaders: tuple[DataLoader[Any], DataLoader[Any]], n: int, callbacks: list[pl.Callback]
) -> list[float]:
    """The CPU seconds of ``n`` epochs."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=n,
            accelerator="cpu",
            devices=1,
            logger=TensorBoardLogger(folder),
            callbacks=[*callbacks, watch],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(model, *loaders)
    return watch.seconds


def mnist(data_dir: Path, rounds: int, n_epochs: int) -> None:
    """Print the CPU time that the callback adds to an epoch of the MNIST example."""
    train, val = load_data("mnist", data_dir)
    seconds: dict[str, list[float]] = {"without": [], "with the default callback": []}
    for _ in range(rounds):
        for name, callbacks in (("without", []), ("with the default callback", [InformationPlaneCallback()])):
            pl.seed_everything(0, verbose=False)
            loaders = DataLoader(train, batch_size=100, shuffle=True), DataLoader(val, batch_size=1000)
            seconds[name] += epochs(MNISTNet(), loaders, n_epochs, list(callbacks))
    bare = statistics.median(seconds["without"])
    print("| an epoch of the MNIST example | median CPU s | min–max | ratio |\n| --- | ---: | ---: | ---: |")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {min(values):.2f}–{max(values):.2f} | {median / bare:.3f} |")


def digits(rounds: int, n_epochs: int) -> None:
    """Print the cost per layer of a measurement of a deep perceptron."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = torch.from_numpy(bunch.data).float() / 16, torch.from_numpy(bunch.target).long()
    train, val = TensorDataset(x[:1200], y[:1200]), TensorDataset(x[1200:], y[1200:])
    layers = [f"layers.{k}" for k in range(0, 24, 2)]
    extra = []
    for _ in range(rounds):
        runs = []
        for callbacks in ([], [InformationPlaneCallback(layers)]):
            pl.seed_everything(0, verbose=False)
            loaders = DataLoader(train, batch_size=64, shuffle=True), DataLoader(val, batch_size=64)
            runs.append(statistics.median(epochs(DeepMLP(), loaders, n_epochs, list(callbacks))))
        extra.append((runs[1] - runs[0]) / len(layers))
    low, median, high = (1e3 * of(extra) for of in (min, statistics.median, max))
    print("\n| twelve-layer perceptron, 597 digits | median CPU ms | min–max |\n| --- | ---: | ---: |")
    print(f"| a layer and measurement, probe and picture included | {median:.1f} | {low:.1f}–{high:.1f} |")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description="What the default callback costs.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread\n")
    mnist(args.data_dir, args.rounds, args.epochs)
    digits(args.rounds, 5)


if __name__ == "__main__":
    main()
