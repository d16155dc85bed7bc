"""A pass over the data as a validation would run it, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from inspect import Parameter, signature
from itertools import islice
from typing import TYPE_CHECKING, Any

from lightning_ib.callbacks.own_pass import length, logging_disabled
from lightning_ib.capture.batches import Parts, Unpack, described
from lightning_ib.cli.subject import defines
from lightning_ib.evaluation.loaders import sequential_loader
from lightning_ib.evaluation.passes import ForwardError, call, preserve_state, run_pass
from lightning_ib.evaluation.preserve import module_state_kept

if TYPE_CHECKING:
    from lightning_ib.measurement.information_plane import InformationPlane


class OwnPass:
    """Runs a model over data, as a validation loop would or, where that needs a Trainer, as ``model(x)``.

    Args:
        model: a module, on its device.
        loader: an iterable of batches.
        transfer: takes a batch to the device.
        unpack: batch → (x, y), or ``None`` to recognize them.
        n_batches: how many batches are read; ``None`` reads all.

    Attributes:
        by_step: whether ``validation_step`` runs the model.
    """

    def __init__(
        self,
        model: Any,
        loader: Any,
        transfer: Callable[[Any], Any],
        unpack: Unpack | None = None,
        n_batches: int | None = None,
    ) -> None:
        self._model, self._loader, self._transfer, self._unpack = model, loader, transfer, unpack
        self._n_batches = n_batches
        self._batch: Any = None
        self._n = 0
        self.by_step = False

    def prefer_validation_step(self, say: Callable[[str], None]) -> None:
        """Run ``validation_step`` from here on, if the class defines it and it runs on the first batch.

        The step may change x before it calls the model: then the layers see what they saw in the run.

        Args:
            say: takes a line, where the step does not run.
        """
        if not defines(self._model, "validation_step"):
            return
        loader = sequential_loader(self._loader)
        with self._kept(loader):
            for batch in islice(iter(loader), 1):
                self._batch, self._n = self._transfer(batch), 0
                try:
                    self._step()
                    self.by_step = True
                except Exception as error:
                    name = type(self._model).__name__
                    say(
                        f"{name} is called as module(x): its validation_step does not run without a Trainer "
                        f"({type(error).__name__}: {' '.join(str(error).split())[:200]})."
                    )

    def __call__(self, plane: InformationPlane) -> Any:
        """Run the pass and count its batches in; the loader that was read.

        Raises:
            ForwardError: calling the model failed.
            ValueError: the data is empty.
        """
        loader, self._n = sequential_loader(self._loader), 0
        at_most = plane.sampled.max_samples if length(loader) is None else None
        with self._kept(loader):
            batches = islice(iter(loader), self._n_batches)
            run_pass(plane, batches, self._forward, unpack=self._unpack, move=self._moved, at_most=at_most)
        return loader

    @contextmanager
    def _kept(self, loader: Any) -> Iterator[None]:
        """Eval mode, and all that a pass may change put back at its end."""
        quiet = logging_disabled(self._model) if hasattr(type(self._model), "log_dict") else nullcontext()
        with preserve_state(self._model, loader), module_state_kept(self._model), quiet:
            yield

    def _moved(self, batch: Any) -> Any:
        self._batch = self._transfer(batch)
        return self._batch

    def _step(self) -> Any:
        """Run the step with as many of batch, its index and that of the loader as it takes; Lightning goes by place."""
        step = self._model.validation_step
        kinds = [one.kind for one in signature(step).parameters.values()]
        n = 3 if Parameter.VAR_POSITIONAL in kinds else kinds.count(Parameter.POSITIONAL_OR_KEYWORD)
        self._n += 1
        return step(*(self._batch, self._n - 1, 0)[:n])

    def _forward(self, parts: Parts) -> Any:
        name = type(self._model).__name__
        try:
            return self._step() if self.by_step else call(self._model, parts)
        except Exception as error:
            shape = f" of shape {tuple(parts.x.shape)}" if hasattr(parts.x, "shape") else ""
            how = f"{name}.validation_step" if self.by_step else f"{name} as module(x), x being {described(parts.x)}"
            raise ForwardError(f"calling {how}{shape} raised {type(error).__name__}: {error}") from error
