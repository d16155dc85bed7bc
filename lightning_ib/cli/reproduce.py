"""``lightning-ib reproduce``: experiments of published papers."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_ib import __version__
from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.reproduce.errors import ExperimentError
from lightning_ib.reproduce.experiment import Finding, Settings
from lightning_ib.reproduce.finished import FinishedRuns
from lightning_ib.reproduce.registry import EXPERIMENTS, Experiment, experiment_of

_RUNS = "runs"


def reproduce(arguments: Namespace) -> int:
    """Run an experiment and write what it found; without a name list what there is.

    Raises:
        UsageError: there is no such experiment, data are missing, or the folder cannot be written.
    """
    if arguments.name is None:
        print(listing())
        return 0
    try:
        experiment = experiment_of(arguments.name)
        folder = Path(arguments.out or Path("reproduce") / experiment.name)
        settings = _settings(arguments, experiment, folder)
        _check_writable(folder, experiment)
    except ExperimentError as error:
        raise UsageError(str(error)) from error
    try:
        with bar(experiment.name) as progress:
            started = time.monotonic()
            finding = experiment.run(settings, progress)
            seconds = time.monotonic() - started
    except ExperimentError as error:
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        n = settings.finished.n_done
        kept = f"runs that are done: {n}, kept in {folder / _RUNS}; the same command goes on."
        say(kept if n else "no run is done yet: the same command begins anew.")
        raise
    _write(experiment, finding, folder)
    print(f"in {seconds / 60:.1f} minutes")
    return 0


def listing() -> str:
    """The experiments, a line each, and how long they take."""
    width = max(map(len, EXPERIMENTS))
    lines = [
        f"{experiment.name:{width}}  {experiment.title} ({experiment.source.split(',')[0]}; "
        f"--quick: {experiment.quick}, the paper's setting: {experiment.full})"
        for experiment in EXPERIMENTS.values()
    ]
    return "\n".join(lines)


def _settings(arguments: Namespace, experiment: Experiment, folder: Path) -> Settings:
    """What is checked before anything is written: the device, the data, and the runs that are there."""
    import torch

    from lightning_ib.reproduce.mnist import checksum

    device = _device(arguments.device)
    found = arguments.data_dir or os.environ.get("LIGHTNING_IB_DATA")
    data_dir = Path(found) if found else None
    options = {"experiment": experiment.name, "quick": arguments.quick, "seed": arguments.seed, "device": device}
    options |= {"version": __version__, "torch": torch.__version__}
    options |= {"data": checksum(data_dir)} if experiment.needs_mnist else {}
    return Settings(arguments.quick, FinishedRuns(folder / _RUNS, options), arguments.seed, data_dir, device)


def _device(name: str) -> str:
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used: {reason.rstrip('.')}.") from error
    return name


def _check_writable(folder: Path, experiment: Experiment) -> None:
    """Find out before hours of training."""
    from lightning_ib.reproduce.report import files_of

    try:
        for into in (folder, folder / _RUNS):
            into.mkdir(parents=True, exist_ok=True)
            probe = into / ".writable"
            probe.touch()
            probe.unlink()
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be written: {error.filename}: {error.strerror}.") from error
    for file in files_of(experiment, folder):
        if file.is_dir():
            raise UsageError(f"--out {folder} cannot be written: {file} is a folder.")


def _write(experiment: Experiment, finding: Finding, folder: Path) -> None:
    from lightning_ib.reproduce.report import write_finding

    try:
        written = write_finding(experiment, finding, folder, __version__)
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be written: {error.strerror}.") from error
    for claim in finding.claims:
        print(f"claimed: {claim.claimed}\n  found: {claim.found}\n  → {claim.verdict}")
    print(f"picture: {written.picture}\ntable: {written.table}\ntext: {written.text}")


@contextmanager
def bar(name: str) -> Iterator[_Bar]:
    """A tqdm bar with the time left; closed at the end, also after errors."""
    shown = _Bar(name)
    try:
        yield shown
    finally:
        shown.close()


class _Bar:
    """A :class:`~lightning_ib.reproduce.experiment.Progress` on the console."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None

    def begin(self, total: int) -> None:
        """Show the bar."""
        from tqdm.auto import tqdm

        # A rate over the whole time: runs that were done before count neither in it nor in the time left.
        self._bar = tqdm(total=total, desc=self._name, dynamic_ncols=True, smoothing=0)

    def advance(self, n: int = 1) -> None:
        """Move it."""
        self._bar.update(n)

    def skip(self, n: int) -> None:
        """Move it, outside its rate."""
        self._bar.initial += n
        self._bar.update(n)

    def describe(self, text: str) -> None:
        """Name what is being done."""
        self._bar.set_description(f"{self._name}: {text}", refresh=False)

    def close(self) -> None:
        """Leave it as it is."""
        if self._bar is not None:
            self._bar.close()
