"""The sampled rows of a measurement: a sketch of every layer, on the same samples at every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ib.binning.quantizer import CellQuantizer
from lightning_ib.capture.tokens import channel_means
from lightning_ib.distributed import all_gathered, this_process
from lightning_ib.estimators.geometry import MOST_CHANNELS
from lightning_ib.functional.checks import moved
from lightning_ib.functional.discretize.sketch import fold, project
from lightning_ib.functional.geometry.rows import rounding_of
from lightning_ib.measurement.head import Predictions, may_be_head
from lightning_ib.measurement.reservoir import Gather, Reservoir
from lightning_ib.records.tags import at_target

# The fewest pairs of samples at one place of two batches by which a layer is seen to follow the place.
_MIN_PAIRS = 4
_OF_INPUT = ("x", "x id")


class Chosen(NamedTuple):
    """The rows that a hook keeps of one layer's activation of a batch.

    Attributes:
        rows: the rows of the samples chosen, folded to at most 512 numbers: the sketches of all layers of a batch are
            made of them together.
        raw: the rows as the module put them out, of the samples chosen for estimators that ask for those.
        outputs: the outputs ``(m, C)`` of the samples chosen, where the layer may be a head.
        channels: the channels ``(m, C)`` of the samples chosen for companions, averaged over places.
    """

    rows: Tensor | None = None
    raw: Tensor | None = None
    outputs: Tensor | None = None
    channels: Tensor | None = None


class Drawn(NamedTuple):
    """The sample of a whole pass, from all processes, the samples of all variables in one order.

    Attributes:
        layers: layer → the rows it is measured on, ``(M, D)``, D at most 128: its sketch, or of the head its
            probabilities.
        outputs: layer → its sketched rows, also for the head.
        raw: layer → its rows as they were, of the first samples only.
        faults: layer → why its rows are missing.
        raw_faults: layer → why its raw rows are missing.
        others: the target as ``"y"``, pooled for bins as ``"pooled y"``, of several each under a name of its own (see
            :meth:`about`); the input as ``"x"``, an id of all its values
            as ``"x id"``, pooled for bins as ``"pooled x"``; ``"sum of x"``, over all that a sample holds; the sequence
            of a token as ``"sequence"``; of a possible head ``"probabilities"`` and ``"predicted"``. Variables that
            were dropped are absent.
        places: of each sample in its batch, int64 ``(M,)``.
        other_faults: of the target and the input by the same names, why their rows are missing.
        channels: layer → its channels, averaged over places, of the first samples only; layers of more than
            :data:`~lightning_ib.estimators.geometry.MOST_CHANNELS` are absent.
        channel_faults: layer → why its channels are missing.
        rounding: layer → the share by which its channels are rounded, where it is known.
        samples: the fingerprints of the inputs of the first samples; ``None`` where they have none.
    """

    layers: dict[str, Tensor]
    outputs: dict[str, Tensor]
    raw: dict[str, Tensor]
    faults: dict[str, Exception]
    raw_faults: dict[str, Exception]
    others: dict[str, Tensor]
    places: Tensor | None = None
    other_faults: Mapping[str, Exception] = MappingProxyType({})
    channels: Mapping[str, Tensor] = MappingProxyType({})
    channel_faults: Mapping[str, Exception] = MappingProxyType({})
    rounding: Mapping[str, float] = MappingProxyType({})
    samples: Tensor | None = None

    @property
    def n(self) -> int:
        """M, the number of samples, or 0."""
        return max((len(rows) for rows in (*self.layers.values(), *self.others.values())), default=0)

    def about(self, target: str) -> Drawn:
        """The same sample with one of several targets as ``"y"`` and ``"pooled y"``; with an empty name as it is."""
        if not target:
            return self

        def of(named: Mapping[str, Any]) -> dict[str, Any]:
            own = {part: named[key] for part in ("y", "pooled y") if (key := at_target(part, target)) in named}
            return {name: rows for name, rows in named.items() if "@" not in name} | own

        return self._replace(others=of(self.others), other_faults=of(self.other_faults))

    def constant_across_batches(self) -> list[str]:
        """The layers with rows that differ within a batch and repeat in every batch, although the data changes.

        They depend on the place in the batch instead of the sample: an embedding of as many positions as a batch has
        samples.
        """
        if self.places is None:
            return []
        order = self.places.argsort(stable=True)
        twins = self.places[order].diff() == 0  # samples that follow one another at one place of their batches
        first, second = order[:-1][twins], order[1:][twins]

        def alike(rows: Tensor) -> bool:
            return len(rows) == len(order) and torch.equal(rows[first], rows[second])

        x = self.others.get("sum of x", next((of for name, of in self.others.items() if name.startswith("y")), None))
        if len(first) < _MIN_PAIRS or x is None or alike(x):
            return []
        layers = [layer for layer, rows in self.layers.items() if alike(rows)]
        return [layer for layer in layers if bool((self.layers[layer][first] != self.layers[layer][first[0]]).any())]


class SampledLayers:
    """Keeps a bounded, uniform sample of the samples of a pass, the same at every pass over the same data.

    At most three times ``max_samples`` rows of 512 bytes a layer are held (1 024 bytes of a layer in float64 with more
    than 64 coordinates), whatever the size of the data and the width of the layer.

    Args:
        max_samples: how many samples to keep.
        raw_samples: of how many of them to keep the activations as they are, too; of all where there are fewer.
        with_input: whether the input is kept, sketched.
        partial: whether chosen rows may turn out to be ignored.
    """

    def __init__(
        self, max_samples: int, raw_samples: int, *, with_input: bool, channel_samples: int = 0, partial: bool = False
    ) -> None:
        self.partial = partial
        self.max_samples, self.raw_samples, self.with_input = max_samples, min(raw_samples, max_samples), with_input
        self.channel_samples = min(channel_samples, max_samples)
        self.reset()

    def reset(self) -> None:
        """Begin a new pass."""
        self._rows: Reservoir | None = None
        self._raw: Reservoir | None = None
        self._drawn: Drawn | None = None
        self._channel_faults: dict[str, Exception] = {}
        self._rounding: dict[str, float] = {}
        self._drawn_shared = False
        self._input_fits = True

    def choose(
        self,
        activation: Tensor,
        quantizer: CellQuantizer | None,
        channels: Tensor | None = None,
    ) -> Chosen:
        """The rows to keep of a layer's activation ``(B, …)``: copies, made asynchronously on its device.

        Args:
            activation: as the module put it out, batch first.
            quantizer: sketches the rows; with ``None`` they are sketched as they are.
            channels: the channels of the samples chosen, from :meth:`channels`.
        """
        if activation.ndim == 0:
            raise ValueError("got a single number, not a batch (B, …): this module's output cannot be told by sample.")
        n = len(activation)
        rows = _picked(activation, self._reservoir.choose(n))
        raw = _picked(activation, self._raw_reservoir.choose(n)) if self.raw_samples else None
        if rows is None:
            return Chosen(raw=None if raw is None else _copied(raw, activation), channels=channels)
        folded = fold(rows if quantizer is None else quantizer.pooled(rows))
        head = may_be_head(rows) and (quantizer is None or quantizer.pool is None)
        return Chosen(
            _copied(folded, activation),
            None if raw is None else _copied(raw, activation),
            _copied(rows, activation) if head else None,
            channels,
        )

    def channels(
        self, layer: str, activation: Tensor, channels_first: bool | None, *, of_all: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The channels of a layer for companions, of the samples chosen and of all: copies, as from :meth:`choose`.

        Where they fail the companions lack the layer, and nothing else does.

        Args:
            layer: its name.
            activation: as the module put it out, batch first.
            channels_first: whether it is ``(B, C, …)``, as for :func:`~lightning_ib.capture.tokens.channel_means`.
            of_all: whether those of all samples are asked for.
        """
        if not self.channel_samples or layer in self._channel_faults or activation.ndim == 0:
            return None, None
        try:
            early = self._raw_reservoir.choose(len(activation))
            every = channel_means(activation, channels_first) if of_all else None
            some = _picked(activation if every is None else every, early)
            some = channel_means(some, channels_first) if every is None and some is not None else some
            if some is not None:  # averages of rounded values are rounded less
                n_places = activation.shape[1:].numel() / max(1, some.shape[1])
                self._rounding[layer] = rounding_of(activation.dtype) / max(1.0, n_places) ** 0.5
        except Exception as fault:  # a failing companion must leave the layer
            self._channel_faults[layer] = fault
            return None, None
        kept = (None if of is None or of.shape[1] > MOST_CHANNELS else _copied(of, activation) for of in (some, every))
        some, every = kept
        return some, every

    def keep(
        self,
        n: int,
        layers: Mapping[str, Chosen],
        others: Mapping[str, Tensor],
        head: Predictions | None,
        valid: Tensor | None = None,
        fingerprints: Callable[[Tensor], Tensor | None] | None = None,
    ) -> None:
        """Keep the chosen rows of a batch of ``n`` samples.

        Args:
            n: how many samples the batch has.
            layers: of each layer, from :meth:`choose`.
            others: the target, the input, …: whole variables ``(n, …)``, see :class:`Drawn`.
            head: of the layer that may be the head.
            valid: bool ``(n,)``: which samples count; all of them where it is left out.
            fingerprints: those of some rows of the input, where samples are to be recognized.
        """
        self._drawn = None
        chosen = self._reservoir.choose(n)
        named = {f"layer {layer}": one.rows for layer, one in layers.items() if one.rows is not None}
        named["place"] = torch.arange(n, device="cpu")[chosen]
        if len(chosen):
            for name, values in others.items():
                if name in _OF_INPUT and not self._input_fits:
                    continue
                picked = _picked(values, chosen)
                assert picked is not None
                if name == "sum of x":
                    named[name] = _sums(picked)
                    continue
                named[name] = _copied(fold(picked) if name == "x" else picked, values)
        sketched = [name for name in named if name == "x" or name.startswith("layer ")]
        named |= zip(sketched, project([named[name] for name in sketched]))
        if head is not None:
            named |= {"probabilities": head.rows, "predicted": head.classes}
        self._reservoir.keep(n, named, valid)
        if self.raw_samples or self.channel_samples:
            raw = {f"raw {layer}": one.raw for layer, one in layers.items() if one.raw is not None}
            raw |= {f"channels {layer}": one.channels for layer, one in layers.items() if one.channels is not None}
            early = self._raw_reservoir.choose(n)
            if fingerprints is not None and len(early) and (samples := fingerprints(early)) is not None:
                raw["samples"] = samples
            self._raw_reservoir.keep(n, raw, valid)

    def trim(self, n: int) -> None:
        """Drop the rows after the first ``n`` samples of this process."""
        self._drawn = None
        for reservoir in (self._rows, self._raw):
            if reservoir is not None:
                reservoir.trim(n)

    def drawn(self, *, shared: bool) -> Drawn:
        """The sample; with ``shared``, of all processes, each of which must call this. Fixed until the next batch."""
        if self._drawn is None or self._drawn_shared != shared:
            gather: Gather | None = all_gathered if shared else None
            rows = self._reservoir.drawn(gather)
            early = self._raw_reservoir.drawn(gather) if self.raw_samples or self.channel_samples else {}
            failed = {k: v for k, v in rows.items() if isinstance(v, Exception)}
            faults = {k.removeprefix("layer "): v for k, v in failed.items() if k.startswith("layer ")}
            sound = {k: v for k, v in rows.items() if isinstance(v, Tensor)}
            places = sound.pop("place", None)
            layers = {k.removeprefix("layer "): v for k, v in sound.items() if k.startswith("layer ")}
            self._drawn_shared = shared
            self._drawn = Drawn(
                layers,
                layers,
                _named("raw ", early, Tensor),
                faults,
                _named("raw ", early, Exception),
                {k: v for k, v in sound.items() if not k.startswith("layer ")},
                places,
                {k: v for k, v in failed.items() if not k.startswith("layer ")},
                _named("channels ", early, Tensor),
                self._channel_faults | _named("channels ", early, Exception),
                dict(self._rounding),
                samples if isinstance(samples := early.get("samples"), Tensor) else None,
            )
        return self._drawn

    def forget(self, layers: Sequence[str], *, head: bool) -> None:
        """Drop some layers, and the rows of the head if it is one of them."""
        names = [f"layer {layer}" for layer in layers] + ["probabilities", "predicted"] * head
        early = [f"{of} {layer}" for of in ("raw", "channels") for layer in layers]
        for reservoir, own in ((self._rows, names), (self._raw, early)):
            for name in own if reservoir is not None else ():
                reservoir.drop(name)  # type: ignore[union-attr]
        if self._drawn is not None:
            known: tuple[Any, ...] = (self._drawn.layers, self._drawn.raw, self._drawn.faults, self._drawn.raw_faults)
            for rows in (*known, self._drawn.channels, self._drawn.channel_faults):
                for layer in layers:
                    rows.pop(layer, None)

    def forget_target(self, target: str, *, head: bool) -> None:
        """Drop a target and, where the head was looked for by it, its predictions."""
        self._drawn = None
        names = [at_target(part, target) for part in ("y", "pooled y")] + ["probabilities", "predicted"] * head
        for name in names:
            self._reservoir.drop(name)

    def forget_input(self) -> None:
        """Drop the input, which does not come sample by sample."""
        self._input_fits, self._drawn = False, None
        for name in _OF_INPUT:
            self._reservoir.drop(name)

    @property
    def _reservoir(self) -> Reservoir:
        if self._rows is None:
            self._rows = Reservoir(self.max_samples, *this_process(), partial=self.partial)
        return self._rows

    @property
    def _raw_reservoir(self) -> Reservoir:
        if self._raw is None:
            size = max(self.raw_samples, self.channel_samples)
            self._raw = Reservoir(size, *this_process(), partial=self.partial)
        return self._raw


def _named(prefix: str, rows: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The rows, or faults, of a kind whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in rows.items() if k.startswith(prefix) and isinstance(v, kind)}


def _picked(values: Tensor, chosen: Tensor) -> Tensor | None:
    """The chosen rows: all of them as a view, an empty choice as ``None``."""
    if not len(chosen):
        return None
    if len(chosen) == len(values):
        return values.detach()
    return values.detach()[moved(chosen, values.device)]


def _sums(rows: Tensor) -> Tensor:
    """The sum of each row, float64 ``(m,)``: in the dtype of the rows, of half precision in float32."""
    narrow = rows.is_floating_point() and rows.dtype.itemsize < torch.float32.itemsize
    return rows.reshape(rows.shape[0], -1).sum(1, dtype=torch.float32 if narrow else None).double()


def _copied(rows: Tensor, source: Tensor) -> Tensor:
    """The rows, in memory of their own."""
    return rows.clone() if rows.untyped_storage().data_ptr() == source.untyped_storage().data_ptr() else rows
