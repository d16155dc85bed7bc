"""The one kind of result: a value of one quantity, of one layer, at one moment of training."""

from __future__ import annotations

import math
from typing import NamedTuple

STANDARD_ERRORS = 2
"""How many of them a bar or a band reaches to either side, wherever one is drawn or logged."""

COUNTED = ("cells", "binned")
"""The sources that count symbols; every other source is an estimator."""

IN_WORDS = {"cells": "cells", "binned": "bins"}
"""Counted source → the word for its symbols."""

GRADIENT = "gradient"
"""The source of what the gradients and the weights of a layer say, without any information in it."""

VARIATIONAL = "variational"
"""The source of the bounds that a stochastic layer gives of itself: its rate, and H(Y) less the cross-entropy."""

COMPANIONS = ("spectrum", "classes", "drift")
"""The sources of the geometry of a layer."""

ALL_LAYERS = "all_layers"
"""The layer under whose name the gradients of all watched weights are recorded as a whole, where there are several."""

OF_CLASSES = (
    *("within_variance", "between_variance", "nc1", "cdnv"),
    *("class_mean_cosine", "class_mean_cosine_std", "etf_distance", "n_classes", "smallest_class"),
)
"""The quantities of the companion about classes, in the order in which they are recorded."""

GRADIENT_QUANTITIES = (
    *("grad_mean", "grad_std", "grad_snr", "grad_snr_unbiased", "grad_snr_floor"),
    *("noise_scale", "weight_norm", "weight_distance"),
)
"""The quantities of that source, in the order in which they are recorded."""

UNITLESS = (
    *GRADIENT_QUANTITIES,
    "saturation",
    "singleton_fraction",
    "clipped_fraction",
    "explained_variance",
    "n_codes",
    "noise_variance",
    "kernel_width",
    "error_heuristic",
)
"""Dimensionless quantities; names that end in ``accuracy`` are so, too."""


class Record(NamedTuple):
    """A value of one quantity, of one layer, at one moment of training.

    Attributes:
        epoch: the number of epochs of training that came before; 0 is the measurement before training.
        step: the number of optimizer steps that came before.
        layer: the name of the module, as in ``named_modules()``.
        source: how the value was obtained: ``"cells"`` or ``"binned"`` for counted symbols, else the name of the
            estimator, such as ``"probe"`` or ``"kde"``.
        quantity: such as ``"I_XT"``, ``"I_TY"``, ``"H_T"``, ``"I_TY_lower"`` or ``"accuracy"``.
        value: the value; NaN where it is missing.
        standard_error: its standard error, in the same unit; NaN where it is unknown.
        unit: ``"bits"``, ``"nats"``, or empty for a dimensionless quantity.
        n_samples: the number of samples behind it.
        verdict: the reliability flag, such as ``"ok"`` or ``"saturated"`` (see
            :func:`~lightning_ib.records.reliability.verdict` and
            :func:`~lightning_ib.estimators.reliability.estimate_verdict`), or empty.
        correction: of plug-in entropies, such as ``"miller_madow"``; empty for plug-in values and estimators.
        target: the name of the target that the value is about, where several were measured in one pass; empty for a
            single target, and for values about none, such as H(T).
    """

    epoch: int
    step: int
    layer: str
    source: str
    quantity: str
    value: float
    standard_error: float = math.nan
    unit: str = ""
    n_samples: int = 0
    verdict: str = ""
    correction: str = ""
    target: str = ""


ABOUT_TARGET = ("I_TY", "H_Y", "I_XT_given_Y", "accuracy", "fano", "IB")
"""The beginnings of the names of quantities that involve the target; with several targets each has its own."""


def is_about_target(quantity: str) -> bool:
    """Whether a quantity involves the target, by its name.

    Example:
        >>> [is_about_target(quantity) for quantity in ("I_TY_permuted", "H_Y_given_T", "nc1", "I_XT", "H_T")]
        [True, True, True, False, False]
    """
    return quantity.startswith(ABOUT_TARGET) or quantity in OF_CLASSES


def unit_of(quantity: str, unit: str) -> str:
    """The unit of a quantity: ``unit`` for an information or an entropy, empty for fractions, counts and widths."""
    return "" if quantity.endswith("accuracy") or quantity in UNITLESS else unit
