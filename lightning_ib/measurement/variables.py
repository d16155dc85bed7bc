"""The rows of the variables of a measurement: ids, values that wait to be put into bins, and counts out of bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.binning.fitted import Binned, FittedQuantizer
from lightning_ib.functional import NOT_FINITE

# How many pooled values of a variable wait to be put into bins together.
_AT_ONCE = 65_536


class RowForm(NamedTuple):
    """The form of rows that were kept.

    Attributes:
        shape: of one row.
        dtype: of all rows.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    def empty(self, device: torch.device) -> Tensor:
        """A tensor of zero rows of this form."""
        return torch.empty(0, *self.shape, dtype=self.dtype, device=device)


class Form(NamedTuple):
    """The form of the rows that a process kept of a variable; gathering needs the same form in all that kept some.

    Attributes:
        kept: the form of its ids, or of its values where it has no quantizer; ``None`` while all values wait.
        waiting: the form of the values that wait for edges; ``None`` if there are none.
        out_of_bounds: the dtype of the counts out of bounds; ``None`` without such counts.
        width: how many coordinates a sample was pooled to; ``None`` without a quantizer.
    """

    kept: RowForm | None
    waiting: RowForm | None
    out_of_bounds: torch.dtype | None
    width: int | None


class Variable:
    """The rows of one variable in a pass: a layer in bins, the input, the target, or the sequence of each token.

    With a quantizer the pooled values wait: for the edges to be fitted on all of them, or, once the edges are known,
    until a few batches of them are put into bins together. From then on 8 bytes a sample are held, and 1 or 4 more for
    the counts out of bounds. Without a quantizer the rows are kept as they are.

    Args:
        name: the variable in a sentence, such as ``"layer 'conv1'"``.
        fitted: turns its values into ids; ``None`` keeps the rows as they are.
        counts_out_of_bounds: whether to keep how many coordinates of each sample lie outside the bins.
    """

    def __init__(self, name: str, fitted: FittedQuantizer | None = None, *, counts_out_of_bounds: bool = False) -> None:
        self.name, self.fitted, self.counts_out_of_bounds = name, fitted, counts_out_of_bounds
        self._kept: list[Tensor] = []
        self._waiting: list[Tensor] = []
        self._out_of_bounds: list[Tensor] = []

    @property
    def n(self) -> int:
        """How many rows there are."""
        return sum(len(chunk) for chunk in (*self._kept, *self._waiting))

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """The rows that are kept for good, in a few chunks: ids, or values without a quantizer."""
        return tuple(self._kept)

    def reset(self) -> None:
        """Drop all rows."""
        self._kept, self._waiting, self._out_of_bounds = [], [], []

    def keep(self, values: Tensor) -> None:
        """Add the rows of a batch, asynchronously to the device.

        Args:
            values: pooled values ``(B, D)`` where there is a quantizer, else rows of any form; they are kept by
                reference.
        """
        if self.fitted is None:
            _append(self._kept, values)
            return
        self._waiting.append(values)
        if self.fitted.edges is not None and sum(chunk.numel() for chunk in self._waiting) >= _AT_ONCE:
            self.bin_waiting()

    def bin_waiting(self) -> None:
        """Turn the values that wait into ids, where the edges are known."""
        if self._waiting and self.fitted is not None and self.fitted.edges is not None:
            # Block by block, as these may be the values of a whole pass.
            self._keep_binned(self.fitted.discretize_held(torch.cat(self._waiting)))

    def _keep_binned(self, binned: Binned) -> None:
        self._waiting = []
        _append(self._kept, binned.ids)
        if self.counts_out_of_bounds:
            _append(self._out_of_bounds, binned.out_of_bounds)

    def trim(self, n: int) -> None:
        """Leave out the rows after the first ``n``."""
        _trim(n, self._kept, self._waiting)  # waiting values came last
        _trim(n, self._out_of_bounds)

    def waiting(self) -> Tensor | None:
        """The values that wait for edges, ``(N, D)``, or ``None``."""
        self._waiting = [torch.cat(self._waiting)] if len(self._waiting) > 1 else self._waiting
        return self._waiting[0] if self._waiting and len(self._waiting[0]) else None

    def rows(self) -> Tensor | None:
        """All rows in one tensor, as ids ``(N,)`` where there is a quantizer; ``None`` if there are no rows.

        Edges that are needed and unknown are fitted. Constant or non-finite values, which allow no edges, wait on and
        map to one id, or to :data:`NOT_FINITE`.

        Raises:
            ValueError: the bins returned edges that descend or are NaN.
        """
        self.bin_waiting()
        waiting = self.waiting()
        if waiting is not None and self.fitted is not None:
            finite = waiting.isfinite().all(1)
            if bool(finite.all()):
                self._fit(self.fitted, waiting)
            if self.fitted.edges is None:
                return torch.where(finite, 0, NOT_FINITE)
            self._keep_binned(self.fitted.discretize_held(waiting))
        del waiting
        self._kept = [torch.cat(self._kept)] if len(self._kept) > 1 else self._kept
        return self._kept[0] if self._kept and len(self._kept[0]) else None

    def _fit(self, fitted: FittedQuantizer, z: Tensor) -> None:
        try:
            fitted.fit(z)
        except ValueError as error:
            raise ValueError(f"{self.name} cannot be put into bins: {error}") from error

    def clipped_fraction(self) -> float:
        """The fraction of values outside the bins; NaN where undefined."""
        n_values = 0 if self.fitted is None else self.n * (self.fitted.n_coordinates or 0)
        if self.fitted is None or not self.fitted.has_bounds or n_values == 0:
            return math.nan
        return sum(int(chunk.sum()) for chunk in self._out_of_bounds) / n_values

    def form(self) -> Form | None:
        """The form of the rows in this process, for the other processes; ``None`` without rows."""
        kept, waiting = _form_of(self._kept), _form_of(self._waiting)
        if kept is None and waiting is None:
            return None
        bounds = _form_of(self._out_of_bounds)
        width = None if self.fitted is None else self.fitted.width
        return Form(kept, waiting, None if bounds is None else bounds.dtype, width)

    def gathered(self, forms: Sequence[Form], device: torch.device) -> Variable:
        """The variable over the rows of all processes, in the order of their ranks; every process must call this.

        The quantizer is shared: edges that are fitted to the gathered values are those of this variable, too.

        Args:
            forms: of the processes that have rows, the same list in each; a process without rows follows them.
            device: where a process without rows makes its empty part.

        Raises:
            ValueError: the forms differ; the same error in all processes.
        """
        whole = Variable(self.name, self.fitted, counts_out_of_bounds=self.counts_out_of_bounds)
        if not forms:
            return whole
        form = forms[0]
        if any(other != form for other in forms):
            raise ValueError(
                f"{self.name} has another form in one process than in another ({list(forms)}): all processes must "
                "discretize alike, and start from one checkpoint."
            )
        if self.fitted is not None:
            self.fitted.set_width(form.width)
            if self.fitted.edges is None and not self.fitted.quantizer.bins.needs_data:
                # They are set with the first batch, which this process lacks.
                self._fit(self.fitted, torch.empty(0, form.width or 0))
        bounds = None if form.out_of_bounds is None else RowForm((), form.out_of_bounds)
        whole._kept = _gathered(self._kept, form.kept, device)
        whole._waiting = _gathered(self._waiting, form.waiting, device)
        whole._out_of_bounds = _gathered(self._out_of_bounds, bounds, device)
        return whole


