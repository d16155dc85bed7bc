"""The callback that records a loop of Lightning's: validation in a fit, ``trainer.validate`` and ``trainer.test``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_ib.callbacks.base import RecordingCallback
from lightning_ib.callbacks.trainer import first_loader, is_evaluation
from lightning_ib.capture.batches import Unpack

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class LoopCallback(RecordingCallback):
    """Records the forward passes of a loop, batch by batch.

    Attributes:
        unpack: batch → (x, y), or ``None`` to recognize them.
    """

    unpack: Unpack | None = None

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
