"""What measuring adds to a validation pass: a bare pass and a measured one in turn, in one process.

``python benchmarks/validation_pass.py --data-dir DATA --threads 1`` prints a Markdown table. A pass is the loop that
``trainer.validate`` runs, under ``torch.no_grad`` in eval mode, over a DataLoader; a measured one is told batch by
batch what the callback is told. Rounds are short and interleaved, and the share is the median over pairs of rounds, so
that other processes on the machine move it little. Two costs are kept apart: what each batch takes, and what comes
once at the end of a pass (counts, cells, the probe), in seconds and as a share of a pass over as many samples.

With ``--device cuda`` the clock is the wall's, between moments when the GPU has done all its work; batches of MNIST
come from the same DataLoader and are moved there, pictures lie there already.

The settings: MNIST's network with the bins called v3 in ``examples/mnist_cnn.py``, their edges frozen, X in bins, too,
at batches of 100 and 500; the same by default, with cells; and a network shaped like ResNet-18 at 128 × 128 pixels,
16 pictures a batch, with the twelve layers that are picked by default; on a GPU also at 224 × 224 pixels and 128 a
batch.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gradients import resnet18
from measurement import Network, images, v3
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import FixedBins, InformationPlaneCallback, Quantizer
from lightning_ib.callbacks.session import Host, Moment, Session

NOW = Moment(0, 0)
Batches = DataLoader[Any] | list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Setting:
    """A model, its data, and how it is measured.

    Attributes:
        name: in the table.
        model: the network.
        loader: a short pass, as many batches as a round has.
        options: of the callback.
        at_the_end: a loader of a whole pass, after which the end of it is timed.
        rounds: the most pairs of rounds.
    """

    name: str
    model: nn.Module
    loader: Batches
    options: Mapping[str, Any]
    at_the_end: Batches
    rounds: int


class Clock:
    """Seconds of the process on all its cores, and of the wall, the work of a GPU included."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def time(self, function: Callable[[], object]) -> None:
        """Time one call."""
        wait()
        cpu, wall = time.process_time(), time.perf_counter()
        function()
        wait()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)


def wait() -> None:
    """Until a GPU has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(model: nn.Module, loader: Batches, session: Session | None = None) -> None:
    """A pass, as the validation loop runs it: the hooks are on during the forward alone."""
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in loader:
            batch = [part.to(device, non_blocking=True) for part in batch]
            if session is not None:
                session.watch()
            model(batch[0])
            if session is not None:
                session.see(batch, NOW)
    if session is not None:  # values that wait for more of them: a whole pass puts them into bins on its way
        session.plane._intake.variables.bin_waiting()


def started(setting: Setting) -> Session:
    """A session at work on the model, its edges frozen and its layers picked by a first pass."""
    session = InformationPlaneCallback(**setting.options).session
    session.attach(setting.model, Host())
    session.begin()
    run(setting.model, setting.loader, session)
    session.conclude(setting.loader, NOW)
    return session


def added(bare: list[float], measured: list[float]) -> str:
    """What measuring adds, in percent: the median over pairs, and the range of the middle half."""
    ratios = sorted(100 * (m / b - 1) for b, m in zip(bare, measured))
    low, high = (ratios[int(q * (len(ratios) - 1))] for q in (0.25, 0.75))
    return f"{statistics.median(ratios):.1f} ({low:.1f}–{high:.1f})"


def show(setting: Setting) -> None:
    """Print the row of a setting."""
    model = setting.model.eval()
    on_gpu = next(model.parameters()).is_cuda
    session = started(setting)
    bare, measured, end = Clock(), Clock(), Clock()
    for _ in range(setting.rounds):
        session.begin()
        bare.time(lambda: run(model, setting.loader))
        measured.time(lambda: run(model, setting.loader, session))
    for _ in range(3):
        session.begin()
        run(model, setting.at_the_end, session)
        end.time(lambda: session.conclude(setting.at_the_end, NOW))
    n_batches, n = len(setting.loader), sum(len(y) for _, y in setting.at_the_end)
    each, at_end = (bare.wall, end.wall) if on_gpu else (bare.cpu, end.cpu)
    of_pass, seconds = statistics.median(each) / n_batches * len(setting.at_the_end), statistics.median(at_end)
    print(
        f"| {setting.name} | {1e3 * statistics.median(each) / n_batches:.2f} "
        f"| {added(bare.cpu, measured.cpu)} | {added(bare.wall, measured.wall)} "
        f"| {1e3 * (statistics.median(measured.wall) - statistics.median(bare.wall)) / n_batches:.2f} "
        f"| {seconds:.2f} s ({100 * seconds / of_pass:.1f} % of {n}) |",
        flush=True,
    )
    session.detach()


def loader(x: Tensor, y: Tensor, batch: int) -> DataLoader[Any]:
    """Batches in order."""
    return DataLoader(TensorDataset(x, y), batch)


def resnet(pixels: int, batch: int, n_batches: int, rounds: int, device: torch.device) -> Setting:
    """ResNet-18 by default, on pictures that lie on its device."""
    pictures = torch.randn(2 * n_batches * batch, 3, pixels, pixels, device=device)
    labels = torch.arange(len(pictures), device=device) % 10
    whole = list(zip(pictures.split(batch), labels.split(batch)))
    name = f"ResNet-18, {pixels} px, the default, batches of {batch}"
    return Setting(name, resnet18(10).to(device), whole[:n_batches], {"verbose": False}, whole, rounds)


def settings(data_dir: Path, rounds: int, n: int, device: torch.device) -> list[Setting]:
    """All of them."""
    x, y = (part[:n] for part in images(data_dir))
    bins = {"layers": v3(), "input": Quantizer(nn.MaxPool2d(4), FixedBins([0.0, 0.5])), "verbose": False}
    found = []
    for batch, in_round in ((100, 1000), (500, 2000)):
        short, whole = loader(x[:in_round], y[:in_round], batch), loader(x, y, batch)
        for name, options in (
            ("bins v3", bins),
            ("bins v3, no probe", bins | {"estimators": ()}),
            ("the default, cells", {"layers": ["conv1", "conv2", "out"], "verbose": False}),
        ):
            name = f"MNIST network, {name}, batches of {batch}"
            found.append(Setting(name, Network().to(device), short, options, whole, rounds))
    found.append(resnet(128, 16, 40 if device.type == "cuda" else 2, max(3, rounds // 2), device))
    if device.type == "cuda":
        found.append(resnet(224, 128, 16, max(3, rounds // 2), device))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What measuring adds to a validation pass.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=10_000, help="of the pass whose end is timed")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--only", default="", help="the settings with this in their names")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    chip = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else platform.processor()
    print(f"{chip or platform.machine()}, torch {torch.__version__}, threads: {args.threads}\n")
    print("| setting | bare, ms a batch | added, CPU % | added, wall % | added, wall ms a batch | end of a pass |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for setting in settings(args.data_dir, args.rounds, args.samples, args.device):
        if args.only in setting.name:
            show(setting)


if __name__ == "__main__":
    main()
