"""The sampled rows of the layers in TensorBoard's projector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from lightning_ib.estimators.base import Rows
from lightning_ib.functional.continuous.principal_components import principal_components
from lightning_ib.warn_once import WarnOnce

MOST_ROWS = 1000
"""How many rows of a layer the projector gets: its own t-SNE and UMAP, in the browser, are quick on as many."""


def first_rows(layers: Mapping[str, Rows], n: int = MOST_ROWS) -> dict[str, Rows]:
    """At most ``n`` rows of each layer, the same samples of each, held apart from the others."""
    return {
        layer: Rows(rows.t[:n].clone(), None if rows.y is None else rows.y[:n].clone())
        for layer, rows in layers.items()
    }


def is_projected(n: int) -> bool:
    """Whether the n-th measurement of a run, from 0, goes to the projector: 0, 1, 2, 4, 8, …, 256, ten at most.

    A table for each of a thousand epochs would be too much, and rows move most in early epochs.
    """
    return n <= 256 and n & (n - 1) == 0


def log_rows(loggers: Iterable[Any], prefix: str, layers: Mapping[str, Rows], step: int, warned: WarnOnce) -> None:
    """Hand at most 1 000 rows of each layer, with their labels, to every logger that has TensorBoard's projector.

    Of layers with more than 50 coordinates the first 50 principal components are shown, with four digits: a layer
    takes at most 0.5 MB.
    """
    for logger in loggers:
        add_embedding = getattr(getattr(logger, "experiment", None), "add_embedding", None)
        if not callable(add_embedding):
            continue
        with warned.on_error(f"{type(logger).__name__} could not log the projector"):
            for layer, rows in first_rows(layers).items():
                labels = None if rows.labels is None else [str(label) for label in rows.labels.flatten().tolist()]
                add_embedding(
                    _four_digits(principal_components(rows.t)),
                    metadata=labels,
                    global_step=step,
                    tag=f"{prefix}/{layer}",
                )


def _four_digits(z: Tensor) -> Tensor:
    """Numbers to a ten-thousandth of the power of ten above the largest: the table they are written to is text."""
    largest = float(z.abs().max()) if z.numel() else 0.0
    return z.round(decimals=min(300, 3 - math.floor(math.log10(largest)))) if largest else z
