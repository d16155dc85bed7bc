"""How the values of a trained network depend on the resolution: pools, bins and samples.

For a continuous T the true I(X;T) is infinite (Amjad & Geiger 2019), and binning measures how T clusters at the chosen
resolution (Goldfeld et al. 2019). A reliable value changes little with the number of samples and lies far from both
ends: with few bins it follows the edges; with many every sample has a symbol of its own, H(T) = log N and
I(T;Y) = H(Y) for any network.

One pass is made over the data. The pooled values of all samples are held meanwhile: 4 bytes a sample and pooled
coordinate, added up over layers and pools (8 where a pool returns float64, or an activation is of integers), and while
a layer is counted its values a second time. A wide layer without a pool takes much: 60 000 samples of (16, 14, 14) are
750 MB. Edges are fitted on all samples, for every number of bins, which dominates the time.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ib.binning.bins import Bins, UniformBins
from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.binning.quantizer import Pool, Quantizer
from lightning_ib.capture.batches import Unpack
from lightning_ib.capture.layers import resolve_layers
from lightning_ib.evaluation.loaders import checked_loader
from lightning_ib.evaluation.passes import call, measuring, run_pass, to, with_bar
from lightning_ib.functional import Symbols, Unit, add_entropies, entropy_of_counts, joint_counts, symbols
from lightning_ib.functional.checks import checked_integer, logarithm
from lightning_ib.measurement.information_plane import InformationPlane
from lightning_ib.plot.resolution import plot_resolution
from lightning_ib.records.files import replacing
from lightning_ib.records.reliability import SATURATED
from lightning_ib.records.resolution import Resolution
from lightning_ib.warn_once import WarnOnce

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pools = Sequence[Pool | None] | Mapping[str, Pool | None]

# The seed of the order in which samples join a subset; it belongs to sweeps alone.
_SEED = 0
_LONGEST_LABEL = 32


@dataclass(frozen=True)
class ResolutionSweep:
    r"""The result of :func:`resolution_sweep`, as rows, a table, a CSV file and a picture.

    .. math:: H(T) \qquad I(T;Y) = H(T) + H(Y) - H(T,Y) \qquad H(T) / \log N

    for every layer, pool, number of bins and number of samples: plug-in entropies, those that
    :func:`~lightning_ib.measure` returns for the same quantizer on the same samples. Edges that were fitted on all
    samples hold for the smaller numbers of samples, too. Those are nested random subsets, the same for every setting,
    drawn from a random state of their own: they depend only on the position of a sample in the data. In another order
    of the data only the values of all samples stay the same to the last bit.

    Attributes:
        rows: a :class:`Resolution` for every layer, pool, number of bins and number of samples, in this order; bins
            and samples ascend.

    Example:
        Two fair bits, the first of them the label. Two bins show both, and more bins find nothing more; of their mean
        two bins show less than there is.

        >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(16, 1)
        >>> sweep = resolution_sweep(
        ...     nn.Sequential(nn.Identity()), [(x, x[:, 0].long())], ["0"], n_bins=(2, 4), n_samples=[64],
        ...     pools={"all": None, "mean": lambda z: z.mean(1)},
        ... )
        >>> print(sweep.table())
          bins         N     H(T)   I(T;Y)     H(Y)  H(T)/log N    symbols  seen once
                           bits     bits     bits
        0 (pool: all)
             2        64    2.000    1.000    1.000      0.33            4       0.00
             4        64    2.000    1.000    1.000      0.33            4       0.00
        0 (pool: mean)
             2        64    0.811    0.311    1.000      0.14            2       0.00
             4        64    1.500    0.500    1.000      0.25            3       0.00
    """

    rows: list[Resolution] = field(repr=False)

    def table(self) -> str:
        """The rows as text, a block for every layer and pool; ``*`` marks saturated rows, H(T) above 0.9 log N."""
        unit = self.rows[0].unit
        lines = [
            "  bins         N     H(T)   I(T;Y)     H(Y)  H(T)/log N    symbols  seen once",
            f"                {unit:>7}  {unit:>7}  {unit:>7}",
        ]
        for (layer, pool), rows in groupby(self.rows, lambda row: (row.layer, row.pool)):
            lines.append(f"{layer} (pool: {pool})")
            for row in rows:
                mark = "*" if row.saturation > SATURATED else " "
                lines.append(
                    f"  {row.n_bins:4}  {row.n_samples:8}  {row.h_t:7.3f}  {row.i_ty:7.3f}  {row.h_y:7.3f}  "
                    f"{row.saturation:8.2f} {mark}  {row.n_codes:9}  {row.singleton_fraction:9.2f}"
                )
        if any(row.saturation > SATURATED for row in self.rows):
            note = f"* saturated: H(T) > {SATURATED} log N. Such values tell the samples apart, not what was learned."
            lines += ["", note]
        return "\n".join(lines)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows, every value to the last bit, replacing the file as a whole.

        Raises:
            OSError: writing failed; an older file is left as it was.
        """
        with replacing(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Resolution._fields)
            writer.writerows(self.rows)

    def plot(self) -> Figure:
        """Draw H(T) and I(T;Y) of every layer against the number of bins: see :func:`plot_resolution`.

        Raises:
            ValueError: all rows are NaN.
        """
        return plot_resolution(self.rows)


