"""What measuring adds to a validation pass: a bare pass and a measured one in turn, in one process.

``python benchmarks/validation_pass.py --data-dir DATA --threads 1`` prints a Markdown table. A pass is the loop that
``trainer.validate`` runs, under ``torch.no_grad`` in eval mode, over a DataLoader; a measured one is told batch by
batch what the callback is told. Rounds are short and interleaved, and the share is the median over pairs of rounds, so
that other processes on the machine move it little. Two costs are kept apart: what each batch takes, and what comes
once at the end of a pass (counts, cells, the probe), in seconds and as a share of a pass over as many samples.

The settings: MNIST's network with the bins called v3 in ``examples/mnist_cnn.py``, their edges frozen, X in bins, too,
at batches of 100 and 500; the same by default, with cells; and a network shaped like ResNet-18 at 128 × 128 pixels,
16 pictures a batch, with the twelve layers that are picked by default.
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
    loader: DataLoader[Any]
    options: Mapping[str, Any]
    at_the_end: DataLoader[Any]
    rounds: int


class Clock:
    """Seconds of the process on all its cores, and of the wall."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def time(self, function: Callable[[], object]) -> None:
        """Time one call."""
        cpu, wall = time.process_time(), time.perf_counter()
        function()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)


def run(model: nn.Module, loader: DataLoader[Any], session: Session | None = None) -> None:
    """A pass, as the validation loop runs it: the hooks are on during the forward alone."""
    with torch.no_grad():
        for batch in loader:
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
    n_batches, whole = len(setting.loader), len(setting.at_the_end.dataset)  # type: ignore[arg-type]
    of_pass = statistics.median(bare.cpu) / n_batches * len(setting.at_the_end)
    seconds = statistics.median(end.cpu)
    print(
        f"| {setting.name} | {1e3 * statistics.median(bare.cpu) / n_batches:.1f} "
        f"| {added(bare.cpu, measured.cpu)} | {added(bare.wall, measured.wall)} "
        f"| {seconds:.2f} s ({100 * seconds / of_pass:.1f} % of {whole}) |",
        flush=True,
    )
    session.detach()


def loader(x: Tensor, y: Tensor, batch: int) -> DataLoader[Any]:
    """Batches in order."""
    return DataLoader(TensorDataset(x, y), batch)


def settings(data_dir: Path, rounds: int, n: int) -> list[Setting]:
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
            found.append(Setting(name, Network(), short, options, whole, rounds))
    pictures, labels = torch.randn(64, 3, 128, 128), torch.arange(64) % 10
    large = loader(pictures[:32], labels[:32], 16), loader(pictures, labels, 16)
    name = "ResNet-18, 128 px, the default, batches of 16"
    found.append(Setting(name, resnet18(10), large[0], {"verbose": False}, large[1], max(3, rounds // 2)))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What measuring adds to a validation pass.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=10_000, help="of the pass whose end is timed")
    parser.add_argument("--only", default="", help="the settings with this in their names")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, threads: {args.threads}\n")
    print("| setting | bare, CPU ms a batch | added, CPU % | added, wall % | end of a pass, CPU |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for setting in settings(args.data_dir, args.rounds, args.samples):
        if args.only in setting.name:
            show(setting)


if __name__ == "__main__":
    main()
