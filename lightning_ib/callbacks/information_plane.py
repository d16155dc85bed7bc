"""When to measure, and in which pass: the callback for Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch.nn.parameter import is_lazy

from lightning_ib.binning.quantizer import Quantizer
from lightning_ib.callbacks.arguments import checked_arguments, default_estimators
from lightning_ib.callbacks.loops import LoopCallback
from lightning_ib.callbacks.own_pass import run_own_pass
from lightning_ib.callbacks.schedule import Schedule
from lightning_ib.callbacks.session import Measurement, Session
from lightning_ib.callbacks.trainer import (
    any_rank,
    first_loader,
    has_forward,
    set_up_validation_data,
    unshared_data,
)
from lightning_ib.capture.batches import Unpack
from lightning_ib.capture.layers import NoLayersError
from lightning_ib.estimators.geometry import Companions, checked_companions
from lightning_ib.estimators.registry import Estimators, checked_estimators
from lightning_ib.evaluation.passes import ForwardError
from lightning_ib.functional import Correction, Unit
from lightning_ib.functional.checks import checked_unit, sentence
from lightning_ib.measurement.bounds import Bound, solved
from lightning_ib.measurement.information_plane import MAX_SAMPLES, InformationPlane, Layers
from lightning_ib.measurement.targets import TargetOptions
from lightning_ib.records.tags import diagnostics
from lightning_ib.report.reporter import Reporter

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

_SEVERAL_VIEWS = (
    'Where a validation step runs several views of a batch at once, data="val" measures in a pass of its own.'
)


class Place(Enum):
    """Where the layers are measured in a fit."""

    VALIDATION = "in the validation loop"
    VALIDATION_LATE = "in the validation loop, concluded at the end of the epoch: some processes have no batch of it"
    OWN_PASS = "in a pass of its own"


class InformationPlaneCallback(LoopCallback):
    """Log, epoch by epoch, the information of each layer about the input and about the target.

    Per layer: the mutual information with the input, I(X;T), and with the target, I(T;Y), the entropy H(T) and the
    saturation H(T)/log N, with standard errors, the permutation baseline, and a verdict; I(T;Y) of a linear probe on
    the same rows; the lower bound on I(T;Y) from the accuracy of the head (Fano's inequality); and the picture of the
    information plane. Layers are cut into cells that follow the data (:class:`CellQuantizer`), or into the bins of a
    :class:`Quantizer`; :class:`InformationPlane` says how the values are computed and when they mislead. The callback
    leaves a training run bit-identical.

    Logged, and so open to ``EarlyStopping`` and ``ModelCheckpoint``: ``ib/I_XT/<layer>``, ``ib/I_TY/<layer>``,
    ``ib/H_T/<layer>``, and of estimators ``ib/<estimator>/<quantity>/<layer>``. Among the diagnostics stand the same,
    their bounds two standard errors away, the permutation baseline, Fano's bound and the functional under their unit,
    such as ``ib_diagnostics/bits/I_TY_lower/<layer>``, and dimensionless ``ib_diagnostics/saturation/<layer>``,
    ``…/singleton_fraction/…`` (the fraction of samples with a symbol seen once), ``…/clipped_fraction/…`` and, of
    the head, ``…/accuracy/…``: :func:`lightning_ib.records.parse_tag` reads a name. The pictures are
    ``ib/information_plane``, ``ib/estimators`` and ``ib/tsne``.

    The step of all these is Lightning's, which counts optimizer steps from 0: a value after s steps is logged at
    s − 1, and the point before training at 0. With epochs of 100 steps these are 0, 99, 199, …; the ``step`` of a
    point in the history counts the steps taken, 0, 100, 200, …

    In the run's folder, which is that of the first logger or else ``default_root_dir``:
    ``information_plane.csv`` and ``information_plane.png`` (at the end also ``.svg``), and those of the estimators.
    Files need a logger or a ``default_root_dir``; with ``barebones=True`` the values are in :attr:`history` alone.

    Args:
        layers: names as in ``named_modules()``, glob patterns (``*`` stops at a dot, ``**`` crosses it), or a mapping
            from those to a :class:`Quantizer` or :class:`CellQuantizer`; ``None`` picks leaf modules that have weights
            (a layer with its adapter counts as one), normalization layers excluded, at most twelve, spread over the
            depth; layers that fail are left out with a warning. Layers without a quantizer get a
            :class:`CellQuantizer`.
        input: ``None`` takes each sample for a symbol of its own: I(X;T) = H(T). A :class:`Quantizer` discretizes X.
        target: ``None`` reads it by its form, see :class:`InformationPlane`; a :class:`Quantizer` puts it into bins.
        targets: several in one pass, by name, such as ``{"class": "fine", "coarse": lambda batch: …}``: keys of the
            batch, functions of it, ``None`` or a :class:`Quantizer` for the y that is read by default. Each has a plane
            and tags of its own, ``ib/I_TY@coarse/<layer>``; see :class:`InformationPlane`.
        data: ``None`` measures during the validation loop, in its own forward passes, and in runs without validation
            in a pass of its own over the training data. ``"train"``, ``"val"`` or a DataLoader asks for a pass of
            its own. Of several validation loaders the first is measured. The point before training always takes a pass
            of its own, which calls the module as ``module(x)`` (``module(**x)`` where x is a mapping).
        unpack: batch → (x, y); y is ``None`` without a target. ``None`` recognizes pairs, and the target of
            mappings and objects by its name (``labels``, ``label``, ``targets``, ``target``, ``y``); of other batches
            the target is left out with a warning.
        every_n_epochs: measure after every n-th epoch, in the validation loop at the first chance from then on; the
            point before training is always measured.
        epochs: measure after these epochs instead, such as ``[1, 2, 4, 8, 16]``.
        every_n_train_steps: measure after every n-th optimizer step instead, in a pass of its own, over the validation
            data where there are some.
        at_steps: likewise after these steps, such as ``[0, 1, 10, 100]``, in ascending order, 0 being before training;
            ``"log"`` takes 0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, …, ten a decade.
        unit: ``"bits"`` or ``"nats"``.
        beta: if set, the information-bottleneck functional I(X;T) − β I(T;Y) is logged too.
        prefix: the first part of every logged name; two callbacks in one Trainer need two.
        correction: of the plug-in entropies and all values built from them: ``"miller_madow"``, ``"grassberger"``,
            ``"chao_shen"``, ``"james_stein"``, ``"jackknife"``, ``"chao_wang_jost"`` or ``"nsb"``. A value past a bound
            is kept and flagged in the history (``out_of_bounds``).
        n_permutations: the number of random label permutations for the spread of the permutation baseline of I(T;Y)
            (its mean has a closed form); 0 skips the spread.
        estimators: a second opinion; ``None`` for a linear probe where the target is class labels, ``()`` to skip; by
            name (``"probe"``, ``"mlp_probe"``, ``"soft"``, ``"kde"``, ``"ksg"``, ``"knn"``, ``"mixed"``,
            ``"projected"``, ``"copula"``, ``"renyi"``, ``"infonce"``, ``"smile"``, ``"quantized8"``) or as an
            :class:`~lightning_ib.estimators.Estimator`.
        companions: the geometry of each layer beside its information: ``"spectrum"`` (ranks, α, collapse),
            ``"classes"`` (NC1, CDNV, angles) and ``"drift"`` (linear CKA to the first measurement and, when the fit
            ends, to the last), or ``"all"``; see :mod:`lightning_ib.estimators.geometry`.
        max_samples: how many samples of a pass cells and estimators see, the same ones at every measurement.
        bound: the information-bottleneck bound to draw behind the points, whose distance to it is recorded: a joint
            distribution p(x, y), shape ``(X, Y)``; a curve of :mod:`lightning_ib.bottleneck`; ``"labels"``, hard labels
            with min(I(X;T), H(Y)); or ``"data"``, p(y|x) counted where inputs come up several times. Alone or beside
            it, in a list: ``"finite_sample"``, the most by which counted values are off (95 %), and
            ``"input_compression"``, a heuristic of the generalization error. See
            :class:`~lightning_ib.measurement.bounds.PlaneBounds`.
        head: ``None`` measures the last layer to run on its softmax where it has one coordinate for each class (a
            single logit on its sigmoid); ``False`` measures it as it is; a name says which layer is the head.
        ignore_index: rows with this label, such as −100, are left out of every variable.
        tokens: take the tokens of sequences, or the pixels of pictures, for samples: activations ``(B, L, D)`` or
            ``(B, C, …)`` with labels ``(B, L)`` or ``(B, …)``. An ``attention_mask`` in the batch is respected;
            ``unpack`` may return (x, y, mask). Standard errors are taken over sequences.
        log_projector: hand 1 000 of the sampled rows, labeled, to TensorBoard's projector: at the measurements 0, 1,
            2, 4, 8, …, 256 and at the last; a layer takes at most 0.5 MB each time.
        tsne: draw the sampled rows in two dimensions by t-SNE, which needs scikit-learn: seconds a layer.
        verbose: show progress bars beside the Trainer's own, log how each layer was discretized, and at the end of a
            fit a summary and where the files are. Warnings are issued either way.

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
        targets: TargetOptions | None = None,
        data: Literal["train", "val"] | Iterable[Any] | None = None,
        unpack: Unpack | None = None,
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        every_n_train_steps: int | None = None,
        at_steps: Sequence[int] | Literal["log"] | None = None,
        unit: Unit = "bits",
        beta: float | None = None,
        prefix: str = "ib",
        correction: Correction | None = None,
        n_permutations: int = 0,
        estimators: Estimators | None = None,
        companions: Companions = (),
        max_samples: int = MAX_SAMPLES,
        bound: Bound | Sequence[Bound] | None = None,
        head: str | bool | None = None,
        ignore_index: int | None = None,
        tokens: bool = False,
        log_projector: bool = False,
        tsne: bool = False,
        verbose: bool = True,
    ) -> None:
        flags = {"log_projector": log_projector, "tsne": tsne, "verbose": verbose}
        checked_arguments(data, unpack, beta, prefix, flags)
        schedule, prefix = Schedule(every_n_epochs, epochs, every_n_train_steps, at_steps), prefix.strip("/")
        chosen = default_estimators() if estimators is None else checked_estimators(estimators)
        options: dict[str, Any] = {"layers": layers, "input": input, "target": target, "targets": targets}
        options |= {
            "unit": unit,
            "correction": correction,
            "n_permutations": n_permutations,
            "estimators": chosen,
            "companions": checked_companions(companions, chosen),
            "max_samples": max_samples,
            "bound": solved(bound, checked_unit(unit)),
            "head": head,
            "ignore_index": ignore_index,
            "tokens": tokens,
            "keep_rows": log_projector or tsne,
        }
        super().__init__(
            schedule,
            Session(options, prefix, several_views=_SEVERAL_VIEWS if data is None else ""),
            Reporter(prefix, unit, beta, by=schedule.by, projector=log_projector, tsne=tsne),
            verbose=verbose,
        )
        self.data, self.unpack, self.unit = data, unpack, unit
        # With defaults alone a failing measurement must leave the run going.
        named = (layers, input, target, targets, data, unpack, every_n_train_steps, at_steps)
        self._is_default = all(one is None for one in named) and not isinstance(head, str)
        self._place, self._source = Place.OWN_PASS, data

    @property
    def plane(self) -> InformationPlane:
        """The instrument at work; its ``fitted_quantizers`` hold the edges of each layer in bins."""
        return self.session.plane

    # -- the fit -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise on conflicts with the Trainer, before the run starts."""
        if stage != "fit":
            return
        own = self.data is not None or self.schedule.by == "step" or not trainer.enable_validation
        self._place = Place.OWN_PASS if own else Place.VALIDATION
        if self.data == "val" and not trainer.enable_validation:
            raise ValueError(
                "data='val' needs validation data and a validation_step: give the Trainer both, or use data='train'."
            )
        if own:
            _refuse_earlier_monitors(trainer, self)
        _refuse_same_pictures(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers before the first forward; hooks are on during a measurement, and inside torch.compile."""
        self.reporter.begin()
        self.reporter.figure_path = None
        # A further fit with this Trainer goes on with its edges; those of a checkpoint are taken up in on_train_start.
        frozen = self.session.frozen_state() if trainer.global_step > 0 else None
        self.session.attach(pl_module, self._host(trainer), frozen)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the history of a checkpoint, if there is one; measure the point before training if it is missing."""
        self._resume(trainer)
        if not self.session.is_attached:
            return
        self._follow_rank_zero(trainer)
        self._find_place(trainer)
        if not self.history or self._missed(trainer):
            self._measure_before_training(trainer, pl_module)
        self._lay_out(trainer)
        # A monitor finds the last value from the start, also in epochs that are skipped.
        self._update_monitors(trainer, self._last_measurement())

    def _find_place(self, trainer: Trainer) -> None:
        """Decide in which pass the layers are measured, and over which data."""
        own = self._place is Place.OWN_PASS
        if trainer.enable_validation and trainer.val_dataloaders is None and own:
            set_up_validation_data(trainer)
        # Loaders of a later validation stay unset: creating them may draw random numbers.
        here = trainer.enable_validation and (trainer.val_dataloaders is None or sum(trainer.num_val_batches) > 0)
        validates = any_rank(trainer, here)
        if not validates:
            self._place = Place.OWN_PASS
        elif any_rank(trainer, not here) and not own:
            self._place = Place.VALIDATION_LATE
        self._source = self.data if self.data is not None else ("val" if validates else "train")
        if self._place is not Place.OWN_PASS and (unshared := unshared_data(trainer)):
            self._warn(unshared)
        if self._source == "train" and self.data is None:
            self._say(
                trainer,
                f"there is no validation loop, so the layers are measured in a pass of their own over "
                f"the training data, {self.schedule}.",
            )

    def _missed(self, trainer: Trainer) -> bool:
        """Whether the run was interrupted between a moment that was due and its measurement."""
        last = self._last_point()
        if self.schedule.by == "step":
            return self.schedule.is_due(trainer.global_step, last.step)
        validates = trainer.current_epoch % (trainer.check_val_every_n_epoch or 1) == 0
        due = self.schedule.is_due(trainer.current_epoch, last.epoch)
        return due and (self._place is Place.OWN_PASS or validates)

    def _measure_before_training(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = self._place is Place.OWN_PASS
        if (hindrance := _obstacle(pl_module, own)) is not None:
            self._warn(hindrance)
            return
        if not own and any_rank(trainer, trainer.val_dataloaders is None):
            self._say(
                trainer,
                "there is no point before training, since Lightning asks for the validation data at the first epoch "
                'that validates. Give data="val" to have it asked for at the beginning.',
            )
            return
        try:
            moment = self._moment(trainer, trainer.current_epoch)
            measured = self.session.measure(self._own_pass(trainer, pl_module), moment)
        except Exception as error:
            self._skip_or_raise(error, own)
            return
        self._log_at_once(trainer, measured)

    def _skip_or_raise(self, error: Exception, own: bool) -> None:
        """Skip the point before training; raise if the failing argument was set by the user."""
        if own and isinstance(error, NoLayersError):
            self.session.measure_nothing(error)
            return
        if not self._is_default and (own or not isinstance(error, (ForwardError, NoLayersError))):
            raise error
        if own:
            self._warn(f"the layers are not measured in this run: {sentence(error)} Training goes on.")
            self._release()
        else:
            self._warn(f"there is no point before training: {sentence(error)} {_IN_VALIDATION}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off; a run that was over when it was resumed has its history all the same."""
        if self._saved is not None:
            self._resume(trainer)
        self._compare_with_last(trainer)
        self._finish(trainer)
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off; Lightning skips ``teardown`` and ``on_fit_end`` then.

        A fit that the user interrupts ends as one that is over.
        """
        try:
            fitting = trainer.state.fn == "fit" and self.reporter.has_reported
            if isinstance(exception, KeyboardInterrupt) and fitting:
                if trainer.world_size == 1:  # others may have been interrupted elsewhere
                    self._compare_with_last(trainer)
                self._finish(trainer)
        finally:
            self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks off."""
        self._release()

    # -- in a pass of its own ------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after an optimizer step, where that is asked for."""
        by_step = self.session.is_attached and self.schedule.by == "step"
        if by_step and self.schedule.is_due(trainer.global_step, self._last_point().step):
            epoch = trainer.current_epoch + trainer.is_last_batch
            measured = self._measured(trainer, pl_module, epoch)
            self._update_monitors(trainer, measured.history)
            self._log_at_once(trainer, measured)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure in a pass of its own, or conclude one in which some processes lacked batches; and log it."""
        if not self.session.is_attached or self.schedule.by == "step":
            return
        if self._place is Place.VALIDATION_LATE and any_rank(trainer, self.session.is_at_work):
            self._conclude(trainer, pl_module, first_loader(trainer.val_dataloaders))
        elif self._place is Place.OWN_PASS and self._is_due(trainer):
            self._log(trainer, pl_module, self._measured(trainer, pl_module, trainer.current_epoch + 1))

    def _measured(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> Measurement:
        return self.session.measure_or_warn(self._own_pass(trainer, pl_module), self._moment(trainer, epoch))

    def _own_pass(self, trainer: Trainer, pl_module: LightningModule) -> Callable[[InformationPlane], Any]:
        progress = partial(self._with_progress, trainer)
        return lambda plane: run_own_pass(trainer, pl_module, plane, self._source, self.unpack, progress)

    def _records_loop(self, trainer: Trainer) -> bool:
        return self._place is not Place.OWN_PASS and self._is_due(trainer)

    @property
    def _concludes_late(self) -> bool:
        return self._place is Place.VALIDATION_LATE

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether the epoch at work is one to measure."""
        if self.schedule.by == "step" or trainer.sanity_checking or trainer.state.fn != "fit":
            return False
        if trainer.current_epoch + 1 == self._last_point().epoch:
            # Of several validation runs in one epoch the last counts. Lightning before 2.6 repeats a part of one where
            # a run is resumed: nothing new is seen there.
            return self._last_point().step != trainer.global_step
        return self.schedule.is_due(trainer.current_epoch + 1, self._last_point().epoch)


_IN_VALIDATION = "The epochs are measured in the validation loop."


def _refuse_earlier_monitors(trainer: Trainer, callback: InformationPlaneCallback) -> None:
    """Raise where a callback before this one monitors what it logs in a pass of its own."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    ours = (f"{callback.prefix}/", f"{diagnostics(callback.prefix)}/")
    for earlier in callbacks[: callbacks.index(callback)] if callback in callbacks else []:
        monitor = getattr(earlier, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith(ours):
            raise ValueError(
                f"{type(earlier).__name__} monitors {monitor!r} but comes before the InformationPlaneCallback that "
                "logs it: put the InformationPlaneCallback first in callbacks=[…]."
            )


def _refuse_same_pictures(trainer: Trainer, callback: InformationPlaneCallback) -> None:
    """Raise where another callback would write the pictures of this one: its prefix is a target here."""
    ours = callback.reporter.file_names(callback.session.options["targets"] or ())
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(other, InformationPlaneCallback) or other.prefix == callback.prefix:
            continue
        theirs = other.reporter.file_names(other.session.options["targets"] or ())
        if same := sorted(ours & theirs):
            raise ValueError(
                f"the callbacks with the prefixes {callback.prefix!r} and {other.prefix!r} would both write {same[0]}: "
                "rename a prefix or a target."
            )


def _obstacle(pl_module: LightningModule, own_pass: bool) -> str | None:
    """The obstacle to calling a module before training, or ``None``."""
    lazy = [name for name, p in (*pl_module.named_parameters(), *pl_module.named_buffers()) if is_lazy(p)]
    if lazy:
        return (
            f"there is no point before training: {lazy[0]!r} gets its values in the first forward, which must be one "
            "of training."
        )
    if not own_pass and not has_forward(pl_module):
        return (
            f"{type(pl_module).__name__} defines no forward, so there is no point before training: that takes a "
            f"pass of its own, which calls module(x). {_IN_VALIDATION}"
        )
    return None
