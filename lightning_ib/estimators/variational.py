"""Estimators that train something on the rows: probes and critics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from lightning_ib.estimators.base import Estimator, Rows, one_hot, required_labels, required_target, whole_sequences
from lightning_ib.functional import Unit, critic_information, probe_information
from lightning_ib.functional.checks import checked_choice, checked_integer
from lightning_ib.functional.variational.dealing import PARTS


class Probe(Estimator):
    """Usable information: H(Y) less the held-out cross-entropy of a probe on T (Xu et al. 2020).

    The outputs are ``I_TY``, which is at most H(Y) and free of saturation, with its standard error, and ``accuracy``,
    the share of held-out labels that the probe predicts. Where tokens are the samples, those of one sequence stay in
    one fold: it takes as many sequences as folds.

    Cost:
        About 0.1 s for 2 000 rows of 10 to 128 coordinates, on one core; ``"mlp"`` 1 to 4 s. The memory of the linear
        probe, in float64 numbers: two copies of the rows (``2 N²`` and the Gram matrix where D > N), ``folds · D²`` for
        D up to 512, and ``C · (5 N + 20 D)``; up to ``130 N`` more where C · (D + 1) is at most 128.

    Samples:
        Twice the folds at least; a wide layer needs more for the same information. From 5 000 rows the median bias over
        the known cases is 0.015 bits.

    Args:
        probe: ``"linear"`` or ``"mlp"``; they log under ``probe`` and ``mlp_probe``.
        folds: the number of parts that the rows are dealt to; each is predicted by a probe fitted to the others.
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
    """

    outputs = ("I_TY", "accuracy")

    def __init__(
        self,
        probe: Literal["linear", "mlp"] = "linear",
        folds: int = 4,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(pool, max_samples)
        self.probe: Literal["linear", "mlp"] = checked_choice(probe, "Probe: probe", ("linear", "mlp"))
        self.folds = checked_integer(folds, "Probe: folds", at_least=3)
        self.name = "probe" if probe == "linear" else "mlp_probe"

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and the accuracy."""
        y = required_labels(self, rows)
        groups = whole_sequences(rows, self.folds, "folds")
        found = probe_information(rows.numbers, y, groups=groups, probe=self.probe, folds=self.folds, unit=unit)
        return {"I_TY": found.information, "I_TY_se": found.standard_error, "accuracy": found.accuracy}


class _CriticEstimator(Estimator):
    """What the estimators with a critic share: one of its own for every measurement."""

    objective: Literal["infonce", "smile"]

    def __init__(
        self,
        pool: Callable[[Tensor], Tensor] | None = None,
        max_samples: int | None = None,
        critic: Literal["separable", "joint"] = "separable",
    ) -> None:
        super().__init__(pool, max_samples)
        choices: tuple[Literal["separable", "joint"], ...] = ("separable", "joint")
        self.critic = checked_choice(critic, f"{type(self).__name__}: critic", choices)

    def estimate(self, rows: Rows, calibration: Mapping[str, float], unit: Unit) -> dict[str, float]:
        """I(T;Y) and its standard error."""
        y = _numbers(self, rows)
        groups = whole_sequences(rows, PARTS, "parts of a critic's samples")
        found = critic_information(
            rows.numbers, y, groups=groups, objective=self.objective, critic=self.critic, unit=unit
        )
        return {"I_TY": found.information, "I_TY_se": found.standard_error}


class InfoNCE(_CriticEstimator):
    """A variational lower bound with a critic network (van den Oord et al. 2018): ``I_TY``, with its standard error.

    Where tokens are the samples, those of one sequence stay in one part of one half: it takes eight sequences.

    Cost:
        About 4 to 6 s for 2 000 rows on one core, since a critic is trained at every measurement; the joint one takes
        two to four times as long.

    Samples:
        Some thousand: each half trains the critic that reads the other. From 5 000 it reads 1.25 of 1.26 bits in
        10 + 10 coordinates.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
        critic: ``"separable"`` scores a representation and a target by two networks, ``"joint"`` by one, which takes
            two to four times as long and suits sharp links.
    """

    name = objective = "infonce"


class SMILE(_CriticEstimator):
    """A variational estimate with a clipped critic (Song & Ermon 2020): ``I_TY``, with its standard error.

    Where tokens are the samples, those of one sequence stay in one part of one half: it takes eight sequences.

    Cost:
        About 4 to 6 s for 2 000 rows on one core, since a critic is trained at every measurement; the joint one takes
        two to four times as long.

    Samples:
        Some thousand, as :class:`InfoNCE`: from 5 000 it reads 1.26 of 1.26 bits in 10 + 10 coordinates.

    Args:
        pool: see :class:`Estimator`.
        max_samples: see :class:`Estimator`.
        critic: see :class:`InfoNCE`.
    """

    name = objective = "smile"


def _numbers(estimator: Estimator, rows: Rows) -> Tensor:
    """The target as real numbers: class labels as one-hot rows."""
    y = required_target(estimator, rows)
    return y if rows.labels is None else one_hot(y, len(rows.t))
