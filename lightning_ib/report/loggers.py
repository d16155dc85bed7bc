"""How scalars, figures, the page, chart layouts and files reach each logger.

Loggers are recognized by their methods, or by the library their experiment is of, so that libraries stay unimported
until the user has one. A failure is a warning, issued once a fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from inspect import signature
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lightning_ib.functional import information_bottleneck
from lightning_ib.records.files import replacing
from lightning_ib.records.history import History
from lightning_ib.records.record import COUNTED, STANDARD_ERRORS, Record
from lightning_ib.records.tags import BOUNDS, QUANTITIES, format_tag, is_diagnostic
from lightning_ib.warn_once import WarnOnce

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

# In pixels: TensorBoard keeps every picture of a run.
_WIDEST = 1000


# The counted values that are logged beside I(X;T), I(T;Y) and H(T); the second group for the head alone.
_DIAGNOSTICS = ("saturation", "I_TY_permuted", "singleton_fraction", "clipped_fraction", *BOUNDS)
_OF_THE_HEAD = ("I_TY_fano", "accuracy")


def scalars(measured: History, prefix: str, beta: float | None = None) -> dict[str, float]:
    """The scalars of one measurement, by the name they are logged under (see :mod:`lightning_ib.records.tags`).

    A value of the first page that has a unit stands among the diagnostics too, for the charts. Values about the target
    are left out where there is none, as are undefined ones (the clipped fraction of bins with one edge).

    Example:
        >>> from lightning_ib.records import InformationPoint
        >>> point = InformationPoint.missing("out", n_samples=8, unit="bits")._replace(i_xt=3.0, h_t=3.0, verdict="ok")
        >>> for name in scalars(History.of([point]), "ib", beta=2.0):
        ...     print(name)
        ib/I_XT/out
        ib_diagnostics/bits/I_XT/out
        ib_diagnostics/bits/I_XT_lower/out
        ib_diagnostics/bits/I_XT_upper/out
        ib/H_T/out
        ib_diagnostics/bits/H_T/out
        ib_diagnostics/bits/H_T_lower/out
        ib_diagnostics/bits/H_T_upper/out
        ib_diagnostics/saturation/out
    """
    logged: dict[str, float] = {}
    points = [point for target in measured.targets for point in measured.points(target)] or measured.points()
    targetless = {(p.layer, p.target) for p in points if math.isnan(p.h_y) and not math.isnan(p.h_t)}
    heads = {(p.layer, p.target) for p in points if not math.isnan(p.accuracy)}
    for record in measured.records():
        of = record.layer, record.target
        if record.source not in COUNTED:
            logged |= dict.fromkeys(_names(prefix, record, record.source), record.value)
        elif record.quantity in QUANTITIES and not (record.quantity == "I_TY" and of in targetless):
            logged |= dict.fromkeys(_names(prefix, record), record.value)
            for end, sign in (("lower", -1), ("upper", 1)):
                bound = record._replace(quantity=f"{record.quantity}_{end}")
                value = record.value + sign * STANDARD_ERRORS * record.standard_error
                logged |= dict.fromkeys(_names(prefix, bound), value)
        elif record.quantity in _DIAGNOSTICS or (record.quantity in _OF_THE_HEAD and of in heads):
            logged |= dict.fromkeys(_names(prefix, record), record.value)
    for point in points if beta is not None else ():
        assert beta is not None
        if (point.layer, point.target) not in targetless:
            name = format_tag(prefix, "IB", point.layer, unit=point.unit, target=point.target)
            logged[name] = information_bottleneck(i_xt=point.i_xt, i_ty=point.i_ty, beta=beta)
    return logged


def _names(prefix: str, record: Record, estimator: str = "") -> list[str]:
    """The names of one value: on the first page, among the diagnostics, or both."""
    quantity, layer = record.quantity, record.layer
    of = {"source": estimator, "target": record.target}
    names = [] if is_diagnostic(quantity, estimator) else [format_tag(prefix, quantity, layer, **of)]
    if record.unit or not names:
        names.append(format_tag(prefix, quantity, layer, **of, unit=record.unit))
    return names


def safe_name(name: str) -> str:
    """A name that every logger takes, MLflow being the strictest: ASCII letters, digits and ``_ - .`` between slashes.

    Any other character is replaced by its code, and so are parts of a path that are empty or lead elsewhere.

    Example:
        >>> safe_name("ib/I_XT/net.blocks.0"), safe_name("ib/I_XT/größe 1"), safe_name("ib/H_T//a")
        ('ib/I_XT/net.blocks.0', 'ib/I_XT/gr_f6__df_e 1', 'ib/H_T/_/a')
    """
    parts = re.sub(r"[^\w./ -]", lambda found: f"_{ord(found[0]):x}_", name, flags=re.ASCII).split("/")
    return "/".join("_" + "2e" * len(part) if part in ("", ".", "..") else part for part in parts)


def log_scalars(loggers: Iterable[Any], values: Mapping[str, float], step: int, warned: WarnOnce) -> None:
    """Hand scalars directly to every logger, for moments where ``self.log`` is unavailable."""
    for logger in loggers:
        with warned.on_error(f"{type(logger).__name__} could not log the values"):
            named = safe_name if _is_mlflow(logger) else str
            logger.log_metrics({named(name): value for name, value in values.items()}, step=step)
            logger.save()  # as Lightning does after every row: some loggers keep rows in memory until then


def log_figure(loggers: Iterable[Any], tag: str, figure: Figure, step: int, warned: WarnOnce) -> None:
    """Hand a figure to every logger that takes figures, at the step of the scalars it shows.

    - ``logger.log_image(key, [image], step=)`` (W&B): an image on the axis its scalars have.
    - ``experiment.add_image(tag, pixels, global_step=, dataformats=)`` (TensorBoard): at most 1000 pixels wide.
    - ``experiment.log_figure(run_id, figure, file)`` (MLflow): the run's file ``<tag>.png``, each figure in the place
      of the one before, since each shows the whole run so far.
    - ``experiment.log_figure(name, figure, step=)`` (Comet).
    - experiments of the libraries Aim, LitLogger and trackio: an image of theirs.

    Other loggers (CSV) have the picture beside their files, see :func:`save_figure`.
    """
    for logger in loggers:
        with warned.on_error(f"{type(logger).__name__} could not log the figure {tag}"):
            _hand_over(logger, tag, figure, step)


def _hand_over(logger: Any, tag: str, figure: Figure, step: int) -> None:
    if callable(getattr(logger, "log_image", None)):
        logger.log_image(tag, [rendered(figure)], step=step)
        return
    experiment: Any = getattr(logger, "experiment", None)
    add_image, take_figure = getattr(experiment, "add_image", None), getattr(experiment, "log_figure", None)
    if (library := _library(experiment)) is not None:
        image = library.Image(rendered(figure))
        if library.__name__ == "aim":
            experiment.track(image, name=tag, step=step)
        elif library.__name__ == "trackio":
            experiment.log({tag: image}, step=step)
        else:
            experiment[tag].append(image, step=step)
    elif callable(add_image):
        from numpy import asarray

        image = rendered(figure)
        if image.width > _WIDEST:
            image = image.resize((_WIDEST, round(image.height * _WIDEST / image.width)), reducing_gap=3.0)
        add_image(tag, asarray(image), global_step=step, dataformats="HWC")
    elif _is_mlflow(logger):
        assert callable(take_figure)
        take_figure(logger.run_id, figure, f"{safe_name(tag)}.png")
    elif callable(take_figure):
        take_figure(tag, figure, step=step)


def log_page(loggers: Iterable[Any], tag: str, page: Callable[[], str], step: int, warned: WarnOnce) -> None:
    """Hand a page, the text of one HTML file, to every logger that takes HTML or files.

    - W&B, by ``logger.log_image`` and ``logger.log_table``: ``wandb.Html`` under the tag.
    - ``experiment.log_text(run_id, text, file)`` (MLflow): the run's file ``<tag>.html``.
    - ``experiment.log_asset(file, name, overwrite=, step=)`` (Comet): the asset ``<tag>.html``.
    - LitLogger: the file ``<tag>.html``; trackio: ``trackio.Html`` under the tag; Aim: the artifact ``<tag>.html``,
      where the run has a place for artifacts.

    TensorBoard has a page of its own.

    Args:
        loggers: those of the Trainer.
        tag: the name of the page.
        page: makes the text; it is called once, if any logger takes it.
        step: the step of the last scalars in it.
        warned: issues each warning once.
    """
    page = cache(page)
    for logger in loggers:
        with warned.on_error(f"{type(logger).__name__} could not log the page {tag}"):
            _hand_over_page(logger, tag, page, step)


def _hand_over_page(logger: Any, tag: str, page: Callable[[], str], step: int) -> None:
    if _is_wandb(logger):
        logger.log_metrics({tag: import_module("wandb").Html(page(), inject=False, data_is_not_path=True)}, step=step)
        return
    file = f"{tag}.html"
    experiment: Any = getattr(logger, "experiment", None)
    if (library := _library(experiment)) is not None:
        if library.__name__ == "trackio":
            experiment.log({tag: library.Html(StringIO(page()))}, step=step)
        elif library.__name__ == "litlogger":
            with _as_file(page()) as path:
                experiment[file] = library.File(str(path))
        elif experiment.artifacts_uri is not None:
            with _as_file(page()) as path:
                experiment.log_artifact(str(path), file, block=True)
    elif _is_mlflow(logger):
        experiment.log_text(logger.run_id, page(), f"{safe_name(tag)}.html")
    elif callable(take := getattr(experiment, "log_asset", None)):
        take(StringIO(page()), file, overwrite=True, step=step)


@contextmanager
def _as_file(page: str) -> Iterator[Path]:
    """A file of the page, for as long as it takes to hand it over."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        path.write_text(page, encoding="utf-8")
        yield path


