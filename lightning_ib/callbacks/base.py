"""The callback that every callback of this package is: a history that is kept, resumed, logged and reported."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from lightning_ib.callbacks.namespaces import CallbackBase, say, with_progress
from lightning_ib.callbacks.own_pass import forward_again
from lightning_ib.callbacks.schedule import Schedule
from lightning_ib.callbacks.session import Host, Measurement, Moment
from lightning_ib.callbacks.trainer import any_rank, dev_run, is_evaluation, logged_step, writes_no_files
from lightning_ib.records.history import History
from lightning_ib.records.record import GRADIENT, Record
from lightning_ib.report.loggers import run_folder
from lightning_ib.report.reporter import Destination, Reporter

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

_STATE_VERSION = 2
"""Of the state in a checkpoint; version 1 held points and estimates apart."""


class Source(Protocol):
    """What a callback measures with."""

    def frozen_state(self) -> Mapping[str, Any]:
        """What a resumed run must go on with, beside the history, in tensors and primitives."""

    def load_frozen_state(self, state: Any) -> None:
        """Go on with it.

        Raises:
            ValueError: a part of it is of another kind.
        """

    def detach(self) -> None:
        """Let go of the model. Idempotent."""


class RecordingCallback(CallbackBase):
    """A history of measurements that is kept, resumed, logged and reported; when to measure is left to subclasses.

    Args:
        schedule: when to measure.
        session: measures.
        reporter: takes measurements to loggers and files.
        verbose: whether progress bars and lines in the log are shown.

    Attributes:
        history: every value of the run; iterating over it yields a point for each layer and measurement. The callback
            of the information plane and that of the gradients share one where their prefixes are the same.
        evaluated: the last ``trainer.validate`` or ``trainer.test``.
    """

    def __init__(self, schedule: Schedule, session: Source, reporter: Reporter, *, verbose: bool = True) -> None:
        self.schedule, self.session, self.reporter, self.verbose = schedule, session, reporter, verbose
        self.history, self.evaluated = History(), History()
        self._saved: Any = None  # the state of a checkpoint, until a fit takes it up or a run is over

    @property
    def prefix(self) -> str:
        """The first part of every logged name."""
        return self.reporter.prefix

    @property
    def figure_path(self) -> Path | None:
        """Where the picture was last saved."""
        return self.reporter.figure_path

    @property
    def state_key(self) -> str:
        """The name of the state in a checkpoint: two callbacks in one Trainer need two prefixes."""
        return f"{type(self).__qualname__}{ {'prefix': self.prefix}!r}"

    # -- arguments for the parts ---------------------------------------------------------------------------------------

    def _host(self, trainer: Trainer) -> Host:
        return Host(
            partial(any_rank, trainer),
            partial(self._say, trainer),
            partial(self._with_progress, trainer),
            partial(forward_again, trainer),
        )

    def _moment(self, trainer: Trainer, epoch: int) -> Moment:
        if is_evaluation(trainer):
            return Moment(epoch, trainer.global_step, goes_on="The evaluation")
        by_step = self.schedule.by == "step"
        when = f"after step {trainer.global_step}" if by_step else f"after epoch {trainer.current_epoch + 1}"
        return Moment(epoch, trainer.global_step, when)

    def _destination(self, trainer: Trainer) -> Destination:
        """Where measurements go: nowhere in other processes than the first, and in a ``fast_dev_run``."""
        if not trainer.is_global_zero or dev_run(trainer):
            return Destination([], None, 0)
        folder = None
        if not writes_no_files(trainer):
            folder = run_folder(trainer.loggers, trainer.default_root_dir, self.reporter.warned)
        return Destination(trainer.loggers, folder, logged_step(trainer))

    def _say(self, trainer: Trainer, message: str) -> None:
        if self.verbose and not trainer.barebones:
            say(trainer, f"{self.prefix}: {message}")

    def _with_progress(self, trainer: Trainer, items: Iterable[Any], total: int | None, name: str) -> Iterable[Any]:
        return with_progress(trainer, items, total, name) if self.verbose else items

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.prefix}: {message}", UserWarning, stacklevel=3)

    # -- the history ---------------------------------------------------------------------------------------------------

    def _owns(self, record: Record) -> bool:
        """Whether a record of the history is of this callback's kind; another callback may share the history."""
        return record.source != GRADIENT

    def _own(self) -> History:
        """The part of the history that is this callback's."""
        return History(filter(self._owns, self.history.records()))

    def _assign(self, own: History) -> None:
        """Replace that part."""
        others = (record for record in self.history.records() if not self._owns(record))
        self.history.assign(History(sorted([*others, *own.records()], key=lambda record: record[:2])))

    def _log(self, trainer: Trainer, pl_module: LightningModule, measured: Measurement) -> None:
        """Log a measurement through ``self.log``, and keep it."""
        # Every process has the same values: the greatest of them is any of them, to the last bit.
        values = self.reporter.scalars(measured.history)
        if not trainer.barebones:  # where logging only causes warnings
            # Names that some logger refuses are handed to each as it takes them.
            refused = self.reporter.refused(values)
            accepted = {name: values[name] for name in values if name not in refused}
            for some, logger in ((accepted, None), (refused, False)):
                pl_module.log_dict(some, logger=logger, batch_size=1, reduce_fx="max", sync_dist=trainer.world_size > 1)
            if refused:
                self.reporter.log_scalars(refused, self._destination(trainer))
        if is_evaluation(trainer):
            self.evaluated = measured.history
        else:
            self._add_to_history(trainer, measured)

    def _log_at_once(self, trainer: Trainer, measured: Measurement) -> None:
        """Log where ``self.log`` is unavailable, or would wait for ``log_every_n_steps``; and keep it."""
        self.reporter.log_scalars(self.reporter.scalars(measured.history), self._destination(trainer))
        self._add_to_history(trainer, measured)

    def _update_monitors(self, trainer: Trainer, measured: History) -> None:
        """Update ``trainer.callback_metrics`` where ``self.log`` is unavailable, so that values can be monitored."""
        known = self.reporter.scalars(measured)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in known.items()})

    def _add_to_history(self, trainer: Trainer, measured: Measurement) -> None:
        """Add a measurement to the history, in place of one of the same epoch, and update CSV and pictures."""
        self.history.put(measured.history, self.schedule.by)
        self._lay_out(trainer)
        to = self._destination(trainer)
        moment = next((record[:2] for record in measured.history.records()), (0, 0))
        self.reporter.log_measurement(self.history.at(*moment), measured.discretized, measured.bounds, to)
        self.reporter.write(self.history, measured.rows, to, partial(self._with_progress, trainer))

    def _lay_out(self, trainer: Trainer) -> None:
        """Lay out TensorBoard's charts, when the layers are known."""

    def _hint(self) -> str | None:
        """What the last measurement calls for, in words."""
        return None

    def _finish(self, trainer: Trainer) -> None:
        """The last files of a fit, and its summary in the log."""
        to = self._destination(trainer)
        self.reporter.finish(self.history, to)
        if not self.verbose or trainer.barebones:
            return
        with self.reporter.warned.on_error("the summary of the fit failed"):
            if unreached := self.schedule.unreached(trainer.global_step):
                self._say(trainer, unreached)
            if (hint := self._hint()) is not None:
                self._say(trainer, f"at the last measurement {hint}")
            if self._own().records():
                self._say(trainer, self.reporter.summary(self.history, to.loggers, is_dev_run=dev_run(trainer) > 0))

    def _release(self) -> None:
        """Take the hooks off and drop all counts. Idempotent."""
        self.session.detach()
        self._saved = None
        self.reporter.forget_rows()

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The history, the frozen edges and the automatic choices, in tensors and primitives."""
        return {
            "version": _STATE_VERSION,
            "history": self._own().state_dict(),
            "frozen": self.session.frozen_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run where the checkpoint left it, once a fit begins; until then nothing changes."""
        self._saved = state_dict

    def _resume(self, trainer: Trainer) -> None:
        """Take up the history and the edges of a checkpoint, as far as they can be read."""
        saved, self._saved = self._saved, None
        faults = [] if saved is None else self._restore(saved)
        if faults:
            shown = "; ".join(faults[:5] + ["…"] * (len(faults) > 5))
            self._warn(
                f"the state of {type(self).__name__} in the checkpoint is damaged or of another version: {shown}. The "
                "rest is kept, values that are missing are NaN, and edges that are missing are fitted anew at the next "
                "measurement. Training goes on."
            )
        other = {point.unit for point in self._own()} - {self.reporter.unit}
        begun = saved is not None or trainer.global_step > 0 or trainer.current_epoch > 0
        if begun and other:
            raise ValueError(
                f"the history so far is in {other.pop()}, and the callback has unit={self.reporter.unit!r}: keep one."
            )
        # A checkpoint saved after validation holds the point of an epoch that Lightning counts once it has ended.
        until = self._own().until(trainer.current_epoch + 1, trainer.global_step)
        self._assign(until if begun else History())

    def _restore(self, state: Any) -> list[str]:
        """Restore the readable part of a state from :meth:`state_dict`; returns the faults of the rest, in words."""
        if not isinstance(state, Mapping):
            self._assign(History())
            return [f"it is of type {type(state).__name__}, and a mapping is expected"]
        restored, faults = History.restored(state)
        self._assign(restored)
        if (version := state.get("version", _STATE_VERSION)) not in (1, _STATE_VERSION):
            return [*faults, f"it has version {version!r}, whose edges mean nothing to version {_STATE_VERSION}"]
        frozen: Any = state.get("frozen")
        try:
            self.session.load_frozen_state(frozen)
        except ValueError as error:
            faults.append(str(error))
        return faults

    def _follow_rank_zero(self, trainer: Trainer) -> None:
        """Go on from one history in all processes: that of the first."""
        if trainer.world_size == 1:
            return
        own = self._own().state_dict()
        saved = trainer.strategy.broadcast(own)
        if any_rank(trainer, repr(saved) != repr(own)) and trainer.is_global_zero:
            self._warn(
                "the processes came with different histories: all go on with that of rank 0, "
                f"{len(self._own().records())} values. Give every process the same checkpoint."
            )
        self._assign(History.restored({"history": saved})[0])
