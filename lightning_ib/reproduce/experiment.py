"""What an experiment is, what it is given, and what it finds."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lightning_ib.reproduce.finished import FinishedRuns, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

_IN_BATCH = 1000


class Settings(NamedTuple):
    """What an experiment is given.

    Attributes:
        quick: whether it should take minutes; otherwise the setting is the paper's.
        finished: holds the rows of runs that are done, so that an interrupted experiment goes on with the next one.
        seed: the first seed; an experiment of several takes the next ones too.
        data_dir: the folder that holds ``MNIST/raw``, or ``None``.
        device: where networks are trained, such as ``"cpu"`` or ``"cuda"``.
    """

    quick: bool
    finished: FinishedRuns
    seed: int = 0
    data_dir: Path | None = None
    device: str = "cpu"

    def rows(self, run: str, make: Callable[[], list[Row]], progress: Progress, n_parts: int, says: str) -> list[Row]:
        """The rows of a run, made or read; one that was done before is no part of the rate of the progress.

        Args:
            run: its name, as for :meth:`FinishedRuns.rows`.
            make: runs it, and says itself how far it is.
            progress: of the experiment.
            n_parts: how many of its parts the run is.
            says: what is being done, in words.
        """
        progress.describe(says)
        if self.finished.has(run):
            progress.skip(n_parts)
        return self.finished.rows(run, make)


class Claim(NamedTuple):
    """A claim of the paper beside what was found.

    Attributes:
        claimed: by the paper, in a sentence.
        found: here, in a sentence with numbers.
        holds: ``None`` where it cannot be said, as with too few runs.
    """

    claimed: str
    found: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "holds", False: "does not hold", None: "cannot be said"}[self.holds]


class Finding(NamedTuple):
    """What an experiment found.

    Attributes:
        figure: the picture, independent of pyplot.
        rows: the table, of equal columns in every row.
        claims: of the paper, beside what was found.
        method: how it was measured, in sentences.
        settings: name → value of all that was set.
        faults: of the original, which are not copied, in sentences.
        summary: a short table for the text, of equal columns in every row.
    """

    figure: Figure
    rows: Sequence[Row]
    claims: Sequence[Claim]
    method: Sequence[str]
    settings: Mapping[str, Any]
    faults: Sequence[str] = ()
    summary: Sequence[Row] = ()


def filled(rows: Sequence[Row]) -> list[Row]:
    """Rows of several kinds with equal columns; what a row lacks is empty.

    Example:
        >>> filled([{"epoch": 1}, {"truth": 2.0}])
        [{'epoch': 1, 'truth': ''}, {'epoch': '', 'truth': 2.0}]
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in columns} for row in rows]


class Progress(Protocol):
    """Takes how far an experiment is."""

    def begin(self, total: int) -> None:
        """Say how many equal parts there are; called once."""

    def advance(self, n: int = 1) -> None:
        """Say that parts are done."""

    def skip(self, n: int) -> None:
        """Say that parts were done before, by an interrupted command."""

    def describe(self, text: str) -> None:
        """Say what is being done."""


class Silent:
    """A :class:`Progress` that shows nothing."""

    def begin(self, total: int) -> None:
        """Nothing."""

    def advance(self, n: int = 1) -> None:
        """Nothing."""

    def skip(self, n: int) -> None:
        """Nothing."""

    def describe(self, text: str) -> None:
        """Nothing."""


def finite(model: nn.Module, x: Tensor) -> bool:
    """Whether a network has not diverged: its outputs are finite. Modes and random states stay."""
    from lightning_ib.evaluation.passes import preserve_state

    with preserve_state(model):
        return all(bool(model(part).isfinite().all()) for part in x.split(_IN_BATCH))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random states of torch, NumPy and Python from a seed; those of before are restored at the end.

    Example:
        >>> import torch
        >>> with seeded(0):
        ...     first = torch.rand(2)
        >>> with seeded(0):
        ...     bool((torch.rand(2) == first).all())
        True
    """
    import torch

    numpy = sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    python_state = random.getstate()
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(seed)
            random.seed(seed)
            if numpy is not None:
                numpy.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