@dataclass
class Variables:
    """All variables of a measurement.

    Attributes:
        x: the input; without a quantizer every sample is a symbol of its own, and the rows are dropped.
        ys: name → the target, under an empty name where there is one; without a quantizer it is read by its form.
        sequences: the sequence of each token, where tokens are the samples.
        layers: layer → its rows, of the layers in bins.
    """

    x: Variable
    ys: dict[str, Variable]
    sequences: Variable | None = None
    layers: dict[str, Variable] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Variable]:
        """All of them, the layers last."""
        sequences = [] if self.sequences is None else [self.sequences]
        yield from (self.x, *self.ys.values(), *sequences, *self.layers.values())

    @property
    def n(self) -> int:
        """How many rows each layer in bins has; 0 without such layers."""
        return next((variable.n for variable in self.layers.values()), 0)

    def add_layer(self, layer: str, fitted: FittedQuantizer) -> None:
        """Keep a layer in bins, too."""
        self.layers[layer] = Variable(f"layer {layer!r}", fitted, counts_out_of_bounds=True)

    def reset(self) -> None:
        """Begin a pass: drop all rows; bins with ``refit=True`` forget their edges."""
        for variable in self:
            variable.reset()
            if variable.fitted is not None:
                variable.fitted.begin()

    def trim(self, n: int) -> None:
        """Leave out the rows after the first ``n``."""
        for variable in self:
            variable.trim(n)

    def forget(self, layers: Sequence[str]) -> None:
        """Drop some layers."""
        for layer in layers:
            self.layers.pop(layer, None)

    def bin_waiting(self) -> None:
        """Turn the values that wait into ids, where the edges are known."""
        for variable in self:
            variable.bin_waiting()

    def forms(self) -> dict[str, Form]:
        """The name of each variable of which this process kept something → its form."""
        return {variable.name: form for variable in self if (form := variable.form()) is not None}

    def gathered(self, forms: Sequence[Mapping[str, Form]], device: torch.device) -> Variables:
        """The variables over the rows of all processes, each of which must call this.

        Args:
            forms: from :meth:`forms` in every process.
            device: where a process without rows makes its empty part.

        Raises:
            ValueError: a variable has another form in one process than in another; the same error in all processes.
        """

        def whole(variable: Variable) -> Variable:
            return variable.gathered([own[variable.name] for own in forms if variable.name in own], device)

        sequences = None if self.sequences is None else whole(self.sequences)
        ys = {name: whole(one) for name, one in self.ys.items()}
        return Variables(whole(self.x), ys, sequences, {layer: whole(one) for layer, one in self.layers.items()})


def _append(chunks: list[Tensor], rows: Tensor) -> None:
    chunks.append(rows)
    # Merging equal-sized neighbors keeps the list, and the memory it costs, logarithmic in the batches.
    while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
        chunks[-2:] = [torch.cat(chunks[-2:])]


def _trim(n: int, *lists: list[Tensor]) -> None:
    """Cut off the rows after the first ``n`` of lists that follow one another."""
    excess = sum(len(chunk) for chunks in lists for chunk in chunks) - n
    for chunks in reversed(lists):
        while chunks and excess > 0:
            last = chunks.pop()
            excess -= len(last)
            if excess < 0:
                chunks.append(last[:-excess])


def _form_of(chunks: Sequence[Tensor]) -> RowForm | None:
    """The form of the rows; ``None`` for an empty list."""
    return next((RowForm(tuple(chunk.shape[1:]), chunk.dtype) for chunk in chunks if len(chunk)), None)


def _gathered(chunks: Sequence[Tensor], form: RowForm | None, device: torch.device) -> list[Tensor]:
    """The rows of all processes in one chunk; an empty list where all processes lack rows."""
    if form is None:
        return []
    from torchmetrics.utilities import distributed  # imported late: with all it brings it takes longer than PyTorch

    filled = [chunk for chunk in chunks if len(chunk)]
    return [torch.cat(distributed.gather_all_tensors(torch.cat(filled) if filled else form.empty(device)))]
