"""What it costs to watch every layer of a language model: tokens per second, and memory.

``python benchmarks/tokens.py`` runs an encoder of twelve layers of width 768 (12 heads, 3 072 units, 30 000 words, a
head of 50 classes, random weights) over batches of 8 × 128 tokens: bare, and with all layers watched, in cells on a
bounded sample of tokens, and by soft entropy on every token. A pass of each kind comes in turn, round after round;
medians. A training step stands beside, which is the unit that a user pays in. Ratios are more reliable than seconds. On
a GPU where there is one.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ib import InformationPlane
from lightning_ib.capture.batches import Parts
from lightning_ib.evaluation.passes import measuring

DEPTH, WIDTH, HEADS, WORDS, CLASSES = 12, 768, 12, 30_000, 50


class Encoder(nn.Module):
    """Tokens ``(B, L)`` → logits ``(B, L, 50)``.

    Args:
        length: the most tokens of a sequence.
        depth: how many layers there are.
    """

    def __init__(self, length: int, depth: int = DEPTH) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(length, WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        h = self.embedding(tokens) + self.place
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(h)
        return logits


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """How long it takes, the device's work included."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def held(thing: Any, seen: set[int] | None = None) -> int:
    """The bytes of all tensors that an object holds, storages counted once."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        storage = thing.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if new else 0
    if isinstance(thing, nn.Module) or callable(thing):
        return 0
    if isinstance(thing, dict):
        return sum(held(one, seen) for one in thing.values())
    if isinstance(thing, (list, tuple, set)):
        return sum(held(one, seen) for one in thing)
    return sum(held(one, seen) for one in vars(thing).values()) if hasattr(thing, "__dict__") else 0


def batches(n: int, size: int, length: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Random tokens, and a class of each."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        tokens = torch.randint(WORDS, (size, length), generator=generator)
        yield tokens.to(device), (tokens % CLASSES).to(device)


def main() -> None:
    """Time the passes, and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batches", type=int, default=4, help="of a pass")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=DEPTH)
    parser.add_argument("--max-samples", type=int, default=10_000, help="tokens that cells see")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = Encoder(options.length, options.depth).to(device).eval()
    data = list(batches(options.batches, options.batch, options.length, device))
    n = options.batches * options.batch * options.length
    layers = [f"layers.{k}" for k in range(options.depth)]
    watched: dict[str, tuple[str, ...]] = {"cells": (), "soft": ("soft",), "cells and the probe": ("probe",)}

    def bare() -> None:
        with torch.no_grad():
            for tokens, _ in data:
                model(tokens)

    def step() -> None:
        for tokens, y in data:
            loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), y.flatten())
            loss.backward()
            model.zero_grad()

    passes: dict[str, list[float]] = {"bare": [], **{name: [] for name in watched}}
    ends: dict[str, list[float]] = {name: [] for name in watched}
    memory: dict[str, int] = {}
    planes = {
        name: InformationPlane(layers, tokens=True, estimators=of, max_samples=options.max_samples, head=False)
        for name, of in watched.items()
    }

    def watch(plane: InformationPlane) -> None:
        with measuring(plane, model, data, None), torch.no_grad():
            for tokens, y in data:
                model(tokens)
                plane.see(Parts(tokens, y))
            synchronize(device)

    for plane in planes.values():  # soft entropy sums over every token from the second pass on
        watch(plane)
        plane.compute()
        plane.estimate()
        plane.reset()
    for _ in range(options.rounds):
        passes["bare"].append(seconds(bare, device))
        for name, plane in planes.items():
            passes[name].append(seconds(lambda plane=plane: watch(plane), device))  # type: ignore[misc]
            memory[name] = held(plane)
            ends[name].append(seconds(lambda plane=plane: (plane.compute(), plane.estimate()), device))  # type: ignore[misc]
            plane.reset()
    steps = [seconds(step, device) for _ in range(options.rounds)]
    report(options, device, n, passes, ends, memory, statistics.median(steps))


def report(
    options: argparse.Namespace,
    device: torch.device,
    n: int,
    passes: dict[str, list[float]],
    ends: dict[str, list[float]],
    memory: dict[str, int],
    step: float,
) -> None:
    """Print medians as Markdown."""
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} threads of a CPU"
    size = f"{options.depth} layers of width {WIDTH}, {options.batch} × {options.length} tokens"
    print(f"{size}, {chip}, {platform.machine()}, torch {torch.__version__}")
    bare = statistics.median(passes["bare"])
    print(f"training (forward and backward): {n / step:.0f} tokens a second\n")
    print("| a pass over | tokens/s | of bare | at its end | bytes a layer |\n| --- | ---: | ---: | ---: | ---: |")
    for name, times in passes.items():
        middle = statistics.median(times)
        end = f"{statistics.median(ends[name]):.2f} s" if name in ends else "–"
        kept = f"{memory[name] / options.depth:,.0f}".replace(",", " ") if name in memory else "–"
        print(f"| {name} | {n / middle:.0f} | {bare / middle:.2f} | {end} | {kept} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
