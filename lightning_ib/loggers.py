"""Where a scalar, a figure and a layout of charts go, for each logger, by what the logger can do."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ib.functional import information_bottleneck
from lightning_ib.history import InformationPoint, write_csv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

CHARTS = {"I(X;T)": "I_XT", "I(T;Y)": "I_TY", "H(T)": "H_T", "H(T)/log N": "saturation"}


def scalars(points: Iterable[InformationPoint], prefix: str, beta: float | None = None) -> dict[str, float]:
    """The scalars of one measurement, by the name they are logged under.

    Example:
        >>> point = InformationPoint.missing("out", n_samples=8, unit="bits")._replace(i_xt=3.0, i_ty=1.0, h_t=3.0)
        >>> sorted(scalars([point], "ib", beta=2.0))
        ['ib/H_T/out', 'ib/IB/out', 'ib/I_TY/out', 'ib/I_XT/out', 'ib/saturation/out']
    """
    logged: dict[str, float] = {}
    for point in points:
        figures = {"I_XT": point.i_xt, "I_TY": point.i_ty, "H_T": point.h_t, "saturation": point.saturation}
        if beta is not None:
            figures["IB"] = information_bottleneck(point.i_xt, point.i_ty, beta)
        logged |= {f"{prefix}/{name}/{point.layer}": value for name, value in figures.items()}
    return logged


def log_scalars(loggers: Iterable[Any], values: Mapping[str, float], step: int) -> None:
    """Hand scalars to every logger at once, past ``self.log``: for moments where that is not to be had."""
    for logger in loggers:
        with surviving(f"{type(logger).__name__} could not log the figures"):
            logger.log_metrics(dict(values), step=step)


def log_figure(loggers: Iterable[Any], tag: str, figure: Figure, step: int) -> None:
    """Hand a figure to every logger that takes figures."""
    for logger in loggers:
        add_figure = getattr(_experiment(logger), "add_figure", None)
        if callable(add_figure):
            with surviving(f"{type(logger).__name__} could not log the figure {tag}"):
                add_figure(tag, figure, global_step=step, close=False)


def log_layout(loggers: Iterable[Any], prefix: str, unit: str, beta: float | None = None) -> None:
    """Lay out TensorBoard's custom scalars: all layers on one chart, a chart for each figure. Once a writer."""
    charts = CHARTS | ({"I(X;T) − β I(T;Y)": "IB"} if beta is not None else {})
    layout = {
        f"Information plane ({prefix})": {
            title if name == "saturation" else f"{title} [{unit}]": ["Multiline", [f"^{re.escape(prefix)}/{name}/.+"]]
            for title, name in charts.items()
        }
    }
    for logger in loggers:
        add_custom_scalars = getattr(_experiment(logger), "add_custom_scalars", None)
        if callable(add_custom_scalars):
            with surviving(f"{type(logger).__name__} could not lay out the charts"):
                add_custom_scalars(layout)


def save_history(points: Sequence[InformationPoint], path: Path) -> None:
    """Write the history beside the logger's files; a failure is a warning, and the history stays."""
    with surviving(f"the history could not be written to {path}"):
        write_csv(points, path)


def save_figure(figure: Figure, path: Path) -> bool:
    """Write the figure as a PNG, and tell whether that went well; a failure is a warning."""
    with surviving(f"the figure could not be written to {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path.is_file()


@contextmanager
def surviving(what: str) -> Iterator[None]:
    """Turn an exception into a warning: what watches a training must not end it."""
    try:
        yield
    except Exception as error:
        warnings.warn(f"{what}: {type(error).__name__}: {error}. Training goes on.", UserWarning, stacklevel=3)


def _experiment(logger: Any) -> Any:
    with surviving(f"{type(logger).__name__} has no experiment to log to"):
        return logger.experiment
