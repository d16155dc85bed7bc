"""When to measure: at which epochs or optimizer steps. A value, independent of any Trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_ib.functional.checks import checked_integer

_A_DECADE = 10
"""How many measurements the schedule ``"log"`` takes while the number of steps grows tenfold."""

_MOST_NAMED = 10


def log_step_after(step: int) -> int:
    """The first step of the schedule ``"log"`` after a step: 0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, … without end.

    The moments are the powers of ten in equal ratios, ten a decade, rounded to whole steps: round(10^(k/10)), each
    once.

    Args:
        step: how many optimizer steps are over; a negative number where none is looked for yet.

    Example:
        >>> steps = [0]
        >>> while steps[-1] < 100:
        ...     steps.append(log_step_after(steps[-1]))
        >>> steps
        [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100]
    """
    if step < 1:
        return max(0, step + 1)
    k = math.floor(_A_DECADE * math.log10(step))
    while (found := _log_step(k)) <= step:
        k += 1
    return found


def _log_step(k: int) -> int:
    decades, part = divmod(k, _A_DECADE)
    return round(math.pow(10, decades) * math.pow(10, part / _A_DECADE))


@dataclass(frozen=True)
class Schedule:
    """The epochs or optimizer steps after which to measure.

    Args:
        every_n_epochs: after every n-th epoch.
        epochs: after these epochs instead, the first epoch being 1; they are sorted.
        every_n_train_steps: after every n-th optimizer step instead.
        at_steps: after these optimizer steps instead, in ascending order, 0 being before training; or ``"log"``, the
            steps of :func:`log_step_after`.

    Raises:
        TypeError: a number is something else than an integer, or ``epochs`` or ``at_steps`` than a list of those.
        ValueError: a number is below 1 (an epoch or a step of a list below 0), a list is empty, ``at_steps`` does not
            ascend, or several schedules are set.

    Example:
        >>> schedule = Schedule(epochs=[8, 1, 2, 4])
        >>> [epoch for epoch in range(1, 10) if schedule.is_due(epoch, last=epoch - 1)]
        [1, 2, 4, 8]
        >>> str(schedule)
        'after the epochs 1, 2, 4, 8'
        >>> schedule = Schedule(at_steps="log")
        >>> [step for step in range(1, 30) if schedule.is_due(step, last=step - 1)]
        [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25]
    """

    every_n_epochs: int = 1
    epochs: Sequence[int] | None = None
    every_n_train_steps: int | None = None
    at_steps: Sequence[int] | Literal["log"] | None = None

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
        if self.at_steps is not None and self.at_steps != "log":
            object.__setattr__(self, "at_steps", _ascending(self.at_steps))
        given = {
            "every_n_epochs": self.every_n_epochs != 1,
            "epochs": self.epochs is not None,
            "every_n_train_steps": self.every_n_train_steps is not None,
            "at_steps": self.at_steps is not None,
        }
        if sum(given.values()) > 1:
            raise ValueError(f"give one schedule, got {' and '.join(name for name in given if given[name])}.")

    @property
    def by(self) -> Literal["epoch", "step"]:
        """The unit of moments."""
        return "epoch" if self.every_n_train_steps is None and self.at_steps is None else "step"

    def is_due(self, now: int, last: int) -> bool:
        """Whether a moment to measure has come since the last measurement, at this one or before it.

        Args:
            now: how many epochs or steps (see :attr:`by`) are over.
            last: how many were over at the last measurement.
        """
        if self.every_n_train_steps is not None:
            return now // self.every_n_train_steps > last // self.every_n_train_steps
        if self.at_steps == "log":
            return log_step_after(last) <= now
        moments = self.epochs if self.at_steps is None else self.at_steps
        if moments is not None:
            return any(last < moment <= now for moment in moments)
        return now - last >= self.every_n_epochs

    def unreached(self, step: int) -> str:
        """A sentence about the steps of ``at_steps`` that a training of so many steps ended before; empty without."""
        listed = () if self.at_steps is None or isinstance(self.at_steps, str) else self.at_steps
        late = [one for one in listed if one > step]
        return f"training ended at step {step}, before {len(late)} of at_steps: {_named(late)}." if late else ""

    def __str__(self) -> str:
        if self.at_steps is not None:
            steps = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20) if isinstance(self.at_steps, str) else self.at_steps
            decade = ", ten a decade" if isinstance(self.at_steps, str) else ""
            return f"after the step{'s' * (len(steps) > 1)} {_named(steps)}{decade}"
        if self.every_n_train_steps is not None:
            return _every(self.every_n_train_steps, "step")
        if self.epochs is not None:
            return f"after the epoch{'s' * (len(self.epochs) > 1)} {', '.join(map(str, self.epochs))}"
        return _every(self.every_n_epochs, "epoch")


def _every(n: int, what: str) -> str:
    return f"after every {what}" if n == 1 else f"after every {n} {what}s"


def _named(steps: Sequence[int]) -> str:
    return ", ".join([*map(str, steps[:_MOST_NAMED]), *["…"] * (len(steps) > _MOST_NAMED)])


def _ascending(steps: Any) -> tuple[int, ...]:
    """The steps of a list that ascends."""
    example = "[0, 1, 10, 100]"
    if isinstance(steps, str) or not isinstance(steps, Sequence) or not steps:
        kind = ValueError if isinstance(steps, Sequence) else TypeError
        raise kind(f"at_steps must be a list of whole numbers such as {example}, or 'log', got {steps!r}.")
    checked = tuple(checked_integer(step, "at_steps", at_least=0) for step in steps)
    for earlier, later in zip(checked, checked[1:]):
        if later <= earlier:
            raise ValueError(f"at_steps must ascend, such as {example}, got {later} after {earlier}: sort the list.")
    return checked
