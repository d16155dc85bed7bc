"""A logger that writes TensorBoard's event file without a Trainer."""

from __future__ import annotations

from collections.abc import Mapping
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

    Attributes:
        log_dir: the same folder.
    """

    def __init__(self, folder: Path) -> None:
        self.log_dir = folder

    @cached_property
    def experiment(self) -> SummaryWriter:
        """The writer; its file is made with the first value."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.log_dir))

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

    def clear(self) -> None:
        """Remove earlier event files: all values are written anew."""
        for file in self.log_dir.glob(_EVENTS):
            file.unlink()
