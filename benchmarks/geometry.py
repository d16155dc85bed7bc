"""The cost of companions: CPU time of each on rows of a layer, and of class geometry in a validation pass.

``python benchmarks/geometry.py`` times, on one thread, the spectrum, the classes and the drift of 2 000 rows of 512 and
of 2 048 coordinates, beside their Gram matrix in float64 and its eigenvalues alone, and then a validation pass of a
ResNet-18 that is measured with class geometry of twelve layers and without, in turn. Ratios are more reliable than
seconds.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ib import InformationPlane
from lightning_ib.estimators.base import Rows
from lightning_ib.functional import ClassSums, spectrum
from lightning_ib.functional.geometry.rows import centered, gram
from lightning_ib.measurement.drift import Drift


def cpu_ms(work: Callable[[], Any]) -> float:
    """The CPU milliseconds of one call."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


class Block(nn.Module):
    """Two convolutions and the way around them."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.around: nn.Module = nn.Identity()
        if n_in != n_out:
            self.around = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → the same, halved by the stride."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        out: Tensor = inner + self.around(x)
        return out.relu_()


def resnet18(n_classes: int = 10) -> nn.Module:
    """The layers of ResNet-18."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [Block(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:])]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, n_classes)).eval()


@torch.no_grad()
def validation_pass(model: nn.Module, batches: list[tuple[Tensor, Tensor]], **options: Any) -> float:
    """The CPU milliseconds of a measured pass, all its values included."""
    plane = InformationPlane(**options)

    def work() -> None:
        with plane.attach(model):
            for x, y in batches:
                model(x)
                plane.update(x, y)
            plane.compute()
            plane.estimate()

    return cpu_ms(work)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pixels", type=int, default=112)
    parser.add_argument("--images", type=int, default=192, help="0 leaves out the validation pass")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread\n")
    print("| 2 000 rows of | Gram | eigenvalues (E) | spectrum | classes (10), batches of 100 | drift (1 000) | all |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for width in (512, 2048):
        rows, labels = torch.randn(2000, width), torch.arange(2000) % 10
        first = rows[:1000] + torch.randn(1000, width)

        def streamed(rows: Tensor = rows, labels: Tensor = labels, width: int = width) -> None:
            sums = ClassSums(width)
            for some, of in zip(rows.split(100), labels.split(100)):
                sums.update(some, of)
            sums.result()

        z = centered(rows.double())
        products = gram(z if width > 2000 else z.T)
        drift = Drift()
        drift.compared("layer", Rows(first))
        works: list[Callable[[], Any]] = [
            partial(gram, z if width > 2000 else z.T),
            partial(np.linalg.eigvalsh, products.numpy()),
            partial(spectrum, rows),
            streamed,
            partial(drift.compared, "layer", Rows(rows[:1000])),
        ]
        times = [[cpu_ms(work) for work in works] for _ in range(arguments.rounds + 1)][1:]
        medians = [statistics.median(column) for column in zip(*times)]
        cells = [f"{one:.0f} ms, {one / medians[1]:.2f} E" for one in (*medians, sum(medians[2:]))]
        print(f"| {width} | {' | '.join(cells)} |")
    if not arguments.images:
        return
    model = resnet18()
    shape = (32, 3, arguments.pixels, arguments.pixels)
    batches = [(torch.randn(shape), torch.arange(32) % 10) for _ in range(arguments.images // 32)]
    ratios = []
    for k in range(arguments.rounds + 1):
        kinds: list[dict[str, Any]] = [{}, {"companions": ["classes"]}]
        cost = [validation_pass(model, batches, **one) for one in (kinds if k % 2 else kinds[::-1])]
        plain, with_classes = cost if k % 2 else cost[::-1]
        if k:
            ratios.append(with_classes / plain - 1)
    rounds = ", ".join(f"{ratio:+.1%}" for ratio in ratios)
    print(f"\nClass geometry of twelve layers in a validation pass of ResNet-18, {arguments.images} images of ", end="")
    print(f"{arguments.pixels} × {arguments.pixels}: {statistics.median(ratios):+.1%} CPU time (rounds: {rounds}).")


if __name__ == "__main__":
    main()
