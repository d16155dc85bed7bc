"""When to measure, and what to log: the callback for Lightning's Trainer. Nothing numerical is done here."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from lightning_ib.binning.quantizer import Quantizer
from lightning_ib.callbacks.namespaces import CallbackBase, say, with_progress
from lightning_ib.callbacks.own_pass import ForwardError, dev_run, first_loader, has_forward, run_own_pass
from lightning_ib.callbacks.schedule import Schedule
from lightning_ib.capture.batches import Parts, Unpack, unpacked
from lightning_ib.capture.layers import NoLayersError
from lightning_ib.capture.recorder import Recorder
from lightning_ib.distributed import this_process
from lightning_ib.estimators.base import Rows
from lightning_ib.estimators.registry import Estimators, checked_estimators
from lightning_ib.evaluation.loaders import checked_loader, n_unpadded_samples
from lightning_ib.evaluation.passes import preserve_state
from lightning_ib.functional import Correction, Unit
from lightning_ib.functional.checks import sentence
from lightning_ib.measurement.information_plane import MAX_SAMPLES, InformationPlane, Layers
from lightning_ib.records.history import Estimate, InformationPoint, Measurement, restored_points
from lightning_ib.records.reliability import outread
from lightning_ib.records.tags import diagnostics
from lightning_ib.report.loggers import run_folder, warn_on_error
from lightning_ib.report.reporter import Destination, Reporter

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

_STATE_VERSION = 1
"""Of what a checkpoint holds. It rises when edges that were frozen before would mean something else."""

_SEVERAL_VIEWS = (
    'Where a validation step runs several views of a batch at once, data="val" measures in a pass of its own.'
)


class InformationPlaneCallback(CallbackBase):
    """Log, epoch by epoch, what each layer knows about the input and about the target.

    Per layer: the mutual information with the input, I(X;T), and with the target, I(T;Y), the entropy H(T) and the
    saturation H(T)/log N, with standard errors, the permutation baseline, and a verdict; what a linear probe reads of
    the same rows; the least I(T;Y) that the accuracy of the head proves (Fano's inequality); and the picture of the
    information plane. Layers are cut into cells that follow the data (:class:`CellQuantizer`), or into the bins of a
    :class:`Quantizer`; :class:`InformationPlane` says how the values are computed and when they mislead. A training run
    with the callback is bit-identical to one without.

    Logged, and so open to ``EarlyStopping`` and ``ModelCheckpoint``: ``ib/I_XT/<layer>``, ``ib/I_TY/<layer>``,
    ``ib/H_T/<layer>``, and of estimators ``ib/<estimator>/<quantity>/<layer>``. Among the diagnostics stand the same,
    their bounds two standard errors away, the permutation baseline, Fano's bound and the functional under their unit,
    such as ``ib_diagnostics/bits/I_TY_lower/<layer>``, and without one ``ib_diagnostics/saturation/<layer>``,
    ``…/singletons/…`` (the share of the samples whose symbol was seen once), ``…/outside/…`` and, of the head,
    ``…/accuracy/…``: :func:`lightning_ib.records.parse_tag` reads a name. The pictures are ``ib/information_plane``,
    ``ib/estimators`` and ``ib/tsne``.

    The step of all these is Lightning's, which counts optimizer steps from 0: what is measured after s steps is logged
    at s − 1, and the point before training at 0. With epochs of 100 steps these are 0, 99, 199, …; the ``step`` of a
    point in the history counts the steps taken, 0, 100, 200, …

    In the run's folder, which is that of the first logger or, without one, ``default_root_dir``:
    ``information_plane.csv`` and ``information_plane.png`` (at the end also ``.svg``), and those of the estimators.
    With ``logger=False`` and no ``default_root_dir`` no file is written, and with ``barebones=True`` nothing is
    written, logged or shown: the values are in :attr:`history`.

    Args:
        layers: names as in ``named_modules()``, glob patterns (``*`` does not cross a dot, ``**`` does), or a mapping
            from those to a :class:`Quantizer` or :class:`CellQuantizer`; ``None`` picks leaf modules that have weights
            (a layer with its adapter counts as one), without normalisation layers, at most twelve, spread over the
            depth; what cannot be measured is left out with a warning. Layers without a quantizer get a
            :class:`CellQuantizer`.
        input: ``None`` takes each sample for a symbol of its own: I(X;T) = H(T). A :class:`Quantizer` discretizes X.
        target: ``None`` reads it by its form: class labels as they are, real numbers in ten bins of equal mass, yes/no
            labels as a symbol for each combination, rows of real numbers in cells; see :class:`InformationPlane`. A
            :class:`Quantizer` says how to put it into bins.
        data: ``None`` measures during the validation loop, in its own forward passes, and where there is no validation
            loop in a pass of its own over the training data. ``"train"``, ``"val"`` or a DataLoader asks for a pass of
            its own. Of several validation loaders the first is measured. The point before training always takes a pass
            of its own, which calls the module as ``module(x)`` (``module(**x)`` where x is a mapping).
        unpack: batch → (x, y); y is ``None`` where there is no target. ``None`` recognizes pairs, and the target of
            mappings and objects by its name (``labels``, ``label``, ``targets``, ``target``, ``y``); of other batches
            the target is left out with a warning.
        every_n_epochs: measure after every n-th epoch, in the validation loop at the first chance from then on; the
            point before training is always measured.
        epochs: measure after these epochs instead, such as ``[1, 2, 4, 8, 16]``.
        every_n_train_steps: measure after every n-th optimizer step instead, in a pass of its own, over the validation
            data where there are some.
        unit: ``"bits"`` or ``"nats"``.
        beta: where given, the information-bottleneck functional I(X;T) − β I(T;Y) is logged too.
        prefix: the first part of every logged name; two callbacks in one Trainer need two.
        correction: of the plug-in entropies and all figures built from them: ``"miller_madow"``, ``"grassberger"``,
            ``"chao_shen"``, ``"james_stein"`` or ``"jackknife"``. A figure past a bound is kept and flagged in the
            history (``beyond``).
        shuffles: how many random permutations of the labels show the spread of the permutation baseline of I(T;Y); its
            mean is exact without any.
        estimators: a second opinion; ``None`` for a linear probe where the target is class labels, ``()`` for none; by
            name (``"probe"``, ``"mlp_probe"``, ``"soft"``, ``"kde"``, ``"ksg"``, ``"knn"``, ``"mixed"``, ``"copula"``,
            ``"renyi"``, ``"infonce"``, ``"smile"``, ``"quantized8"``) or as an
            :class:`~lightning_ib.estimators.Estimator`.
        max_samples: how many samples of a pass cells and estimators see, the same ones at every measurement.
        head: ``None`` measures the last layer to run on its softmax where it has one coordinate for each class (a
            single logit on its sigmoid); ``False`` measures it as it is; a name says which layer is the head.
        ignore_index: rows with this label, such as −100, are left out of every variable.
        tokens: take the tokens of sequences, or the pixels of pictures, for samples: activations ``(B, L, D)`` or
            ``(B, C, …)`` with labels ``(B, L)`` or ``(B, …)``. An ``attention_mask`` in the batch is respected;
            ``unpack`` may return (x, y, mask). Standard errors are taken over sequences.
        log_projector: hand 1 000 of the sampled rows, labelled, to TensorBoard's projector: at the measurements 0, 1,
            2, 4, 8, …, 256 and at the last; a layer takes at most 0.5 MB each time.
        tsne: draw the sampled rows in two dimensions by t-SNE, which needs scikit-learn: seconds a layer.
        verbose: show progress bars beside the Trainer's own, say in the log how each layer was discretized, and at the
            end of a fit what it came to and where the files are. Warnings are given either way.

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
        epochs: Sequence[int] | None = None,
        every_n_train_steps: int | None = None,
        unit: Unit = "bits",
        beta: float | None = None,
        prefix: str = "ib",
        correction: Correction | None = None,
        shuffles: int = 0,
        estimators: Estimators | None = None,
        max_samples: int = MAX_SAMPLES,
        head: str | bool | None = None,
        ignore_index: int | None = None,
        tokens: bool = False,
        log_projector: bool = False,
        tsne: bool = False,
        verbose: bool = True,
    ) -> None:
        if (isinstance(data, str) and data not in ("train", "val")) or not (data is None or hasattr(data, "__iter__")):
            raise ValueError(f"data must be None, 'train', 'val' or a DataLoader, got {data!r}.")
        if data is not None and not isinstance(data, str):
            checked_loader(data)
        if unpack is not None and not callable(unpack):
            raise TypeError(f"unpack must be a callable, batch → (x, y), or None, got {unpack!r}.")
        self.schedule = Schedule(every_n_epochs, epochs, every_n_train_steps)
        if beta is not None and not (isinstance(beta, (int, float)) and math.isfinite(beta)):
            raise ValueError(f"beta must be a finite number or None, got {beta!r}.")
        if not isinstance(prefix, str) or not prefix.strip("/"):
            raise ValueError(f"prefix must be a name such as 'ib', got {prefix!r}.")
        if tsne and importlib.util.find_spec("sklearn") is None:
            raise ValueError("tsne=True needs scikit-learn: pip install scikit-learn, or leave it out.")
        chosen = checked_estimators(("probe",) if estimators is None else estimators)
        if estimators is None:
            for estimator in chosen:
                estimator.optional = True
        self._options: dict[str, Any] = {
            "layers": layers,
            "input": input,
            "target": target,
            "unit": unit,
            "correction": correction,
            "shuffles": shuffles,
            "estimators": chosen,
            "max_samples": max_samples,
            "head": head,
            "ignore_index": ignore_index,
            "tokens": tokens,
            "keep_rows": log_projector or tsne,
        }
        self.plane = InformationPlane(**self._options)
        """The measurement at work; its ``fitted_quantizers`` hold the edges of each layer in bins."""
        self.history: list[InformationPoint] = []
        """A point for each layer and measurement, the ones before training first."""
        self.estimates: list[Estimate] = []
        """What the estimators that do not bin gave, measurement by measurement."""
        self.evaluated: list[InformationPoint] = []
        """A point for each layer, from the last ``trainer.validate`` or ``trainer.test``."""
        self.evaluated_estimates: list[Estimate] = []
        """What the estimators gave then."""
        self.data, self.unpack, self.verbose = data, unpack, verbose
        self.unit, self.prefix = unit, prefix.strip("/")
        self.reporter = Reporter(self.prefix, unit, beta, by=self.schedule.by, projector=log_projector, tsne=tsne)
        """Where measurements go."""
        self._recorder: Recorder | None = None
        self._validated = False  # whether the fit has a validation loop
        self._own_pass = True
        self._late = False  # whether figures wait for the epoch's end: some processes have no validation batch
        self._counting = False
        self._failed = False
        self._measured = False  # whether this fit came to a measurement
        self._described: set[str] = set()  # the layers of which was said how they are discretized
        self._shown: dict[str, Rows] = {}  # the sampled rows of the measurement at work, where they are to be shown
        self._restored: Mapping[str, Any] | None = None
        self._of_the_fit: Mapping[str, Any] | None = None  # frozen edges, while the plane is that of an evaluation

    @property
    def figure_path(self) -> Path | None:
        """Where the picture was last saved."""
        return self.reporter.figure_path

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
        self._own_pass = self.data is not None or self.schedule.by == "step" or not trainer.enable_validation
        if self.data == "val" and not trainer.enable_validation:
            raise ValueError(
                "data='val' needs validation data and a validation_step: give the Trainer both, or use data='train'."
            )
        for earlier in callbacks[: callbacks.index(self)] if self in callbacks else []:
            monitor = getattr(earlier, "monitor", None)
            ours = (f"{self.prefix}/", f"{diagnostics(self.prefix)}/")
            if self._own_pass and isinstance(monitor, str) and monitor.startswith(ours):
                raise ValueError(
                    f"{type(earlier).__name__} monitors {monitor!r} but comes before the InformationPlaneCallback that "
                    "logs it: put the InformationPlaneCallback first in callbacks=[…]."
                )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers before the first forward; hooks are on during a measurement, and inside torch.compile."""
        self._attach(pl_module, self._frozen() if trainer.global_step > 0 else None)
        self._of_the_fit = self.reporter.figure_path = None

    def _attach(self, pl_module: LightningModule, frozen: Mapping[str, Any] | None) -> None:
        self.plane.detach()
        self.plane = InformationPlane(**self._options)
        if self.data is None:
            self.plane.several_views = _SEVERAL_VIEWS
        self._recorder = None
        self._counting = self._failed = self._late = self._measured = False
        self._described.clear()
        self.reporter.begin()
        try:
            self._recorder = self.plane.attach(pl_module)
        except NoLayersError as error:
            if isinstance(self._options["head"], str):
                raise
            self._measure_nothing(error)
            return
        self._recorder.enabled = False
        if frozen is not None:
            self.plane.load_frozen_state(frozen)

    def _measure_nothing(self, why: NoLayersError) -> None:
        """Go on without measuring, where nobody named a layer and none can be measured."""
        if this_process()[0] == 0:
            warnings.warn(f"{self.prefix}: nothing is measured. {why}", UserWarning, stacklevel=2)
        self.plane.detach()
        self.plane, self._recorder = InformationPlane(**self._options), None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the history of a checkpoint, if there is one; measure the point before training, if there is none."""
        self._take_up(trainer)
        if self._recorder is None:
            return
        self._follow_rank_zero(trainer)
        if trainer.enable_validation and trainer.val_dataloaders is None and self._own_pass:
            # Lightning asks for them at the first epoch that validates, and they are asked for now.
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
            trainer.training = True
        # Those of a validation that is not yet to be are not asked for: that may draw random numbers.
        here = trainer.enable_validation and (trainer.val_dataloaders is None or sum(trainer.num_val_batches) > 0)
        self._validated = any_rank(trainer, here)
        self._late = self._validated and any_rank(trainer, not here)
        self._own_pass = self._own_pass or not self._validated
        if not self._own_pass and trainer.world_size > 1:
            self._warn_of_unshared(trainer)
        if self.data is None and not self._validated:
            self._say(
                trainer,
                f"there is no validation loop, so the layers are measured in a pass of their own over "
                f"the training data, {self.schedule}.",
            )
        if not self.history or self._missed(trainer):
            self._measure_before_training(trainer, pl_module)
        self._lay_out(trainer)
        # Whoever monitors a figure finds the last one from the start, also in epochs that are not measured.
        self._tell_monitors(trainer, self._latest())

    def _latest(self) -> Measurement:
        """What the last measurement came to."""
        last = self._last()
        points = [point for point in self.history if (point.epoch, point.step) == (last.epoch, last.step)]
        step = points[-1].step if points else 0
        estimates = [estimate for estimate in self.estimates if estimate.step == step]
        known = {(one.layer, one.estimator) for one in estimates}
        new = [one for one in self._no_estimates(0, step) if (one.layer, one.estimator) not in known]
        return Measurement(points, estimates + new)

    def _no_estimates(self, epoch: int, step: int) -> list[Estimate]:
        return self.plane.estimation.missing(self.plane.layers, unit=self.unit, epoch=epoch, step=step)

    def _missed(self, trainer: Trainer) -> bool:
        """Whether the run was interrupted between the end of an epoch and its measurement."""
        validates = trainer.current_epoch % (trainer.check_val_every_n_epoch or 1) == 0
        due = self.schedule.by == "epoch" and self.schedule.is_due(trainer.current_epoch, self._last().epoch)
        return due and (self._own_pass or validates)

    def _warn_of_unshared(self, trainer: Trainer) -> None:
        loader = first_loader(trainer.val_dataloaders)
        if not isinstance(loader, DataLoader) and trainer.is_global_zero:
            warnings.warn(
                f"{self.prefix}: the validation data is a {type(loader).__name__}, which Lightning does not share out: "
                "unless it gives each process other samples, every sample is counted once in each process, and log N "
                "is too large. Give a DataLoader.",
                UserWarning,
                stacklevel=2,
            )

    def _follow_rank_zero(self, trainer: Trainer) -> None:
        """Go on from one history in all processes: that of the first."""
        if trainer.world_size == 1:
            return
        own = [tuple(point) for point in self.history]
        estimates = [tuple(estimate) for estimate in self.estimates]
        points, estimates, frozen = trainer.strategy.broadcast((own, estimates, self.plane.frozen_state()))
        if any_rank(trainer, repr(points) != repr(own)) and trainer.is_global_zero:
            warnings.warn(
                f"{self.prefix}: the processes came with different histories: all go on with that of rank 0, "
                f"{len(own)} points. Give every process the same checkpoint.",
                UserWarning,
                stacklevel=2,
            )
        self.history[:] = [InformationPoint._make(point) for point in points]
        self.estimates[:] = [Estimate._make(estimate) for estimate in estimates]
        self.plane.load_frozen_state(frozen)

    def _tell_monitors(self, trainer: Trainer, measured: Measurement) -> None:
        """Show figures to whoever monitors them, where ``self.log`` is not to be had."""
        known = self.reporter.scalars(measured)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in known.items()})

    def _take_up(self, trainer: Trainer) -> None:
        restored, self._restored = self._restored, None
        if restored is not None:
            faults = self._restore(restored)
            if faults:
                told = "; ".join(faults[:5] + ["…"] * (len(faults) > 5))
                warnings.warn(
                    f"{self.prefix}: what the checkpoint holds of InformationPlaneCallback is damaged or of another "
                    f"version: {told}. The rest is kept, figures that are missing are NaN, and edges that are missing "
                    "are fitted anew at the next measurement. Training goes on.",
                    UserWarning,
                    stacklevel=2,
                )
        other = {point.unit for point in self.history} - {self.unit}
        begun = restored is not None or trainer.global_step > 0 or trainer.current_epoch > 0
        if begun and other:
            raise ValueError(
                f"the history so far is in {other.pop()}, and the callback has unit={self.unit!r}: keep one."
            )
        # A checkpoint saved after validation holds the point of an epoch that Lightning counts once it has ended.
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        self.history[:] = [point for point in self.history if begun and point.epoch <= epoch and point.step <= step]
        self.plane.keep_layers([point.layer for point in self._latest().points])
        self.estimates[:] = [one for one in self.estimates if begun and one.epoch <= epoch and one.step <= step]

    def _restore(self, state: Any) -> list[str]:
        """Take what can be taken of a state that :meth:`state_dict` gave; what is wrong with the rest, in words."""
        if not isinstance(state, Mapping):
            self.history.clear()
            self.estimates.clear()
            return [f"it is a {type(state).__name__}, not a mapping"]
        self.history[:], faults = restored_points(state.get("history"), InformationPoint)
        self.estimates[:], others = restored_points(state.get("estimates", []), Estimate)
        faults += others
        if (version := state.get("version", _STATE_VERSION)) != _STATE_VERSION:
            return [*faults, f"it has version {version!r}, whose edges mean nothing to version {_STATE_VERSION}"]
        frozen: Any = state.get("frozen")
        try:
            self.plane.load_frozen_state(frozen)
        except ValueError as error:
            faults.append(str(error))
        return faults

    @property
    def _is_default(self) -> bool:
        """Whether nobody asked for layers, data or variables by name: then no measurement ends a run."""
        asked = (self._options[name] for name in ("layers", "input", "target"))
        named = isinstance(self._options["head"], str)
        return not named and all(
            one is None for one in (*asked, self.data, self.unpack, self.schedule.every_n_train_steps)
        )

    def _measure_before_training(self, trainer: Trainer, pl_module: LightningModule) -> None:
        goes_on = "The epochs are measured in the validation loop."
        lazy = [name for name, p in (*pl_module.named_parameters(), *pl_module.named_buffers()) if is_lazy(p)]
        if lazy:
            warnings.warn(
                f"{self.prefix}: there is no point before training: {lazy[0]!r} gets its values in the first forward, "
                "which must be one of training.",
                UserWarning,
                stacklevel=2,
            )
            return
        if not self._own_pass and not has_forward(pl_module):
            warnings.warn(
                f"{type(pl_module).__name__} defines no forward, so there is no point before training: that takes a "
                f"pass of its own, which calls module(x). {goes_on}",
                UserWarning,
                stacklevel=2,
            )
            return
        if not self._own_pass and any_rank(trainer, trainer.val_dataloaders is None):
            self._say(
                trainer,
                "there is no point before training, since Lightning asks for the validation data at the first epoch "
                'that validates. Give data="val" to have it asked for at the beginning.',
            )
            return
        try:
            measured = self._measured_in_own_pass(trainer, pl_module, epoch=trainer.current_epoch)
        except Exception as error:
            if self._own_pass and isinstance(error, NoLayersError):
                self._measure_nothing(error)
                return
            if not self._is_default and (self._own_pass or not isinstance(error, (ForwardError, NoLayersError))):
                raise
            lacks = "the layers are not measured in this run" if self._own_pass else "there is no point before training"
            warnings.warn(
                f"{self.prefix}: {lacks}: {sentence(error)} {'Training goes on.' if self._own_pass else goes_on}",
                UserWarning,
                stacklevel=2,
            )
            if self._own_pass:
                self._release()
            return
        self._log_at_once(trainer, measured)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off; a run that was over when it was resumed has its history all the same."""
        if self._restored is not None:
            self._take_up(trainer)
        self._finish(trainer)
        self._release()

    def _finish(self, trainer: Trainer) -> None:
        """The last files of a fit, and what it came to."""
        self.reporter.finish(self.history, self.estimates, self._destination(trainer))
        with warn_on_error("what the fit came to could not be told", self.reporter.warned):
            self._tell_the_end(trainer)

    def _tell_the_end(self, trainer: Trainer) -> None:
        """Where the probe reads more than the symbols, what the fit came to, and where it is."""
        if not self.verbose or trainer.barebones:
            return
        if (hint := outread(self._latest())) is not None:
            self._say(trainer, f"at the last measurement {hint}")
        if self.history:
            self._say(trainer, self._summary(trainer))

    def _summary(self, trainer: Trainer) -> str:
        """What the fit came to, and where it is."""
        to = self._destination(trainer)
        summary = self.reporter.summary(self.history, to.loggers)
        if self.reporter.has_files or to.loggers:
            return summary
        where = "No file was written: the values are in the callback's .history and .estimates."
        if not dev_run(trainer):
            where += " Give the Trainer a logger or default_root_dir=… for files."
        return f"{summary}\n{where}"

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off; Lightning calls neither ``teardown`` nor ``on_fit_end`` then.

        A fit that the user interrupts ends as one that is over.
        """
        try:
            if isinstance(exception, KeyboardInterrupt) and trainer.state.fn == "fit" and self._measured:
                self._finish(trainer)
        finally:
            self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._release()

    def _release(self) -> None:
        """Take the hooks off and drop what was counted. Twice is harmless."""
        self.plane.detach()
        self._recorder = None
        self._restored = None
        self.reporter.forget_rows()
        if self.plane.update_called:
            self.plane.reset()

    # -- in the validation loop; in trainer.validate and trainer.test alone --------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the layers where ``trainer.validate`` was called: there is no fit to do so."""
        if trainer.state.fn == "validate":
            self._attach_alone(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the layers for ``trainer.test``."""
        self._attach_alone(pl_module)

    def _attach_alone(self, pl_module: LightningModule) -> None:
        """Hook the layers, with the edges of the checkpoint that was loaded, or else of the fit before."""
        self._of_the_fit = self._frozen()
        self._attach(pl_module, self._of_the_fit)
        self.plane.keep_layers([point.layer for point in self._latest().points])
        if isinstance(self._restored, Mapping):
            with warn_on_error("the checkpoint's edges could not be taken up", self.reporter.warned):
                self.plane.load_frozen_state(self._restored.get("frozen", {}))

    def _frozen(self) -> Mapping[str, Any]:
        """What the fit froze, whatever was evaluated since."""
        return self.plane.frozen_state() if self._of_the_fit is None else self._of_the_fit

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a measurement."""
        if self._recorder is not None and (_alone(trainer) or (self._is_due(trainer) and not self._own_pass)):
            self._counting, self._failed = True, False
            self.plane.reset()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch this batch."""
        if self._recorder is not None:
            self._recorder.enabled = self._counting and not self._failed and dataloader_idx == 0

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
            if batch is None:  # of which a step can make nothing
                self._recorder.take({})
                return
            self._guarded(trainer, lambda: self._see(unpacked(batch, self.unpack)))

    def _see(self, parts: Parts) -> None:
        if not self.plane.pass_over(parts):
            self.plane.see(parts)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Come to the figures, and log them."""
        if self._counting and not self._late:
            loaders = trainer.test_dataloaders if trainer.state.fn == "test" else trainer.val_dataloaders
            self._conclude(trainer, pl_module, first_loader(loaders))

    # trainer.test asks the same of its own loop.
    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_start = on_validation_batch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _conclude(self, trainer: Trainer, pl_module: LightningModule, loader: Any) -> None:
        """From what was counted in a loop to figures in the log."""
        self._counting = False
        epoch = trainer.current_epoch + (not _alone(trainer))
        # No process goes on to gather what another cannot give.
        failed = any_rank(trainer, self._failed)
        points = None if failed else self._guarded(trainer, lambda: self._computed(trainer, loader, epoch))
        failed = any_rank(trainer, points is None)
        measured = None if failed or points is None else self._with_estimates(trainer, pl_module, points, epoch)
        self._log(trainer, pl_module, measured, epoch)

    # -- in a pass of its own ------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after every n-th optimizer step, where that is asked for."""
        if self._recorder is None or self.schedule.by == "epoch":
            return
        if self.schedule.is_due(trainer.global_step, self._last().step):
            epoch = trainer.current_epoch + trainer.is_last_batch
            measured = self._guarded(trainer, lambda: self._measured_in_own_pass(trainer, pl_module, epoch))
            if measured is None:
                measured = self._missing(trainer, epoch)
                self.plane.reset()
            self._tell_monitors(trainer, measured)
            self._log_at_once(trainer, measured)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure in a pass of its own, and log."""
        if self._recorder is None or self.schedule.by == "step":
            return
        if self._late and not self._own_pass and any_rank(trainer, self._counting):
            self._conclude(trainer, pl_module, first_loader(trainer.val_dataloaders))
        elif self._own_pass and self._is_due(trainer):
            epoch = trainer.current_epoch + 1
            measured = self._guarded(trainer, lambda: self._measured_in_own_pass(trainer, pl_module, epoch))
            self._log(trainer, pl_module, measured, epoch)

    def _measured_in_own_pass(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> Measurement:
        assert self._recorder is not None
        data = ("val" if self._validated else "train") if self.data is None else self.data
        loader, error = None, None
        self._recorder.enabled = True
        self.plane.reset()
        try:
            loader = run_own_pass(
                trainer, pl_module, self.plane, data, self.unpack, lambda *bar: self._with_progress(trainer, *bar)
            )
        except Exception as raised:
            error = raised
        finally:
            self._recorder.enabled = False
        # No process goes on to gather what another cannot give, and all raise alike.
        self._raise_on_all_ranks(trainer, error)
        points, error = None, None
        try:
            points = self._computed(trainer, loader, epoch)
        except Exception as raised:
            error = raised
        self._raise_on_all_ranks(trainer, error)
        assert points is not None
        return self._with_estimates(trainer, pl_module, points, epoch)

    @staticmethod
    def _raise_on_all_ranks(trainer: Trainer, error: Exception | None) -> None:
        """Raise in every process what was raised in one: a ForwardError only where no process has anything worse."""
        if any_rank(trainer, error is not None):
            worse = any_rank(trainer, error is not None and not isinstance(error, ForwardError))
            if error is None or (worse and isinstance(error, ForwardError)):
                kind = RuntimeError if worse else ForwardError
                raise kind("the measurement failed in another process, which says why.") from error
            raise error

    # -- figures -------------------------------------------------------------------------------------------------------

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether the epoch at work is one to measure."""
        if self.schedule.by == "step" or trainer.sanity_checking or trainer.state.fn != "fit":
            return False
        if trainer.current_epoch + 1 == self._last().epoch:
            # Of several validation runs in one epoch the last counts. Lightning before 2.6 repeats a part of one where
            # a run is resumed: nothing new is seen there.
            return self._last().step != trainer.global_step
        return self.schedule.is_due(trainer.current_epoch + 1, self._last().epoch)

    def _last(self) -> InformationPoint:
        """The last point there is."""
        return self.history[-1] if self.history else InformationPoint.missing("", n_samples=0, unit=self.unit)

    def _computed(self, trainer: Trainer, loader: Any, epoch: int) -> list[InformationPoint]:
        n_samples = n_unpadded_samples(loader)
        if n_samples is not None:
            self.plane.trim(n_samples)
        with warnings.catch_warnings():
            # A process that saw no batch has the figures of the others.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric")
            points: list[InformationPoint] = self.plane.compute(epoch=epoch, step=trainer.global_step)
        for layer, how in ({"the target": self.plane.target_read} | self.plane.discretized).items():
            if how and layer not in self._described:
                self._described.add(layer)
                self._say(trainer, f"{layer}: {how}.")
        return points

    def _say(self, trainer: Trainer, message: str) -> None:
        if self.verbose and not trainer.barebones:
            say(trainer, f"{self.prefix}: {message}")

    def _with_progress(self, trainer: Trainer, items: Iterable[Any], total: int | None, name: str) -> Iterable[Any]:
        return with_progress(trainer, items, total, name) if self.verbose else items

    def _with_estimates(
        self, trainer: Trainer, pl_module: LightningModule, points: list[InformationPoint], epoch: int
    ) -> Measurement:
        """The points, and what other estimators say; these never cost the points."""
        self._shown = {}
        self.plane.warn_of_late_layers(pl_module)
        shows_rows = self._options["keep_rows"]
        if not self.plane.estimation.estimators and not shows_rows:
            return Measurement(points, [])
        with preserve_state(pl_module):  # an estimator of the user's may draw random numbers
            estimates = self._guarded(trainer, lambda: self._estimated(trainer, epoch))
            if shows_rows:
                self._shown = self._guarded(trainer, self.plane.labelled_rows) or {}
        failed = any_rank(trainer, estimates is None)
        return Measurement(points, self._no_estimates(epoch, trainer.global_step) if failed else estimates)

    def _estimated(self, trainer: Trainer, epoch: int) -> list[Estimate]:
        """The figures of the estimators that do not bin, and in the log what they set from the layers."""
        estimation = self.plane.estimation
        before = {layer: set(settled) for layer, settled in estimation.settled.items()}
        estimates = self.plane.estimate(
            epoch=epoch,
            step=trainer.global_step,
            progress=lambda pairs: self._with_progress(trainer, pairs, len(pairs), "Estimators"),
        )
        for layer, estimators in estimation.settled.items():
            for name, settled in estimators.items():
                if settled and name not in before.get(layer, set()):
                    told = ", ".join(f"{key} = {value:.4g}" for key, value in settled.items())
                    self._say(trainer, f"{layer}: {name}: {told}, from the layer as it is now. Frozen.")
        return estimates

    def _guarded(self, trainer: Trainer, measure: Callable[[], Any]) -> Any:
        """Run a part of a measurement; where it fails, one warning for each kind of failure, and the run goes on."""
        try:
            return measure()
        except Exception as error:
            self._failed = True
            kind = re.sub(r"[0-9.]+", "#", f"{type(error).__name__}: {error}")
            if kind not in self.reporter.warned:
                self.reporter.warned.add(kind)
                when = f" after epoch {trainer.current_epoch + 1}"
                if self.schedule.by == "step":
                    when = f" after step {trainer.global_step}"
                goes_on = "The evaluation goes on." if _alone(trainer) else "Training goes on."
                warnings.warn(
                    f"{self.prefix}: the measurement{'' if _alone(trainer) else when} failed, its points are NaN: "
                    f"{sentence(error)} {goes_on}",
                    UserWarning,
                    stacklevel=2,
                )
            return None

    def _missing(self, trainer: Trainer, epoch: int) -> Measurement:
        """The points and estimates of a measurement that failed; all processes must ask."""
        self._shown = {}
        self.plane.agree_on_layers()
        missing = InformationPoint.missing("", n_samples=0, unit=self.unit, epoch=epoch, step=trainer.global_step)
        return Measurement(
            [missing._replace(layer=layer) for layer in self.plane.layers],
            self._no_estimates(epoch, trainer.global_step),
        )

    def _log(self, trainer: Trainer, pl_module: LightningModule, measured: Measurement | None, epoch: int) -> None:
        if measured is None:
            measured = self._missing(trainer, epoch)
            self.plane.reset()  # what was counted is of no use
        # Every process has the same figures: the greatest of them is any of them, to the last bit.
        values = self.reporter.scalars(measured)
        if not trainer.barebones:  # which only warns of what is logged
            # Names that some logger refuses are handed to each as it takes them.
            odd = self.reporter.refused(values)
            for some, logger in (({name: values[name] for name in values if name not in odd}, None), (odd, False)):
                pl_module.log_dict(some, logger=logger, batch_size=1, reduce_fx="max", sync_dist=trainer.world_size > 1)
            if odd:
                self.reporter.log_scalars(odd, self._destination(trainer))
        if _alone(trainer):
            self.evaluated, self.evaluated_estimates = measured
            self.plane.sampled.reset()
        else:
            self._keep(trainer, measured)

    def _log_at_once(self, trainer: Trainer, measured: Measurement) -> None:
        """Log where ``self.log`` is not to be had, or would wait for ``log_every_n_steps``."""
        self.reporter.log_scalars(self.reporter.scalars(measured), self._destination(trainer))
        self._keep(trainer, measured)

    def _keep(self, trainer: Trainer, measured: Measurement) -> None:
        """Add the points and estimates of one measurement to the history, and bring CSV and pictures up to date.

        Several validation runs in one epoch leave one point: that of the last.
        """
        of = self.schedule.by
        now = {getattr(point, of) for point in measured.points}
        self.history[:] = [point for point in self.history if getattr(point, of) not in now] + measured.points
        self.estimates[:] = [one for one in self.estimates if getattr(one, of) not in now] + measured.estimates
        rows, self._shown = self._shown, {}
        self._measured = True
        self._lay_out(trainer)
        self.plane.sampled.reset()  # the rows have served; training may need their memory
        self.reporter.write(
            self.history,
            self.estimates,
            rows,
            self._destination(trainer),
            lambda items, total, name: self._with_progress(trainer, items, total, name),
        )

    def _lay_out(self, trainer: Trainer) -> None:
        """Lay out TensorBoard's charts, when the layers are known."""
        if not self.plane.to_pick and trainer.is_global_zero:
            estimators, binned = self.plane.estimation.estimators, bool(self.plane.fitted_quantizers)
            self.reporter.layout(trainer.loggers, self.plane.layers, estimators, binned)

    def _destination(self, trainer: Trainer) -> Destination:
        """Where measurements go: nowhere in other processes than the first, and in a ``fast_dev_run``."""
        if not trainer.is_global_zero or dev_run(trainer):
            return Destination([], None, 0)
        folder = None
        if not _nowhere(trainer):
            folder = run_folder(trainer.loggers, trainer.default_root_dir, self.reporter.warned)
        return Destination(trainer.loggers, folder, _step(trainer))

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The history, the frozen edges and the automatic choices, in tensors and primitives."""
        return {
            "version": _STATE_VERSION,
            "history": [point._asdict() for point in self.history],
            "estimates": [estimate._asdict() for estimate in self.estimates],
            "frozen": self._frozen(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a run where the checkpoint left it, once a fit begins: other checkpoints change nothing."""
        self._restored = state_dict


def _step(trainer: Trainer) -> int:
    """The step Lightning logs at, which differs from ``global_step`` where there are several optimizers."""
    # What is logged in on_train_epoch_end goes to the epoch's last step, as what is logged in the validation loop does.
    ended = trainer.lightning_module._current_fx_name == "on_train_epoch_end"
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped) - ended


def _nowhere(trainer: Any) -> bool:
    """Whether a run has no place for files: without a logger nothing lands in a working directory that nobody named."""
    return trainer.barebones or (not trainer.loggers and trainer.default_root_dir == os.getcwd())


def _alone(trainer: Any) -> bool:
    """Whether an evaluation was asked for by itself, outside a fit."""
    return trainer.state.fn in ("validate", "test")


def any_rank(trainer: Any, fact: bool) -> bool:
    """Whether something holds in any process; all of them must ask."""
    return bool(trainer.strategy.reduce_boolean_decision(fact, all=False))
