"""Measuring a trained network once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lightning_ib.binning.quantizer import Quantizer
from lightning_ib.capture.batches import Unpack
from lightning_ib.estimators.base import Estimator
from lightning_ib.estimators.geometry import Companions, checked_companions
from lightning_ib.estimators.registry import Estimators
from lightning_ib.evaluation.loaders import checked_loader
from lightning_ib.evaluation.passes import call, measuring, run_pass, to, with_bar
from lightning_ib.functional import Correction, Unit
from lightning_ib.measurement.bounds import Bound
from lightning_ib.measurement.information_plane import MAX_SAMPLES, InformationPlane, Layers
from lightning_ib.measurement.targets import TargetOptions
from lightning_ib.records.history import History


def measure(  # noqa: D417 – the arguments of InformationPlane are documented there
    model: nn.Module,
    dataloader: Iterable[Any],
    layers: Layers = None,
    *,
    input: Quantizer | None = None,
    target: Quantizer | None = None,
    targets: TargetOptions | None = None,
    unpack: Unpack | None = None,
    unit: Unit = "bits",
    correction: Correction | None = None,
    n_permutations: int = 0,
    estimators: Estimators = (),
    companions: Companions = (),
    max_samples: int = MAX_SAMPLES,
    head: str | bool | None = None,
    ignore_index: int | None = None,
    tokens: bool = False,
    bound: Bound | Sequence[Bound] | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> History:
    """Measure a trained network once: eval mode, gradients off, and all state restored.

    Further arguments are those of :class:`InformationPlane`.

    Args:
        model: any module; it is called as ``model(x)``, or with the keywords that it takes where x is a mapping.
        dataloader: an iterable of batches.
        layers: names or patterns of modules, or a mapping from those to quantizers; ``None`` picks them.
        unpack: batch → (x, y), for batches with a target that is not recognized: see
            :func:`~lightning_ib.capture.batches.parts_of`; with ``tokens`` also → (x, y, mask).
        estimators: by name, such as ``["probe", "kde"]``, or as an :class:`~lightning_ib.estimators.Estimator`.
        companions: the geometry of each layer beside: ``"spectrum"`` and ``"classes"``, or ``"all"``.
        device: where to run; by default where the model's first parameter is. The model is moved back afterwards.
        progress: show tqdm bars over the batches and the estimators.

    Returns:
        A history of one measurement: a point for each layer, and ``estimates()``; of ``targets`` each has its own.

    Raises:
        TypeError: the data is a tensor, a data set or a mapping instead of an iterable of batches.
        ValueError: the data is empty, unpacking a batch failed, or an argument is out of its range.

    Example:
        >>> data = [(torch.rand(32, 4), torch.arange(32) % 4) for _ in range(8)]
        >>> points = measure(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), data, ["0", "2"])
        >>> [point.layer for point in points], points[0].n_samples
        (['0', '2'], 256)
    """
    checked_loader(dataloader)
    options: dict[str, Any] = {"input": input, "target": target, "targets": targets, "unit": unit}
    options |= {"correction": correction, "n_permutations": n_permutations, "estimators": estimators}
    options |= {"max_samples": max_samples, "head": head, "companions": checked_companions(companions, several=False)}
    plane = InformationPlane(layers, **options, ignore_index=ignore_index, tokens=tokens, bound=bound)
    with measuring(plane, model, dataloader, device) as away:
        # Its bar may already ask the loader for an iterator, which moves random states.
        batches: Any = with_bar(dataloader, "Information plane") if progress else dataloader
        run_pass(plane, batches, lambda parts: call(model, parts), unpack=unpack, move=lambda one: to(one, away))
        return plane.compute() + History(plane.estimate(progress=_with_bar if progress else list))


def _with_bar(pairs: Sequence[tuple[str, Estimator]]) -> Any:
    return with_bar(pairs, "Estimators")
