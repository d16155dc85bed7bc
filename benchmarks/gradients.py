"""The cost of ``GradientSNRCallback``: time and memory of its hook beside a training step of ResNet-18.

``python benchmarks/gradients.py --threads 2`` trains for a few steps on random pictures and times the hook within each:
ratios of one run, medians of its steps.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
from torch import Tensor, nn

from lightning_ib.measurement import GradientSNR


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, n: int, m: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n, m, 3, stride, 1, bias=False), nn.BatchNorm2d(m)
        self.conv2, self.bn2 = nn.Conv2d(m, m, 3, 1, 1, bias=False), nn.BatchNorm2d(m)
        self.short = nn.Sequential()
        if stride != 1 or n != m:
            self.short = nn.Sequential(nn.Conv2d(n, m, 1, stride, bias=False), nn.BatchNorm2d(m))

    def forward(self, x: Tensor) -> Tensor:
        """Their sum."""
        out: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        out = out + self.short(x)
        return out.relu()


def resnet18(classes: int = 1000) -> nn.Sequential:
    """ResNet-18 for pictures of 224 × 224 (He et al. 2016)."""
    blocks: list[nn.Module] = []
    n = 64
    for m, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Block(n, m, stride), Block(m, m, 1)]
        n = m
    stem: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def main() -> None:
    """Time the hook, and print its share of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = resnet18()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    every = [name for name, one in model.named_modules() if isinstance(one, (nn.Conv2d, nn.Linear))]
    instruments = {
        "twelve layers": GradientSNR(),
        "all layers": GradientSNR(every),
        "all layers, sketch": GradientSNR(every, sketch=1024),
    }
    for one in instruments.values():
        one.attach(model)
    x, y = torch.randn(options.batch, 3, options.pixels, options.pixels), torch.randint(1000, (options.batch,))
    steps: list[float] = []
    hooks: dict[str, list[float]] = {name: [] for name in instruments}
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        paused = 0.0
        for name, one in instruments.items():
            begin = time.perf_counter()
            one.see(model.parameters(), n_samples=options.batch)
            hooks[name].append(time.perf_counter() - begin)
            paused += hooks[name][-1]
        optimizer.step()
        steps.append(time.perf_counter() - start - paused)
    step = statistics.median(steps[1:])
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    print(f"a training step of ResNet-18, {options.batch} × {options.pixels}², {options.threads} threads: {step:.3f} s")
    print("layers                weights   floats kept   the hook      of a step")
    for name, one in instruments.items():
        hook = statistics.median(hooks[name][1:])
        sums = list(one._sums.values())
        n, kept = sum(of.parameter.numel() for of in sums), sum(of.total.numel() for of in sums if of.total is not None)
        print(f"{name:20} {n:10,} {kept:12,} {1e3 * hook:9.1f} ms {hook / step:12.2%}")


if __name__ == "__main__":
    main()
