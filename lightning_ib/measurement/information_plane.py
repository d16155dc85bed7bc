"""One measurement of a model: which layers, what is kept of each batch, and the figures it comes to."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_ib.binning.fitted import Binned, FittedQuantizer
from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
from lightning_ib.binning.target import UnknownTarget, absent_label, kept, labeled, read
from lightning_ib.capture.batches import Parts
from lightning_ib.capture.layers import (
    MAX_DEFAULT_LAYERS,
    NoLayersError,
    default_layers,
    device_of,
    leaves_with_weights,
    named_modules,
    resolve_layers,
    scripted_layers,
    spread_over,
)
from lightning_ib.capture.outputs import first_tensor
from lightning_ib.capture.recorder import Recorder, may_be_hooked_later
from lightning_ib.capture.tokens import CHANNELS_FIRST, CHANNELS_LAST, by_token
from lightning_ib.distributed import all_gathered, on_first, this_process
from lightning_ib.estimators.base import Rows, checked_max_samples
from lightning_ib.estimators.registry import Estimators, checked_estimators
from lightning_ib.functional import (
    NOT_FINITE,
    Cells,
    Correction,
    Symbols,
    Unit,
    cells,
    checked_correction,
    sketch,
    symbols,
)
from lightning_ib.functional.checks import checked_unit, plain_tensor
from lightning_ib.functional.discretize.sketch import WIDTH
from lightning_ib.measurement.advice import advice
from lightning_ib.measurement.estimation import Estimation, Progress
from lightning_ib.measurement.figures import Figures, Layer, head_bound
from lightning_ib.measurement.head import Head, activation_of, predictions, recognized, runs_last
from lightning_ib.measurement.sampled import Chosen, Drawn, SampledLayers
from lightning_ib.records.history import Estimate, InformationPoint
from lightning_ib.records.reliability import VerdictWarning

# How many pooled values of a variable wait to be put into bins together.
_AT_ONCE = 16_384

_NEVER_RAN = "never ran in this forward"

MAX_SAMPLES = 10_000
"""How many samples are kept of a pass, by default."""

Layers = Sequence[str] | Mapping[str, Quantizer | CellQuantizer | None] | None


class _Recorded(NamedTuple):
    """What a hook keeps of a batch.

    Attributes:
        n: the number of samples.
        n_coordinates: of one sample, as the module put it out.
        places: the shape ``(B, L, …)`` of what became rows, where those are tokens.
        values: the pooled values, where they go into bins.
        chosen: the sampled rows, where some are kept.
        streamed: the sketched rows of all samples, where they are summed up.
    """

    n: int
    n_coordinates: int
    places: tuple[int, ...]
    values: Tensor | None
    chosen: Chosen | None
    streamed: Tensor | None

    @property
    def is_one_row(self) -> bool:
        """Whether the sampled rows of several samples are all the same."""
        rows = None if self.chosen is None else self.chosen.rows
        return rows is not None and len(rows) > 1 and bool((rows == rows[0]).all())


class _Batch(NamedTuple):
    """What of a batch counts.

    Attributes:
        n_samples: how many samples the loader gave: sequences, where the rows are tokens.
        n_rows: how many rows each layer put out.
        valid: bool ``(n_rows,)``: which of them count; ``None`` for all.
    """

    n_samples: int
    n_rows: int
    valid: Tensor | None


class InformationPlane(Metric):
    r"""One measurement of a model, in any PyTorch loop.

    Layers are cut into cells (:class:`CellQuantizer`) on a uniform sample of at most ``max_samples`` samples of the
    pass, the same ones in every pass over the same data. At most three times as many rows of 512 bytes a layer are
    held, whatever the number of samples and the width of the layers.

    Layers with a :class:`Quantizer` are counted on every sample: 9 bytes a sample and layer are held (12 with more than
    255 pooled coordinates), 8 more a sample for the labels and 8 for a narrowed input; a few batches of pooled values
    wait to be put into bins together. While edges are being fitted, at the first measurement or with ``refit=True``,
    the pooled values of all samples are held: 4 bytes a sample and pooled coordinate. :meth:`reset` begins the next
    measurement; frozen edges stay.

    .. math:: I(X;T) = H(X) + H(T) - H(X,T) \qquad I(T;Y) = H(T) + H(Y) - H(T,Y)

    all of them plug-in entropies of the symbols (see :mod:`lightning_ib.functional`).

    A head, the last layer to run with one coordinate for each class, is measured on its softmax (a single logit on its
    sigmoid), and its accuracy on the same samples gives the least I(T;Y) of the layers before it (Fano's inequality).

    Args:
        layers: names of modules or glob patterns (``*`` does not cross a dot, ``**`` does), or a mapping from those to
            a :class:`Quantizer` or :class:`CellQuantizer` each; ``None`` picks leaf modules with weights that run,
            without normalisation layers, at most twelve, spread over the depth. Layers without a quantizer get a
            :class:`CellQuantizer`.
        input: ``None`` takes every sample for a symbol of its own, so that H(X) = log N and I(X;T) = H(T); a
            :class:`Quantizer` narrows X. A narrowed X does not determine T, and I(X;T) may lie below I(T;Y).
        target: ``None`` reads it by its form: integers, one a sample, are classes, as are whole numbers of at most ten
            values and one-hot rows; other real numbers are put into ten bins of equal mass (fewer for few samples);
            rows of yes/no labels are a symbol for each combination; rows of real numbers are cut into cells. What is
            none of these is left out with a warning. A :class:`Quantizer` says how to put it into bins.
        unit: ``"bits"`` or ``"nats"``.
        correction: of the plug-in entropies and of all figures built from them: ``"miller_madow"``, ``"grassberger"``,
            ``"chao_shen"``, ``"james_stein"`` or ``"jackknife"``; ``None`` leaves them as counted.
        shuffles: how many random permutations of the labels show the spread of the permutation baseline, whose mean
            is known in closed form; 0 for none.
        estimators: estimators that do not bin, by name (``"kde"``, ``"probe"``, …) or as an
            :class:`~lightning_ib.estimators.Estimator`; :meth:`estimate` gives their values.
        max_samples: how many samples the cells and estimators see.
        head: ``None`` recognizes the head; ``False`` measures every layer as it is; a name says which layer it is.
        ignore_index: rows with this label, such as −100, are left out of every variable, rows of several labels where
            one of them is it. A GPU is waited for once a batch then, and for a mask.
        tokens: take the tokens of sequences, or the pixels of pictures, for samples: activations ``(B, L, D)`` and
            labels ``(B, L)`` count as B·L samples. What convolutions and other modules that work on channels put out,
            ``(B, C, …)``, is taken apart by place, ``(B · …, C)``. Tokens whose mask is 0 are left out. Those of one
            sequence are not independent: standard errors are taken over sequences.
        keep_rows: sample rows even where neither cells nor estimators need them; ``drawn()`` gives them.
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: no layer is named, or the unit is unknown.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
        >>> plane = InformationPlane(["0", "2"])
        >>> x, y = torch.rand(64, 4), torch.arange(64) % 2
        >>> with plane.attach(model):
        ...     _ = model(x)
        ...     plane.update(x, y)
        >>> [(point.layer, point.h_y) for point in plane.compute()]
        [('0', 1.0), ('2', 1.0)]
    """

    full_state_update = True

    def __init__(
        self,
        layers: Layers = None,
        *,
        input: Quantizer | None = None,
        target: Quantizer | None = None,
        unit: Unit = "bits",
        correction: Correction | None = None,
        shuffles: int = 0,
        estimators: Estimators = (),
        max_samples: int = MAX_SAMPLES,
        head: str | bool | None = None,
        ignore_index: int | None = None,
        tokens: bool = False,
        keep_rows: bool = False,
        **kwargs: Any,
    ) -> None:
        # Counting again is cheap, and points carry the epoch they were asked for.
        super().__init__(**({"compute_with_cache": False} | kwargs))
        self.asked = checked_layers(layers)
        for name, quantizer in (("input", input), ("target", target)):
            if quantizer is not None and not isinstance(quantizer, Quantizer):
                raise TypeError(f"{name} must be a Quantizer or None, got {quantizer!r}.")
        checked_unit(unit)
        if correction is not None:
            checked_correction(correction)
        if isinstance(shuffles, bool) or not isinstance(shuffles, int) or shuffles < 0 or shuffles == 1:
            raise ValueError(f"shuffles must be 0 for none, or an integer of at least 2, got {shuffles!r}.")
        if head is True or not (head is None or head is False or isinstance(head, str)):
            raise ValueError(f"head must be None, False or the name of a layer, got {head!r}.")
        if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, int)):
            raise TypeError(f"ignore_index must be an integer such as -100 or None, got {ignore_index!r}.")
        if not isinstance(tokens, bool):
            raise TypeError(f"tokens must be True or False, got {tokens!r}.")
        self.ignore_index, self.tokens = ignore_index, tokens
        self.unit: Unit = unit
        self.correction, self.shuffles = correction, shuffles
        self.estimation = Estimation(checked_estimators(estimators))
        """The estimators at work; ``estimation.settled`` is what they set from the layers at the first measurement."""
        self.sampled = SampledLayers(
            checked_max_samples(max_samples),
            min(max_samples, self.estimation.raw_samples),
            with_input=self.estimation.needs_input,
            partial=ignore_index is not None or tokens,
        )
        """The sampled rows."""
        self.quantizers: dict[str, Quantizer | CellQuantizer] = {}
        """Layer → how it is discretized, in the order the layers are reported; empty before :meth:`attach`."""
        self.fitted_quantizers: dict[str, FittedQuantizer] = {}
        """Layer → its bins at work, of the layers with a :class:`Quantizer`."""
        self.discretized: dict[str, str] = {}
        """Layer → how it was discretized at the last measurement, in words, of the layers cut into cells."""
        self.n_seen = 0
        """How many samples of this process were seen since the measurement began."""
        self.target_read = ""
        """How the target became symbols at the last measurement, in words; empty for class labels."""
        self.several_views = ""
        """What to do where a step runs several views of a batch, for the sentence on rows that do not match."""
        self.head: Head | None = None
        """The head that was recognized at the last measurement."""
        self._asked_head, self._keep_rows = head, keep_rows
        self._sampling = False
        self._head_layer: str | None = None  # the layer that may be the head; empty where none may
        self._model_layers: list[str] = []  # all leaf modules with weights
        self._input = None if input is None else FittedQuantizer(input)
        self._target = None if target is None else FittedQuantizer(target)
        self._recorder: Recorder | None = None
        self._warned: set[str] = set()
        self._home = torch.device("cpu")
        self._with_target: bool | None = None
        self._activations: dict[str, str] = {}  # what each layer is measured on if it is the head
        self._n_coordinates: dict[str, int] = {}
        # Whether layers put out (B, C, …) or (B, …, C), where tokens are samples; others as their shape says.
        self._by_place: dict[str, bool] = {}
        self._batches: list[_Batch] = []
        self._tables: set[str] = set()  # the layers that are embeddings
        self._to_pick = False  # whether some of the layers are to be picked in the first batch
        self._n_idle = 0  # the batches of this pass in which no layer ran
        self._target_lost = False  # whether a batch of this pass had a target of a form that is not known
        for state in ("x", "y", *(["sequence"] if tokens else [])):
            self._add_states(state)

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in the order they are reported; empty before :meth:`attach`.

        Where ``None`` picks twelve of more, they are known after the first batch, being some of those that ran in it.
        With torch.compile they are picked of all, since hooks cannot come and go.
        """
        return spread_over(list(self.quantizers)) if self._to_pick else list(self.quantizers)

    def _add_states(self, state: str) -> None:
        kinds = ("", "_held", "_outside") if state.startswith("t") else ("", "_held")
        for kind in kinds:
            self.add_state(f"{state}{kind}", default=[], dist_reduce_fx="cat")

    def attach(self, model: nn.Module) -> Recorder:
        """Hook the layers of ``model``; use it as ``with plane.attach(model): …``, or call ``remove()`` on the result.

        From here on the next :meth:`update` looks at what the layers put out in the last forward.

        Raises:
            ValueError: the model has no such layers; the sentence tells the nearest right names.
        """
        self.detach()
        names: dict[str, str]
        if self.quantizers:
            names = resolve_layers(model, self.quantizers)
        elif self.asked is None:
            picked = default_layers(model)
            # Which of many ran is known after the first batch.
            names = {name: name for name in (leaves_with_weights(model) if may_be_hooked_later(model) else picked)}
            self._to_pick = len(names) > len(picked)
        else:
            names = resolve_layers(model, self.asked)
        if not self.quantizers:
            for name, pattern in names.items():
                self._measure(name, None if self.asked is None else self.asked[pattern])
        if isinstance(self._asked_head, str) and self._asked_head not in self.quantizers:
            raise ValueError(
                f"head={self._asked_head!r} is none of the layers watched, {self.layers}: name it in layers too."
            )
        self._home, self._model_layers = device_of(model), leaves_with_weights(model)
        scripted = scripted_layers(model) if self.asked is None else []
        if scripted:
            self._warn_once(
                "TorchScript",
                f"{_first_of(scripted)} is not among the layers picked by default: TorchScript takes no hooks. Name a "
                "module of Python's around it, or script it after the run.",
            )
        modules = named_modules(model)
        self._by_place = {layer: True for layer in names if isinstance(modules[layer], CHANNELS_FIRST)}
        self._by_place |= {layer: False for layer in names if isinstance(modules[layer], CHANNELS_LAST)}
        self._tables = {layer for layer in names if isinstance(modules[layer], nn.Embedding)}
        self._activations = {layer: activation_of(modules[layer]) for layer in names}
        select = {layer: self.quantizers[layer].select for layer in names}
        chosen = {layer: function for layer, function in select.items() if function is not None}
        self._recorder = Recorder(model, names, self._reduce, chosen)
        return self._recorder

    def _measure(self, layer: str, quantizer: Quantizer | CellQuantizer | None) -> None:
        """Add a layer to those that are measured."""
        self.quantizers[layer] = quantizer = CellQuantizer() if quantizer is None else quantizer
        if isinstance(quantizer, Quantizer):
            self._add_states(f"t{len(self.fitted_quantizers)}")
            self.fitted_quantizers[layer] = FittedQuantizer(quantizer)
        self._sampling = (
            self._keep_rows or bool(self.estimation.estimators) or len(self.fitted_quantizers) < len(self.quantizers)
        )
        if self._sampling and self.process_group is not None:
            raise ValueError(
                "process_group= works with layers in bins alone: the sampled rows of cells and estimators are gathered "
                "from all processes. Leave it out."
            )

    def _reduce(self, layer: str, activation: Tensor) -> _Recorded:
        fitted, quantizer = self.fitted_quantizers.get(layer), self.quantizers[layer]
        places: tuple[int, ...] = (len(activation),) if activation.ndim else ()
        if self.tokens:
            activation, places = by_token(activation, self._by_place.get(layer))
        values = None if fitted is None else fitted.values(activation)
        by_cells = quantizer if isinstance(quantizer, CellQuantizer) else None
        chosen = self.sampled.choose(activation, by_cells) if self._sampling else None
        streamed = self.estimation.streams.rows(layer, activation, by_cells)
        return _Recorded(len(activation), activation.shape[1:].numel(), places, values, chosen, streamed)

    def detach(self) -> None:
        """Take the hooks off. Twice is harmless."""
        if self._recorder is not None:
            self._recorder.remove()
            self._recorder = None

    def reset(self) -> None:
        """Begin a new measurement: drop what was kept. Frozen edges stay; bins with ``refit=True`` forget theirs."""
        for state in self._defaults:
            setattr(self, state, [])  # where compute() failed between processes, it left what was gathered
        super().reset()
        self.sampled.reset()
        self.estimation.streams.reset()
        self._with_target = self._head_layer = None
        self.n_seen, self._n_idle, self.target_read, self._batches = 0, 0, "", []
        self._target_lost = False
        for fitted in self._variables().values():
            fitted.begin()

    def forward(self, x: Any, y: Tensor | None) -> None:
        """The same as :meth:`update`: one batch has no figures of its own."""
        self.update(x, y)

    def see(self, parts: Parts) -> None:
        """Count in one batch, and warn once where its target is not known."""
        if parts.doubt:
            self._warn_once("doubt", parts.doubt)
        self.update(parts.x, parts.y, parts.mask if self.tokens else None)

    def pass_over(self, parts: Parts) -> bool:
        """Leave a batch out if no layer ran in it, as where a step returns early; whether it did."""
        if self._recorder is None or self._recorder.ran:
            return False
        n = 0
        with suppress(Exception):  # it is the user's, and may be of any kind
            n = len(first_tensor(parts.x))
        self._batches.append(_Batch(n, 0, None))
        self._n_idle += 1
        return True

    def update(self, x: Any, y: Tensor | None, mask: Tensor | None = None) -> None:
        """Count in one batch; call it after the model's forward.

        Args:
            x: the input of the batch, ``(B, …)``; looked at only where ``input`` is a quantizer, and for the number of
                samples where there is no target.
            y: the target: labels ``(B,)``, or real values ``(B, …)``; ``None`` where there is none: the figures about Y
                are NaN then.
            mask: with ``tokens``, which of them count, ``(B, L)``; all where it is ``None``.

        Raises:
            RuntimeError: no model is attached, or a layer did not run since the last update.
            TypeError: ``target`` is a quantizer, and the target no tensor.
            ValueError: the rows of a layer that was named, or of all, do not match the target.
        """
        if self._recorder is None:
            raise RuntimeError("update needs a model: call it inside `with plane.attach(model):`, after the forward.")
        unfit: dict[str, Exception] = {}
        recorded: dict[str, _Recorded] = self._recorder.take(unfit)
        n_sequences, places = 0, None
        if self.tokens:
            by_place = next((one for one in (y, mask) if isinstance(one, Tensor)), None)
            if isinstance(y, Tensor) and y.ndim == 1 and any(len(one.places) > 1 for one in recorded.values()):
                raise ValueError(
                    f"the target has one label for each of {len(y)} samples, and tokens=True takes one a token, (B, "
                    "L): leave tokens out, or give the labels of tokens in unpack."
                )
            n_sequences = len(first_tensor(x if by_place is None else by_place))
            places = None if by_place is None else tuple(by_place.shape)
            y = y.reshape(-1) if isinstance(y, Tensor) else y
        target = None if y is None else self._target_values(y, [one.n for one in recorded.values()])
        y, others = (None, {}) if target is None else (y, {"y": target})
        if self._input is not None:
            selected = self._input.quantizer.selected(x)
            others["x"] = self._input.values(by_token(selected)[0] if self.tokens else selected)
        n = len(next(iter(others.values()))) if others else _n_samples(x, recorded)
        of = "inputs" if y is None else "labels"
        faults = {layer: self._fault(recorded.get(layer), n, of, places) for layer in self.quantizers}
        faults |= {layer: ValueError(f"could not be recorded: {fault}") for layer, fault in unfit.items()}
        self._leave_out({layer: fault for layer, fault in faults.items() if fault is not None})
        if self._to_pick:
            self._pick({layer: one for layer, one in recorded.items() if layer in self.quantizers})
        if isinstance(self._asked_head, str) and self._asked_head not in self.quantizers:
            raise ValueError(
                f"head={self._asked_head!r} cannot be measured, as the warning says: name another layer, or give "
                "head=False."
            )
        if "x" in others and len(others["x"]) != n:
            raise ValueError(f"the input put out {len(others['x'])} rows for {n} labels: its pool must keep the batch.")
        if self._with_target not in (None, y is not None):
            raise ValueError("some batches came with a target and some without: give one for each, or for none.")
        self._with_target = y is not None
        if self.tokens:
            others["sequence"] = self._sequences(n_sequences, n)
        valid = self._valid(y if isinstance(y, Tensor) else others.get("y"), mask, n)
        self._batches.append(_Batch(n_sequences or n, n, valid))
        index = None if valid is None else valid.nonzero().squeeze(1)
        n_valid = n if index is None else len(index)
        self.n_seen += n_valid
        n_coordinates = {layer: one.n_coordinates for layer, one in recorded.items()}
        self._warn_of_lengths(n_coordinates)
        self._n_coordinates = n_coordinates
        if self._sampling:
            self._sample(n, x, y, others, recorded, valid)
        binned = {f"t{k}": recorded[layer].values for k, layer in enumerate(self.fitted_quantizers)}
        counted = {
            state: value for state, value in others.items() if self.fitted_quantizers or state in self._variables()
        }
        for state, value in (binned | counted).items():
            assert value is not None
            value = _chosen(value, index)
            if state not in self._variables() or not value.is_floating_point():  # symbols, or a target as it is
                self._keep(state, value)
                continue
            held = getattr(self, f"{state}_held")
            held.append(value)
            if sum(chunk.numel() for chunk in held) >= _AT_ONCE:
                self._put_into_bins(state)
        streamed = {
            layer: _chosen(one.streamed, index)
            for layer, one in recorded.items()
            if one.streamed is not None and layer in self.quantizers
        }
        labels = others.get("y") if self._target is None else None
        # Real numbers may turn out to be classes at the end of the pass: then the sample says more than sums without.
        if streamed and (labels is None or not labels.is_floating_point()):
            self.estimation.streams.keep(streamed, None if labels is None else _chosen(labels, index), n_valid)

    def _valid(self, y: Tensor | None, mask: Tensor | None, n: int) -> Tensor | None:
        """Which of ``n`` rows count, bool ``(n,)`` on the host; none where all do."""
        valid = None
        if self.ignore_index is not None and y is not None and len(y) == n:
            valid = (y.detach().reshape(n, -1) != self.ignore_index).all(1).cpu()
        if mask is None:
            return valid
        if mask.numel() != n:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)}, and there are {n} rows: give (B, L), one a token."
            )
        counts = mask.detach().reshape(-1).bool().cpu()
        return counts if valid is None else valid & counts

    def _sequences(self, n_samples: int, n_rows: int) -> Tensor:
        """The sequence of each token of a batch, numbered through all processes."""
        rank, world = this_process()
        before = sum(batch.n_samples for batch in self._batches)
        numbers = rank + world * torch.arange(before, before + n_samples, device=self._home)
        if n_samples == 0 or n_rows % n_samples:
            raise ValueError(
                f"{n_rows} tokens are not those of {n_samples} sequences of one length: pad them, with a mask."
            )
        return numbers.repeat_interleave(n_rows // n_samples)

    def _sample(
        self,
        n: int,
        x: Any,
        y: Tensor | None,
        others: Mapping[str, Tensor],
        recorded: Mapping[str, _Recorded],
        valid: Tensor | None,
    ) -> None:
        """Keep the chosen rows of a batch."""
        named: dict[str, Tensor] = {}
        with suppress(Exception):  # it is the user's, and may be of any kind
            given = first_tensor(x)
            if given.ndim > 0 and len(given) == n and not given.is_complex() and given.layout is torch.strided:
                named["sum of x"] = given
        chosen = {layer: one.chosen for layer, one in recorded.items() if layer in self.quantizers and one.chosen}
        if self._input is not None:
            named["pooled x"] = others["x"]
        if self.tokens:
            named["sequence"] = others["sequence"]
        if self.sampled.with_input:
            rows = self._input_rows(x)
            if rows is not None and rows.ndim > 0 and len(rows) == n:
                named["x"] = rows
            else:
                self.sampled.forget_input()
        if y is not None and self._target is None:
            named["y"] = others["y"]
        elif y is not None:  # real numbers, as bins and estimators each take them
            named["pooled y"] = others["y"]
            if self.estimation.estimators or self._keep_rows:
                named["y"] = sketch(y)
        head = None
        if self._head_layer is None and y is not None and self._target is None:
            self._head_layer = self._possible_head([layer for layer in recorded if layer in self.quantizers])
        if self._head_layer and (own := chosen.get(self._head_layer)) is not None and own.outputs is not None:
            head = predictions(own.outputs, self._activations[self._head_layer])
        self.sampled.keep(n, chosen, named, head, valid)

    def _possible_head(self, fired: list[str]) -> str:
        """The layer that is the head if its width is the number of classes; empty where there can be none."""
        if self._asked_head is False:
            return ""
        last = self._asked_head or fired[-1]
        if (
            self._asked_head is None
            and self.asked is not None
            and not runs_last(self._model_layers, self.quantizers, last)
        ):
            return ""
        return last

    def _input_rows(self, x: Any) -> Tensor | None:
        """The input as estimators see it, whether it is pooled or not; none where it holds no tensor."""
        try:
            given = first_tensor(x) if self._input is None else self._input.quantizer.selected(x)
            return by_token(given)[0] if self.tokens else given
        except (TypeError, ValueError):
            return None

    def _put_into_bins(self, state: str) -> None:
        """Turn values that wait into ids, where the edges are known: many batches cost little more than one."""
        fitted, held = self._variables().get(state), getattr(self, f"{state}_held")
        if fitted is not None and fitted.edges is not None and held:
            self._keep_binned(state, fitted.discretize(torch.cat(held)))
            held.clear()

    def _keep_binned(self, state: str, binned: Binned) -> None:
        self._keep(state, binned.ids)
        if state.startswith("t"):
            self._keep(f"{state}_outside", binned.out_of_bounds)

    def _keep(self, state: str, ids: Tensor) -> None:
        chunks = getattr(self, state)
        chunks.append(ids)
        # Merging equal-sized neighbours keeps the list, and the memory it costs, logarithmic in the batches.
        while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
            chunks[-2:] = [torch.cat(chunks[-2:])]

    @property
    def n_shown(self) -> int:
        """How many rows were seen since the measurement began, whether they count or not."""
        return sum(batch.n_rows for batch in self._batches)

    def trim(self, n_samples: int) -> None:
        """Leave out what was counted after the first ``n_samples``, such as what evened out the shares of processes.

        Args:
            n_samples: how many to keep; where fewer were counted, all are kept.
        """
        n_rows, n_valid = self._rows_of(n_samples)
        self.sampled.trim(n_rows)
        self.estimation.streams.trim(n_valid)
        for state in (*self._variables(), *self._plain):
            held, ids = getattr(self, f"{state}_held"), getattr(self, state)
            _trimmed(n_valid, ids, held)  # what waits came last
            if state.startswith("t"):
                _trimmed(n_valid, getattr(self, f"{state}_outside"))

    def _rows_of(self, n_samples: int) -> tuple[int, int]:
        """How many rows the first ``n_samples`` samples have, and how many of those count."""
        n_rows = n_valid = 0
        for batch in self._batches:
            seen = min(n_samples, batch.n_samples)
            rows = seen * (batch.n_rows // max(1, batch.n_samples))
            n_samples, n_rows = n_samples - seen, n_rows + rows
            n_valid += rows if batch.valid is None else int(batch.valid[:rows].sum())
        return n_rows, n_valid

    @property
    def _plain(self) -> tuple[str, ...]:
        """The states that no quantizer puts into bins."""
        return ("y", "sequence") if self.tokens else ("y",)

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Gather across processes, as torchmetrics does: 8 bytes a sample and layer once the edges are frozen."""
        available = distributed_available or self.distributed_available_fn
        if should_sync and not self._is_synced and available():
            self._agree(process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def unsync(self, should_unsync: bool = True) -> None:
        """Go back to what this process counted; values it held for a fit that has been made turn into ids."""
        super().unsync(should_unsync)
        for state, fitted in self._variables().items():
            held = getattr(self, f"{state}_held")
            if should_unsync and held and fitted.edges is not None:
                self._keep_binned(state, fitted.discretize_held(torch.cat(held)))
                held.clear()

    def _agree(self, group: Any) -> None:
        """Bring the states of all processes into one form, so that they can be gathered.

        A process that saw no batch has no states, knows no shapes, and has left no layer out: it follows the others.
        """
        for state in self._variables():
            self._put_into_bins(state)
        standings: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(standings, self._standing(), group=group)
        counted = [standing for standing in standings if standing]
        if counted and not self.update_called:
            self._n_coordinates, self._head_layer = counted[0]["n_coordinates"], counted[0]["head"]
        self._forget([layer for layer in self.quantizers if any(layer not in one["layers"] for one in counted)])
        for state in (*self._variables(), *self._plain):
            name, fitted = self._name(state), self._variables().get(state)
            seen = [standing[name] for standing in counted if name in standing]
            if len({one["width"] for one in seen}) > 1 or len({one["held"] for one in seen}) > 1:
                raise ValueError(
                    f"{name} has another form in one process than in another ({seen}): all processes must narrow "
                    "alike, and start from one checkpoint."
                )
            if not seen:
                continue
            if fitted is not None:
                fitted.adopt(seen[0]["width"])
            if not any(map(len, (*getattr(self, state), *getattr(self, f"{state}_held")))):
                tail, dtype = seen[0]["held"] or seen[0]["kept"]
                empty = torch.empty(0, *tail, dtype=dtype, device=self._home)
                setattr(self, f"{state}_held" if seen[0]["held"] else state, [empty])
            if state.startswith("t") and not getattr(self, f"{state}_outside") and seen[0]["outside"] is not None:
                setattr(self, f"{state}_outside", [torch.empty(0, dtype=seen[0]["outside"], device=self._home)])

    def _standing(self) -> dict[str, Any]:
        """What this process has of each variable it counted: nothing, where it saw no batch."""
        standing: dict[str, Any] = {}
        for state in (*self._variables(), *self._plain):
            fitted, held = self._variables().get(state), getattr(self, f"{state}_held")
            if any(map(len, (*held, *getattr(self, state)))):
                chunks = [chunk for chunk in getattr(self, state) if len(chunk)]
                standing[self._name(state)] = {
                    "kept": (tuple(chunks[0].shape[1:]), chunks[0].dtype) if chunks else ((), torch.int64),
                    "held": (tuple(held[0].shape[1:]), held[0].dtype) if held else None,
                    "outside": next((c.dtype for c in getattr(self, f"{state}_outside", [])), None),
                    "width": fitted and fitted.width,
                }
        if self.update_called:
            standing |= {
                "layers": list(self.quantizers),
                "n_coordinates": self._n_coordinates,
                "head": self._head_layer,
            }
        return standing

    def _forget(self, layers: Sequence[str]) -> None:
        """Go on without some layers: their hooks, fitted_quantizers and states."""
        kinds = ("", "_held", "_outside")
        n_binned = len(self.fitted_quantizers)
        kept: list[dict[str, list[Tensor]]] = [
            {kind: getattr(self, f"t{k}{kind}") for kind in kinds}
            for k, layer in enumerate(self.fitted_quantizers)
            if layer not in layers
        ]
        for layer in layers:
            del self.quantizers[layer]
            self.fitted_quantizers.pop(layer, None)
        if self._recorder is not None:
            self._recorder.forget(layers)
        self.sampled.forget(layers, head=self._head_layer in layers)
        self.estimation.streams.forget(layers)
        if self._head_layer in layers:
            self._head_layer = ""
        gone: list[dict[str, list[Tensor]]] = [{kind: [] for kind in kinds} for _ in range(n_binned - len(kept))]
        for k, states in enumerate(kept + gone):
            for kind, chunks in states.items():
                setattr(self, f"t{k}{kind}", chunks)

    def _fault(
        self, recorded: _Recorded | None, n: int, of: str, places: tuple[int, ...] | None = None
    ) -> Exception | None:
        """What is wrong with what a layer put out for a batch of ``n``, if anything is."""
        if recorded is None:
            return RuntimeError(
                f"{_NEVER_RAN}, so there is nothing to measure: name a module that is called as a module (not "
                "through its .forward, its weights or a fused path). A compiled model that ran before with other "
                "layers watched, or none, needs torch.compiler.reset() first, and so does another like it."
            )
        if places is not None and _long(recorded.places) != _long(places):
            return ValueError(
                f"put out tokens of shape {recorded.places}, and the {of} have {places}: the batch comes first, and "
                "each token once. Name another module, or give CellQuantizer(select=…) or Quantizer(select=…), which "
                "takes (B, L, D) out of the output."
            )
        if recorded.n != n:
            return ValueError(
                f"put out {recorded.n} rows for {n} {of}: its first dimension must be the batch. Name another "
                "module, or one that runs once a forward over the whole batch, or give Quantizer(select=…), which puts "
                "the batch first: lambda output: output.transpose(0, 1), say."
                + (f" {self.several_views}" if self.several_views else "")
            )
        return None

    def agree_on_layers(self) -> None:
        """Go on with the layers that no process left out, where a measurement failed; all processes must ask."""
        everywhere = all_gathered(list(self.quantizers)) if this_process()[1] > 1 else []
        self._forget([layer for layer in self.quantizers if any(layer not in layers for layers in everywhere)])

    def _leave_out(self, faults: dict[str, Exception]) -> None:
        """Go on without layers at fault, if nobody asked for them by name and others are left."""
        if faults and (self.asked is not None or len(faults) == len(self.quantizers)):
            fault = next(iter(faults.values()))
            alike = [layer for layer, other in faults.items() if str(other) == str(fault)]
            told = f"layer {', '.join(map(repr, alike))} {fault}"
            if self.asked is None:
                raise NoLayersError(told)
            raise type(fault)(f"{told.rstrip('.')}. Or leave it out of layers=….")
        self._forget(list(faults))
        # Where layers were picked, no advice is needed on how to name them.
        reasons = {
            layer: _NEVER_RAN if isinstance(fault, RuntimeError) else str(fault).split(". ")[0]
            for layer, fault in faults.items()
        }
        for reason in dict.fromkeys(reasons.values()):
            alike = [layer for layer, other in reasons.items() if other == reason]
            are, they = ("is", "it") if len(alike) == 1 else ("are", "they")
            self._warn_once(
                f"left out: {alike}",
                f"{_first_of(alike, most=6)} {are} left out: picked by default, {they} {reason.rstrip('.')}.",
            )

    @property
    def to_pick(self) -> bool:
        """Whether the layers are still to be picked, in the first batch, of all that could be."""
        return self._to_pick

    def keep_layers(self, layers: Sequence[str]) -> None:
        """Pick these layers, as an earlier measurement did, where they are still to be picked."""
        if self._to_pick and layers and set(layers) <= self.quantizers.keys():
            self._to_pick = False
            self._forget([layer for layer in self.quantizers if layer not in layers])

    def _pick(self, ran: Mapping[str, _Recorded]) -> None:
        """Go on with some of the layers that ran, spread over the depth, the last to run included.

        An embedding that put out one row for all samples, such as that of token types, is none of them. Several
        processes, each of which sees other batches, pick alike: by the order of definition, whatever was put out.
        """
        if this_process()[1] > 1:
            varied = [layer for layer in self.quantizers if layer in ran]
        else:
            varied = [layer for layer, one in ran.items() if not (layer in self._tables and one.is_one_row)]
        picked = spread_over(varied)
        if isinstance(self._asked_head, str) and self._asked_head in ran and self._asked_head not in picked:
            others = [layer for layer in varied if layer != self._asked_head]
            picked = [*spread_over(others, MAX_DEFAULT_LAYERS - 1), self._asked_head]
        self.keep_layers(picked)

    def warn_of_late_layers(self, model: nn.Module) -> None:
        """Warn where nobody named layers, and the model has some that it had not when it was hooked."""
        late = [layer for layer in leaves_with_weights(model) if layer not in self._model_layers]
        if late and self.asked is None:
            self._warn_once(
                "late",
                f"{_first_of(late)} is left out: it was made after the run began. Make it in __init__ or "
                "configure_model.",
            )

    def _leave_out_alike(self, layers: Sequence[str]) -> None:
        """Go on without layers that put out the same in every batch; of those that were named, only warn."""
        for layer in layers:
            left_out = " is left out: picked by default, it" if self.asked is None else ""
            self._warn_once(
                f"{layer} alike",
                f"layer {layer!r}{left_out} put out the same rows in every batch, one for each place in it, as an "
                "embedding of positions does: they do not belong to the samples"
                + ("." if self.asked is None else ", and its values say nothing of them."),
            )
        if self.asked is None:
            self._forget(layers)

    def _target_values(self, y: Any, n_rows: Sequence[int]) -> Tensor | None:
        """What is kept of the target of a batch; none where nobody said how to read it and its form does not say.

        Args:
            y: the target.
            n_rows: how many rows each layer put out.
        """
        y = plain_tensor(y) if isinstance(y, Tensor) else y
        if self._target is not None:
            if not isinstance(y, Tensor):
                raise TypeError(f"the target must be a tensor, got {type(y).__name__}: convert it in unpack.")
            return self._target.values(y)
        try:
            values = kept(y, self.ignore_index)
            if self.asked is None and n_rows and len(values) not in n_rows:
                raise UnknownTarget(
                    f"the target has {len(values)} rows where the layers put out {n_rows[0]}, so I(X;T) and H(T) are "
                    "measured without it. Give unpack=lambda batch: (x, y) with a target a row. " + self.several_views
                )
        except UnknownTarget as unknown:
            self._warn_once("the target's form", str(unknown))
            self._forget_target()
        return None if self._target_lost else values

    def _forget_target(self) -> None:
        """Go on without a target to the end of the pass."""
        self._target_lost, self._head_layer = True, ""
        self._with_target = None if self._with_target is None else False
        self.y: Any = []
        self.sampled.forget_target()

    def compute(self, *, epoch: int = 0, step: int = 0) -> list[InformationPoint]:
        """The figures of this measurement, a point a layer.

        A layer with a NaN or an infinity in it gives a point of NaNs, and one warning that names it.

        Args:
            epoch: what to write into the points.
            step: what to write into the points.

        Raises:
            ValueError: nothing was counted, or bins gave edges that descend or are NaN.
        """
        n = sum(len(chunk) for state in ("t0", "t0_held") for chunk in _listed(getattr(self, state, [])))
        drawn = self.drawn() if self._sampling else None
        if drawn is not None:
            self._leave_out_alike(drawn.alike_in_every_batch())
        if n == 0 and (drawn is None or drawn.n == 0):
            if self._n_idle:
                never_ran = self._fault(None, 0, "inputs")
                self._leave_out({layer: never_ran for layer in self.quantizers if never_ran is not None})
            ignored = self.ignore_index is not None and any(batch.n_rows for batch in self._batches)
            why = f"every label is {self.ignore_index}" if ignored else "no batch was seen. Is the data empty?"
            raise ValueError(f"nothing was counted: {why}")
        if self._n_idle:
            self._warn_once(
                "idle",
                f"no layer ran in {self._n_idle} of {len(self._batches)} batches at epoch {epoch}: they are left out.",
            )
        x, y = self._counted("x", epoch), self._counted("y", epoch)
        sampled_y = None if drawn is None else self._sampled("y", drawn, epoch)
        self.head = None if drawn is None else self._recognized(drawn, sampled_y)
        bound = head_bound(self.head, sampled_y, self.unit)
        found: dict[str, InformationPoint] = {}
        if self.fitted_quantizers:
            figures = self._figures(n, x, y, bound, epoch, _joined(_listed(getattr(self, "sequence", []))))
            # One layer after the other: the numbered symbols of a layer take more memory than its ids.
            for k, (layer, fitted) in enumerate(self.fitted_quantizers.items()):
                found[layer] = figures.point(layer, self._layer(f"t{k}", fitted, epoch))
        if drawn is not None and len(self.fitted_quantizers) < len(self.quantizers):
            sampled_x, clusters = self._sampled("x", drawn, epoch), drawn.others.get("sequence")
            on_sample = self._figures(drawn.n, sampled_x, sampled_y, bound, epoch, clusters)

            def work() -> tuple[dict[str, InformationPoint], dict[str, str]]:
                """What the first process tells the others."""
                fitted = self._cells(self._measured(), epoch)
                return {layer: on_sample.point(layer, one) for layer, one in fitted}, self.discretized

            sampled, self.discretized = self._on_first(work)
            found |= {layer: InformationPoint._make(point) for layer, point in sampled.items()}
        points = [found[layer]._replace(epoch=epoch, step=step) for layer in self.quantizers]
        for point in points:
            key = f"verdict of {'the target' if point.verdict.startswith('target_') else point.layer}"
            if point.verdict not in ("", "ok") and key not in self._warned:
                quantizer = self.fitted_quantizers.get(point.layer) or self.quantizers[point.layer]
                assert not isinstance(quantizer, Quantizer)
                self._warn_once(key, advice(point, quantizer), VerdictWarning)
        return points

    def drawn(self) -> Drawn:
        """The sampled rows; with several processes those of all of them, all of which must ask."""
        drawn = self.sampled.drawn(shared=self._shared)
        y = drawn.others.get("y")
        if y is None or self._target is not None:
            return drawn
        labels, how = labeled(y)
        self.target_read = how or self.target_read
        return drawn._replace(others=drawn.others | {"y": labels})

    @property
    def _shared(self) -> bool:
        """Whether several processes measure together."""
        return this_process()[1] > 1 and (self._is_synced or self._to_sync)

    def _on_first(self, work: Callable[[], Any]) -> Any:
        """What the first process comes to, where they measure together."""
        return on_first(work) if self._shared else work()

    def _figures(
        self, n: int, x: Symbols | None, y: Symbols | None, bound: float, epoch: int, clusters: Tensor | None
    ) -> Figures:
        if y is not None and len(y.counts) == 1:
            self._warn_once(
                "one class",
                f"all {len(y.numbers)} samples have the same target at epoch {epoch}: H(Y) is 0 and I(T;Y) says "
                "nothing, so it is NaN. Measure on data with several classes.",
            )
        return Figures(
            n,
            x,
            y,
            identity=self._input is None,
            unit=self.unit,
            correction=self.correction,
            shuffles=self.shuffles,
            head=self.head,
            bound=bound,
            clusters=clusters,
        )

    def _recognized(self, drawn: Drawn, y: Symbols | None) -> Head | None:
        """The head, where the layer that may be one has the width of one."""
        if not self._head_layer or y is None:
            return None
        layer = self._head_layer
        named = isinstance(self._asked_head, str)
        head = recognized(layer, self._activations[layer], drawn.others, self._n_coordinates[layer], named=named)
        finite = "probabilities" not in drawn.others or bool(drawn.others["probabilities"].isfinite().all())
        if head is None and self.head is not None and finite:
            self._warn_once(
                "head",
                f"layer {layer!r} was the head before, measured on its {self.head.activation}, and the labels no "
                f"longer number {self.head.n_classes} classes: it is measured as it is, and its values do not compare.",
            )
        elif head is None and isinstance(self._asked_head, str) and finite:
            raise ValueError(
                f"head={self._asked_head!r} has {self._n_coordinates.get(self._asked_head)} coordinates, and the "
                "labels do not number its classes 0 … C − 1: name the layer that has one for each class, or give "
                "head=False."
            )
        return head

    def _cells(self, drawn: Drawn, epoch: int) -> Iterator[tuple[str, Layer | None]]:
        """The cells of the layers without bins, one layer after the other; none of a layer that is not finite."""
        for layer, quantizer in self.quantizers.items():
            if not isinstance(quantizer, CellQuantizer):
                continue
            rows = drawn.layers.get(layer)
            missing = drawn.n if rows is None else int((~rows.isfinite()).any(1).sum())
            if rows is None:
                fault = str(drawn.faults.get(layer, "it has no rows")).rstrip(".")
                self._warn_once(f"{layer} rows", f"layer {layer!r} was not measured at epoch {epoch}: {fault}.")
            elif missing:
                self._warn_of_missing(f"layer {layer!r}", missing, len(rows), epoch)
            if rows is None or missing:
                yield layer, None
                continue
            classes = self.head.n_classes if self.head is not None and layer == self.head.layer else 2
            found = cells(rows, max_cells=quantizer.max_cells, expected_clusters=classes)
            self.discretized[layer] = self._described(layer, rows, found)
            yield layer, Layer(symbols(found.numbers), "cells", explained=found.explained)

    def _measured(self) -> Drawn:
        """The sampled rows as they are measured: of the head its probabilities."""
        drawn = self.drawn()
        if self.head is None or self.head.layer not in drawn.layers:
            return drawn
        return drawn._replace(layers=drawn.layers | {self.head.layer: drawn.others["probabilities"]})

    def labelled_rows(self) -> dict[str, Rows]:
        """The sampled rows of each layer with their labels, where labels came; with several processes all must ask."""
        drawn = self._measured()
        return {layer: Rows(rows, drawn.others.get("y")) for layer, rows in drawn.layers.items()}

    def _described(self, layer: str, rows: Tensor, found: Cells) -> str:
        what = f"{self._n_coordinates.get(layer, rows.shape[1])} coordinates"
        what += f", sketched to {rows.shape[1]}" if self._n_coordinates.get(layer, 0) > rows.shape[1] else ""
        if self.head is not None and layer == self.head.layer:
            what = str(self.head)
        shown = (
            "constant" if found.n_cells == 1 else f"{found.n_cells} cells with {found.explained:.0%} of the variance"
        )
        return f"{what}; {shown}, {len(rows)} samples"

    def _sampled(self, name: str, drawn: Drawn, epoch: int) -> Symbols | None:
        """The symbols of the target or the input on the sample; none where there is none, or it is not finite."""
        fitted = self._variables().get(name)
        values = drawn.others.get(name if fitted is None else f"pooled {name}")
        if values is None or (fitted is None and name == "x"):
            return None
        if fitted is None:
            return self._read(values, epoch)
        if fitted.edges is None:  # it was not finite, or alike everywhere
            return None if not bool(values.isfinite().all()) else symbols(torch.zeros(len(values), dtype=torch.int64))
        return self._finite(self._name(name), fitted.discretize_held(values).ids, epoch)

    def estimate(self, *, epoch: int = 0, step: int = 0, progress: Progress = lambda pairs: pairs) -> list[Estimate]:
        """The figures of the estimators that do not bin, for all layers; with several processes all must ask.

        What one sets from a layer's scale is set at its first measurement and frozen, as edges are. A figure that
        cannot be had is NaN, and one warning says why.

        Args:
            epoch: what to write into the estimates.
            step: what to write into the estimates.
            progress: wraps the pairs of layer and estimator, for a progress bar.
        """
        if not self.estimation.estimators:
            return []
        return self.estimation.estimate(
            self.layers,
            self._measured(),
            shared=self._shared,
            unit=self.unit,
            epoch=epoch,
            step=step,
            warn=self._warn_once,
            progress=progress,
        )

    def _layer(self, state: str, fitted: FittedQuantizer, epoch: int) -> Layer | None:
        counted = self._counted(state, epoch)
        if counted is None:
            return None
        outside = sum(int(chunk.sum()) for chunk in _listed(getattr(self, f"{state}_outside")))
        values = len(counted.numbers) * (fitted.n_coordinates or 0)
        told = fitted.has_bounds and values > 0
        return Layer(counted, "bins", outside / values if told else math.nan, fitted.quantizer.bins.nominal_tail_mass)

    def _counted(self, state: str, epoch: int) -> Symbols | None:
        """The symbols of a variable; none where it was not recorded or is not finite."""
        fitted = self._variables().get(state)
        if not self._is_synced:
            self._put_into_bins(state)
        held, chunks = _listed(getattr(self, f"{state}_held")), _listed(getattr(self, state))
        if held and fitted is not None:
            z = torch.cat(held)
            if fitted.edges is None and bool(z.isfinite().all()):
                self._fit(state, fitted, z)
            if fitted.edges is None:  # not finite, or a constant no choice was made for: one symbol
                chunks = [torch.where(z.isfinite().all(1), 0, NOT_FINITE)]
            else:
                binned = fitted.discretize_held(z)
                chunks, held = [binned.ids], []
                if state.startswith("t"):
                    setattr(self, f"{state}_outside", [binned.out_of_bounds])
        if not chunks:
            return None
        ids = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        if not held and not self._is_synced:  # in one piece from here on; values that were held have served
            setattr(self, f"{state}_held", [])
            setattr(self, state, [ids])
        del chunks
        if fitted is None:
            values, how = labeled(ids)
            self.target_read = how or self.target_read
            return self._read(values, epoch)
        return self._finite(self._name(state), ids, epoch)

    def _read(self, values: Tensor, epoch: int) -> Symbols | None:
        """The symbols of a target without a quantizer; none where a value is not finite."""
        missing = int((~values.isfinite()).any(-1).sum()) if values.is_floating_point() else 0
        if missing:
            self._warn_of_missing("the target", missing, len(values), epoch)
            return None
        target = read(values)
        self.target_read = target.how or self.target_read
        if (absent := absent_label(values, len(target.symbols.counts))) is not None:
            self._warn_once(
                "absent labels",
                f"the target is {absent} in {int((values == absent).reshape(len(values), -1).any(1).sum())} of "
                f"{len(values)} samples, which is counted like any other value. If it says that they have no label, "
                f"give ignore_index={absent}.",
            )
        return target.symbols

    def _finite(self, name: str, ids: Tensor, epoch: int) -> Symbols | None:
        """The symbols of ids; none where a sample was not finite."""
        missing = int((ids == NOT_FINITE).sum())
        if missing:
            self._warn_of_missing(name, missing, len(ids), epoch)
            return None
        return symbols(ids)

    def _warn_of_missing(self, name: str, missing: int, n: int, epoch: int) -> None:
        self._warn_once(
            name,
            f"{name} gave NaN or infinite values in {missing} of {n} samples at epoch {epoch}: "
            + ("the values about it" if name == "the target" else "its values")
            + " are NaN until they are finite again. Training is not touched."
            + (
                " Leave such samples out in unpack=…, or give them a label of their own and ignore_index=…."
                if name == "the target"
                else ""
            ),
        )

    def _warn_of_lengths(self, n_coordinates: Mapping[str, int]) -> None:
        """Warn where samples of layers in cells, without a pool, are longer in one batch than in another."""
        varied = [
            layer
            for layer, quantizer in self.quantizers.items()
            if isinstance(quantizer, CellQuantizer)
            and quantizer.pool is None
            and self._update_count > 1
            and self._n_coordinates.get(layer) != n_coordinates.get(layer)
            and min(self._n_coordinates.get(layer, 0), n_coordinates.get(layer, 0)) >= WIDTH  # others have no rows
        ]
        if varied:
            of = f"layer {varied[0]!r}" + (f" and {len(varied) - 1} more" if len(varied) > 1 else "")
            before, now = self._n_coordinates.get(varied[0]), n_coordinates.get(varied[0])
            self._warn_once(
                "lengths",
                f"{of}: a sample had {before} coordinates in one batch and has {now} in another. The shorter ones "
                "count as padded with zeros, so that the values depend on how the data is batched. Give "
                "CellQuantizer(pool=…) or CellQuantizer(select=…), such as the mean over positions or one token.",
            )

    def _fit(self, state: str, fitted: FittedQuantizer, z: Tensor) -> None:
        try:
            fitted.fit(z)
        except ValueError as error:
            raise ValueError(f"{self._name(state)} cannot be put into bins: {error}") from error

    def _name(self, state: str) -> str:
        names = {"x": "the input", "y": "the target", "sequence": "the sequences"}
        return names.get(state) or f"layer {list(self.fitted_quantizers)[int(state[1:])]!r}"

    def _warn_once(self, key: str, message: str, kind: type[UserWarning] = UserWarning) -> None:
        if key not in self._warned and this_process()[0] == 0:
            self._warned.add(key)
            warnings.warn(message, kind, stacklevel=4)

    def _variables(self) -> dict[str, FittedQuantizer]:
        variables = {f"t{k}": fitted for k, fitted in enumerate(self.fitted_quantizers.values())}
        variables |= {state: n for state, n in (("x", self._input), ("y", self._target)) if n is not None}
        return variables

    def frozen_state(self) -> dict[str, Any]:
        """The frozen edges and automatic choices of every variable, in tensors and primitives, for a checkpoint."""
        named: dict[str, Any] = {"layers": {layer: n.state_dict() for layer, n in self.fitted_quantizers.items()}}
        if self.estimation.settled:
            named["estimators"] = copy.deepcopy(self.estimation.settled)
        if self.estimation.streams.centers:
            named["centers"] = self.estimation.streams.state()
        return named | {k: n.state_dict() for k, n in (("input", self._input), ("target", self._target)) if n}

    def load_frozen_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`frozen_state` gave; call it after :meth:`attach`. Layers it does not name are left.

        Raises:
            ValueError: a part of ``state`` is not what :meth:`frozen_state` gives; all other parts are taken up.
        """
        layers = state.get("layers", {}) if isinstance(state, Mapping) else None
        if not isinstance(layers, Mapping):
            raise ValueError("the frozen edges are no mapping with the edges of the 'layers'")
        parts = [(f"layer {layer!r}", fitted, layers.get(layer)) for layer, fitted in self.fitted_quantizers.items()]
        parts += [(f"the {k}", n, state.get(k)) for k, n in (("input", self._input), ("target", self._target)) if n]
        faults = []
        for name, fitted, saved in parts:
            try:
                fitted.load_state_dict({} if saved is None else saved)
            except ValueError as error:
                faults.append(f"what is frozen for {name} {error}")
        for load, part in ((self.estimation.load, "estimators"), (self.estimation.streams.load, "centers")):
            try:
                load(state.get(part, {}))
            except ValueError as error:
                faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))


