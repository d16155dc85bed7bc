"""The picture of the information plane: from a history of points to a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from lightning_ib.plot.content import Content, Entries, content_of, content_until, marker_entries
from lightning_ib.plot.drawing import draw_bound, draw_legend, draw_paths, draw_variational, legend_columns
from lightning_ib.plot.labels import VERBATIM, VERDICT_MARKERS, short_labels
from lightning_ib.plot.levels import BASELINE, GRAY, draw_over_time, draw_plane
from lightning_ib.plot.names import draw_names, n_named
from lightning_ib.plot.paths import bound_of_x
from lightning_ib.plot.style import Style, style_of
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import IN_WORDS, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["VERDICT_MARKERS", "plot_information_plane"]

_LONGEST_RUN = 40


def plot_information_plane(
    history: Iterable[InformationPoint],
    estimates: Iterable[Record] = (),
    run: str = "",
    *,
    style: Literal["screen", "paper"] = "screen",
    until: int | None = None,
    bound: BoundLine | None = None,
) -> Figure:
    """Draw the information plane: I(X;T) to the right, I(T;Y) up, a path for each layer, named at its last point.

    - The color is the depth of the layer, from dark (first) to light (last).
    - A path becomes stronger with time. Its larger markers are the first measurements at or after the epochs 0, 1, 10,
      100, … and the last one, which has bars of two standard errors where these are longer than the marker. Where
      points share an epoch, time is the optimizer step.
    - A disc is ``ok``; other verdicts have hollow shapes.
    - A cross at the same I(X;T) is I(T;Y) of a linear probe on the rows of the last point. A dash, or a triangle at
      the edge where it is far below, marks I(T;Y) under permuted labels there.
    - The axes end around the points. The bounds are H(Y), the upper bound of I(T;Y), and H(X), or log N where X is
      the identity of the sample, the upper bound of I(X;T); and Fano's (dotted), a lower bound for the layers that
      predictions are computed from alone. Near bounds are lines, far ones are named with an arrow at the edge.
    - A plus marks the variational bounds of a layer that draws T: at most that I(X;T), at least that I(T;Y).
    - The title names the target, where several were measured: each has a plane of its own.
    - The curve is the information-bottleneck bound, where one was asked for; no representation is in the shade above.

    If all I(T;Y) are NaN, as without a target, I(X;T) is drawn over the epochs instead.

    Args:
        history: the points of one run, of any number of layers and epochs, all in one unit. Points that are NaN are
            left out.
        estimates: those of the same run, of which I(T;Y) of ``"probe"`` is drawn.
        run: the name of the run, for the line below.
        style: ``"screen"``, or ``"paper"``: 3.4 inches wide, fonts of 7 and 8 points, no title.
        until: draw the paths up to this epoch (or step) in the frame of the whole run: a frame of a film.
        bound: the information-bottleneck curve; by default the line through the recorded bounds of the points.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: all points are NaN, or there is no such style.
    """
    look, history, estimates = style_of(style), list(history), list(estimates)
    content = content_of(history, estimates, bound=bound)
    shown = content if until is None else content_until(content, history, estimates, until)
    entries = marker_entries(content, look.area)
    figure, axes, room = _framed(entries, look)
    outside = _draw_axes(axes, content, shown, room, look)
    if until is None:
        entries = [(label, how) for label, how in entries if label != BASELINE or label not in outside]
    entries = [(f"{label} ↑" if label in outside - {BASELINE} else label, how) for label, how in entries]
    if look.title:
        axes.set_title(_title(content, until), loc="left", fontsize=look.title, **VERBATIM)
    draw_paths(axes, shown, room, look)
    draw_variational(axes, shown, look)
    draw_names(axes, shown.paths, shown.crosses, room, look)
    draw_legend(figure, entries, look)
    if look.line:
        _draw_line(figure, _measured(content.points, content.times, run, {point.layer for point in history}), look)
    return figure


def _draw_line(figure: Figure, line: str, look: Style) -> None:
    """A line below the legend."""
    width, height = figure.get_size_inches()
    figure.text(0.14 / width, 0.1 / height, line, fontsize=look.line, color=GRAY, **VERBATIM)


def _draw_axes(axes: Axes, content: Content, shown: Content, room: tuple[float, float], look: Style) -> set[str]:
    """The axes around the whole content, with bounds, and baselines; the entries of the legend that are outside."""
    last = max(shown.points, key=lambda point: (point.epoch, point.step))
    bound = bound_of_x(content.points)
    x, y = ("I(X;T)", "I(T;Y)") if content.about_target else (content.clock, "I(X;T)")
    axes.set_xlabel(f"{x} [{last.unit}]" if content.about_target else x, fontsize=look.axes)
    axes.set_ylabel(f"{y} [{last.unit}]", fontsize=look.axes)
    if content.about_target:
        read = [y for _, y, _ in content.crosses] + [path.y[-1] for path in content.variational]
        rates = [path.x[-1] for path in content.variational]
        near = [] if content.bound is None else [content.bound.at(path.x[-1]) for path in content.paths]
        has_baseline = draw_plane(axes, content.paths, read, bound, last, room, look, shown.paths, near, rates)
        outside = [BASELINE] * (not has_baseline)
        if content.bound is not None and not draw_bound(axes, content.bound, look):
            outside.append(content.bound.label)
        return set(outside)
    draw_over_time(axes, content.paths, bound, room, look)
    return set()


def _title(content: Content, until: int | None) -> str:
    times, what = content.times, "Information plane" if content.about_target else "Information about the input"
    what += f", target {content.target}" if content.target else ""
    if until is not None or len(times) == 1:
        return f"{what}, {content.clock} {times[0] if until is None else until}"
    return f"{what}, {content.clock}s {times[0]}–{times[-1]}"


def _framed(entries: Entries, look: Style) -> tuple[Figure, Axes, tuple[float, float]]:
    """A figure with room for its legend, its axes, and their size in points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=look.size, dpi=130)
    axes = figure.add_subplot()
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    for spine in axes.spines.values():
        spine.set_linewidth(0.8 * look.width)
    axes.tick_params(labelsize=look.ticks, width=0.8 * look.width)
    n_rows = math.ceil(len(entries) / legend_columns([label for label, _ in entries], look.legend_width))
    # Margins in inches, known beforehand: a layout engine would draw everything twice to find them, at every epoch.
    (width, height), bottom = look.size, look.bottom + n_rows * look.legend_row
    height += max(0, n_rows - 3) * look.legend_row  # a long legend leaves the plane its size
    figure.set_size_inches(width, height)
    figure.subplots_adjust(look.left / width, bottom / height, 1 - look.right / width, 1 - look.top / height)
    return figure, axes, (72 * (width - look.left - look.right), 72 * (height - bottom - look.top))


