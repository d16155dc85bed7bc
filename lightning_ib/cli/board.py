"""A logger that writes TensorBoard's event file without a Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_EVENTS = "events.out.tfevents.*"


class Board:
    """Logs to TensorBoard as Lightning's logger of that name does.

    Args:
        folder: the folder of the event file.
        files: the names of earlier event files of its own.

    Attributes:
        log_dir: the same folder.
        files: the names of its event files.
    """

    def __init__(self, folder: Path, files: Iterable[str] = ()) -> None:
        self.log_dir, self.files = folder, list(files)

    @cached_property
    def experiment(self) -> SummaryWriter:
        """The writer; its file is made with the first value."""
        from torch.utils.tensorboard import SummaryWriter

        before = set(self.log_dir.glob(_EVENTS))
        writer = SummaryWriter(str(self.log_dir))
        self.files += [file.name for file in self.log_dir.glob(_EVENTS) if file not in before]
        return writer

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars."""
        for name, value in metrics.items():
            self.experiment.add_scalar(name, value, step)

    def save(self) -> None:
        """Write what is buffered."""
        self.experiment.flush()

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        if "experiment" in vars(self):
            self.experiment.close()

    def is_there(self) -> bool:
        """Whether its event files are there."""
        return bool(self.files) and all((self.log_dir / name).is_file() for name in self.files)

    def clear(self) -> None:
        """Remove its earlier event files: all values are written anew."""
        for name in self.files:
            (self.log_dir / name).unlink(missing_ok=True)
        self.files.clear()