def _long(places: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of tokens without the axes that hold one: masks are ``(B, 1, H, W)`` to some."""
    return places[:1] + tuple(size for size in places[1:] if size != 1)


def _first_of(layers: Sequence[str], most: int = 1) -> str:
    """Layers in a sentence: the first ones, and how many more there are."""
    more = f" (and {len(layers) - most} more)" if len(layers) > most else ""
    return f"layer{'s' * (min(most, len(layers)) > 1)} {', '.join(map(repr, layers[:most]))}{more}"


def _chosen(values: Tensor, index: Tensor | None) -> Tensor:
    """The rows at an index of the host; all of them without one."""
    return values if index is None else values[index.to(values.device, non_blocking=True)]


def _joined(chunks: list[Tensor]) -> Tensor | None:
    return torch.cat(chunks) if chunks else None


def _n_samples(x: Any, recorded: Mapping[str, _Recorded]) -> int:
    """How many samples a batch without a target has: the rows of the input, else those of the first layer."""
    n_rows = [one.n for one in recorded.values()]
    try:
        n = len(first_tensor(x))
    except Exception:  # it is the user's, and may be of any kind
        n = 0
    return n if n in n_rows or not n_rows else n_rows[0]


def _trimmed(n: int, *lists: list[Tensor]) -> None:
    """Cut off what comes after the first ``n`` rows of lists that follow one another."""
    excess = sum(len(chunk) for chunks in lists for chunk in chunks) - n
    for chunks in reversed(lists):
        while chunks and excess > 0:
            last = chunks.pop()
            excess -= len(last)
            if excess < 0:
                chunks.append(last[:-excess])


def _listed(state: Tensor | list[Tensor]) -> list[Tensor]:
    """A list state, which is one tensor after it was gathered across processes, an empty one if there was nothing."""
    return [chunk for chunk in ([state] if isinstance(state, Tensor) else state) if len(chunk)]


def checked_layers(layers: Layers) -> dict[str, Quantizer | CellQuantizer | None] | None:
    """``layers`` as a mapping from names or patterns to quantizers, where they are of a kind that is allowed.

    Raises:
        TypeError: they are not.
        ValueError: there is none.
    """
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, (Mapping, Sequence)):
        raise TypeError(
            f"layers must be a list of module names, a mapping from names to Quantizer, or None, got {layers!r}."
            + (f" Did you mean [{layers!r}]?" if isinstance(layers, str) else "")
        )
    if not layers:
        raise ValueError("layers is empty: name at least one module, or give None to have them picked.")
    asked = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers)
    for name, quantizer in asked.items():
        if not isinstance(name, str):
            raise TypeError(f"layers must name modules by strings as in named_modules(), got {name!r}.")
        if quantizer is not None and not isinstance(quantizer, (Quantizer, CellQuantizer)):
            raise TypeError(f"the layer {name!r} needs a Quantizer, a CellQuantizer or None, got {quantizer!r}.")
    return asked
