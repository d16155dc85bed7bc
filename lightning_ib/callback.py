"""When to measure, and what to log: the callback for Lightning's Trainer. Nothing numerical is done here."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from pytorch_lightning.trainer.states import RunningStage, TrainerFn
from pytorch_lightning.utilities import rank_zero_info

from lightning_ib.functional import Unit
from lightning_ib.history import InformationPoint
from lightning_ib.loggers import log_figure, log_layout, log_scalars, save_figure, save_history, scalars
from lightning_ib.passes import Unpack, call, described, in_order, iter_once, run_pass, undisturbed, unpacked
from lightning_ib.plane import InformationPlane, Layers
from lightning_ib.plotting import plot_information_plane
from lightning_ib.quantize import Quantizer
from lightning_ib.recorder import Recorder


class InformationPlaneCallback(Callback):
    """Log, epoch by epoch, what each layer knows about the input and about the target.

    Per layer: the mutual information with the input, I(X;T), and with the target, I(T;Y), the entropy H(T) and the
    saturation H(T)/log N; and the picture of the information plane. Every figure is a plug-in estimate on narrowed
    representations: what narrowing means, and when a figure means nothing, is told by :class:`InformationPlane`,
    :class:`Quantizer` and :class:`AutoQuantizer`. A training run with the callback is bit-identical to one without.

    Logged, and so open to ``EarlyStopping`` and ``ModelCheckpoint``: ``ib/I_XT/<layer>``, ``ib/I_TY/<layer>``,
    ``ib/H_T/<layer>``, ``ib/saturation/<layer>``, with ``beta`` also ``ib/IB/<layer>``; the figure
    ``ib/information_plane``. Beside the logger's files: ``information_plane.csv`` and ``information_plane.png``.

    Args:
        layers: names as in ``named_modules()``, glob patterns (``*`` does not cross a dot, ``**`` does), or a mapping
            from those to a :class:`Quantizer`; ``None`` picks leaf modules that have weights, without normalisation
            layers, at most twelve, spread over the depth. Layers without a quantizer get an :class:`AutoQuantizer`.
        input: ``None`` takes each sample for a symbol of its own: I(X;T) = H(T). A :class:`Quantizer` narrows X.
        target: ``None`` for class labels (integers); a :class:`Quantizer` for real-valued targets.
        data: ``None`` measures during the validation loop, in its own forward passes, and where there is no validation
            loop in a pass of its own over the training data. ``"train"``, ``"val"`` or a DataLoader asks for a pass of
            its own. Of several validation loaders the first is measured. The point before training always takes a pass
            of its own, which calls the module as ``module(x)`` (``module(**x)`` where x is a mapping).
        unpack: batch → (x, y), for batches that are not such pairs.
        every_n_epochs: measure after every n-th epoch, in the validation loop at the first chance from then on; the
            point before training is always measured.
        unit: ``"bits"`` or ``"nats"``.
        beta: where given, the information-bottleneck functional I(X;T) − β I(T;Y) is logged too.
        prefix: the first part of every logged name; two callbacks in one Trainer need two.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of its range.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[InformationPlaneCallback()], logger=False)
    """

    def __init__(
        self,
        layers: Layers = None,
        *,
        input: Quantizer | None = None,
        target: Quantizer | None = None,
        data: Literal["train", "val"] | Iterable[Any] | None = None,
        unpack: Unpack | None = None,
        every_n_epochs: int = 1,
        unit: Unit = "bits",
        beta: float | None = None,
        prefix: str = "ib",
    ) -> None:
        if (isinstance(data, str) and data not in ("train", "val")) or not (data is None or hasattr(data, "__iter__")):
            raise ValueError(f"data must be None, 'train', 'val' or a DataLoader, got {data!r}.")
        if unpack is not None and not callable(unpack):
            raise TypeError(f"unpack must be a callable, batch → (x, y), or None, got {unpack!r}.")
        if isinstance(every_n_epochs, bool) or not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be an integer of at least 1, got {every_n_epochs!r}.")
        if beta is not None and not (isinstance(beta, (int, float)) and math.isfinite(beta)):
            raise ValueError(f"beta must be a finite number or None, got {beta!r}.")
        if not isinstance(prefix, str) or not prefix.strip("/"):
            raise ValueError(f"prefix must be a name such as 'ib', got {prefix!r}.")
        self._options: dict[str, Any] = {"layers": layers, "input": input, "target": target, "unit": unit}
        self.plane = InformationPlane(**self._options)
        """The measurement at work; its ``narrowings`` tell, layer by layer, how it was narrowed."""
        self.history: list[InformationPoint] = []
        """A point for each layer and measurement, the ones before training first."""
        self.figure_path: Path | None = None
        """Where the picture was last saved."""
        self.data, self.unpack, self.every_n_epochs = data, unpack, every_n_epochs
        self.unit, self.beta, self.prefix = unit, beta, prefix.strip("/")
        self._recorder: Recorder | None = None
        self._own_pass = True
        self._failed = False
        self._told: set[str] = set()
        self._restored: Mapping[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """Told apart by the prefix: two of them in one Trainer need two prefixes, or Lightning refuses them."""
        return self._generate_state_key(prefix=self.prefix)

    # -- set up and take down ------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what could not work, before anything runs."""
        if stage != "fit":
            return
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self._own_pass = self.data is not None or not trainer.enable_validation
        if self.data == "val" and not trainer.enable_validation:
            raise ValueError(
                "data='val' needs validation data and a validation_step: give the Trainer both, or use data='train'."
            )
        for earlier in callbacks[: callbacks.index(self)] if self in callbacks else []:
            monitor = getattr(earlier, "monitor", None)
            if self._own_pass and isinstance(monitor, str) and monitor.startswith(f"{self.prefix}/"):
                raise ValueError(
                    f"{type(earlier).__name__} monitors {monitor!r} but comes before the InformationPlaneCallback that "
                    "logs it: put the InformationPlaneCallback first in callbacks=[…]."
                )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers and hook them, before the first forward; the hooks stay idle until a measurement."""
        frozen = self.plane.frozen_state() if trainer.global_step > 0 else None
        self.plane.detach()
        self.plane = InformationPlane(**self._options)
        self._recorder = self.plane.attach(pl_module)
        self._recorder.enabled = False
        self._told.clear()
        if frozen is not None:
            self.plane.load_frozen_state(frozen)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the history of a checkpoint, if there is one; measure the point before training, if there is none."""
        self._take_up(trainer)
        if not self._own_pass and sum(trainer.num_val_batches) == 0:
            self._own_pass = True
        if self.data is None and self._own_pass:
            rank_zero_info(
                f"{self.prefix}: there is no validation loop, so the layers are measured in a pass of their own over "
                f"the training data, every {self.every_n_epochs} epoch(s)."
            )
        if trainer.is_global_zero:
            log_layout(trainer.loggers, self.prefix, self.unit, self.beta)
        if not self.history or trainer.current_epoch - self._last_epoch() >= self.every_n_epochs:
            self._measure_before_training(trainer, pl_module)
        # Whoever monitors a figure finds the last one from the start, also in epochs that are not measured.
        last = [point for point in self.history if point.epoch == self._last_epoch()]
        known = scalars(last, self.prefix, self.beta)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in known.items()})

    def _take_up(self, trainer: Trainer) -> None:
        restored, self._restored = self._restored, None
        if restored is not None:
            self.history = [InformationPoint(**point) for point in restored["history"]]
            self.plane.load_frozen_state(restored["frozen"])
        other = {point.unit for point in self.history} - {self.unit}
        begun = restored is not None or trainer.global_step > 0 or trainer.current_epoch > 0
        if begun and other:
            raise ValueError(
                f"the history so far is in {other.pop()}, and the callback has unit={self.unit!r}: keep one."
            )
        self.history[:] = [point for point in self.history if begun and point.epoch <= trainer.current_epoch]

    def _measure_before_training(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._own_pass and not _has_forward(pl_module):
            warnings.warn(
                f"{type(pl_module).__name__} defines no forward, so there is no point before training: that takes a "
                "pass of its own, which calls module(x). The epochs are measured in the validation loop.",
                UserWarning,
                stacklevel=2,
            )
            return
        try:
            points = self._measured_in_own_pass(trainer, pl_module, epoch=trainer.current_epoch)
        except ForwardError as error:
            if self._own_pass:
                raise
            warnings.warn(
                f"there is no point before training: {error} The epochs are measured in the validation loop.",
                UserWarning,
                stacklevel=2,
            )
            return
        if trainer.is_global_zero and not _dev_run(trainer):
            log_scalars(trainer.loggers, scalars(points, self.prefix, self.beta), _step(trainer))
        self._keep(trainer, points)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off; Lightning calls neither ``teardown`` nor ``on_fit_end`` then."""
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._release()

    def _release(self) -> None:
        """Take the hooks off and drop what was counted. Twice is harmless."""
        self.plane.detach()
        self._recorder = None
        self._restored = None
        if self.plane.update_called:
            self.plane.reset()

    # -- in the validation loop ----------------------------------------------------------------------------------------

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a measurement."""
        if self._due(trainer) and not self._own_pass:
            self._failed = False
            self.plane.reset()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch this batch."""
        if self._recorder is not None:
            watch = self._due(trainer) and not self._own_pass and not self._failed and dataloader_idx == 0
            self._recorder.enabled = watch

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
        if self._recorder is not None and self._recorder.enabled:
            self._recorder.enabled = False
            self._guarded(trainer, lambda: self.plane.update(*unpacked(batch, self.unpack)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Come to the figures, and log them."""
        if not self._own_pass and self._due(trainer):
            epoch = trainer.current_epoch + 1
            points = None if self._failed else self._guarded(trainer, lambda: self._computed(trainer, epoch))
            self._log(trainer, pl_module, points, epoch)

    # -- in a pass of its own ------------------------------------------------------------------------------------------

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure in a pass of its own, and log."""
        if self._own_pass and self._due(trainer):
            self._failed = False
            epoch = trainer.current_epoch + 1
            points = self._guarded(trainer, lambda: self._measured_in_own_pass(trainer, pl_module, epoch))
            self._log(trainer, pl_module, points, epoch)

    def _measured_in_own_pass(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> list[InformationPoint]:
        if not _has_forward(pl_module):
            raise ValueError(
                f"{type(pl_module).__name__} defines no forward, which a pass of its own calls as module(x): define "
                "it, or measure in the validation loop (data=None and validation data)."
            )
        loader, n_batches = self._own_data(trainer)
        bar = trainer.progress_bar_callback
        stage = trainer.state.stage
        assert self._recorder is not None
        self._recorder.enabled = True
        self.plane.reset()
        try:
            # Hooks of the user's that look at the stage must not augment what is measured.
            trainer.state.stage = RunningStage.VALIDATING
            with undisturbed(pl_module, loader), trainer.precision_plugin.forward_context():
                # Begun in here: to ask a loader for its iterator moves random states already.
                batches: Iterable[Any] = islice(iter(loader), n_batches)
                if isinstance(bar, TQDMProgressBar) and bar.is_enabled:
                    batches = Tqdm(
                        batches,
                        desc="Information plane",
                        total=n_batches if n_batches is not None else _length(loader),
                        position=bar.process_position + 1,
                        leave=False,
                        dynamic_ncols=True,
                    )
                run_pass(
                    self.plane,
                    batches,
                    lambda x: _forward(pl_module, x),
                    unpack=self.unpack,
                    move=lambda batch: _transferred(trainer, pl_module, batch),
                )
                return self._computed(trainer, epoch)
        finally:
            trainer.state.stage = stage
            self._recorder.enabled = False

    def _own_data(self, trainer: Trainer) -> tuple[Iterable[Any], int | None]:
        """The loader of a pass of its own, and how many of its batches the Trainer's limits leave."""
        n_batches: float | None = None
        if self.data == "train" or (self.data is None and self._own_pass):
            which, loader = "train", trainer.train_dataloader
            if _limited(trainer, trainer.limit_train_batches):
                n_batches = trainer.num_training_batches
        elif self.data == "val" or self.data is None:
            which, loader = "val", trainer.val_dataloaders
            if isinstance(loader, Mapping):
                loader = list(loader.values())
            if isinstance(loader, (list, tuple)):
                loader = loader[0]
            if _limited(trainer, trainer.limit_val_batches):
                n_batches = trainer.num_val_batches[0]
        else:
            which, loader = "", self.data
            n_batches = _dev_run(trainer) or None
        if isinstance(loader, (Mapping, list, tuple)) and which:
            raise ValueError(
                f"the {which} data is a {type(loader).__name__} of {len(loader)} loaders, and a pass of its own needs "
                "one: give data=DataLoader(…)."
            )
        if which == "train" and n_batches in (None, math.inf) and _length(loader) is None:
            raise ValueError(
                "the training data has no length, and a pass of its own over it might never end: give the Trainer "
                "limit_train_batches=…, or the callback data=DataLoader(…) with what is to be measured."
            )
        if iter_once(loader):
            raise ValueError(
                f"the data is a {type(loader).__name__}, which can be read only once, and every measurement takes a "
                "pass of its own: give a list or a DataLoader."
            )
        return in_order(loader), None if n_batches is None or math.isinf(n_batches) else int(n_batches)

    # -- figures -------------------------------------------------------------------------------------------------------

    def _due(self, trainer: Trainer) -> bool:
        if self._recorder is None or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return False
        # A validation run may skip the n-th epoch; then the next one counts, and of several in one epoch the last.
        epoch, last = trainer.current_epoch + 1, self._last_epoch()
        return epoch == last or epoch - last >= self.every_n_epochs

    def _last_epoch(self) -> int:
        return max((point.epoch for point in self.history), default=0)

    def _computed(self, trainer: Trainer, epoch: int) -> list[InformationPoint]:
        unfitted = [layer for layer, narrowing in self.plane.narrowings.items() if narrowing.edges is None]
        points: list[InformationPoint] = self.plane.compute(epoch=epoch, step=trainer.global_step)
        for point in points:
            narrowing = self.plane.narrowings[point.layer]
            if point.layer in unfitted and narrowing.quantizer is not narrowing.asked:
                rank_zero_info(
                    f"{self.prefix}: {point.layer}: {narrowing.summary()}; H(T)/log N = {point.saturation:.2f} on "
                    f"{point.n_samples} samples. Frozen."
                )
        return points

    def _guarded(self, trainer: Trainer, measure: Callable[[], Any]) -> Any:
        """Run a part of a measurement; where it fails in training, one warning, and training goes on."""
        try:
            return measure()
        except Exception as error:
            self._failed = True
            if str(error) not in self._told:
                self._told.add(str(error))
                warnings.warn(
                    f"{self.prefix}: the measurement after epoch {trainer.current_epoch + 1} failed, its points are "
                    f"NaN: {error} Training goes on.",
                    UserWarning,
                    stacklevel=2,
                )
            return None

    def _log(
        self, trainer: Trainer, pl_module: LightningModule, points: list[InformationPoint] | None, epoch: int
    ) -> None:
        if points is None:
            missing = InformationPoint.missing("", n_samples=0, unit=self.unit)
            missing = missing._replace(epoch=epoch, step=trainer.global_step)
            points = [missing._replace(layer=layer) for layer in self.plane.narrowings]
        pl_module.log_dict(scalars(points, self.prefix, self.beta), batch_size=1)
        self._keep(trainer, points)

    def _keep(self, trainer: Trainer, points: list[InformationPoint]) -> None:
        """Add the points of one epoch to the history, and bring CSV and pictures up to date.

        Several validation runs in one epoch leave one point: that of the last.
        """
        epochs = {point.epoch for point in points}
        self.history[:] = [point for point in self.history if point.epoch not in epochs] + points
        folder = trainer.log_dir  # asked on every rank: it is a broadcast
        if not trainer.is_global_zero or _dev_run(trainer):
            return
        stem = "information_plane" + ("" if self.prefix == "ib" else "_" + re.sub(r"[^\w.-]+", "_", self.prefix))
        path = Path(folder or trainer.default_root_dir) / f"{stem}.csv"
        save_history(self.history, path)
        if any(math.isfinite(point.i_xt) and math.isfinite(point.i_ty) for point in self.history):
            figure = plot_information_plane(self.history)
            log_figure(trainer.loggers, f"{self.prefix}/information_plane", figure, _step(trainer))
            if save_figure(figure, path.with_suffix(".png")):
                self.figure_path = path.with_suffix(".png")

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The history, the frozen edges and the automatic choices, in tensors and primitives."""
        return {"history": [point._asdict() for point in self.history], "frozen": self.plane.frozen_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run where the checkpoint left it, once a fit begins: other checkpoints change nothing."""
        self._restored = state_dict


def _step(trainer: Trainer) -> int:
    """The step Lightning logs at, which differs from ``global_step`` where there are several optimizers."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


class ForwardError(RuntimeError):
    """The module raised when it was called in a pass of its own."""


def _forward(pl_module: LightningModule, x: Any) -> Any:
    try:
        return call(pl_module, x)
    except Exception as error:
        shape = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
        raise ForwardError(
            f"a pass of its own calls {type(pl_module).__name__} as module(x), x being {described(x)}{shape}, and it "
            f"raised {type(error).__name__}: {error}. Give unpack=lambda batch: (x, y), x being what forward takes (a "
            "mapping: its keywords)."
        ) from error


def _transferred(trainer: Trainer, pl_module: LightningModule, batch: Any) -> Any:
    """A batch as Lightning's own loops hand it to a step: converted, through the user's hooks, on the device."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _dev_run(trainer: Any) -> int:
    """How many batches a ``fast_dev_run`` takes; 0 in a real run. Nothing is logged or written in one."""
    return int(trainer.fast_dev_run)


def _limited(trainer: Any, limit: float) -> bool:
    """Whether the Trainer shows only some of the batches; without a limit a pass of its own takes them all."""
    return isinstance(limit, int) or limit != 1.0 or bool(trainer.overfit_batches) or _dev_run(trainer) > 0


def _has_forward(pl_module: LightningModule) -> bool:
    return getattr(type(pl_module).forward, "__qualname__", "") != "LightningModule.forward"


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
