"""The callback of the phases of training: the signal and the noise of gradients, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from lightning_ib.callbacks.arguments import checked_prefix, checked_unpack
from lightning_ib.callbacks.base import RecordingCallback
from lightning_ib.callbacks.schedule import Schedule
from lightning_ib.callbacks.session import Measurement
from lightning_ib.callbacks.trainer import Shares, loss_scale, shares_of_weights
from lightning_ib.capture.batches import Unpack, unpacked
from lightning_ib.capture.layers import NoLayersError, listed
from lightning_ib.functional.checks import checked_flag, sentence
from lightning_ib.measurement.gradients import GradientSNR
from lightning_ib.measurement.seen_batches import n_samples_of
from lightning_ib.records.history import History
from lightning_ib.records.record import GRADIENT, Record
from lightning_ib.report.gradients import GradientReporter

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class GradientSNRCallback(RecordingCallback):
    r"""Log, epoch by epoch, the signal and the noise of each layer's gradients: drift, then diffusion.

    Of the M optimizer steps of an epoch, whose gradients :math:`g_m` are means over batches (of all processes, and of
    all batches that are accumulated), it records per layer

    - ``grad_mean``, :math:`\|\bar g\|`, and ``grad_std``, :math:`\sqrt{\mathrm{tr}\, \mathrm{Cov}(g)}`;
    - ``grad_snr``, their ratio; ``grad_snr_floor``, :math:`1/\sqrt M`, which is the ratio without any signal; and
      ``grad_snr_unbiased``, with the part of the mean that is noise taken off;
    - ``noise_scale``, the batch size at which signal and noise are equal (McCandlish et al. 2018);
    - ``weight_norm``, :math:`\|w\|`, and ``weight_distance``, :math:`\|w - w_0\|` from the weights of the start;

    and the same of all watched weights together, as the layer ``all_layers``. See
    :func:`~lightning_ib.functional.gradient_signal` for the formulas. Logged are ``ib/grad_snr/<layer>`` and so on, the
    unbiased ratio and the floor as ``ib_diagnostics/grad_snr_floor/<layer>``, and the picture ``ib/gradients``: mean
    and spread over time, divided by the norm of the weights as in the field. In the run's folder they are
    ``gradients.csv`` and ``gradients.png``.

    Beside an :class:`InformationPlaneCallback` of the same prefix in one Trainer the two share a history, a CSV file
    and the page in TensorBoard: the plane beside the phases.

    Gradients are read in ``on_before_optimizer_step``, where they are whole and unscaled, and before Lightning clips
    them; a callback that changes them in that hook is to come after this one. In manual optimization each step is taken
    for one of the batch at work.
    A run with the callback is bit-identical to one without, and nothing waits for the device before the end of the
    epoch, float16 with a loss scale apart, where each step waits by itself.

    The weights move within an epoch: the spread holds the drift of the mean on the way, and the mean gradient is that
    of the path. With plain SGD and a constant learning rate, minus the rate times the sum of gradients is the way that
    the weights went. In an epoch each sample comes once, so that the noise of batches partly cancels, and a ratio below
    the floor is no error; it is no signal either.

    Args:
        layers: names as in ``named_modules()`` or glob patterns; ``None`` takes leaf modules with weights,
            normalization layers left out, at most twelve, spread over the depth. Of a module with submodules all
            weights count; tied weights count once in ``all_layers``.
        biases: whether biases count too; by default the weights alone, as in the field.
        sketch: keep about so many numbers for each weight matrix in place of its own size, at least 16. The norms of
            the mean gradient, of its spread and of the way the weights went then are estimates, whose squares have a
            relative standard deviation of :math:`\sqrt{2/k}`. By default a number for each watched weight is kept on
            its device, and one in the memory of the CPU and in checkpoints: the weights of the start.
        every_n_epochs: record every n-th epoch alone.
        epochs: record these epochs instead, the first being 1.
        every_n_train_steps: record every n optimizer steps instead, of the gradients of those steps.
        at_steps: record after these optimizer steps instead, such as ``[10, 100, 1000]``, or ``"log"``, as the plane's
            callback; of the gradients since the step before. The spread needs two steps, and is NaN of one.
        unpack: batch → (x, y), x being what has a row for each sample; ``None`` recognizes it, as the plane's callback
            does. It gives the batch size of ``noise_scale``.
        normalized: whether the picture divides mean and spread by the norm of the weights, as in the field; what is
            logged is unnormalized either way.
        prefix: the first part of every logged name.
        verbose: at the end of a fit, log a summary and where the files are.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of its range.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> from lightning_ib import InformationPlaneCallback
        >>> trainer = Trainer(callbacks=[InformationPlaneCallback(), GradientSNRCallback()], logger=False)
    """

    session: GradientSNR
    reporter: GradientReporter

    def __init__(
        self,
        layers: str | Sequence[str] | None = None,
        *,
        biases: bool = False,
        sketch: int | None = None,
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        every_n_train_steps: int | None = None,
        at_steps: Sequence[int] | Literal["log"] | None = None,
        unpack: Unpack | None = None,
        normalized: bool = True,
        prefix: str = "ib",
        verbose: bool = True,
    ) -> None:
        schedule, prefix = Schedule(every_n_epochs, epochs, every_n_train_steps, at_steps), checked_prefix(prefix)
        self.unpack = checked_unpack(unpack)
        super().__init__(
            schedule,
            GradientSNR(layers, biases=biases, sketch=sketch),
            GradientReporter(prefix, "bits", by=schedule.by, normalized=checked_flag(normalized, "normalized")),
            verbose=checked_flag(verbose, "verbose"),
        )
        self._shares: Shares | None = None
        self._is_at_work, self._last_time = False, 0
        self._begin_batches()

    def _begin_batches(self) -> None:
        self._n_samples = self._n_seen = 0  # of the batch at work, and of all since the last step
        self._last_step: tuple[int, int] | None = None

    def _owns(self, record: Record) -> bool:
        return record.source == GRADIENT

    # -- the fit -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Share the history of the plane's callback, if there is one of the same prefix."""
        if stage != "fit":
            return
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        others = (one for one in callbacks if isinstance(one, RecordingCallback) and one.prefix == self.prefix)
        plane = next((one for one in others if not isinstance(one, GradientSNRCallback)), None)
        own = self._own()
        self.history = History() if plane is None else plane.history
        self._assign(own)
        self.reporter.csv_name = self.reporter.main if plane is None else plane.reporter.csv_name

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise for a layer that is missing or has no weights, before the run starts."""
        self.reporter.begin()
        self.reporter.figure_path = None
        self._shares, self._is_at_work = shares_of_weights(trainer), False
        if self._shares is None:
            self._warn(
                f"{type(trainer.strategy).__name__} keeps the gradients to itself, so that they are unavailable here: "
                "none are recorded. Training goes on. Another strategy, such as DDP or FSDP, has them."
            )
            return
        try:
            self.session.find(pl_module)
        except NoLayersError as error:
            self._warn(f"no gradients are recorded: {sentence(error)} Training goes on.")
        else:
            self._is_at_work = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights of the start, and take up the history of a checkpoint, if there is one."""
        self._begin_batches()
        frozen = self.session.frozen_state() if trainer.global_step > 0 else None
        if self._is_at_work:
            self._attach(pl_module, frozen)
        self._resume(trainer)
        self._follow_rank_zero(trainer)

    def _attach(self, pl_module: LightningModule, frozen: Any) -> None:
        assert self._shares is not None
        try:
            self.session.attach(pl_module, frozen, keeps_start=not self._shares.several)
        except ValueError as error:  # they were found before the strategy wrapped the model
            self._is_at_work = False
            self._warn(
                f"the strategy hides the weights of the layers, and no gradients are recorded: {sentence(error)} With "
                "FSDP, give FSDPStrategy(use_orig_params=True). Training goes on."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the samples of a batch."""
        self._n_samples = 0 if self._shares is None else self._shares.n_batches * _n_samples(batch, self.unpack)
        self._n_seen += self._n_samples

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Count in the gradients of a step."""
        # LBFGS evaluates the loss several times a step; the first time is where the step begins.
        step = id(optimizer), trainer.global_step
        if step == self._last_step:
            return
        # Batches are accumulated where Lightning steps; a step of the user's is taken for one of the batch at work.
        n_samples = self._n_seen if pl_module.automatic_optimization else self._n_samples
        self._last_step, self._n_seen = step, 0
        if not self._watches(trainer):
            return
        with self.reporter.warned.on_error("the gradients of a step could not be recorded"):
            scale = loss_scale(trainer, optimizer)
            if scale is None:
                self.session.skip()
                return
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            self.session.see(parameters, n_samples=n_samples, scale=scale)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Conclude after the last batch of an epoch, before validation saves a checkpoint; or after so many steps."""
        by_step = self.schedule.by == "step"
        if self._is_due(trainer, trainer.current_epoch) if by_step else trainer.is_last_batch:
            self._conclude(trainer, trainer.current_epoch + trainer.is_last_batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Conclude an epoch that ended before its last batch."""
        if self.schedule.by == "epoch":
            self._conclude(trainer, trainer.current_epoch + 1)

    def _watches(self, trainer: Trainer) -> bool:
        """Whether gradients of the epoch at work are counted in."""
        return self._is_at_work and (self.schedule.by == "step" or self._is_due(trainer, trainer.current_epoch + 1))

    def _is_due(self, trainer: Trainer, epoch: int) -> bool:
        by_step = self.schedule.by == "step"
        return self.schedule.is_due(trainer.global_step if by_step else epoch, self._last_time)

    def _conclude(self, trainer: Trainer, epoch: int) -> None:
        """Record the steps since the last time, if there were any."""
        if not self._watches(trainer) or not self.session.n_steps + self.session.n_skipped:
            return
        assert self._shares is not None
        measured = History()
        with self.reporter.warned.on_error("the gradients could not be recorded"):
            measured = self.session.compute(
                epoch=epoch,
                step=trainer.global_step,
                summed=self._shares.summed,
                n_copies=self._shares.n_copies(),
            )
            self._warn_of_gaps(self._moment(trainer, epoch).when)
        self.session.reset()
        self._last_time = trainer.global_step if self.schedule.by == "step" else epoch
        if measured.records():
            self._update_monitors(trainer, measured)
            self._log_at_once(trainer, Measurement(measured, {}))

    def _warn_of_gaps(self, when: str) -> None:
        """One warning for each thing that leaves values unknown."""
        warned, session = self.reporter.warned, self.session
        if session.n_skipped:
            warned.warn(
                "skipped",
                f"{self.prefix}: {session.n_skipped} steps before this, {when}, were skipped by the loss scaler, their "
                "gradients being infinite. They are left out. Training goes on.",
            )
        if session.n_steps == 1:
            warned.warn(
                "one step",
                f"{self.prefix}: {when} there was one optimizer step to measure, and the spread of gradients and all "
                "that follows from it need two: they are NaN. Smaller batches, or every_n_train_steps=100 across "
                "epochs, give more. Training goes on.",
            )
        if session.n_steps > 1 and not session.n_samples:
            warned.warn(
                "batch size",
                f"{self.prefix}: the size of a batch is unknown, and noise_scale, which needs it, is NaN. Give "
                "unpack=lambda batch: (x, y), x having a row for each sample. Training goes on.",
            )
        if idle := session.idle_layers:
            warned.warn(
                "idle",
                f"{self.prefix}: {when} no gradient came to the weights of {listed(idle, 5)}, which take no part in "
                "the loss: their signal and noise are NaN. Training goes on.",
            )
        if broken := session.broken_layers:
            warned.warn(
                "broken",
                f"{self.prefix}: {when} gradients of {listed(broken, 5)} were infinite or NaN, and so are the weights "
                "now, unless the step was left out: their signal and noise are NaN. Training goes on.",
            )

    def _lay_out(self, trainer: Trainer) -> None:
        """Lay out TensorBoard's charts, unless the plane's callback does, for both."""
        if trainer.is_global_zero and self.reporter.csv_name == self.reporter.main:
            self.reporter.lay_out(trainer.loggers)

    # -- the end -------------------------------------------------------------------------------------------------------

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last files and a summary; a run that was over when it was resumed has its history all the same."""
        if self._saved is not None:
            self._resume(trainer)
        self._finish(trainer)
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the model; a fit that the user interrupts ends as one that is over."""
        try:
            if isinstance(exception, KeyboardInterrupt) and self.reporter.has_reported:
                self._finish(trainer)
        finally:
            self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the model."""
        self._release()

    def _release(self) -> None:
        super()._release()
        self._is_at_work, self._shares = False, None

    def _resume(self, trainer: Trainer) -> None:
        super()._resume(trainer)
        last = self._own().last().records()
        self._last_time = getattr(last[0], self.schedule.by) if last else 0


def _n_samples(batch: Any, unpack: Unpack | None) -> int:
    """How many samples a batch has; 0 where that is unknown."""
    with suppress(Exception):  # it is the user's, and may be of any kind
        return n_samples_of(unpacked(batch, unpack).x)
    return 0
