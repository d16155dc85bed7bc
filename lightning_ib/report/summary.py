"""The summary of a fit for the log: a table of the layers, how they changed, and where the files are."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_ib.records.history import History
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import COMPANIONS, COUNTED, Record
from lightning_ib.records.tags import QUANTITIES, is_diagnostic


def table(history: Sequence[InformationPoint], of: str = "epoch") -> str:
    """The first and the last measurement of each layer, beside one another.

    Args:
        history: the points of a run, in order; at least one.
        of: the unit of moments, ``"epoch"`` or ``"step"``.

    Example:
        >>> first = InformationPoint.missing("out", n_samples=80, unit="bits")
        >>> first = first._replace(i_xt=3.0, i_ty=0.25, h_t=3.0, verdict="saturated")
        >>> print(table([first, first._replace(epoch=2, i_ty=1.5, verdict="ok")]))
        epochs 0 and 2, in bits
        layer         I(X;T)          I(T;Y)            H(T)  verdict
        out     3.000  3.000    0.250  1.500    3.000  3.000  saturated, ok
    """
    moments = sorted({getattr(point, of) for point in history})
    ends = sorted({moments[0], moments[-1]})
    found = {(getattr(point, of), point.layer): point for point in history}
    layers = list(dict.fromkeys(point.layer for point in history if getattr(point, of) in ends))
    width = max(5, *map(len, layers))
    columns = 7 * len(ends)
    names = "".join(f"  {name:>{columns}}" for name in ("I(X;T)", "I(T;Y)", "H(T)"))
    when = f"{of}{'s' * (len(ends) - 1)} {' and '.join(map(str, ends))}"
    lines = [f"{when}, in {history[-1].unit}", f"{'layer':{width}}{names}  verdict"]
    for layer in layers:
        points = [found.get((end, layer)) for end in ends]
        values = ((None if point is None else getattr(point, name) for point in points) for name in _SHOWN)
        verdicts = dict.fromkeys(point.verdict or "not measured" for point in points if point is not None)
        shown = "".join("  " + "".join(map(_shown, of_layer)) for of_layer in values)
        lines.append(f"{layer:{width}}{shown}  {', '.join(verdicts)}")
    return "\n".join(lines)


_SHOWN = ("i_xt", "i_ty", "h_t")


def _shown(value: float | None) -> str:
    return f"{'-' if value is None or math.isnan(value) else f'{value:.3f}':>7}"


SETTLED = 0.95
"""The CKA to the last measurement from which on a layer counts as settled."""

_WIDTH = 110
_CELL = 16
_TITLES = {"I_XT": "I(X;T)", "I_TY": "I(T;Y)", "H_T": "H(T)"}


def changes(history: History, of: str = "epoch") -> str:
    """How every quantity changed, layer by layer: since the first measurement, and from the highest of all.

    Companions follow, a block for each of them. With drift among them the last lines say since when a layer has
    settled, its CKA to the last measurement being at least 0.95 from then on, and which layers had not settled before
    the last. Of several targets the primary one is shown. Layers that were measured later, or not at the end, are named
    with their first and last measurement. Empty with one measurement.

    Args:
        history: of a run.
        of: the unit of moments, ``"epoch"`` or ``"step"``.

    Example:
        >>> values = [(0, 3.0, 1.0), (1, 9.0, 0.99), (2, 8.0, 1.0)]
        >>> names = ("effective_rank", "cka_to_last")
        >>> records = [(k, quantity, value) for k, *both in values for quantity, value in zip(names, both)]
        >>> sources = {"effective_rank": "spectrum", "cka_to_last": "drift"}
        >>> print(changes(History(Record(k, k, "out", sources[name], name, value) for k, name, value in records)))
        change since epoch 0, and from the highest value
        spectrum    effective_rank
        out         +5.000  -1.000
        settled since epoch (CKA to the last at least 0.95): out 0
    """
    primary = history.about(history.targets[0]) if history.targets else history
    shown = [(source, one) for one in primary.records() if (source := _block_of(one)) is not None]
    series: dict[str, dict[str, dict[str, list[float]]]] = {}
    spans: dict[tuple[int, int], dict[str, list[str]]] = {}
    moments = sorted({getattr(one, of) for _, one in shown})
    ends: dict[tuple[str, str, str], tuple[int, int]] = {}
    for source, one in shown:
        if math.isfinite(one.value):
            series.setdefault(source, {}).setdefault(one.quantity, {}).setdefault(one.layer, []).append(one.value)
            moment, key = getattr(one, of), (source, one.quantity, one.layer)
            ends[key] = ends.get(key, (moment, moment))[0], moment
    if len(moments) < 2 or not series:
        return ""
    for (_, quantity, layer), span in ends.items():
        if span[0] < span[1] and span != (moments[0], moments[-1]):
            spans.setdefault(span, {}).setdefault(layer, []).append(quantity)
    lines = [f"change since {of} {moments[0]}, and from the highest value"]
    lines += [f"but from {of} {first} to {last}: {_of_layers(layers)}" for (first, last), layers in spans.items()]
    width = max(len(layer) for quantities in series.values() for layers in quantities.values() for layer in layers)
    width = max(width, *map(len, COMPANIONS))
    for source, quantities in series.items():
        lines += _block(source or "layer", quantities, width)
    return "\n".join(lines + _settled(primary.records(), of))


def _block_of(one: Record) -> str | None:
    """The companion whose block shows a record, empty for the values of the plane; ``None`` where none does."""
    if one.source in COUNTED and one.quantity in QUANTITIES:
        return ""
    of_companion = one.source in COMPANIONS and one.quantity != "cka_to_last"
    return one.source if of_companion and not is_diagnostic(one.quantity, one.source) else None


def _of_layers(layers: Mapping[str, Sequence[str]]) -> str:
    """The first layers with the first of their quantities."""
    shown = [f"{layer} ({names[0]}{', …' if len(set(names)) > 1 else ''})" for layer, names in layers.items()]
    return ", ".join([*shown[:4], "…"] if len(shown) > 4 else shown)


def _block(title: str, quantities: Mapping[str, Mapping[str, Sequence[float]]], width: int) -> list[str]:
    """A line for each layer, in as many columns as fit; those that do not follow below."""
    names = {name: _TITLES.get(name, name) for name in quantities}
    rows: list[dict[str, int]] = [{}]
    for name, shown in names.items():
        cell = max(_CELL, len(shown))
        if rows[-1] and width + sum(2 + one for one in rows[-1].values()) + 2 + cell > _WIDTH:
            rows.append({})
        rows[-1][name] = cell
    layers = dict.fromkeys(layer for of_layers in quantities.values() for layer in of_layers)
    lines = []
    for row in rows:
        lines.append(f"{title:{width}}" + "".join(f"  {names[name]:>{cell}}" for name, cell in row.items()))
        for layer in layers:
            cells = (f"  {_change(quantities[name].get(layer, ())):>{cell}}" for name, cell in row.items())
            lines.append(f"{layer:{width}}" + "".join(cells))
    return lines


def _change(values: Sequence[float]) -> str:
    """The change since the first value, and from the highest."""
    if len(values) < 2:
        return "-"
    return "".join(
        f"{change:>+8.3f}" if abs(change) < 1000 else f"{change:>+8.0e}"
        for change in (values[-1] - values[0], values[-1] - max(values))
    )


def _settled(records: Sequence[Record], of: str) -> list[str]:
    """Since when each layer is as similar to its last measurement as one that has settled.

    The last measurement is that to itself whatever the layer did, and so does not count.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for one in records:
        of_drift = one.source == "drift" and one.quantity == "cka_to_last"
        if of_drift and math.isfinite(one.value) and one.verdict != "capped":
            series.setdefault(one.layer, []).append((getattr(one, of), one.value))
    settled, moving = [], []
    for layer, (*before, _) in series.items():
        n_moving = max((k + 1 for k, (_, value) in enumerate(before) if value < SETTLED), default=0)
        if n_moving < len(before):
            settled.append(f"{layer} {before[n_moving][0]}")
        elif before:
            moving.append(layer)
    lines = [f"settled since {of} (CKA to the last at least {SETTLED}): {', '.join(settled)}"] if settled else []
    return [*lines, f"not settled before the last measurement: {', '.join(moving)}"] if moving else lines


def file_locations(csv: Path | None, pictures: Sequence[Path], board: Path | None) -> str:
    """Where the files of a run are, and how to look at them; empty without files.

    Args:
        csv: the table of all values.
        pictures: the main one first; of the others those in its folder are named.
        board: the folder of TensorBoard.
    """
    lines = [f"CSV: {_relative_path(csv)}"] if csv and csv.is_file() else []
    if drawn := [path for path in pictures if path.is_file()]:
        first, *others = drawn
        lines.append(f"picture: {_relative_path(first)}")
        if beside := [path.name for path in others if path.parent == first.parent]:
            lines.append(f"beside it: {', '.join(beside)}")
    if board is not None:
        command = shlex.join(["tensorboard", "--logdir", _relative_path(board)])
        lines.append(f"TensorBoard: {command}")
    return "\n".join(lines)


def _relative_path(path: Path) -> str:
    """A path as it is typed in the working directory."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
