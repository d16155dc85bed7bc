"""From rows to symbols: ids of any variable, and the target, which is read by its form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.binning.target import UNPACK, absent_label, labeled, target_symbols, target_values
from lightning_ib.functional import NOT_FINITE, Symbols, symbols
from lightning_ib.functional.checks import plain_tensor
from lightning_ib.measurement.sampled import Drawn
from lightning_ib.measurement.variables import Variable
from lightning_ib.warn_once import WarnOnce

TARGET = "the target"


def finite_symbols(name: str, ids: Tensor | None, epoch: int, warned: WarnOnce) -> Symbols | None:
    """The symbols of ids; ``None`` without ids, and, with a warning, if a sample was non-finite.

    Args:
        name: the variable in a sentence.
        ids: from bins, int64 ``(N,)``.
        epoch: for the warning.
        warned: takes the warning.
    """
    if ids is None:
        return None
    missing = int((ids == NOT_FINITE).sum())
    if missing:
        warn_of_missing(name, missing, len(ids), epoch, warned)
        return None
    return symbols(ids)


def sampled_symbols(variable: Variable, values: Tensor | None, epoch: int, warned: WarnOnce) -> Symbols | None:
    """The symbols of a variable with a quantizer on the sampled rows; ``None`` without one, or if it is non-finite.

    Args:
        variable: its edges are those of the whole pass.
        values: its pooled values of the sampled rows, ``(M, D)``.
        epoch: for the warning.
        warned: takes the warning.
    """
    if values is None or variable.fitted is None:
        return None
    if variable.fitted.edges is None:  # it was non-finite or constant
        return symbols(torch.zeros(len(values), dtype=torch.int64)) if bool(values.isfinite().all()) else None
    return finite_symbols(variable.name, variable.fitted.discretize_held(values).ids, epoch, warned)


def warn_of_missing(name: str, missing: int, n: int, epoch: int, warned: WarnOnce) -> None:
    """Warn that values of a variable are NaN or infinite in some of ``n`` samples."""
    is_target = name.startswith(TARGET)
    warned.warn(
        name,
        f"{name} gave NaN or infinite values in {missing} of {n} samples at epoch {epoch}: "
        + ("the values about it" if is_target else "its values")
        + " are NaN until they are finite again. Training is not touched."
        + (
            " Leave such samples out in unpack=…, or give them a label of their own and ignore_index=…."
            if is_target
            else ""
        ),
    )


class TargetReader:
    """Reads a target: the values of each batch, and the symbols of a whole pass.

    Args:
        fitted: puts it into bins; ``None`` where its form says how to read it.
        ignore_index: the label of rows that are ignored.
        warned: takes the warnings.
        name: which of several targets it is; empty for a single one.
    """

    def __init__(
        self, fitted: FittedQuantizer | None, ignore_index: int | None, *, warned: WarnOnce, name: str = ""
    ) -> None:
        self.fitted, self.ignore_index, self.name = fitted, ignore_index, name
        self.called = f"{TARGET} {name!r}" if name else TARGET
        """The target in a sentence."""
        self._warned = warned
        self.reset()

    def reset(self) -> None:
        """Begin a measurement."""
        self.how = ""
        """How the target became symbols, in words; empty for class labels."""
        self.why_lost = ""
        """Why it was left out."""
        self.lost = False
        """Whether a batch had a target of unknown form: the measurement then leaves the target out."""
        self.came: bool | None = None
        """Whether the batches so far came with a target."""

    def selected(self, y: Any) -> Any:
        """The part of a target that is measured: what its quantizer selects, where it does, else all of it."""
        if self.fitted is None or self.fitted.quantizer.select is None or y is None:
            return y
        return self.fitted.quantizer.selected(y)

    def values(self, y: Any) -> Tensor:
        """The target values of a batch.

        Raises:
            UnknownTarget: it is of a form without a meaning here.
            TypeError: the target has a quantizer and is something else than a tensor.
        """
        y = plain_tensor(y) if isinstance(y, Tensor) else y
        if self.fitted is not None:
            if not isinstance(y, Tensor):
                raise TypeError(f"the target must be a tensor, got {type(y).__name__}: convert it in unpack.")
            return self.fitted.values(y)
        return target_values(y, self.ignore_index)

    def lose(self, why: str) -> None:
        """Leave the target out of the measurement, with a warning."""
        if self.name and not why.startswith(self.called):  # another process has said it
            why = why.replace(UNPACK, f"targets={{{self.name!r}: lambda batch: y, …}}").replace("unpack", "targets")
            why = f"{self.called}{why.removeprefix(TARGET)}" if why.startswith(TARGET) else f"{self.called}: {why}"
        self._warned.warn(f"{self.called}'s form", why)
        self.lost, self.why_lost, self.came = True, why, None if self.came is None else False

    def expect(self, *, came: bool) -> None:
        """Note whether a batch came with a target.

        Raises:
            ValueError: only some batches of this measurement did.
        """
        if self.came not in (None, came):
            raise ValueError("some batches came with a target and some without: give one for each, or for none.")
        self.came = came

    def labels(self, values: Tensor) -> Tensor:
        """The kept values of a whole pass as labels int64 ``(N,)`` where they are some, else as they are."""
        labels, how = labeled(values)
        self.how = how or self.how
        return labels

    def symbols(self, variable: Variable, epoch: int) -> Symbols | None:
        """The symbols of the target over a whole pass; ``None`` if it is absent or non-finite."""
        rows = variable.rows()
        if self.fitted is not None or rows is None:
            return finite_symbols(variable.name, rows, epoch, self._warned)
        return self._finite_symbols(self.labels(rows), epoch)

    def sampled(self, variable: Variable, drawn: Drawn, epoch: int) -> Symbols | None:
        """The symbols of the target on the sampled rows; ``None`` if it is absent or non-finite.

        Args:
            variable: the target.
            drawn: the sampled rows about this target, with its own from :meth:`labels`.
            epoch: for the warning.
        """
        others = drawn.others
        for fault in (drawn.other_faults[name] for name in ("y", "pooled y") if name in drawn.other_faults):
            self._warned.warn(
                f"rows of {self.called}",
                f"{self.called} was not read at epoch {epoch}: {fault} The values about it are NaN.",
            )
        if self.fitted is not None:
            return sampled_symbols(variable, others.get("pooled y"), epoch, self._warned)
        return self._finite_symbols(others["y"], epoch) if "y" in others else None

    def _finite_symbols(self, values: Tensor, epoch: int) -> Symbols | None:
        """The symbols of the values from :meth:`labels`; ``None`` if one is non-finite."""
        missing = int((~values.isfinite()).any(-1).sum()) if values.is_floating_point() else 0
        if missing:
            warn_of_missing(self.called, missing, len(values), epoch, self._warned)
            return None
        target = target_symbols(values)
        self.how = target.how or self.how
        if (absent := absent_label(values, len(target.symbols.counts))) is not None:
            self._warned.warn(
                f"absent labels of {self.called}",
                f"{self.called} is {absent} in {int((values == absent).reshape(len(values), -1).any(1).sum())} of "
                f"{len(values)} samples, which is counted like any other value. If it says that they have no label, "
                f"give ignore_index={absent}.",
            )
        return target.symbols