def between_quantiles(n_bins: int) -> UniformBins:
    """The bins of a sweep by default: equal widths between the 1 % and the 99 % quantile of every coordinate."""
    return UniformBins(n_bins, quantiles=(0.01, 0.99))


def resolution_sweep(
    model: nn.Module,
    dataloader: Iterable[Any],
    layers: Sequence[str] | None = None,
    *,
    n_bins: Sequence[int] = (2, 3, 5, 10, 30),
    pools: Pools | Mapping[str, Pools] = (None,),
    n_samples: Sequence[int] | None = None,
    target: Quantizer | None = None,
    unpack: Unpack | None = None,
    ignore_index: int | None = None,
    unit: Unit = "bits",
    device: torch.device | str | None = None,
    bins: Callable[[int], Bins] = between_quantiles,
    progress: bool = False,
) -> ResolutionSweep:
    r"""Measure a trained network once at many resolutions, to see how far its values depend on the resolution.

    The state of the model is restored. :class:`ResolutionSweep` defines the values and has an example; the module
    docstring explains how to read them, and the memory needed.

    Args:
        model: any module; it is called as ``model(x)``, or with the keywords that it takes where x is a mapping.
        dataloader: an iterable of batches.
        layers: names of modules or glob patterns; ``None`` picks, see :class:`~lightning_ib.InformationPlane`.
        n_bins: numbers of bins a coordinate.
        pools: callables on the activation (B, …), or ``None`` for every coordinate; or a mapping from labels to those;
            or a mapping from layers (names or patterns) to either.
        n_samples: numbers of samples; by default N/16, N/8, N/4, N/2 and N, all samples.
        target: ``None`` for class labels ``(B,)``; a :class:`~lightning_ib.Quantizer` for real values, its edges fitted
            on all samples.
        unpack: batch → (x, y), for batches of another form. Where y is ``None``, I(T;Y) is NaN.
        ignore_index: rows with this label are left out.
        unit: ``"bits"`` or ``"nats"``.
        device: where to run; by default where the model's first parameter is. The model is moved back afterwards.
        bins: number of bins → :class:`~lightning_ib.Bins`, such as ``QuantileBins``.
        progress: show a tqdm bar over the batches, and one over the settings that are counted.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is wrong, a pool mismatches a layer, the data is empty or has fewer samples than
            ``n_samples`` asks for, or unpacking a batch failed.
    """
    if layers is not None and isinstance(layers, Mapping):
        raise TypeError("layers must be a list of module names or None, got a mapping: give pools and n_bins instead.")
    checked_loader(dataloader)
    binnings, by_layer = _binnings(n_bins, bins), _by_layer(pools)
    sizes = None if n_samples is None else _ascending(n_samples, "n_samples")
    plane = InformationPlane(layers, target=target, unit=unit, ignore_index=ignore_index)
    with measuring(plane, model, dataloader, device) as away:
        _pool(plane, by_layer, model)
        batches = with_bar(dataloader, "Pass over the data") if progress else dataloader
        run_pass(plane, batches, lambda parts: call(model, parts), unpack=unpack, move=lambda one: to(one, away))
        rows: Iterable[list[Resolution]] = _resolutions(plane, binnings, sizes)
        if progress:
            rows = with_bar(
                rows, "Resolutions", len(binnings) * sum(len(one.quantizers) for one in _pools_of(plane).values())
            )
        return ResolutionSweep([row for of_one in rows for row in of_one])


