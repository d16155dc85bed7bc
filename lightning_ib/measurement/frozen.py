"""Checkpointing of values frozen at the first pass: bin edges, calibrated hyperparameters, centers, first rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.measurement.estimation import Estimation
from lightning_ib.measurement.variables import Variable, Variables


def frozen_state(variables: Variables, estimation: Estimation) -> dict[str, Any]:
    """The frozen edges and automatic choices, in tensors and primitives."""
    named: dict[str, Any] = {
        "layers": {layer: one.fitted.state_dict() for layer, one in variables.layers.items() if one.fitted is not None}
    }
    if estimation.calibration:
        named["estimators"] = copy.deepcopy(estimation.calibration)
    if estimation.streams.centers:
        named["centers"] = estimation.streams.state()
    if drift := estimation.drift.state():
        named["drift"] = drift
    named |= {key: fitted.state_dict() for key, fitted in _input_and_target(variables)}
    several = {name: one.fitted.state_dict() for name, one in _several(variables) if one.fitted is not None}
    return named | ({"targets": several} if several else {})


def load_frozen_state(state: Any, variables: Variables, estimation: Estimation) -> None:
    """Restore the state from :func:`frozen_state`. Other layers stay as they are.

    Raises:
        ValueError: a part of ``state`` has another form than in :func:`frozen_state`; all other parts are restored.
    """
    layers = state.get("layers", {}) if isinstance(state, Mapping) else None
    if not isinstance(layers, Mapping):
        raise ValueError("the frozen edges are no mapping with the edges of the 'layers'")
    parts = [(one.name, one.fitted, layers.get(layer)) for layer, one in variables.layers.items()]
    parts += [(f"the {key}", fitted, state.get(key)) for key, fitted in _input_and_target(variables)]
    targets = state.get("targets", {})
    saved_targets = targets if isinstance(targets, Mapping) else {}
    parts += [(one.name, one.fitted, saved_targets.get(name)) for name, one in _several(variables)]
    faults = []
    for name, fitted, saved in parts:
        try:
            if fitted is not None:
                fitted.load_state_dict({} if saved is None else saved)
        except ValueError as error:
            faults.append(f"what is frozen for {name} {error}")
    loads = ((estimation.load, "estimators"), (estimation.streams.load, "centers"), (estimation.drift.load, "drift"))
    for load, part in loads:
        try:
            load(state.get(part, {}))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))


def _input_and_target(variables: Variables) -> Iterator[tuple[str, FittedQuantizer]]:
    """The keys and the quantizers of the input and the target, where they have one."""
    for key, variable in (("input", variables.x), ("target", variables.ys.get(""))):
        if variable is not None and variable.fitted is not None:
            yield key, variable.fitted


def _several(variables: Variables) -> Iterator[tuple[str, Variable]]:
    """The targets that have names."""
    return ((name, variable) for name, variable in variables.ys.items() if name)
