"""When to measure: at which epochs or optimizer steps. A value, independent of any Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_ib.functional.checks import checked_integer


@dataclass(frozen=True)
class Schedule:
    """The epochs or optimizer steps after which to measure.

    Args:
        every_n_epochs: after every n-th epoch.
        epochs: after these epochs instead, the first epoch being 1; they are sorted.
        every_n_train_steps: after every n-th optimizer step instead.

    Raises:
        TypeError: a number is something else than an integer, or ``epochs`` than a list of those.
        ValueError: a number is below 1 (an epoch below 0), ``epochs`` is empty, or several schedules are set.

    Example:
        >>> schedule = Schedule(epochs=[8, 1, 2, 4])
        >>> [epoch for epoch in range(1, 10) if schedule.is_due(epoch, last=epoch - 1)]
        [1, 2, 4, 8]
        >>> str(schedule)
        'after the epochs 1, 2, 4, 8'
    """

    every_n_epochs: int = 1
    epochs: Sequence[int] | None = None
    every_n_train_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("every_n_epochs", "every_n_train_steps"):
            n = getattr(self, name)
            if name == "every_n_epochs" or n is not None:
                checked_integer(n, name, at_least=1)
        if self.epochs is not None:
            listed = isinstance(self.epochs, Sequence) and not isinstance(self.epochs, str)
            if not listed or not self.epochs:
                kind = ValueError if listed else TypeError
                raise kind(f"epochs must be a list of whole numbers such as [1, 2, 4, 8], got {self.epochs!r}.")
            epochs = sorted(checked_integer(epoch, "epochs", at_least=0) for epoch in self.epochs)
            object.__setattr__(self, "epochs", tuple(epochs))
        given = {
            "every_n_epochs": self.every_n_epochs != 1,
            "epochs": self.epochs is not None,
            "every_n_train_steps": self.every_n_train_steps is not None,
        }
        if sum(given.values()) > 1:
            raise ValueError(f"give one schedule, got {' and '.join(name for name in given if given[name])}.")

    @property
    def by(self) -> Literal["epoch", "step"]:
        """The unit of moments."""
        return "epoch" if self.every_n_train_steps is None else "step"

    def is_due(self, now: int, last: int) -> bool:
        """Whether a moment to measure has come since the last measurement, at this one or before it.

        Args:
            now: how many epochs or steps (see :attr:`by`) are over.
            last: how many were over at the last measurement.
        """
        if self.every_n_train_steps is not None:
            return now // self.every_n_train_steps > last // self.every_n_train_steps
        if self.epochs is not None:
            return any(last < epoch <= now for epoch in self.epochs)
        return now - last >= self.every_n_epochs

    def __str__(self) -> str:
        if self.every_n_train_steps is not None:
            return _every(self.every_n_train_steps, "step")
        if self.epochs is not None:
            return f"after the epoch{'s' * (len(self.epochs) > 1)} {', '.join(map(str, self.epochs))}"
        return _every(self.every_n_epochs, "epoch")


def _every(n: int, what: str) -> str:
    return f"after every {what}" if n == 1 else f"after every {n} {what}s"
