"""``lightning-ib plot`` and ``compare``: pictures of runs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_ib.cli.console import say
from lightning_ib.cli.differences import differences
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.runs import Run, in_one_unit, read_runs
from lightning_ib.records.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
_PAPER_DPI = 300


def plot(arguments: Namespace) -> int:
    """Draw the plane of a run, those of several, one for each layer, or the phases of its gradients.

    Raises:
        UsageError: a run or an option is wrong.
    """
    from lightning_ib.plot import plot_gradients, plot_information_plane, plot_layers, plot_runs

    path = checked_path(arguments.output or ("gradients.png" if arguments.gradients else "plane.png"), FORMATS)
    chosen = {"target": arguments.target, "gradients": arguments.gradients}
    read = read_runs(arguments.runs, say, arguments.layers, **chosen)
    runs = in_one_unit(read, arguments.unit, say)
    style = arguments.style
    asked = [name for name in ("each_layer", "gradients") if getattr(arguments, name)]
    if len(asked) > 1:
        raise UsageError("--each-layer and --gradients are two pictures: give one of them.")
    if arguments.gradients and style != "screen":
        raise UsageError(f"--style {style} is for planes: leave it out with --gradients.")
    if asked and len(runs) > 1:
        raise UsageError(f"--{asked[0].replace('_', '-')} draws one run, got several: give one of them.")
    try:
        if len(runs) > 1:
            figure = plot_runs({run.title: run.history for run in runs}, style=style)
        else:
            (run,) = runs
            estimates = run.history.estimates()
            if arguments.gradients:
                figure = plot_gradients(run.history)
            elif arguments.each_layer:
                figure = plot_layers(run.history, estimates, style=style)
            else:
                figure = plot_information_plane(run.history, estimates, run.name, style=style)
    except ValueError as error:
        raise UsageError(str(error)) from error
    save(figure, path, style)
    return 0


def compare(arguments: Namespace) -> int:
    """Draw several runs on equal axes, and print how they differ; or what goes with a metric over them.

    Raises:
        UsageError: a run or an option is wrong.
    """
    from lightning_ib.plot import plot_runs

    if arguments.gap is not None:
        return _compare_with_metric(arguments)
    for name in ("at_min", "at_max", "table"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for a comparison with a metric: give --gap METRIC too.")
    path = checked_path(arguments.output or "compare.png", FORMATS)
    read = read_runs(arguments.runs, say, arguments.layers, target=arguments.target)
    runs: list[Run] = in_one_unit(read, arguments.unit, say)
    if len(runs) < 2:
        raise UsageError(f"compare needs several runs, got {runs[0].name} alone: give a second one, or use plot.")
    try:
        figure = plot_runs({run.title: run.history for run in runs}, style=arguments.style)
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(differences(runs))
    save(figure, path, arguments.style)
    return 0


def _compare_with_metric(arguments: Namespace) -> int:
    """Print and draw how what was recorded goes with a metric over runs."""
    from lightning_ib.cli.gap import TABLES, gap_of, table, write_table
    from lightning_ib.plot import plot_correlations

    path = checked_path(arguments.output or "gap.png", FORMATS)
    whole = None if arguments.table is None else checked_path(arguments.table, TABLES, "--table")
    if arguments.style != "screen":
        raise UsageError(f"--style {arguments.style} is for planes: leave it out with --gap.")
    read = read_runs(arguments.runs, say, arguments.layers, target=arguments.target)
    runs = in_one_unit(read, arguments.unit, say)
    gap = gap_of(runs, arguments, say)
    p_value = f"largest of {len(gap.rows)}: p = {gap.largest.p_value:.2g}"
    figure = plot_correlations(gap.rows, gap.metric, f"bars: 95 %, resampled runs; {p_value}")
    print(table(gap))
    save(figure, path, arguments.style)
    if whole is not None:
        write_table(gap, whole)
    return 0


def checked_path(name: str, formats: tuple[str, ...], option: str = "-o") -> Path:
    """A path whose suffix is one of some formats; ``option`` is what it came with.

    Raises:
        UsageError: it is another, or a folder.
    """
    path = Path(name)
    if path.suffix.lower() not in formats:
        *others, last = formats
        raise UsageError(f"{option} {name} must end in {', '.join(others)} or {last}.")
    if path.is_dir():
        raise UsageError(f"{option} {name} is a folder: give a file in it, such as {path / f'plane{formats[0]}'}.")
    return path


def save(figure: Figure, path: Path, style: str) -> None:
    """Write a figure, text in vector formats as text, and print its path.

    Raises:
        UsageError: the file cannot be written.
    """
    from matplotlib import rc_context

    # Type 42 fonts are what publishers accept; matplotlib's default for PDF is Type 3.
    options = {"pdf.fonttype": 42, "svg.fonttype": "none"}
    try:
        with rc_context(options), replacing(path) as partial:  # type: ignore[arg-type]
            dpi = _PAPER_DPI if style == "paper" else figure.dpi
            figure.savefig(partial, format=path.suffix.lower()[1:], dpi=dpi)
    except OSError as error:
        raise UsageError(f"-o {path} cannot be written: {error.strerror}.") from error
    print(f"picture: {path}")
