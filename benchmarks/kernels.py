"""The cost of the kernel estimators, relative to the matrix products and eigenvalues that they need.

Run it as ``python benchmarks/kernels.py``. It prints two Markdown tables. Each estimate is timed in turn with the
linear algebra it needs, in one process, and the ratio is the median of the pairs: it is more reliable than seconds.
Memory is the growth of the resident set over a single call, in a fresh process each (Linux).

The settings: bounds with noise for 10 000 samples of 144 coordinates in ten classes, beside the product of the rows
with themselves, in the rows' own precision and in the float64 that the estimate is worked out in; matrix-based Rényi
information for 2 000 samples, beside the eigenvalues of three matrices.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measurement import row, timed
from torch import Tensor

from lightning_ib.functional.continuous.kde import mutual_information_bounds_kde, noise_variance_of
from lightning_ib.functional.continuous.renyi import mutual_information_renyi, mutual_information_renyi_labels

D, CLASSES = 144, 10
DTYPES = (torch.float64, torch.float32)


def layer(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows around ten centers, as a trained layer's are, and the classes."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (n,), generator=g)
    return (torch.randn(CLASSES, D, generator=g)[y] + torch.randn(n, D, generator=g)).to(dtype), y


def product(t: Tensor) -> None:
    """The inner products of all pairs of rows, a block at a time."""
    for block in t.split(1024):
        block @ t.T


def kde(n: int, dtype: torch.dtype) -> Callable[[], object]:
    t, y = layer(n, dtype)
    noise_variance = noise_variance_of(t)
    return lambda: mutual_information_bounds_kde(t, y, noise_variance=noise_variance)


def renyi(n: int, dtype: torch.dtype, labels: bool) -> Callable[[], object]:
    t, y = layer(n, dtype)
    if labels:
        return lambda: mutual_information_renyi_labels(t, y)
    return lambda: mutual_information_renyi(t, t[:, :10])


def eigenvalues(n: int) -> Callable[[], object]:
    x = layer(n, torch.float64)[0]
    gram = (torch.cdist(x, x).square() / -(2 * D)).exp()

    def three() -> None:
        for _ in range(3):
            torch.linalg.eigvalsh(gram)

    return three


def growth(make: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> float:
    """By how many MB the resident set grows at its highest while an estimate is made, its samples excluded."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth, (make, arguments))


def _growth(make: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> float:
    make(100, *arguments[1:])()  # one-time setup of the libraries
    estimate = make(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current resident set
    before = _resident("VmRSS")
    estimate()
    return _resident("VmHWM") - before


def _resident(key: str) -> float:
    """A value of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| what | median ms | min–max ms | ratio |\n| --- | ---: | ---: | ---: |")
    rows = layer(10_000, torch.float64)[0]
    seconds = timed(
        {
            **{f"products, {dtype}": partial(product, rows.to(dtype)) for dtype in DTYPES},
            **{f"bounds, {dtype}": kde(10_000, dtype) for dtype in DTYPES},
        },
        repeats,
    )
    for dtype in DTYPES:
        row(f"products of 10 000 rows of {D}, {dtype}", seconds[f"products, {dtype}"])
        row(f"… bounds with noise, 10 classes, {dtype}", seconds[f"bounds, {dtype}"], seconds[f"products, {dtype}"])
    row(
        "… and beside the products in torch.float64",
        seconds["bounds, torch.float32"],
        seconds["products, torch.float64"],
    )
    seconds = timed(
        {
            "eigenvalues": eigenvalues(2_000),
            **{f"y real, {dtype}": renyi(2_000, dtype, False) for dtype in DTYPES},
            **{f"y labels, {dtype}": renyi(2_000, dtype, True) for dtype in DTYPES},
        },
        repeats,
    )
    for name, values in seconds.items():
        if name == "eigenvalues":
            row("eigenvalues of three matrices of 2 000 rows", values)
        else:
            row(f"… Rényi information, {name}", values, seconds["eigenvalues"])
    print("\n| what | working memory, MB |\n| --- | ---: |")
    for dtype in DTYPES:
        print(f"| bounds with noise, {dtype} | {growth(kde, (10_000, dtype)):.0f} |", flush=True)
    for labels in (False, True):
        used = growth(renyi, (2_000, torch.float64, labels))
        print(f"| Rényi information, y {'labels' if labels else 'real'} | {used:.0f} |", flush=True)


if __name__ == "__main__":
    main()
