"""Discretize a representation: into cells that follow the data, or into bins of every pooled coordinate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ib.binning.bins import Bins, UniformBins, checked_edges
from lightning_ib.capture.outputs import Select, first_tensor, selected
from lightning_ib.functional.checks import checked_callable, checked_integer
from lightning_ib.functional.discretize.cells import MAX_CELLS
from lightning_ib.functional.discretize.pooling import max_pool
from lightning_ib.functional.discretize.sketch import real, sketch

Pool = Callable[[Tensor], Tensor]


class _Pooling:
    """A tensor taken out of an output, and pooled: the part common to all quantizers."""

    def __init__(self, pool: nn.Module | Pool | None, select: Select | None) -> None:
        owner = type(self).__name__
        checked_callable(pool, f"{owner}: pool", "(B, …)")
        checked_callable(select, f"{owner}: select", "the module's output")
        self.pool, self.select = pool, select
        self._in_place: bool | None = None

    def selected(self, value: Any) -> Tensor:
        """The tensor ``(B, …)`` to measure, of an output or an input.

        Args:
            value: the output or input.

        Raises:
            ValueError: it holds no tensor, or ``select`` returned something else.
        """
        return first_tensor(value) if self.select is None else selected(value, self.select)

    def pooled(self, activation: Tensor) -> Tensor:
        """The coordinates of every sample, pooled.

        Args:
            activation: ``(B, …)``, any real dtype.

        Returns:
            ``(B, D)``, float32 or float64, detached; it may share the memory of ``activation``.

        Raises:
            ValueError: the batch dimension is missing or lost by the pool, or a sample has no coordinates.
        """
        z = activation.detach()
        if z.ndim == 0:
            raise ValueError("got a single number, not a batch (B, …): this module's output cannot be told by sample.")
        if self.pool is None:
            z = real(z)
        else:
            n = len(z)
            device = z.device.type
            autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
            with autocast:
                z = self._pool(z if z.is_complex() else real(z))
            if not isinstance(z, Tensor) or z.ndim == 0 or len(z) != n:
                raise ValueError(
                    f"the pool {_named(self.pool)} must return a tensor with the batch first, ({n}, …), got "
                    f"{tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__}."
                )
            z = real(z)
        z = z.flatten(1) if z.ndim > 1 else z.unsqueeze(1)
        if z.shape[1] == 0:
            raise ValueError(f"a sample has no coordinates, in a batch of shape {tuple(activation.shape)}.")
        return z

    def _pool(self, z: Tensor) -> Any:
        """Pool, and leave ``z``, which the model still uses, as it was: a pool that works in place gets a copy."""
        assert self.pool is not None
        if (window := _window(self.pool, z)) is not None:
            return max_pool(z, window)
        if self._in_place is None:  # the first call is made on a copy, and watched
            with torch.inference_mode(False), torch.no_grad():
                copy = z.clone()
                before = copy._version
                pooled = self.pool(copy)
                self._in_place = copy._version != before
                return pooled
        return self.pool(z.clone() if self._in_place else z)

    def _shown_select(self) -> str:
        return "" if self.select is None else f", select={_named(self.select)}"


class CellQuantizer(_Pooling):
    """Cut a layer into at most 256 cells that follow the data, fitted anew at every measurement: the default.

    Each sample is kept as a sketch of at most 128 numbers (:func:`~lightning_ib.functional.sketch`), on a uniform
    sample of bounded size, and the sketches are cut into cells (:func:`~lightning_ib.functional.cells`). A point is a
    function of the activations of its epoch alone: free of frozen edges and of clipping, and invariant to the scale and
    the offset of the layer. H(T) falls where the layer gathers its samples into few clusters.

    Cells follow the directions of large variance and miss information in the others: compare the probe.

    Args:
        max_cells: the largest number of cells, at least 2; few samples have fewer, about one for 50
            (:func:`~lightning_ib.functional.cell_limit`).
        pool: any callable on the activation ``(B, …)`` that keeps the samples apart; ``None`` takes all of it.
        select: takes the tensor, batch first, out of the module's raw output; ``None`` takes the first one.

    Raises:
        TypeError: ``pool`` or ``select`` is of another kind than a callable, or ``max_cells`` than an integer.
        ValueError: ``max_cells`` is below 2.

    Example:
        >>> CellQuantizer(64).rows(torch.rand(8, 16, 28, 28)).shape
        torch.Size([8, 128])
    """

    def __init__(
        self,
        max_cells: int = MAX_CELLS,
        *,
        pool: nn.Module | Pool | None = None,
        select: Select | None = None,
    ) -> None:
        super().__init__(pool, select)
        self.max_cells = checked_integer(max_cells, "CellQuantizer: max_cells", at_least=2)

    def rows(self, activation: Tensor) -> Tensor:
        """The sketched rows of a batch: ``(B, …)`` to ``(B, D)``, D at most 128; see :meth:`pooled` for errors.

        Args:
            activation: ``(B, …)``, any real dtype.
        """
        return sketch(self.pooled(activation))

    def __repr__(self) -> str:
        pool = "" if self.pool is None else f", pool={_named(self.pool)}"
        return f"CellQuantizer({self.max_cells}{pool}{self._shown_select()})"


class Quantizer(_Pooling):
    """Pool a variable to few coordinates, put each into bins; the row of bin numbers is the symbol of a sample.

    Every sample of the pass is counted. Too fine, and every sample has a symbol of its own: H(T) = log N,
    I(T;Y) = H(Y), at any state of the network. Too coarse, and the values follow the edges instead of the network. See
    ``saturation`` beside each value.

    Args:
        pool: any callable or ``nn.Module`` on the activation ``(B, …)`` that keeps the samples apart and returns
            ``(B, …)``; ``None`` keeps every coordinate. Half precision arrives as float32, integers as float64.
        bins: where the edges lie; by default 30 bins of equal width a coordinate.
        select: takes the tensor to discretize out of an output (of an input, where X is discretized): any callable on
            it, as returned by the module, to a tensor with the batch first. ``None`` takes the first tensor of a
            tuple, list or mapping, and puts the batch first where a module of PyTorch says ``batch_first=False``.

    Raises:
        TypeError: ``pool`` or ``select`` is of another kind than a callable, or ``bins`` than :class:`Bins`.

    Example:
        The input of the thesis' experiments on MNIST: 7 × 7 coordinates, two edges.

        >>> from lightning_ib import FixedBins
        >>> Quantizer(torch.nn.MaxPool2d(4), FixedBins([0.0, 0.5])).pooled(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 49])
    """

    def __init__(
        self, pool: nn.Module | Pool | None = None, bins: Bins | None = None, *, select: Select | None = None
    ) -> None:
        super().__init__(pool, select)
        if bins is not None and not isinstance(bins, Bins):
            raise TypeError(f"Quantizer: bins must be Bins such as FixedBins([0.0, 0.5]), got {bins!r}.")
        self.bins = UniformBins(30) if bins is None else bins

    def fit(self, z: Tensor) -> Tensor:
        """The edges for the pooled values of all samples.

        Args:
            z: shape ``(N, D)``.

        Raises:
            ValueError: the bins gave edges that are NaN or infinite, descend, or have another shape.
        """
        return checked_edges(self.bins.edges(z), type(self.bins).__name__, z.shape[1]).to(z.device)

    def __repr__(self) -> str:
        return f"Quantizer(pool={_named(self.pool)}, bins={self.bins!r}{self._shown_select()})"


_MAX_POOLS: dict[type, int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}


def _window(pool: nn.Module | Pool, z: Tensor) -> tuple[int, ...] | None:
    """The window of a plain max-pool that :func:`max_pool` works out faster, to the same values; else ``None``."""
    n_axes = _MAX_POOLS.get(type(pool))
    if n_axes is None or z.device.type != "cpu" or z.ndim not in (n_axes + 1, n_axes + 2) or z.is_complex():
        return None
    assert isinstance(pool, (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d))
    if pool.return_indices or pool.ceil_mode or pool._forward_hooks or pool._forward_pre_hooks:
        return None
    window, stride, padding, dilation = (
        (one,) * n_axes if isinstance(one, int) else tuple(one)
        for one in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    plain = stride == window and not any(padding) and all(step == 1 for step in dilation)
    fits = len(window) == n_axes and all(0 < k <= n for k, n in zip(window, z.shape[-n_axes:]))
    return window if plain and fits and 0 not in z.shape else None


def _named(function: Pool | Select | None) -> str:
    return getattr(function, "__name__", None) or repr(function)
