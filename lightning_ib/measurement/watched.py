"""The layers that a measurement watches: which were asked for or picked, and which are left out, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
from lightning_ib.capture.layers import (
    MAX_DEFAULT_LAYERS,
    NoLayersError,
    default_layers,
    leaves_with_weights,
    named_modules,
    resolve_layers,
    scripted_layers,
    spread_over,
)
from lightning_ib.capture.recorder import Recorder, may_be_hooked_later
from lightning_ib.capture.tokens import orders
from lightning_ib.distributed import all_gathered, this_process
from lightning_ib.functional.discretize.sketch import WIDTH
from lightning_ib.measurement.sampled import Chosen
from lightning_ib.warn_once import WarnOnce

_NEVER_RAN = "never ran in this forward"

Layers = Sequence[str] | Mapping[str, Quantizer | CellQuantizer | None] | None


class Recorded(NamedTuple):
    """The values that a hook keeps of a batch.

    Attributes:
        n: the number of samples.
        n_coordinates: of one sample, as the module put it out.
        places: the shape ``(B, L, …)`` of the tokens that became rows, where those are tokens.
        values: the pooled values, where they go into bins.
        chosen: the sampled rows, where some are kept.
        streamed: the sketched rows of all samples, where they are summed up.
        channels: the channels of all samples, averaged over places, where those are summed up.
    """

    n: int
    n_coordinates: int
    places: tuple[int, ...]
    values: Tensor | None
    chosen: Chosen | None
    streamed: Tensor | None
    channels: Tensor | None = None

    @property
    def is_one_row(self) -> bool:
        """Whether the sampled rows of several samples are all the same."""
        rows = None if self.chosen is None else self.chosen.rows
        return rows is not None and len(rows) > 1 and bool((rows == rows[0]).all())


class Expected(NamedTuple):
    """The rows that each layer must put out for a batch.

    Attributes:
        n: the number of rows.
        of: the variable they must match, ``"labels"`` or ``"inputs"``.
        places: the shape of the labels or the mask, where the rows are tokens.
        several_views: advice for a step that runs several views of a batch.
    """

    n: int
    of: str
    places: tuple[int, ...] | None = None
    several_views: str = ""


class WatchedLayers:
    """Names the layers of a model, hooks them, and finds those that a measurement must leave out.

    A layer that was named raises where it is at fault. One that was picked by default is left out with a warning,
    if others are left. :meth:`forget` drops the layers that other methods found; callers drop their rows, too.

    Args:
        layers: as for :class:`~lightning_ib.InformationPlane`.
        head: the layer that is named as the head, which stays among those that are picked.
        warned: takes the warnings.
    """

    def __init__(self, layers: Layers, head: str | None, warned: WarnOnce) -> None:
        self.asked = checked_layers(layers)
        self.quantizers: dict[str, Quantizer | CellQuantizer] = {}
        """Layer → how it is discretized, in the order the layers are reported; empty before :meth:`attach`."""
        self.recorder: Recorder | None = None
        """The hooks; ``None`` while detached."""
        self.to_pick = False
        """Whether some of the layers are still to be picked, in the first batch."""
        self.model_layers: list[str] = []
        """All leaf modules of the model with weights."""
        self.channels_first: dict[str, bool] = {}
        """Layer → whether it puts out ``(B, C, …)`` or ``(B, …, C)``, where that is known."""
        self.n_coordinates: dict[str, int] = {}
        """Layer → how many coordinates a sample had in the last batch."""
        self._head, self._warned = head, warned
        self._embeddings: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy, which is detached."""
        return self.__dict__ | {"recorder": None}

    @property
    def names(self) -> list[str]:
        """The names of the layers, in the order they are reported."""
        return spread_over(list(self.quantizers)) if self.to_pick else list(self.quantizers)

    def attach(self, model: nn.Module, reduce: Callable[[str, Tensor], Recorded]) -> Recorder:
        """Hook the layers of a model.

        Args:
            model: the model to watch.
            reduce: maps the activation of a layer to the values to keep.

        Raises:
            ValueError: the model lacks such layers; the message suggests the nearest names.
        """
        self.detach()
        names = self._named(model)
        if self._head is not None and self._head not in self.quantizers:
            raise ValueError(f"head={self._head!r} is none of the layers watched, {self.names}: name it in layers too.")
        self.model_layers = leaves_with_weights(model)
        scripted = scripted_layers(model) if self.asked is None else []
        if scripted:
            self._warned.warn(
                "TorchScript",
                f"{_first_of(scripted)} is not among the layers picked by default: TorchScript takes no hooks. Name a "
                "module of Python's around it, or script it after the run.",
            )
        modules = named_modules(model)
        self.channels_first = {layer: first for layer, first in orders(modules).items() if layer in names}
        self._embeddings = {layer for layer in names if isinstance(modules[layer], nn.Embedding)}
        select = {layer: self.quantizers[layer].select for layer in names}
        chosen = {layer: function for layer, function in select.items() if function is not None}
        self.recorder = Recorder(model, names, reduce, chosen)
        return self.recorder

    def _named(self, model: nn.Module) -> list[str]:
        """The layers to hook; at the first call they become those that are watched."""
        if self.quantizers:
            return list(resolve_layers(model, self.quantizers))
        if self.asked is not None:
            names = resolve_layers(model, self.asked)
            self.quantizers = {name: self.asked[pattern] or CellQuantizer() for name, pattern in names.items()}
            return list(names)
        picked = default_layers(model)
        # The first batch shows which of many run.
        layers = list(leaves_with_weights(model) if may_be_hooked_later(model) else picked)
        self.to_pick = len(layers) > len(picked)
        self.quantizers = {layer: CellQuantizer() for layer in layers}
        return layers

    def detach(self) -> None:
        """Take the hooks off. Idempotent."""
        if self.recorder is not None:
            self.recorder.remove()
            self.recorder = None

    def take(self) -> tuple[dict[str, Recorded], dict[str, Exception]]:
        """The values recorded in the last forward, by layer, in the order they ran; and the errors of other layers.

        Raises:
            RuntimeError: no model is attached.
        """
        if self.recorder is None:
            raise RuntimeError("update needs a model: call it inside `with plane.attach(model):`, after the forward.")
        unfit: dict[str, Exception] = {}
        return self.recorder.take(unfit), unfit

    def forget(self, layers: Sequence[str]) -> None:
        """Drop some layers and their hooks."""
        for layer in layers:
            del self.quantizers[layer]
        if self.recorder is not None:
            self.recorder.forget(layers)

    # -- which layers are at fault -------------------------------------------------------------------------------------

    def misfits(
        self, recorded: Mapping[str, Recorded], unfit: Mapping[str, Exception], expected: Expected
    ) -> list[str]:
        """The layers to leave out, since their rows mismatch the samples of the batch.

        Raises:
            RuntimeError: a layer that was named stayed idle.
            ValueError: its output mismatches the batch.
        """
        faults = {layer: _fault(recorded.get(layer), expected) for layer in self.quantizers}
        faults |= {layer: ValueError(f"could not be recorded: {fault}") for layer, fault in unfit.items()}
        return self._left_out({layer: fault for layer, fault in faults.items() if fault is not None})

    def all_idle(self) -> list[str]:
        """All layers, to be left out, since all stayed idle; see :meth:`misfits`."""
        return self.misfits({}, {}, Expected(0, "inputs"))

    def _left_out(self, faults: dict[str, Exception]) -> list[str]:
        if faults and (self.asked is not None or len(faults) == len(self.quantizers)):
            fault = next(iter(faults.values()))
            alike = [layer for layer, other in faults.items() if str(other) == str(fault)]
            why = f"layer {', '.join(map(repr, alike))} {fault}"
            if self.asked is None:
                raise NoLayersError(why)
            raise type(fault)(f"{why.rstrip('.')}. Or leave it out of layers=….")
        # For layers picked by default the advice on naming is left out.
        reasons = {
            layer: _NEVER_RAN if isinstance(fault, RuntimeError) else str(fault).split(". ")[0]
            for layer, fault in faults.items()
        }
        for reason in dict.fromkeys(reasons.values()):
            alike = [layer for layer, other in reasons.items() if other == reason]
            are, they = ("is", "it") if len(alike) == 1 else ("are", "they")
            self._warned.warn(
                f"left out: {alike}",
                f"{_first_of(alike, most=6)} {are} left out: picked by default, {they} {reason.rstrip('.')}.",
            )
        return list(faults)

    def constant_across_batches(self, layers: Sequence[str]) -> list[str]:
        """Warn of layers with the same rows in every batch; returns those to leave out: the ones picked by default."""
        for layer in layers:
            left_out = " is left out: picked by default, it" if self.asked is None else ""
            self._warned.warn(
                f"{layer} alike",
                f"layer {layer!r}{left_out} put out the same rows in every batch, one for each place in it, as an "
                "embedding of positions does: they do not belong to the samples"
                + ("." if self.asked is None else ", and its values say nothing of them."),
            )
        return list(layers) if self.asked is None else []

    def left_out_elsewhere(self) -> list[str]:
        """The layers that another process left out; every process must call this."""
        everywhere = all_gathered(list(self.quantizers)) if this_process()[1] > 1 else []
        return [layer for layer in self.quantizers if any(layer not in layers for layers in everywhere)]

    # -- which layers are picked ---------------------------------------------------------------------------------------

    def unpicked(self, ran: Mapping[str, Recorded]) -> list[str]:
        """The layers to leave out where some of those that ran are to be picked: spread over the depth, the last kept.

        An embedding that put out one row for all samples, such as that of token types, is left out as well. Several
        processes, each of which sees other batches, pick the same layers: by the order of definition alone.
        """
        if not self.to_pick:
            return []
        ran = {layer: one for layer, one in ran.items() if layer in self.quantizers}
        if this_process()[1] > 1:
            varied = [layer for layer in self.quantizers if layer in ran]
        else:
            varied = [layer for layer, one in ran.items() if not (layer in self._embeddings and one.is_one_row)]
        picked = spread_over(varied)
        if self._head is not None and self._head in ran and self._head not in picked:
            others = [layer for layer in varied if layer != self._head]
            picked = [*spread_over(others, MAX_DEFAULT_LAYERS - 1), self._head]
        return self.all_but(picked)

    def all_but(self, layers: Sequence[str]) -> list[str]:
        """The layers to leave out where these are picked, and layers are still to be picked."""
        if not self.to_pick or not layers or not set(layers) <= self.quantizers.keys():
            return []
        self.to_pick = False
        return [layer for layer in self.quantizers if layer not in layers]

    # -- warnings ------------------------------------------------------------------------------------------------------

    def warn_of_late_layers(self, model: nn.Module) -> None:
        """Warn of layers that were added after the model was hooked, if layers are picked by default."""
        late = [layer for layer in leaves_with_weights(model) if layer not in self.model_layers]
        if late and self.asked is None:
            self._warned.warn(
                "late",
                f"{_first_of(late)} is left out: it was made after the run began. Make it in __init__ or "
                "configure_model.",
            )

    def note_lengths(self, recorded: Mapping[str, Recorded], *, is_first: bool) -> None:
        """Note how long the samples of a batch are; warn if those of layers in cells vary and there is no pool."""
        before, self.n_coordinates = self.n_coordinates, {k: one.n_coordinates for k, one in recorded.items()}
        varied = [
            layer
            for layer, quantizer in self.quantizers.items()
            if isinstance(quantizer, CellQuantizer)
            and quantizer.pool is None
            and not is_first
            and before.get(layer) != self.n_coordinates.get(layer)
            and min(before.get(layer, 0), self.n_coordinates.get(layer, 0)) >= WIDTH  # shorter ones lack rows
        ]
        if varied:
            of = f"layer {varied[0]!r}" + (f" and {len(varied) - 1} more" if len(varied) > 1 else "")
            self._warned.warn(
                "lengths",
                f"{of}: a sample had {before.get(varied[0])} coordinates in one batch and has "
                f"{self.n_coordinates.get(varied[0])} in another. The shorter ones count as padded with zeros, so "
                "that the values depend on how the data is batched. Give CellQuantizer(pool=…) or "
                "CellQuantizer(select=…), such as the mean over positions or one token.",
            )