def _measured(points: Sequence[InformationPoint], times: Sequence[int], run: str, layers: set[str]) -> str:
    """The measurements in one line; layers without a finite point are named."""
    sources = dict.fromkeys(point.source for point in points)
    samples = []
    for source in sources:
        numbers = sorted({point.n_samples for point in points if point.source == source})
        n_shown = "–".join(f"{n:,}".replace(",", " ") for n in dict.fromkeys((numbers[0], numbers[-1])))
        samples.append(f"{n_shown} in {IN_WORDS[source]}")
    n_layers = len({point.layer for point in points})
    parts = [f"N = {' and '.join(samples)}", f"{n_layers} layer{'s' * (n_layers > 1)}"]
    if n_named(n_layers) < n_layers:
        parts[-1] += f", {n_named(n_layers)} of them named"
    parts += [f"{len(times)} measurement{'s' * (len(times) > 1)}", points[-1].unit]
    missing = sorted(layers - {point.layer for point in points})
    if missing:
        parts.append(f"no value: {', '.join(short_labels(missing)[:3])}{' …' * (len(missing) > 3)}")
    corrections = sorted({point.correction for point in points} - {""})
    return " · ".join(
        parts + [f"corrected: {name}" for name in corrections] + short_labels([run], _LONGEST_RUN) * bool(run)
    )