def log_table(
    loggers: Iterable[Any], tag: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int, warned: WarnOnce
) -> None:
    """Hand a table to W&B: the one logger that draws charts of tables."""
    for logger in loggers if rows else ():
        with warned.on_error(f"{type(logger).__name__} could not log the table {tag}"):
            if _is_wandb(logger):
                logger.log_table(tag, columns=list(columns), data=[list(row) for row in rows], step=step)


def _is_wandb(logger: Any) -> bool:
    return all(callable(getattr(logger, name, None)) for name in ("log_image", "log_table"))


_BY_LIBRARY = ("aim", "litlogger", "trackio")
"""The libraries whose experiments take objects of theirs alone."""


def _library(experiment: Any) -> ModuleType | None:
    """The library that an experiment is of, or that it is, among those that take objects of theirs alone."""
    of = experiment.__name__ if isinstance(experiment, ModuleType) else type(experiment).__module__
    name = of.partition(".")[0]
    return import_module(name) if name in _BY_LIBRARY else None


def _is_mlflow(logger: Any) -> bool:
    take_figure = getattr(getattr(logger, "experiment", None), "log_figure", None)
    return callable(take_figure) and "run_id" in signature(take_figure).parameters


# Drawing takes longer than all else about a picture: each is drawn once, for all loggers and the file.
_RENDERED: WeakKeyDictionary[Figure, Image] = WeakKeyDictionary()


