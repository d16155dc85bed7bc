"""How a weight changes in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lightning_ib.functional.checks import checked_choice, checked_integer, checked_number

Shape = Literal["linear", "exponential", "cosine"]


@dataclass(frozen=True)
class Annealing:
    r"""A weight as a function of the step: from ``start`` to ``end`` in ``n_steps``, and ``end`` from there on.

    It has no state: the step of the Trainer, which a checkpoint restores, decides, so that a resumed run goes on with
    the same weights. With a fraction :math:`f = \mathrm{step} / \mathrm{n\_steps}` of the way,

    - ``"linear"`` is start + f (end − start);
    - ``"exponential"`` is start (end / start)^f, equal factors in equal times;
    - ``"cosine"`` is start + (end − start) (1 − cos π f) / 2, slow at both ends.

    Args:
        start: at step ``first_step`` and before, at least 0.
        end: at step ``first_step + n_steps`` and after, at least 0.
        n_steps: the length, at least 1, in the unit of the steps that it is called with.
        shape: of the way between them.
        first_step: where it begins; until there the weight is ``start``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range, or ``start`` or ``end`` is 0 where the shape is exponential.

    Example:
        In ``training_step``: ``self.objective.beta = self.annealing(self.global_step)``.

        >>> annealing = Annealing(0, 1e-2, 1000)
        >>> [annealing(step) for step in (0, 500, 1000, 5000)]
        [0.0, 0.005, 0.01, 0.01]
    """

    start: float
    end: float
    n_steps: int
    shape: Shape = "linear"
    first_step: int = 0

    def __post_init__(self) -> None:
        checked_choice(self.shape, "Annealing: shape", get_args(Shape))
        checked_integer(self.n_steps, "Annealing: n_steps", at_least=1)
        checked_integer(self.first_step, "Annealing: first_step", at_least=0)
        for value, name in ((self.start, "start"), (self.end, "end")):
            number = checked_number(value, f"Annealing: {name}", at_least=0)
            if self.shape == "exponential" and number == 0:
                raise ValueError(
                    f"Annealing: {name} must be positive for an exponential shape, got 0: give 1e-6, say, or take a "
                    "linear shape."
                )

    def __call__(self, step: int) -> float:
        """The weight at a step, counted from 0.

        Raises:
            TypeError: the step is no integer.
            ValueError: it is negative.
        """
        done = checked_integer(step, "step", at_least=0) - self.first_step
        fraction = min(max(done / self.n_steps, 0.0), 1.0)
        if fraction in (0, 1):
            return float(self.end if fraction else self.start)
        if self.shape == "exponential":
            return float(self.start * (self.end / self.start) ** fraction)
        if self.shape == "cosine":
            fraction = (1 - math.cos(math.pi * fraction)) / 2
        return float(self.start + fraction * (self.end - self.start))
