"""Questions to a Trainer. All private attributes of Lightning that this package relies on are read in this file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

# -- private ones ------------------------------------------------------------------------------------------------------


def logged_step(trainer: Trainer) -> int:
    """The step Lightning logs at, which differs from ``global_step`` where there are several optimizers."""
    # Values logged in on_train_epoch_end go to the epoch's last step, as those logged in the validation loop do.
    ended = trainer.lightning_module._current_fx_name == "on_train_epoch_end"
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped) - ended


def set_up_validation_data(trainer: Trainer) -> None:
    """Ask for the validation data now; Lightning asks for them at the first epoch that validates."""
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.setup_data()
    trainer.training = True


def transferred(trainer: Trainer, pl_module: LightningModule, batch: Any) -> Any:
    """A batch as Lightning's own loops hand it to a step: converted, through the user's hooks, on the device."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


# -- public ones -------------------------------------------------------------------------------------------------------


def any_rank(trainer: Any, fact: bool) -> bool:
    """Whether something holds in any process; every process must call this."""
    return bool(trainer.strategy.reduce_boolean_decision(fact, all=False))


def is_evaluation(trainer: Any) -> bool:
    """Whether an evaluation was asked for by itself: ``trainer.validate`` or ``trainer.test``."""
    return trainer.state.fn in ("validate", "test")


def writes_no_files(trainer: Any) -> bool:
    """Whether files are disabled: without a logger and a ``default_root_dir`` the working directory stays clean."""
    return trainer.barebones or (not trainer.loggers and trainer.default_root_dir == os.getcwd())


def dev_run(trainer: Any) -> int:
    """How many batches a ``fast_dev_run`` takes; 0 in a real run."""
    return int(trainer.fast_dev_run)


def has_forward(pl_module: LightningModule) -> bool:
    """Whether the module defines ``forward``, which a pass of its own calls."""
    return getattr(type(pl_module).forward, "__qualname__", "") != "LightningModule.forward"


def first_loader(loaders: Any) -> Any:
    """The first of the loaders of a Trainer; a single loader as it is."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    return loaders[0] if isinstance(loaders, (list, tuple)) and loaders else loaders