def rendered(figure: Figure) -> Image:
    """The figure as pixels, drawn once; loggers get these, since given a matplotlib figure they may import pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from numpy import asarray
    from PIL import Image

    if figure not in _RENDERED:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        _RENDERED[figure] = Image.fromarray(asarray(canvas.buffer_rgba())).convert("RGB")
    return _RENDERED[figure]


def run_folder(loggers: Sequence[Any], default_root_dir: str, warned: WarnOnce) -> Path:
    """The folder of this run, for files of our own: that of the first logger, or ``default_root_dir`` without one.

    A logger's folder is its ``log_dir`` (TensorBoard, CSV) or, as for Lightning's checkpoints,
    ``<save_dir>/<name>/<version>`` (W&B, Comet, MLflow on files), with ``default_root_dir`` for the ``save_dir`` of a
    logger that has none (MLflow on a database). Either way each run has files of its own.
    """
    for logger in loggers[:1]:
        with warned.on_error(f"{type(logger).__name__} does not say where its files are"):
            log_dir = getattr(logger, "log_dir", None)
            if log_dir is not None:
                return Path(log_dir)
            version = f"version_{logger.version}" if isinstance(logger.version, int) else logger.version
            parts = (part for part in (logger.name, version) if part is not None)
            return Path(getattr(logger, "save_dir", None) or default_root_dir, *parts)
    return Path(default_root_dir)


def board_folder(loggers: Iterable[Any], warned: WarnOnce) -> Path | None:
    """The folder to start TensorBoard with, that of all runs beside this one; None unless a logger writes for it."""
    for logger in loggers:
        with warned.on_error(f"{type(logger).__name__} does not say where its files are"):
            if callable(getattr(getattr(logger, "experiment", None), "add_custom_scalars", None)):
                return Path(getattr(logger, "root_dir", None) or logger.log_dir)
    return None


def save_history(history: History, path: Path, warned: WarnOnce) -> None:
    """Write a history as a CSV file; a failure is a warning, and the history stays, as does an older file."""
    with warned.on_error(f"the history could not be written to {path}"):
        history.to_csv(path)


def save_figure(figure: Figure, path: Path, warned: WarnOnce) -> None:
    """Write the figure as a PNG, or an SVG if the path says so; a failure is a warning, and an older file stays."""
    with warned.on_error(f"the figure could not be written to {path}"), replacing(path) as partial:
        if path.suffix == ".svg":
            figure.savefig(partial, format="svg")
        else:
            rendered(figure).save(partial, format="png", dpi=(figure.dpi, figure.dpi))
