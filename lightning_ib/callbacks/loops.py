"""The callback that records a loop of Lightning's: validation in a fit, ``trainer.validate`` and ``trainer.test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_ib.callbacks.base import RecordingCallback
from lightning_ib.callbacks.session import Session
from lightning_ib.callbacks.trainer import first_loader, is_evaluation
from lightning_ib.capture.batches import Unpack
from lightning_ib.estimators.geometry import LayerDrift
from lightning_ib.measurement.drift import with_similarity
from lightning_ib.records.history import History
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.reliability import probe_exceeds_counts

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class LoopCallback(RecordingCallback):
    """Records the forward passes of a loop, batch by batch, with an information plane.

    Attributes:
        unpack: batch → (x, y), or ``None`` to recognize them.
    """

    session: Session
    unpack: Unpack | None = None

    # -- the history ---------------------------------------------------------------------------------------------------

    def _last_point(self) -> InformationPoint:
        """The last point, or a missing one before training."""
        return self.history[-1] if self.history else InformationPoint.missing("", n_samples=0, unit=self.reporter.unit)

    def _last_measurement(self) -> History:
        """The last measurement, with NaN for estimators that were added since."""
        last = self._own().last()
        known = {(one.layer, one.source) for one in last.records()}
        none = self.session.no_estimates(0, self._last_point().step).records()
        return last + History(one for one in none if (one.layer, one.source) not in known)

    def _hint(self) -> str | None:
        return probe_exceeds_counts(self._last_measurement())

    def _lay_out(self, trainer: Trainer) -> None:
        plane = self.session.plane
        if not plane.to_pick and trainer.is_global_zero:
            estimators, binned = plane.estimation.estimators, bool(plane.fitted_quantizers)
            about = {target: bounds.quantities for target, bounds in plane.bounds_by_target.items()}
            gradients = self._shares_history(trainer)
            self.reporter.layout(trainer.loggers, plane.layers, estimators, binned, about, gradients=gradients)

    def _resume(self, trainer: Trainer) -> None:
        """Take up the history and the edges of a checkpoint, and go on with its layers."""
        super()._resume(trainer)
        if not self._shares_history(trainer):  # what another callback recorded in an earlier fit
            self.history.assign(self._own())
        self._keep_layers()

    def _shares_history(self, trainer: Trainer) -> bool:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        return any(getattr(one, "history", None) is self.history for one in callbacks if one is not self)

    def _keep_layers(self) -> None:
        self.session.plane.keep_layers([point.layer for point in self._own().last()])

    def _compare_with_last(self, trainer: Trainer) -> None:
        """Record how similar each measurement was to the last, where drift is asked for."""
        asked = any(isinstance(one, LayerDrift) for one in self.session.options["companions"])
        own = self._own()
        if not asked or not own.records():
            return
        with self.reporter.warned.on_error("the similarity to the last measurement is unknown"):
            found = self.session.plane.cka_to_last({record[:2] for record in own.records()})
            self._assign(with_similarity(own, found))
            self.reporter.rewrite(self.history, self._destination(trainer))

    def _follow_rank_zero(self, trainer: Trainer) -> None:
        """Go on from one history and from the same edges in all processes: those of the first."""
        super()._follow_rank_zero(trainer)
        if trainer.world_size > 1:
            self.session.load_frozen_state(trainer.strategy.broadcast(self.session.plane.frozen_state()))

    def _take_up_for_evaluation(self) -> None:
        """Measure the layers of the last measurement, with the edges of the checkpoint that was loaded, if one was."""
        self._keep_layers()
        if isinstance(self._saved, Mapping):
            with self.reporter.warned.on_error("the checkpoint's edges could not be taken up"):
                self.session.load_frozen_state(self._saved.get("frozen", {}))

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _records_loop(self, trainer: Trainer) -> bool:
        """Whether to record the validation loop of a fit that begins; an evaluation by itself always is recorded."""
        return False

    @property
    def _concludes_late(self) -> bool:
        """Whether the measurement is concluded at the end of the epoch: some processes lack validation batches."""
        return False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the layers for ``trainer.validate``; in a fit they are."""
        if is_evaluation(trainer):
            self.reporter.begin()
            self.session.attach_for_evaluation(pl_module, self._host(trainer))
            self._take_up_for_evaluation()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a measurement."""
        if self.session.is_attached and (is_evaluation(trainer) or self._records_loop(trainer)):
            self.session.begin()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch this batch."""
        self.session.watch(dataloader_idx == 0)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count this batch in."""
        self.session.see(batch, self._moment(trainer, trainer.current_epoch), self.unpack)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Conclude the measurement, and log it."""
        if self.session.is_at_work and (is_evaluation(trainer) or not self._concludes_late):
            loaders = trainer.test_dataloaders if trainer.state.fn == "test" else trainer.val_dataloaders
            self._conclude(trainer, pl_module, first_loader(loaders))

    def _conclude(self, trainer: Trainer, pl_module: LightningModule, loader: Any) -> None:
        moment = self._moment(trainer, trainer.current_epoch + (not is_evaluation(trainer)))
        self._log(trainer, pl_module, self.session.conclude(loader, moment))

    # trainer.test asks the same of its own loop.
    on_test_start = on_validation_start
    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