def _fault(recorded: Recorded | None, expected: Expected) -> Exception | None:
    """The error of a layer's output for a batch, or ``None``."""
    if recorded is None:
        return RuntimeError(
            f"{_NEVER_RAN}, so there is nothing to measure: name a module that is called as a module (not "
            "through its .forward, its weights or a fused path). A compiled model that ran before with other "
            "layers watched, or none, needs torch.compiler.reset() first, and so does another like it."
        )
    n, of, places, several_views = expected
    if places is not None and _without_unit_axes(recorded.places) != _without_unit_axes(places):
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
            + (f" {several_views}" if several_views else "")
        )
    return None


def _without_unit_axes(places: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of tokens with axes of size one removed: some masks are ``(B, 1, H, W)``."""
    return places[:1] + tuple(size for size in places[1:] if size != 1)


def _first_of(layers: Sequence[str], most: int = 1) -> str:
    """Layers in a sentence: the first ones, and how many more there are."""
    more = f" (and {len(layers) - most} more)" if len(layers) > most else ""
    return f"layer{'s' * (min(most, len(layers)) > 1)} {', '.join(map(repr, layers[:most]))}{more}"


def checked_layers(layers: Any) -> dict[str, Quantizer | CellQuantizer | None] | None:
    """``layers`` as a mapping from names or patterns to quantizers, where they are of a kind that is allowed.

    Raises:
        TypeError: they are of another kind.
        ValueError: ``layers`` is empty.
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
