"""The cost of a measurement, relative to a bare forward pass, and to other ways of counting.

Run it as ``python benchmarks/measurement.py --data-dir DATA``, where DATA holds ``MNIST/raw`` (otherwise random images
of the same size are taken: the times are nearly the same, the counts differ). It prints a Markdown table. All variants
are run in turn, in one process, and medians are shown: ratios are more reliable than seconds.

The setting: 60 000 MNIST images, the network of ``examples/mnist_cnn.py`` at random weights, X discretized to 49
coordinates, T1 to 36, T2 to 32, T3 to 10 (the discretization called v3 there), frozen edges, a DataLoader as in the
example.
"""

from __future__ import annotations

import argparse
import gzip
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import FixedBins, InformationPlane, Quantizer, UniformBins
from lightning_ib.evaluation.passes import preserve_state, run_pass
from lightning_ib.functional import bucketize

N, BATCH = 60_000, 100


class Network(nn.Module):
    """The network of the thesis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.out = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, 1, 28, 28)`` → logits ``(B, 10)``."""
        logits: Tensor = self.out(self.conv2(self.conv1(x)).flatten(1))
        return logits


def images(data_dir: Path) -> tuple[Tensor, Tensor]:
    """The training images, ``(60000, 1, 28, 28)`` in [0, 1], and labels; random ones if the files are missing."""
    raw = data_dir / "MNIST" / "raw"
    if not (raw / "train-images-idx3-ubyte.gz").exists():
        print(f"{raw} holds no MNIST: random images are taken.\n")
        return torch.rand(N, 1, 28, 28), torch.randint(10, (N,))
    x, y = (gzip.decompress((raw / f"train-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1"))
    pixels = torch.from_numpy(np.frombuffer(x, np.uint8, offset=16).reshape(N, 1, 28, 28).copy())
    return pixels.float() / 255, torch.from_numpy(np.frombuffer(y, np.uint8, offset=8).copy()).long()


def v3() -> dict[str, Quantizer]:
    """The discretization, with bins that are frozen after the first measurement."""
    return {
        "conv1": Quantizer(nn.MaxPool3d((4, 4, 4)), UniformBins(3, quantiles=(0.01, 0.99))),
        "conv2": Quantizer(nn.MaxPool3d((4, 3, 3)), UniformBins(3, quantiles=(0.01, 0.99))),
        "out": Quantizer(nn.Softmax(dim=1), FixedBins([0.0, 0.5])),
    }


def timed(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, all of them in turn, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def row(name: str, seconds: list[float], baseline: list[float] | None = None) -> None:
    """Print the median, its spread, and the median of the ratios pair by pair."""
    median = statistics.median(seconds)
    spread = f"{min(seconds) * 1e3:.0f}–{max(seconds) * 1e3:.0f}"
    ratio = "" if baseline is None else f"{statistics.median(a / b for a, b in zip(seconds, baseline)):.3f}"
    print(f"| {name} | {median * 1e3:.1f} | {spread} | {ratio} |", flush=True)


def batch_path(x: Tensor, y: Tensor, repeats: int, batch_size: int) -> InformationPlane:
    """A forward pass over the loader, bare and measured."""
    model = Network().eval()
    loader = DataLoader(TensorDataset(x, y), batch_size)
    plane = InformationPlane(v3(), input=Quantizer(nn.MaxPool2d(4), FixedBins([0.0, 0.5])), unit="nats")
    idle = InformationPlane(v3())

    def bare() -> None:
        with preserve_state(model):
            for batch, _ in loader:
                model(batch)

    def hooked() -> None:
        with idle.attach(model) as recorder, preserve_state(model):
            recorder.enabled = False
            for batch, _ in loader:
                model(batch)

    def pooled() -> None:
        layers = v3()
        with preserve_state(model):
            for batch, _ in loader:
                nn.functional.max_pool2d(batch, 4)
                t1 = model.conv1(batch)
                t2 = model.conv2(t1)
                logits = model.out(t2.flatten(1))
                for layer, t in zip(("conv1", "conv2", "out"), (t1, t2, logits)):
                    pool = layers[layer].pool
                    assert pool is not None
                    pool(t)

    def measured() -> None:
        plane.reset()
        with plane.attach(model), preserve_state(model):
            run_pass(plane, loader, lambda parts: model(parts.x))

    measured()
    plane.compute()  # fits the edges; frozen from here on
    seconds = timed({"bare": bare, "hooked": hooked, "pooled": pooled, "measured": measured}, repeats)
    row(f"bare forward pass, DataLoader, batches of {batch_size}", seconds["bare"])
    row("… with idle hooks", seconds["hooked"], seconds["bare"])
    row("… with v3's pools alone, no hooks, nothing counted", seconds["pooled"], seconds["bare"])
    row("… measured, v3, frozen edges", seconds["measured"], seconds["bare"])
    return plane


def counting(plane: InformationPlane, repeats: int) -> None:
    """From the ids of a measurement to every value of three layers."""
    row("counting: ids → all values, three layers", timed({"count": plane.compute}, repeats * 3)["count"])


def rows(plane: InformationPlane, x: Tensor, y: Tensor, repeats: int) -> None:
    """From codes to H(T) and I(T;Y) of one layer, in three ways."""
    model = Network().eval()
    with torch.no_grad():
        z = torch.cat([v3()["conv1"].pooled(model.conv1(batch)) for batch in x.split(1000)])
    discretization = plane.fitted_quantizers["conv1"]
    assert discretization.edges is not None
    c = bucketize(z, edges=discretization.edges).to(torch.int8).contiguous()
    labels = y.numpy().astype(np.int8)

    def plug_in(counts: Iterable[int]) -> float:
        return math.log(N) - sum(n * math.log(n) for n in counts) / N

    def ours() -> tuple[float, float]:
        from lightning_ib.functional import entropy_of_counts, hash_table, joint, row_ids, symbols

        t, target = symbols(row_ids(c, table=hash_table(n_coordinates=c.shape[1], n_codes=3))), symbols(y)
        h_t, h_y, h_ty = (entropy_of_counts(s.counts, unit="nats") for s in (t, target, joint(t, target)))
        return h_t, h_t + h_y - h_ty

    def void() -> tuple[float, float]:
        def count(array: np.ndarray) -> list[int]:
            array = np.ascontiguousarray(array)
            keys = array.view(np.dtype((np.void, array.shape[1]))).ravel()
            counts: list[int] = np.unique(keys, return_counts=True)[1].tolist()
            return counts

        t, ty, target = c.numpy(), np.column_stack([c.numpy(), labels]), labels[:, None]
        h_t, h_ty, h_y = plug_in(count(t)), plug_in(count(ty)), plug_in(count(target))
        return h_t, h_t + h_y - h_ty

    def counter() -> tuple[float, float]:
        t, target = [tuple(code) for code in c.tolist()], y.tolist()
        h_t = plug_in(Counter(t).values())
        h_ty, h_y = plug_in(Counter(zip(t, target)).values()), plug_in(Counter(target).values())
        return h_t, h_t + h_y - h_ty

    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "rows of codes → H(T), I(T;Y): lightning-ib": ours,
        "… numpy.unique over rows viewed as void": void,
        "… collections.Counter over tuples": counter,
    }
    reference = ours()
    for way in ways.values():
        assert np.allclose(way(), reference, atol=1e-9), (way(), reference)
    seconds = timed(dict(ways), repeats)
    first = next(iter(seconds.values()))
    for name, values in seconds.items():
        row(name, values, first if values is not first else None)


def by_cells(x: Tensor, y: Tensor, repeats: int, batch_size: int) -> None:
    """The default: a forward pass that keeps a sample of sketched rows, then cells and all their values."""
    model = Network().eval()
    loader = DataLoader(TensorDataset(x, y), batch_size)
    plane = InformationPlane(["conv1", "conv2", "out"], unit="nats")

    def bare() -> None:
        with preserve_state(model):
            for batch, _ in loader:
                model(batch)

    def measured() -> None:
        plane.reset()
        with plane.attach(model), preserve_state(model):
            run_pass(plane, loader, lambda parts: model(parts.x))

    seconds = timed({"bare": bare, "measured": measured, "cells": plane.compute}, repeats)
    row(f"… measured, the default, batches of {batch_size}", seconds["measured"], seconds["bare"])
    row(f"cells: {plane.sampled.max_samples} sampled rows → all values, three layers", seconds["cells"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    x, y = images(options.data_dir)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {N} images\n")
    print("| what | median ms | min–max ms | ratio |\n| --- | ---: | ---: | ---: |")
    for batch_size in (BATCH, 5 * BATCH):
        plane = batch_path(x, y, options.repeats, batch_size)
    counting(plane, options.repeats)
    rows(plane, x, y, options.repeats)
    by_cells(x, y, options.repeats, BATCH)


if __name__ == "__main__":
    main()
