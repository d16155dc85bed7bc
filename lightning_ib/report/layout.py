"""The layout of TensorBoard's custom scalars."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_ib.records.record import GRADIENT, STANDARD_ERRORS, is_about_target, unit_of
from lightning_ib.records.tags import format_tag
from lightning_ib.warn_once import WarnOnce

CHARTS = {
    "I(X;T)": "I_XT",
    "I(T;Y)": "I_TY",
    "H(T)": "H_T",
    "H(T)/log N": "saturation",
    "I(T;Y) under permuted labels": "I_TY_permuted",
    "samples whose symbol was seen once": "singleton_fraction",
    "values outside the bins": "clipped_fraction",
}

OF_BOUNDS = {
    "I(T;Y) below the information-bottleneck bound": "I_TY_gap",
    "I(X;T) off by at most (finite sample, 95 %)": "I_XT_finite_sample",
    "I(T;Y) off by at most (finite sample, 95 %)": "I_TY_finite_sample",
    "generalization error by input compression (a heuristic)": "error_heuristic",
}

OF_GRADIENTS = {
    "gradients: signal-to-noise ratio": "grad_snr",
    "the same without any signal": "grad_snr_floor",
    "norm of the mean gradient": "grad_mean",
    "spread of the gradients": "grad_std",
    "noise scale, in samples": "noise_scale",
    "norm of the weights": "weight_norm",
    "distance of the weights from the start": "weight_distance",
}

_ENDS = ("", "_lower", "_upper")
_WITH_BANDS = {"I(X;T)": "I_XT", "I(T;Y)": "I_TY", "H(T)": "H_T"}


def log_layout(
    loggers: Iterable[Any],
    prefix: str,
    unit: str,
    beta: float | None = None,
    *,
    layers: Iterable[str] = (),
    binned: bool = True,
    bounds: Mapping[str, Sequence[str]] | None = None,
    estimators: Mapping[str, Mapping[str, str]] | None = None,
    gradients: bool = False,
    warned: WarnOnce,
) -> None:
    """Lay out TensorBoard's custom scalars. Once a writer.

    All layers on one chart, a chart for each quantity; the bands of two standard errors, a chart for each quantity and
    layer (TensorBoard draws one band a chart); and a chart for each value of each estimator. TensorBoard puts the
    layouts of all runs of a folder together and shows every chart of every run that has its names: a chart with a unit
    in its title therefore shows names that hold the unit.

    Args:
        loggers: those of the Trainer.
        prefix: the first part of every name.
        unit: of the informations.
        beta: if set, the information-bottleneck functional has a chart.
        layers: the layers that get bands.
        binned: whether a layer is counted in bins, so that there is a chart of the clipped fraction.
        bounds: target → the quantities of bounds that are recorded, of each target that is measured; a single one has
            an empty name.
        estimators: the name of each estimator, and its quantities with their units.
        gradients: whether gradients are recorded beside.
        warned: issues each warning once.
    """
    charts = CHARTS | ({"I(X;T) − β I(T;Y)": "IB"} if beta is not None else {})
    charts = {of: quantity for of, quantity in charts.items() if binned or quantity != "clipped_fraction"}
    about = dict(bounds or {"": ()})
    charts |= {of: name for of, name in OF_BOUNDS.items() if any(name in of_target for of_target in about.values())}
    named = {
        f"{one}: {name}": (name, in_unit, one) for one, of in (estimators or {}).items() for name, in_unit in of.items()
    }
    first = dict(
        _chart(prefix, of, quantity, unit_of(quantity, unit), target)
        for of, quantity in charts.items()
        for target in _targets_of(quantity, about)
    )
    bands = _bands(prefix, unit, list(layers), list(about))
    others = dict(
        _chart(prefix, of, quantity, in_unit, target, one)
        for of, (quantity, in_unit, one) in named.items()
        for target in _targets_of(quantity, about)
    )
    title = f"Information plane ({prefix})"
    layout = {
        title: first,
        f"{title}: ± {STANDARD_ERRORS} standard errors": bands,
        f"{title}: other estimators": others,
    }
    layout = {of: content for of, content in layout.items() if content}
    _hand_out(loggers, layout | (_gradient_charts(prefix) if gradients else {}), warned)


def _chart(
    prefix: str, of: str, quantity: str, in_unit: str, target: str, estimator: str = ""
) -> tuple[str, list[Any]]:
    """Title and content of a chart: with a unit it selects the values of the runs in that unit."""
    name = re.escape(format_tag(prefix, quantity, "", source=estimator, unit=in_unit, target=target))
    of = _titled(of, target)
    return f"{of} [{in_unit}]" if in_unit else of, ["Multiline", [f"^{name}/.+"]]


def _bands(prefix: str, unit: str, layers: Sequence[str], targets: Sequence[str]) -> dict[str, list[Any]]:
    """A chart of each quantity, target and layer with its standard errors."""
    return {
        f"{_titled(of, target)} [{unit}]: {layer}": [
            "Margin",
            [format_tag(prefix, f"{quantity}{end}", layer, unit=unit, target=target) for end in _ENDS],
        ]
        for of, quantity in _WITH_BANDS.items()
        for target in (targets if is_about_target(quantity) else [""])
        for layer in layers
    }


def _titled(of: str, target: str) -> str:
    return f"{of}, {target}" if target else of


def _targets_of(quantity: str, about: Mapping[str, Sequence[str]]) -> list[str]:
    """The targets that a quantity has a chart for: those with such a bound, where it is one."""
    own = [target for target, bounds in about.items() if quantity in bounds or quantity not in OF_BOUNDS.values()]
    return own if is_about_target(quantity) else [""]


def log_gradient_layout(loggers: Iterable[Any], prefix: str, warned: WarnOnce) -> None:
    """Lay out TensorBoard's custom scalars for gradients alone: a chart for each quantity."""
    _hand_out(loggers, _gradient_charts(prefix), warned)


def _gradient_charts(prefix: str) -> dict[str, dict[str, list[Any]]]:
    names = {of: re.escape(format_tag(prefix, quantity, "", source=GRADIENT)) for of, quantity in OF_GRADIENTS.items()}
    return {f"Gradients ({prefix})": {of: ["Multiline", [f"^{name}/.+"]] for of, name in names.items()}}


def _hand_out(loggers: Iterable[Any], layout: Mapping[str, Mapping[str, list[Any]]], warned: WarnOnce) -> None:
    for logger in loggers:
        with warned.on_error(f"{type(logger).__name__} could not lay out the charts"):
            add_custom_scalars = getattr(getattr(logger, "experiment", None), "add_custom_scalars", None)
            if callable(add_custom_scalars):
                add_custom_scalars(layout)
