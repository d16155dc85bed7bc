"""What an instrument shows of its measurement."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
from lightning_ib.measurement.bounds import PlaneBounds
from lightning_ib.measurement.head import Head
from lightning_ib.measurement.intake import Intake
from lightning_ib.measurement.points import PointMaker


class Instrument:
    """The state of a measurement: its layers and targets, how they are read, and how many samples came."""

    _intake: Intake
    _points: PointMaker
    bounds_by_target: Mapping[str, PlaneBounds]

    @property
    def targets(self) -> list[str]:
        """The names of the targets, the primary first; of a single one an empty name."""
        return self._intake.targets.names

    @property
    def bounds(self) -> PlaneBounds:
        """The bounds that the points are compared with, of several targets those of the primary one."""
        return self.bounds_by_target[self.targets[0]]

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in the order they are reported; empty before ``attach``.

        Where ``None`` picks twelve of more, they are known after the first batch, being some of those that ran in it.
        With torch.compile they are picked from all layers before the first batch, since its hooks are fixed.
        """
        return self._intake.watched.names

    @property
    def quantizers(self) -> dict[str, Quantizer | CellQuantizer]:
        """Layer → how it is discretized, in the order the layers are reported; empty before ``attach``."""
        return self._intake.watched.quantizers

    @property
    def fitted_quantizers(self) -> dict[str, FittedQuantizer]:
        """Layer → its bins at work, of the layers with a :class:`Quantizer`."""
        return {layer: one.fitted for layer, one in self._intake.variables.layers.items() if one.fitted is not None}

    @property
    def discretized(self) -> dict[str, str]:
        """Layer → how it was discretized at the last measurement, in words, of the layers cut into cells."""
        return self._points.discretized

    @property
    def head(self) -> Head | None:
        """The head that was recognized at the last measurement."""
        return self._intake.heads.head

    @property
    def target_read(self) -> str:
        """How the primary target became symbols at the last measurement, in words; empty for class labels."""
        return self._intake.targets.primary.how

    @property
    def targets_read(self) -> dict[str, str]:
        """Each target in words → how it became symbols at the last measurement; empty for class labels."""
        return {reader.called: reader.how for reader in self._intake.targets.readers.values()}

    @property
    def n_updates(self) -> int:
        """The number of batches since the measurement began."""
        return self._intake.n_updates

    @property
    def n_seen(self) -> int:
        """How many samples of this process were seen since the measurement began, and count."""
        return self._intake.batches.n_valid

    @property
    def n_shown(self) -> int:
        """How many rows were seen since the measurement began, counted or ignored."""
        return self._intake.batches.n_rows

    @property
    def to_pick(self) -> bool:
        """Whether the layers are still to be picked, in the first batch, of all that could be."""
        return self._intake.watched.to_pick
