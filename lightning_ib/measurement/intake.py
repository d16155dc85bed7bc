"""The intake of batches: each is read, layers that mismatch it are left out, and its rows are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
from lightning_ib.capture.layers import device_of, named_modules
from lightning_ib.capture.outputs import first_tensor
from lightning_ib.capture.recorder import Recorder
from lightning_ib.capture.tokens import by_token
from lightning_ib.distributed import all_gathered
from lightning_ib.functional import sketch
from lightning_ib.functional.checks import moved
from lightning_ib.functional.discretize.ids import value_ids
from lightning_ib.measurement.estimation import Estimation
from lightning_ib.measurement.head import HeadSearch
from lightning_ib.measurement.same_samples import fingerprints
from lightning_ib.measurement.sampled import Drawn, SampledLayers
from lightning_ib.measurement.seen_batches import Batch, SeenBatches, n_samples_of, token_shape
from lightning_ib.measurement.stochastic import StochasticLayers
from lightning_ib.measurement.targets import Targets
from lightning_ib.measurement.variables import Form, Variable, Variables
from lightning_ib.measurement.watched import Expected, Layers, Recorded, WatchedLayers
from lightning_ib.records.tags import at_target
from lightning_ib.warn_once import WarnOnce


class _ReadBatch(NamedTuple):
    """A batch that was read and fits, before its rows are kept.

    Attributes:
        n: the number of rows.
        n_samples: the number of samples: of sequences, where tokens are the rows.
        recorded: the output of the hooks, by layer, in the order they ran.
        x: the input as it came.
        ys: name → the target as it came, with a row a token where those are the samples; without those left out.
        pooled_x: the pooled input, where it has a quantizer.
        targets: name → the target's values, see :meth:`Targets.values`.
        sequences: the sequence of each token, where those are the samples.
        valid: bool ``(n,)`` on the host: which rows count; ``None`` for all.
    """

    n: int
    n_samples: int
    recorded: dict[str, Recorded]
    x: Any
    ys: dict[str, Any]
    pooled_x: Tensor | None
    targets: dict[str, Tensor]
    sequences: Tensor | None
    valid: Tensor | None

    @property
    def counted_rows(self) -> Tensor | None:
        """The rows that count; ``None`` for all."""
        return None if self.valid is None else self.valid.nonzero().squeeze(1)


class _ProcessSummary(NamedTuple):
    """The summary of a pass that a process sends to the others.

    Attributes:
        layers: those it goes on with.
        n_coordinates: of them.
        candidate: the layer that may be the head.
        forms: of the rows it kept, see :meth:`Variables.forms`.
        lost: the targets that it left out → why.
    """

    layers: list[str]
    n_coordinates: dict[str, int]
    candidate: str | None
    forms: dict[str, Form]
    lost: dict[str, str]


class Intake:
    """Takes in the batches of a pass, and holds the rows kept of them.

    Args:
        layers: as for :class:`~lightning_ib.InformationPlane`, as are the others.
        input: of X.
        targets: name → of that target; a single one has an empty name.
        head: which layer is the head.
        ignore_index: the label of rows that are left out.
        tokens: whether tokens are the samples.
        sampled: keeps the sampled rows.
        estimation: the estimators, some of which sum up all rows.
        keep_rows: whether to sample rows even if cells and estimators can do without.
        input_ids: whether inputs are told apart by all their values.
        warned: takes the warnings.
    """

    def __init__(
        self,
        layers: Layers,
        *,
        input: Quantizer | None,
        targets: Mapping[str, Quantizer | None],
        head: str | bool | None,
        ignore_index: int | None,
        tokens: bool,
        sampled: SampledLayers,
        estimation: Estimation,
        keep_rows: bool,
        input_ids: bool,
        warned: WarnOnce,
    ) -> None:
        self.watched = WatchedLayers(layers, head if isinstance(head, str) else None, warned)
        self.input = None if input is None else FittedQuantizer(input)
        named = self.watched.asked is not None
        self.targets = Targets(targets, ignore_index, follows_layers=not named, warned=warned)
        self.variables = Variables(
            Variable("the input", self.input),
            self.targets.variables(),
            Variable("the sequences") if tokens else None,
        )
        self.heads = HeadSearch(head, named_layers=named, warned=warned)
        self.batches = SeenBatches(ignore_index)
        of_primary: dict[str, Any] = {"tokens": tokens, "warned": warned, "target": self.targets.primary.name}
        self.stochastic = StochasticLayers(self.watched, self.heads, ignore_index, **of_primary)
        """The layers that draw their representation."""
        self.sampled, self.estimation = sampled, estimation
        self.n_updates = 0
        """How many batches were taken in."""
        self._warned, self._n_lost = warned, 0
        self._tokens, self._keep_rows, self._device = tokens, keep_rows or input_ids, torch.device("cpu")
        self._input_ids = input_ids

    @property
    def has_cells(self) -> bool:
        """Whether a layer is cut into cells."""
        return len(self.variables.layers) < len(self.watched.quantizers)

    @property
    def sampling(self) -> bool:
        """Whether rows are sampled: for cells, for estimators, or since they were asked for."""
        return self.has_cells or self._keep_rows or bool(self.estimation.estimators)

    @property
    def n_coordinates(self) -> dict[str, int]:
        """Layer → how many coordinates a sample has, as the module put it out."""
        return self.watched.n_coordinates

    def attach(self, model: nn.Module) -> Recorder:
        """Hook the layers of a model; see :meth:`WatchedLayers.attach`."""
        recorder = self.watched.attach(model, self._reduce)
        self._device = device_of(model)
        modules, quantizers = named_modules(model), self.watched.quantizers
        self.heads.note_activations({layer: modules[layer] for layer in quantizers})
        self.stochastic.attach({layer: modules[layer] for layer in quantizers})
        self.use_quantizers({k: one for k, one in quantizers.items() if k not in self.variables.layers})
        return recorder

    def use_quantizers(self, quantizers: Mapping[str, Quantizer | CellQuantizer]) -> None:
        """Discretize layers in this way."""
        self.watched.quantizers.update(quantizers)
        for layer, quantizer in quantizers.items():
            self.variables.forget([layer])
            if isinstance(quantizer, Quantizer):
                self.variables.add_layer(layer, FittedQuantizer(quantizer))

    def reset(self) -> None:
        """Begin a pass."""
        self.n_updates = self._n_lost = 0
        parts = (self.batches, self.variables, self.targets, self.heads, self.sampled, self.stochastic)
        for part in (*parts, self.estimation.streams, self.estimation.class_streams):
            part.reset()

    def trim(self, n_samples: int) -> None:
        """Drop the rows after the first ``n_samples`` of this process."""
        n_rows, n_valid = self.batches.rows_of(n_samples)
        self.sampled.trim(n_rows)
        self.stochastic.trim(n_rows)
        self.estimation.streams.trim(n_valid)
        self.estimation.class_streams.trim(n_valid)
        self.variables.trim(n_valid)

    def forget(self, layers: Sequence[str]) -> None:
        """Drop some layers and all their rows."""
        self.watched.forget(layers)
        self.variables.forget(layers)
        self.estimation.streams.forget(layers)
        self.estimation.class_streams.forget(layers)
        self.sampled.forget(layers, head=self.heads.candidate in layers)
        if self.heads.candidate in layers:
            self.heads.drop()

    # -- a batch -------------------------------------------------------------------------------------------------------

    def _reduce(self, layer: str, activation: Tensor) -> Recorded:
        """The values that a hook keeps of an activation."""
        variable, quantizer = self.variables.layers.get(layer), self.watched.quantizers[layer]
        places: tuple[int, ...] = (len(activation),) if activation.ndim else ()
        first = self.watched.channels_first.get(layer)
        if self._tokens:
            activation, places = by_token(activation, first)
        values = None if variable is None or variable.fitted is None else variable.fitted.values(activation)
        by_cells = quantizer if isinstance(quantizer, CellQuantizer) else None
        of_all = self.estimation.class_streams.classes is not None
        some, channels = self.sampled.channels(layer, activation, first, of_all=of_all)
        chosen = self.sampled.choose(activation, by_cells, some) if self.sampling else None
        streamed = self.estimation.streams.rows(layer, activation, by_cells)
        return Recorded(len(activation), activation.shape[1:].numel(), places, values, chosen, streamed, channels)

    @torch.no_grad()
    def update(self, x: Any, y: Any, mask: Tensor | None, several_views: str = "") -> None:
        """Take in a batch; see :meth:`~lightning_ib.InformationPlane.update`.

        Args:
            x: the input.
            y: the target, or several by name.
            mask: which tokens count.
            several_views: advice for a step that runs several views of a batch, for errors.
        """
        self.n_updates += 1
        batch = self._read(x, y, mask, several_views)
        self.batches.add(Batch(batch.n_samples, batch.n, batch.valid))
        self.watched.note_lengths(batch.recorded, is_first=self.n_updates == 1)
        if self.sampling:
            self._sample(batch)
        self._keep(batch)
        self._sum_up(batch)

    def _read(self, x: Any, y: Any, mask: Tensor | None, several_views: str) -> _ReadBatch:
        """Read a batch, and leave out layers that mismatch it; a refused batch leaves no rows behind."""
        recorded, unfit = self.watched.take()
        n_rows, ys, tokens = [one.n for one in recorded.values()], self.targets.named(y), None
        if self._tokens:
            tokens = token_shape(x, self.targets.leading(ys, n_rows), mask, [one.places for one in recorded.values()])
            ys = {name: of.reshape(-1) if isinstance(of, Tensor) else of for name, of in ys.items()}
        targets = self.targets.values(ys, n_rows, several_views)
        self._forget_targets(self.targets.lost)
        ys, pooled_x = {name: ys[name] for name in targets}, self._pooled(x)
        n = next((len(values) for values in (*targets.values(), pooled_x) if values is not None), None)
        n = _n_samples(x, n_rows) if n is None else n
        places = None if tokens is None else tokens.places
        expected = Expected(n, "labels" if targets else "inputs", places, several_views)
        self.forget(self.watched.misfits(recorded, unfit, expected))
        self.forget(self.watched.unpicked(recorded))
        self.heads.check(self.watched.quantizers)
        if pooled_x is not None and len(pooled_x) != n:
            raise ValueError(f"the input put out {len(pooled_x)} rows for {n} labels: its pool must keep the batch.")
        self.targets.expect(list(targets))
        sequences = None if tokens is None else self.batches.sequences(tokens.n_sequences, n, self._device)
        of_rows = [of if isinstance(of, Tensor) else targets[name] for name, of in ys.items()]
        valid = self.batches.valid(of_rows, mask, n)
        recorded = {layer: one for layer, one in recorded.items() if layer in self.watched.quantizers}
        n_samples = n if tokens is None else tokens.n_sequences
        return _ReadBatch(n, n_samples, recorded, x, ys, pooled_x, targets, sequences, valid)

    def _forget_targets(self, lost: Sequence[str]) -> None:
        """Drop targets for the rest of the pass, and the head with the primary one."""
        if len(lost) > self._n_lost and self.batches.n_valid < self.batches.n_rows:
            self._warned.warn("rows of a lost target", _MIXED.format(self.targets.readers[lost[-1]].called))
        self._n_lost = len(lost)
        for name in lost:
            is_primary = name == self.targets.primary.name
            if is_primary:
                self.heads.drop()
            self.variables.ys[name].reset()
            self.sampled.forget_target(name, head=is_primary)

    def _pooled(self, x: Any) -> Tensor | None:
        """The pooled input, where it has a quantizer."""
        if self.input is None:
            return None
        selected = self.input.quantizer.selected(x)
        return self.input.values(by_token(selected)[0] if self._tokens else selected)

    def _sample(self, batch: _ReadBatch) -> None:
        """Keep the chosen rows of a batch."""
        named = {"sum of x": _real_input(batch.x, batch.n), "pooled x": batch.pooled_x, "sequence": batch.sequences}
        if self.sampled.with_input or self._input_ids:
            rows = _input_rows(batch.x, batch.n, self.input, tokens=self._tokens)
            if rows is None:
                self.sampled.forget_input()
            named["x"] = rows if self.sampled.with_input else None
            named["x id"] = value_ids(rows) if self._input_ids and rows is not None else None
        for name, values in batch.targets.items():
            key, pooled = at_target("y", name), at_target("pooled y", name)
            if self.targets.readers[name].fitted is None:
                named[key] = values
            else:  # real numbers, as bins and estimators each take them
                named[pooled] = values
                named[key] = sketch(batch.ys[name]) if self.estimation.estimators or self._keep_rows else None
        primary = self.targets.primary
        if primary.name in batch.targets and primary.fitted is None:
            self.heads.choose_candidate(list(batch.recorded), self.watched.model_layers)
        chosen = {layer: one.chosen for layer, one in batch.recorded.items() if one.chosen is not None}
        own = chosen.get(self.heads.candidate) if self.heads.candidate else None
        head = None if own is None or own.outputs is None else self.heads.predictions(own.outputs)
        others = {name: values for name, values in named.items() if values is not None}
        of_x = partial(fingerprints, batch.x, n=batch.n, n_samples=batch.n_samples)
        compared = self.estimation.compares_samples
        self.sampled.keep(batch.n, chosen, others, head, batch.valid, of_x if compared else None)

    def _keep(self, batch: _ReadBatch) -> None:
        """Keep the rows of a batch that count: of the layers in bins, and of the variables counted with them."""
        in_bins, kept = self.variables.layers, [(self.variables.x, batch.pooled_x)]
        kept += [(variable, batch.recorded[layer].values) for layer, variable in in_bins.items()]
        for name, target in batch.targets.items():
            if in_bins or self.targets.readers[name].fitted is not None:
                kept.append((self.variables.ys[name], target))
        if in_bins and self.variables.sequences is not None:
            kept.append((self.variables.sequences, batch.sequences))
        index = batch.counted_rows
        for variable, values in kept:
            if values is not None:
                variable.keep(_chosen(values, index))

    def _sum_up(self, batch: _ReadBatch) -> None:
        """Add the rows of a batch that count to the running sums."""
        index = batch.counted_rows
        rows = {layer: one.streamed for layer, one in batch.recorded.items()}
        streamed = {layer: _chosen(values, index) for layer, values in rows.items() if values is not None}
        channels = {layer: one.channels for layer, one in batch.recorded.items()}
        summed = {layer: _chosen(values, index) for layer, values in channels.items() if values is not None}
        labels: dict[str, Tensor | None] = {}
        for name, reader in self.targets.readers.items() if streamed or summed else ():
            values = batch.targets.get(name) if reader.fitted is None else None
            if values is None:  # entropies need no labels, and are summed up once
                labels |= {name: None} if reader is self.targets.primary else {}
            elif not values.is_floating_point():
                # Real numbers may turn out to be classes at the end of the pass: the sample then has labels, sums none.
                labels[name] = _chosen(values, index)
        for sums, of_layers in ((self.estimation.streams, streamed), (self.estimation.class_streams, summed)):
            if of_layers and labels:
                sums.keep(of_layers, labels, batch.n if index is None else len(index))

    # -- the end of a pass ---------------------------------------------------------------------------------------------

    def gathered(self) -> Variables:
        """The variables over all processes, each of which must call this; layers that one of them left out are dropped.

        A process without a batch follows the forms and layers of the others.

        Raises:
            ValueError: a variable has another form in one process than in another; the same error in all processes.
        """
        self.variables.bin_waiting()
        own = _ProcessSummary(
            list(self.watched.quantizers),
            self.watched.n_coordinates,
            self.heads.candidate,
            self.variables.forms(),
            {name: self.targets.readers[name].why_lost for name in self.targets.lost},
        )
        known: list[_ProcessSummary] = [one for one in all_gathered(own if self.n_updates else None) if one is not None]
        if known and not self.n_updates:
            self.watched.n_coordinates, self.heads.candidate = known[0].n_coordinates, known[0].candidate
        self.forget([layer for layer in self.watched.quantizers if any(layer not in one.layers for one in known)])
        lost = {name: why for one in known for name, why in one.lost.items()}
        for name, why in lost.items():
            self.targets.readers[name].lose(why)
        self._forget_targets(list(lost))
        left_out = {self.targets.readers[name].called for name in lost}
        forms = [{name: form for name, form in one.forms.items() if name not in left_out} for one in known]
        return self.variables.gathered(forms, self._device)

    def drawn(self, *, shared: bool) -> Drawn:
        """The sampled rows; with ``shared`` of all processes, each of which must call this. Targets are as labels.

        The rows of layers are the raw outputs: see :meth:`measured`.
        """
        drawn = self.sampled.drawn(shared=shared)
        keys = {at_target("y", name): one for name, one in self.targets.readers.items() if one.fitted is None}
        labels = {key: one.labels(drawn.others[key]) for key, one in keys.items() if key in drawn.others}
        return drawn._replace(others=drawn.others | labels) if labels else drawn

    def measured(self, *, shared: bool) -> Drawn:
        """The sampled rows as they are measured: of the head its probabilities."""
        drawn, head = self.drawn(shared=shared), self.heads.head
        if head is None or head.layer not in drawn.layers:
            return drawn
        return drawn._replace(layers=drawn.layers | {head.layer: drawn.others["probabilities"]})

    def check_counted(self, n: int, epoch: int) -> None:
        """Raise where nothing was counted, and warn of batches in which all layers stayed idle.

        Args:
            n: how many samples were counted.
            epoch: for the warning.

        Raises:
            RuntimeError: all layers stayed idle.
            ValueError: nothing was counted.
        """
        n_idle = self.batches.n_idle
        if n == 0:
            if n_idle:
                self.watched.all_idle()
            ignored = self.batches.ignore_index is not None and self.batches.n_rows > 0
            why = f"every label is {self.batches.ignore_index}" if ignored else "no batch was seen. Is the data empty?"
            raise ValueError(f"nothing was counted: {why}")
        if n_idle:
            self._warned.warn(
                "idle",
                f"no layer ran in {n_idle} of {len(self.batches)} batches at epoch {epoch}: they are left out.",
            )


_MIXED = (
    "{} is left out from here on, and the rows that it ignored in earlier batches stay left out of the other targets: "
    "at this measurement they are not measured on all of their rows."
)


def _input_rows(x: Any, n: int, fitted: FittedQuantizer | None, *, tokens: bool) -> Tensor | None:
    """The input as estimators see it, pooled or as it is; ``None`` unless it holds ``n`` rows."""
    try:
        rows = first_tensor(x) if fitted is None else fitted.quantizer.selected(x)
        rows = by_token(rows)[0] if tokens else rows
    except (TypeError, ValueError):
        return None
    return rows if rows.ndim > 0 and len(rows) == n else None


def _chosen(values: Tensor, index: Tensor | None) -> Tensor:
    """The rows at an index of the host; all of them for ``None``."""
    return values if index is None else values[moved(index, values.device)]


def _n_samples(x: Any, n_rows: Sequence[int]) -> int:
    """How many samples a batch without a target has: the rows of the input, else those of the first layer."""
    n = n_samples_of(x)
    return n if n in n_rows or not n_rows else n_rows[0]


def _real_input(x: Any, n: int) -> Tensor | None:
    """The input if it holds ``n`` rows of real numbers, else ``None``."""
    with suppress(Exception):  # it is the user's, and may be of any kind
        given = first_tensor(x)
        if given.ndim > 0 and len(given) == n and not given.is_complex() and given.layout is torch.strided:
            return given
    return None
