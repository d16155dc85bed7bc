"""A separate pass inside a Trainer: its data, sharded over processes, through the module's forward."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from lightning_ib.callbacks.trainer import dev_run, first_loader, has_forward, transferred
from lightning_ib.capture.batches import Parts, Unpack, described, is_keywords
from lightning_ib.evaluation.loaders import is_share, iter_once, sequential_loader
from lightning_ib.evaluation.passes import ForwardError, call, preserve_state, run_pass
from lightning_ib.evaluation.preserve import module_state_kept

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

    from lightning_ib.measurement.information_plane import InformationPlane

Progress = Callable[[Iterable[Any], "int | None", str], Iterable[Any]]


def run_own_pass(
    trainer: Trainer,
    pl_module: LightningModule,
    plane: InformationPlane,
    data: Any,
    unpack: Unpack | None,
    progress: Progress = lambda batches, total, description: batches,
) -> Any:
    """Run the module over ``data`` as Lightning would, count the batches in, and restore all state.

    Of several loaders the first is read. Data without a length is read up to ``max_samples`` samples.

    With several processes each takes its shard. Padding is counted too, and trimmed with
    :func:`~lightning_ib.evaluation.loaders.n_unpadded_samples`.

    Args:
        trainer: the Trainer at work.
        pl_module: its module, which ``plane`` is attached to.
        plane: counts the batches.
        data: ``"train"`` or ``"val"`` for the Trainer's own, or an iterable of batches.
        unpack: batch → (x, y), for batches of another form.
        progress: wraps the batches, their number and a title, for a progress bar.

    Returns:
        The loader that was read.

    Raises:
        ForwardError: calling the module on a batch failed.
        ValueError: it lacks a forward, or the data is unusable: empty, or readable only once.
    """
    if not has_forward(pl_module):
        raise ValueError(
            f"{type(pl_module).__name__} defines no forward, which a pass of its own calls as module(x): define "
            "it, or measure in the validation loop (data=None and validation data)."
        )
    loader, n_batches = _own_data(trainer, data)
    # It may be endless.
    at_most = plane.sampled.max_samples if n_batches is None and length(loader) is None else None
    # The Trainer's own loaders are sharded as the loops see them; another loader is sharded here.
    shared = isinstance(data, str) and isinstance(loader, DataLoader)
    rank, world = (0, 1) if shared else (trainer.global_rank, trainer.world_size)
    loader = sequential_loader(loader, rank, world)
    start, step = (0, 1) if is_share(loader) else (rank, world)
    stop = None if n_batches is None else n_batches * step
    with _as_validation(trainer, pl_module, loader):
        # Begun in here: to ask a loader for its iterator moves random states already.
        batches: Iterable[Any] = islice(iter(loader), start, stop, step)
        total = n_batches if n_batches is not None else length(loader)
        run_pass(
            plane,
            progress(batches, total, "Information plane"),
            lambda parts: _forward(trainer, pl_module, parts),
            unpack=unpack,
            move=lambda batch: transferred(trainer, pl_module, batch),
            may_be_empty=trainer.world_size > 1,
            at_most=at_most,
        )
    return loader


def forward_again(trainer: Trainer, parts: Parts) -> None:
    """Call the module on a batch that a loop of Lightning's ran; nothing is logged, and all state is put back.

    Raises:
        ForwardError: the module cannot be called on it.
    """
    pl_module = trainer.lightning_module
    if not has_forward(pl_module):
        raise ForwardError(f"{type(pl_module).__name__} defines no forward, which it calls as module(x).")
    with _as_validation(trainer, pl_module, None):
        _forward(trainer, pl_module, parts)


@contextmanager
def _as_validation(trainer: Trainer, pl_module: LightningModule, loader: Any) -> Iterator[None]:
    """The stage and precision of a validation, and all that a pass may change put back at its end."""
    stage = trainer.state.stage
    try:
        # Hooks of the user's that look at the stage must leave out augmentation here.
        trainer.validating = True
        with (
            preserve_state(pl_module, loader),
            module_state_kept(pl_module),
            logging_disabled(pl_module),
            trainer.precision_plugin.forward_context(),
        ):
            yield
    finally:
        trainer.state.stage = stage


@contextmanager
def logging_disabled(pl_module: LightningModule) -> Iterator[None]:
    """Disable ``self.log`` in the user's forward: this pass belongs to the callback."""
    attributes: dict[str, Any] = vars(pl_module)
    before: dict[str, Any] = {name: attributes[name] for name in ("log", "log_dict") if name in attributes}
    attributes.update(log=_no_op, log_dict=_no_op)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            del attributes[name]
        attributes.update(before)


def _no_op(*_: Any, **__: Any) -> None:
    pass


def _own_data(trainer: Trainer, data: Any) -> tuple[Any, int | None]:
    """The loader of a pass of its own, and how many of its batches the Trainer's limits leave to this process."""
    n_batches: float | None = None
    if data == "train":
        loader = first_loader(trainer.train_dataloader)
        if _limited(trainer, trainer.limit_train_batches):
            n_batches = trainer.num_training_batches
    elif data == "val":
        loader = first_loader(trainer.val_dataloaders)
        if _limited(trainer, trainer.limit_val_batches):
            n_batches = trainer.num_val_batches[0]
    else:
        loader = data
        n_batches = dev_run(trainer) or None
    if loader is None:
        raise ValueError(f"the Trainer has no {data} data at hand: give data=DataLoader(…) with what to measure.")
    if iter_once(loader):
        raise ValueError(
            f"the data is a {type(loader).__name__}, which can be read only once, and every measurement takes a "
            "pass of its own: give a list or a DataLoader."
        )
    return loader, None if n_batches is None or math.isinf(n_batches) else int(n_batches)


def _forward(trainer: Trainer, pl_module: LightningModule, parts: Parts) -> Any:
    wrapper: Any = trainer.strategy.model
    # FSDP's wrapper (FSDP1) brings the weights together, and must be the first of its kind that is called.
    outermost = wrapper if type(wrapper).__name__ == "FullyShardedDataParallel" else pl_module
    try:
        return call(outermost, parts)
    except Exception as error:
        if "OutOfMemory" in type(error).__name__:
            raise
        x = parts.x
        shape = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
        how = "module(**x)" if is_keywords(x) else "module(x)"
        raise ForwardError(
            f"a pass of its own calls {type(pl_module).__name__} as {how}, x being {described(x)}{shape}, and it "
            f"raised {type(error).__name__}: {error}. Give unpack=lambda batch: (x, y), x being what forward takes (a "
            "mapping: its keywords)."
        ) from error


def length(loader: Any) -> int | None:
    """How many batches a loader holds, where it knows."""
    try:
        return len(loader)
    except Exception:  # a loader of unknown length may raise anything
        return None


def _limited(trainer: Any, limit: float) -> bool:
    """Whether the Trainer shows only some of the batches; else a separate pass takes them all."""
    return isinstance(limit, int) or limit != 1.0 or bool(trainer.overfit_batches) or dev_run(trainer) > 0
