"""How runs differ, layer by layer, in a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from lightning_ib.cli.runs import Run
from lightning_ib.records.points import InformationPoint

_SHOWN = {"I(X;T)": "i_xt", "I(T;Y)": "i_ty", "H(T)": "h_t"}
_WIDTH = 16


def differences(runs: Sequence[Run]) -> str:
    """A table of the values of each layer at the last common epoch, with the differences from the first run.

    A layer that the first run lacks is compared with the first that has it. Layers that only one run has are named
    below.

    Args:
        runs: at least two, in one unit.
    """
    points, when = _common(runs)
    layers = list(dict.fromkeys(layer for of_run in points for layer in of_run))
    common = [layer for layer in layers if sum(layer in of_run for of_run in points) > 1]
    unit = next(iter(points[0].values())).unit
    width = max([5, *map(len, common)])
    names = max(3, *(len(run.name) for run in runs))
    lines = [f"{when}, in {unit}; in parentheses the difference from {runs[0].name}"]
    lines.append(f"{'layer':{width}}  {'run':{names}}" + "".join(f"  {of:<{_WIDTH}}" for of in _SHOWN) + "  verdict")
    for layer in common:
        first = next(of_run[layer] for of_run in points if layer in of_run)
        for k, (run, of_run) in enumerate(zip(runs, points)):
            point = of_run.get(layer)
            of_first = None if point is first else first
            cells = "".join(f"  {_cell(point, of_first, field):<{_WIDTH}}" for field in _SHOWN.values())
            verdict = "no such layer" if point is None else point.verdict or "not measured"
            lines.append(f"{layer if k == 0 else '':{width}}  {run.name:{names}}{cells}  {verdict}")
    if not common:
        lines.append("The runs have no layer in common.")
    owners: dict[str, list[str]] = {}
    for layer in layers:
        if layer not in common:
            who = " and ".join(run.name for run, of_run in zip(runs, points) if layer in of_run)
            owners.setdefault(who, []).append(layer)
    lines += conditions({run.name: of_run.values() for run, of_run in zip(runs, points)})
    lines += [f"only in {who}: {', '.join(of)}" for who, of in owners.items()]
    return "\n".join(line.rstrip() for line in lines)


def _common(runs: Sequence[Run]) -> tuple[list[Mapping[str, InformationPoint]], str]:
    """The points of each run by layer, at the last epoch that all of them measured, and that epoch in words."""
    epochs = [{point.epoch for point in run.history if math.isfinite(point.i_xt)} for run in runs]
    shared = set.intersection(*epochs)
    chosen = [max(shared or own) for own in epochs]
    points: list[Mapping[str, InformationPoint]] = [
        {p.layer: p for p in run.history if p.epoch == epoch} for run, epoch in zip(runs, chosen)
    ]
    if shared:
        return points, f"epoch {chosen[0]}, the last that all runs have"
    each = ", ".join(f"{run.name} {epoch}" for run, epoch in zip(runs, chosen))
    return points, f"the last epochs, none of which all runs have ({each})"


def conditions(points: Mapping[str, Collection[InformationPoint]]) -> list[str]:
    """What the values of runs depend on and these do not share, in lines.

    Args:
        points: run → its points at the moment that is compared.
    """
    lines = []
    for field, word in (("n_samples", "N"), ("source", "the discretization"), ("correction", "the correction")):
        of_runs = {run: {getattr(point, field) for point in of_run} for run, of_run in points.items()}
        if len(set(map(frozenset, of_runs.values()))) > 1:
            shown = ", ".join(f"{run} {'/'.join(map(str, sorted(values)))}" for run, values in of_runs.items())
            lines.append(f"not comparable as they are, {word} differs: {shown}")
    return lines


def _cell(point: InformationPoint | None, first: InformationPoint | None, field: str) -> str:
    value: float = math.nan if point is None else getattr(point, field)
    if math.isnan(value):
        return f"{'-':>7}"
    shown = f"{value:7.3f}"
    if first is None or math.isnan(getattr(first, field)):
        return shown
    return f"{shown} ({value - getattr(first, field):+.3f})"
