"""Questions to a Trainer. All private attributes of Lightning that this package relies on are read in this file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import DataLoader

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


def loss_scale(trainer: Any, optimizer: Any) -> float | None:
    """What the gradients of a step are still multiplied by: 1 as a rule, ``None`` where the step will be skipped.

    Under float16 the loss is scaled, and gradients may be infinite; Lightning leaves both to some fused optimizers.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None:
        return 1.0
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    # The scaler itself waits for the device here, to know whether it must skip the step.
    if gradients and not bool(torch.stack([one.isfinite().all() for one in gradients]).all()):
        return None
    return float(scaler.get_scale()) if getattr(optimizer, "_step_supports_amp_scaling", False) else 1.0


# -- public ones -------------------------------------------------------------------------------------------------------


def any_rank(trainer: Any, fact: bool) -> bool:
    """Whether something holds in any process; every process must call this."""
    return bool(trainer.strategy.reduce_boolean_decision(fact, all=False))


def is_evaluation(trainer: Any) -> bool:
    """Whether an evaluation was asked for by itself: ``trainer.validate`` or ``trainer.test``."""
    return trainer.state.fn in ("validate", "test")


class Shares(NamedTuple):
    """How the weights lie in the processes.

    Attributes:
        several: whether each process holds a share of them.
        n_batches: how many processes see batches of their own.
        summed: sums a tensor over all processes; a collective call where the weights are in shares.
        n_copies: gives, once the model is wrapped, how many processes hold the same share of a plain tensor.
    """

    several: bool
    n_batches: int
    summed: Callable[[torch.Tensor], torch.Tensor]
    n_copies: Callable[[], int]


def shares_of_weights(trainer: Any) -> Shares | None:
    """How the weights and gradients lie in the processes; ``None`` where they are out of reach, as with DeepSpeed."""
    strategy, kinds = trainer.strategy, {kind.__name__ for kind in type(trainer.strategy).__mro__}
    if "DeepSpeedStrategy" in kinds:
        return None
    n_batches = int((getattr(strategy, "distributed_sampler_kwargs", None) or {}).get("num_replicas", 1))
    if trainer.world_size == 1 or not kinds & {"FSDPStrategy", "ModelParallelStrategy"}:
        return Shares(False, n_batches, lambda values: values, lambda: 1)

    def n_copies() -> int:
        kind = getattr(getattr(strategy.model, "sharding_strategy", None), "name", "")
        group = getattr(strategy.model, "process_group", None)  # of FSDP: those that a copy is shared out to
        return int(trainer.world_size if group is None or kind == "NO_SHARD" else trainer.world_size // group.size())

    return Shares(True, n_batches, lambda values: strategy.reduce(values, reduce_op="sum"), n_copies)


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


def unshared_data(trainer: Any) -> str:
    """What to warn of where Lightning leaves it to the validation data to be shared out; empty elsewhere."""
    loader = first_loader(trainer.val_dataloaders)
    if trainer.world_size == 1 or isinstance(loader, DataLoader) or not trainer.is_global_zero:
        return ""
    return (
        f"the validation data is a {type(loader).__name__}, which Lightning does not share out: "
        "unless it gives each process other samples, every sample is counted once in each process, and log N "
        "is too large. Give a DataLoader."
    )
