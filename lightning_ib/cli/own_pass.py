"""A pass over the data as a validation would run it, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

from lightning_ib.callbacks.own_pass import length, logging_disabled
from lightning_ib.capture.batches import Parts, Unpack, described
from lightning_ib.evaluation.loaders import sequential_loader
from lightning_ib.evaluation.passes import ForwardError, call, preserve_state, run_pass
from lightning_ib.evaluation.preserve import module_state_kept

if TYPE_CHECKING:
    from lightning_ib.measurement.information_plane import InformationPlane


class OwnPass:
    """Runs a model over data: ``model(x)``, or its ``validation_step`` where it defines no forward.

    Args:
        model: a module, on its device.
        loader: an iterable of batches.
        transfer: takes a batch to the device.
        unpack: batch → (x, y), or ``None`` to recognize them.
        n_batches: how many batches are read; ``None`` reads all.
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
        forward = getattr(type(model).forward, "__qualname__", "")
        self._by_step = forward in ("LightningModule.forward", "_forward_unimplemented") and hasattr(
            model, "validation_step"
        )

    def __call__(self, plane: InformationPlane) -> Any:
        """Run the pass and count its batches in; the loader that was read.

        Raises:
            ForwardError: calling the model failed.
            ValueError: the data is empty.
        """
        loader, self._n = sequential_loader(self._loader), 0
        at_most = plane.sampled.max_samples if length(loader) is None else None
        quiet = logging_disabled(self._model) if hasattr(type(self._model), "log_dict") else nullcontext()
        with preserve_state(self._model, loader), module_state_kept(self._model), quiet:
            batches = islice(iter(loader), self._n_batches)
            run_pass(plane, batches, self._forward, unpack=self._unpack, move=self._moved, at_most=at_most)
        return loader

    def _moved(self, batch: Any) -> Any:
        self._batch = self._transfer(batch)
        return self._batch

    def _forward(self, parts: Parts) -> Any:
        name = type(self._model).__name__
        try:
            if self._by_step:
                self._n += 1
                return self._model.validation_step(self._batch, self._n - 1)
            return call(self._model, parts)
        except Exception as error:
            shape = f" of shape {tuple(parts.x.shape)}" if hasattr(parts.x, "shape") else ""
            how = "validation_step" if self._by_step else f"module(x), x being {described(parts.x)}{shape}"
            raise ForwardError(f"calling {name} as {how} raised {type(error).__name__}: {error}") from error