class _ConcatenatedPools:
    """Several pools of one layer as one: their coordinates beside one another, so that one hook serves them all."""

    def __init__(self, pools: Mapping[str, Pool | None]) -> None:
        self.quantizers = {label: Quantizer(pool) for label, pool in pools.items()}
        self.widths: list[int] = []

    def __call__(self, activation: Tensor) -> Tensor:
        pooled = []
        for label, quantizer in self.quantizers.items():
            try:
                pooled.append(quantizer.pooled(activation))
            except Exception as error:  # a pool is the user's, and may raise anything
                raise ValueError(
                    f"the pool {label!r} does not fit its output of shape {tuple(activation.shape)}: "
                    f"{str(error).rstrip('.')}. Give the layers pools of their own: pools={{layer: [pool, …], …}}."
                ) from error
        self.widths = [z.shape[1] for z in pooled]
        return torch.cat(pooled, dim=1)

    def split(self, z: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The values of every pool again, by its label."""
        return zip(self.quantizers, torch.split(z, self.widths, dim=1))


def _pool(plane: InformationPlane, by_layer: Mapping[str | None, dict[str, Pool | None]], model: nn.Module) -> None:
    """Pool the layers of a plane that is attached, and have it hold the pooled values."""
    if None in by_layer:  # of layers that may still be left out, too
        pools = dict.fromkeys(plane.quantizers, by_layer[None])
    else:
        pools = _assigned(by_layer, model, plane.layers)
        plane.keep_layers(plane.layers)
    plane.use_quantizers({layer: Quantizer(_ConcatenatedPools(own)) for layer, own in pools.items()})


def _pools_of(plane: InformationPlane) -> dict[str, _ConcatenatedPools]:
    """Layer → its pools."""
    pools = {layer: fitted.quantizer.pool for layer, fitted in plane.fitted_quantizers.items()}
    return {layer: pool for layer, pool in pools.items() if isinstance(pool, _ConcatenatedPools)}


def _resolutions(
    plane: InformationPlane, binnings: Mapping[int, Bins], sizes: Sequence[int] | None
) -> Iterator[list[Resolution]]:
    """The rows of every layer, pool and number of bins; a layer's pooled values are freed once it is counted."""
    n, pools, order, warned = plane.n_seen, _pools_of(plane), torch.empty(0), WarnOnce()
    sizes, y, targets = _checked_sizes(sizes, n), plane.target_symbols(), dict[int, _Target]()
    if y is not None and len(y.counts) == 1:
        warned.warn(
            "one class",
            f"all {n} samples have the same target: H(Y) is 0 and I(T;Y) says nothing, so it is NaN. Measure on data "
            "with several classes.",
        )
    for layer, z in plane.waiting_values():
        if not targets:
            order = sample_order(n, z.device)
            targets = {size: _target_of(y, order[:size], plane.unit) for size in sizes}
        for pool, own in pools[layer].split(z):
            missing = int((~own.isfinite().all(1)).sum())
            if missing:
                warned.warn(
                    f"{layer} {pool}",
                    f"layer {layer!r} with the pool {pool!r} gave NaN or infinite values in {missing} of {n} samples: "
                    "its values are NaN.",
                )
            for n_bins, bins in binnings.items():
                ids = None if missing else _ids(own, bins, layer)
                yield [
                    Resolution(
                        layer,
                        pool,
                        n_bins,
                        size,
                        *target.summary(None if ids is None else ids[order[:size]], size, plane.unit),
                        plane.unit,
                    )
                    for size, target in targets.items()
                ]


def _target_of(y: Symbols | None, chosen: Tensor, unit: Unit) -> _Target:
    own = None if y is None else symbols(y.numbers[chosen])
    return _Target(own, math.nan if own is None else entropy_of_counts(own.counts, unit=unit))


class _Target(NamedTuple):
    """Y over a subset of the samples."""

    symbols: Symbols | None
    entropy: float

    def summary(self, ids: Tensor | None, n: int, unit: Unit) -> tuple[float, float, float, float, int, float]:
        """The fields of :class:`Resolution` between the number of samples and the unit."""
        if ids is None:
            return math.nan, math.nan, self.entropy, math.nan, 0, math.nan
        t = symbols(ids)
        h_t, i_ty = entropy_of_counts(t.counts, unit=unit), math.nan
        if self.symbols is not None and len(self.symbols.counts) > 1:
            i_ty = add_entropies(h_t, self.entropy, -entropy_of_counts(joint_counts(t, self.symbols), unit=unit))
        n_codes, n_once = len(t.counts), int((t.counts == 1).sum())
        return h_t, i_ty, self.entropy, h_t / logarithm(unit)(n) if n > 1 else math.nan, n_codes, n_once / n


def sample_order(n: int, device: torch.device | str | None = None) -> Tensor:
    """The order in which samples join a sweep's subsets: the first k of it are the subset of k samples.

    Args:
        n: how many samples there are.
        device: where the order shall live; it is the same on every device.

    Returns:
        int64, shape ``(n,)``: a random permutation, always the same for the same n.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(_SEED)).to(device)


def _ids(z: Tensor, bins: Bins, layer: str) -> Tensor:
    fitted = FittedQuantizer(Quantizer(None, bins))
    try:
        fitted.fit(z)
    except ValueError as error:
        raise ValueError(f"layer {layer!r} cannot be put into bins: {error}") from error
    return fitted.discretize_held(z).ids


def _checked_sizes(sizes: Sequence[int] | None, n: int) -> list[int]:
    if n == 0:
        raise ValueError("nothing was counted: no batch was seen. Is the data empty?")
    if sizes is None:
        return sorted({k for k in (n // 16, n // 8, n // 4, n // 2) if k >= 2} | {n})
    if sizes[-1] > n:
        raise ValueError(f"n_samples asks for {sizes[-1]} samples, and the data has {n}: ask for at most {n}.")
    return list(sizes)


def _ascending(numbers: Any, name: str) -> list[int]:
    """Integers of at least 2, each once, the least first.

    Raises:
        TypeError: they are something else than a sequence.
        ValueError: the sequence is empty, or an integer is below 2.
    """
    if isinstance(numbers, (str, Mapping)) or not isinstance(numbers, Iterable):
        hint = f" Did you mean [{numbers!r}]?" if isinstance(numbers, Integral) else ""
        raise TypeError(f"{name} must be a list of integers, got {numbers!r}.{hint}")
    numbers = list(numbers)
    if not numbers:
        raise ValueError(f"{name} is empty: give at least one integer.")
    return sorted({checked_integer(n, f"each of {name}", at_least=2) for n in numbers})


def _binnings(n_bins: Any, bins: Any) -> dict[int, Bins]:
    numbers = _ascending(n_bins, "n_bins")
    if not callable(bins):
        raise TypeError(f"bins must be a callable from a number of bins to Bins, such as QuantileBins, got {bins!r}.")
    binnings = {n: bins(n) for n in numbers}
    for n, made in binnings.items():
        if not isinstance(made, Bins):
            raise TypeError(f"bins({n}) must return Bins such as QuantileBins({n}), got {made!r}.")
    return binnings


def _by_layer(pools: Any) -> dict[str | None, dict[str, Pool | None]]:
    """``pools``, labeled: by the layer they are for, or under ``None`` for all layers."""
    several = (list, tuple, Mapping)
    if isinstance(pools, Mapping) and any(isinstance(own, several) for own in pools.values()):
        for layer in pools:
            if not isinstance(layer, str):
                raise TypeError(f"pools must name layers by strings as in named_modules(), got {layer!r}.")
        return {layer: _labeled(own, f"pools[{layer!r}]") for layer, own in pools.items()}
    return {None: _labeled(pools, "pools")}


def _labeled(pools: Any, name: str) -> dict[str, Pool | None]:
    if not isinstance(pools, (list, tuple, Mapping)):
        hint = f" Did you mean [{_label(pools)}]?" if callable(pools) or pools is None else ""
        raise TypeError(f"{name} must be a list of pools or a mapping from labels to pools, got {pools!r}.{hint}")
    if not pools:
        raise ValueError(f"{name} is empty: give at least one pool, or None for every coordinate.")
    labeled: dict[str, Pool | None] = {}
    for label, pool in pools.items() if isinstance(pools, Mapping) else [(_label(pool), pool) for pool in pools]:
        if not isinstance(label, str):
            raise TypeError(f"{name} must have strings for labels, got {label!r}.")
        if pool is not None and not callable(pool):
            raise TypeError(f"{name} must hold callables on (B, …) or None, got {pool!r}.")
        if label in labeled:
            raise ValueError(f"{name} has two pools that are called {label!r}: give a mapping from labels to pools.")
        labeled[label] = pool
    return labeled


def _label(pool: Any) -> str:
    if pool is None:
        return "none"
    name = getattr(pool, "__name__", None) or repr(pool)
    return name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "…"


def _assigned(
    by_layer: Mapping[str | None, dict[str, Pool | None]], model: nn.Module, layers: Sequence[str]
) -> dict[str, dict[str, Pool | None]]:
    """The pools of every layer.

    Raises:
        ValueError: a layer lacks pools, or there are pools for a layer that is not measured.
    """
    if None in by_layer:
        return dict.fromkeys(layers, by_layer[None])
    own = {layer: by for layer, by in resolve_layers(model, map(str, by_layer)).items() if layer in layers}
    idle = [layer for layer in by_layer if layer not in own.values()]
    if idle:
        raise ValueError(f"pools names {idle[0]!r}, which is none of the layers {list(layers)}.")
    lacking = [layer for layer in layers if layer not in own]
    if lacking:
        raise ValueError(f"pools has none for the layer {lacking[0]!r}: give it a list, [None] for every coordinate.")
    return {layer: by_layer[own[layer]] for layer in layers}
