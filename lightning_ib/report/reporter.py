"""Where the measurements of a run go: scalars, pictures, CSV files, the projector, and a few lines at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.functional import Unit
from lightning_ib.plot.embedding import plot_tsne
from lightning_ib.plot.estimates import plot_estimates
from lightning_ib.plot.information_plane import plot_information_plane
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.history import History
from lightning_ib.records.measurement_json import measurement_to_json, measurements_of
from lightning_ib.records.names import file_stem
from lightning_ib.records.record import COMPANIONS, Record
from lightning_ib.records.tags import at_target, is_diagnostic, parse_tag
from lightning_ib.report.custom_chart import COLUMNS, rows_of
from lightning_ib.report.layout import log_layout
from lightning_ib.report.loggers import (
    board_folder,
    log_figure,
    log_page,
    log_scalars,
    log_table,
    safe_name,
    save_figure,
    save_history,
    scalars,
)
from lightning_ib.report.page import log_measurement
from lightning_ib.report.projector import first_rows, is_projected, log_rows
from lightning_ib.report.summary import changes, file_locations, table
from lightning_ib.warn_once import WarnOnce

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


class Destination(NamedTuple):
    """Where a measurement goes.

    Attributes:
        loggers: those of the run; empty in a process or a run without logs.
        folder: the folder for files; ``None`` disables files.
        step: the step for the loggers.
    """

    loggers: Sequence[Any]
    folder: Path | None
    step: int


class Reporter:
    """Hands measurements to loggers and files. A failure of one of them is a single warning.

    Args:
        prefix: the first part of every name.
        unit: of the informations.
        beta: if set, the information-bottleneck functional is logged too.
        by: the unit of moments, ``"epoch"`` or ``"step"``.
        projector: whether sampled rows go to TensorBoard's projector.
        tsne: whether sampled rows are drawn.

    Attributes:
        main: the name of its main picture, and of its files.
        csv_name: the name of the CSV file, that of the main picture as a rule.
        warned: issues each warning once a run.
        has_reported: whether a measurement of this run came.
        figure_path: where the main picture was last saved.
        bounds: target → the information-bottleneck curve of the last measurement that had one.
    """

    main = "information_plane"

    def __init__(
        self,
        prefix: str,
        unit: Unit,
        beta: float | None = None,
        *,
        by: str,
        projector: bool = False,
        tsne: bool = False,
    ) -> None:
        self.prefix, self.unit, self.beta, self.by = prefix, unit, beta, by
        self.projector, self.tsne = projector, tsne
        self.csv_name = self.main
        self.warned = WarnOnce(every_rank=True)
        self.figure_path: Path | None = None
        self._stem = "" if prefix == "ib" else f"_{file_stem(prefix)}"
        self._names: dict[str, None] = {}  # all that was ever logged, in one order
        self._places: dict[str, Any] = {}  # where t-SNE put the rows the last time
        self.begin()

    def begin(self) -> None:
        """Begin a run."""
        self.warned.clear()
        self._laid_out = False
        self.has_reported = False
        self._csv_path: Path | None = None
        self._pictures: dict[Path, None] = {}  # those of this run, in the order they were first drawn
        self.bounds: dict[str, BoundLine] = {}
        self._projected: set[int] = set()  # the measurements that went to the projector
        self._beside: dict[tuple[int, int], dict[str, Any]] = {}  # moment → what the page shows beside the values
        self._last_step: int | None = None  # that of the last measurement
        self.forget_rows()

    @property
    def bound(self) -> BoundLine | None:
        """The curve of the first target that had one."""
        return next(iter(self.bounds.values()), None)

    def forget_rows(self) -> None:
        """Let go of the rows that wait to be the last ones of the projector."""
        self._unprojected: tuple[int, dict[str, Rows]] | None = None

    def layout(
        self,
        loggers: Sequence[Any],
        layers: Sequence[str],
        estimators: Iterable[Estimator],
        binned: bool,
        bounds: Mapping[str, Sequence[str]] | None = None,
        *,
        gradients: bool = False,
    ) -> None:
        """Lay out TensorBoard's custom scalars, once a run."""
        if self._laid_out:
            return
        self._laid_out = True
        log_layout(
            loggers,
            self.prefix,
            self.unit,
            self.beta,
            layers=layers,
            binned=binned,
            bounds=bounds,
            gradients=gradients,
            estimators={
                one.name: {quantity: one.unit_of(quantity, self.unit) for quantity in one.outputs} for one in estimators
            },
            warned=self.warned,
        )

    def scalars(self, measured: History) -> dict[str, float]:
        """The values to log, by name; for a layer that was not measured, NaN under all names it had before."""
        values = scalars(measured, self.prefix, self.beta)
        missing = {point.layer for point in measured if not point.verdict}  # whatever the target
        known = {name: parse_tag(name, self.prefix) for name in self._names if name not in values} if missing else {}
        lacking = [name for name, tag in known.items() if tag is not None and tag.layer in missing]
        self._names.update(dict.fromkeys(values))
        return values | dict.fromkeys(lacking, math.nan)

    def log_scalars(self, values: Mapping[str, float], to: Destination) -> None:
        """Log values at a step, to each logger under the names that it takes."""
        log_scalars(to.loggers, values, to.step, self.warned)

    def log_measurement(
        self,
        measured: History,
        discretized: Mapping[str, str],
        bounds: Mapping[str, BoundLine | None],
        to: Destination,
    ) -> None:
        """Log a measurement as a whole, for the page in TensorBoard, and keep the bounds for the pictures.

        Args:
            measured: the records of one moment.
            discretized: layer → how it was discretized, in words.
            bounds: target → the curve beside the points, as it was at that moment; it is logged where it changed.
            to: where to.
        """
        changed = {target: bound for target, bound in bounds.items() if bound != self.bounds.get(target)}
        self.bounds |= {target: bound for target, bound in bounds.items() if bound is not None}
        self._last_step = to.step
        if to.loggers and (records := measured.records()):
            beside: dict[str, Any] = {"discretized": dict(discretized), "bounds": changed}
            beside["bound"] = changed.get(next(iter(bounds), ""))
            self._beside[records[0][:2]] = beside
            with self.warned.on_error("the measurement could not be written for the page of TensorBoard"):
                text = measurement_to_json(measured, by=self.by, **beside)
                log_measurement(to.loggers, self.prefix, text, to.step, self.warned)

    def csv_path(self, folder: Path) -> Path:
        """The file of the values in a folder."""
        return folder / f"{self.csv_name}{self._stem}.csv"

    @staticmethod
    def refused(values: Mapping[str, float]) -> dict[str, float]:
        """The values with names that some logger refuses."""
        return {name: value for name, value in values.items() if safe_name(name) != name}

    def write(
        self,
        history: History,
        rows: Mapping[str, Rows],
        to: Destination,
        progress: Progress = lambda items, total, description: items,
    ) -> None:
        """Bring CSV files and pictures up to date.

        Args:
            history: of the whole run.
            rows: the sampled rows of the last measurement, where they are to be shown.
            to: where to.
            progress: wraps items, their number and a title, for a progress bar.
        """
        self.has_reported = True
        if to.folder is None:
            return
        self._csv_path = self.csv_path(to.folder)
        save_history(history, self._csv_path, self.warned)
        self.draw(history, to)
        if self.projector and rows:
            self._project(len({getattr(point, self.by) for point in history}) - 1, rows, to)
        if self.tsne and rows:
            when, layers = f"{self.by} {getattr(history[-1], self.by)}", progress(rows, len(rows), "t-SNE")
            picture = to.folder / f"tsne{self._stem}.png"
            self._picture("tsne", picture, to, lambda: plot_tsne(rows, when, self._places, layers))

    def rewrite(self, history: History, to: Destination) -> None:
        """Bring CSV files and the pictures of geometry up to date, where measurements that are past were added to.

        Loggers get these pictures at the step of the last measurement.

        Args:
            history: of the whole run.
            to: where to.
        """
        if to.folder is None:
            return
        self._csv_path = self.csv_path(to.folder)
        save_history(history, self._csv_path, self.warned)
        self._draw_all_geometry(history, to._replace(step=self._step_of_last(to)), files=True)

    def _step_of_last(self, to: Destination) -> int:
        """The step of the last measurement; without one in this run that of the loggers."""
        return to.step if self._last_step is None else self._last_step

    def draw(self, history: History, to: Destination, *, files: bool = True) -> None:
        """Draw the pictures for loggers and, with ``files``, the folder: a plane for each target."""
        assert to.folder is not None
        for target, of_target in reversed(self._by_target(history).items()):  # the primary last
            if self._has_content(of_target):
                draw = partial(self._figure, of_target, to)
                name, picture = at_target(self.main, target), to.folder / self._picture_name(self.main, target)
                if self._picture(name, picture, to, draw, files):
                    self.figure_path = picture
        self._draw_beside(history, to, files)

    def main_pictures(self, history: History, folder: Path) -> list[Path]:
        """The files of the main pictures in a folder, one for each target that has something to show."""
        shown = [target for target, of_target in self._by_target(history).items() if self._has_content(of_target)]
        return [folder / self._picture_name(self.main, target) for target in shown]

    def file_names(self, targets: Iterable[str]) -> set[str]:
        """The names of the main pictures about some targets, in lower case: some disks know no other."""
        return {self._picture_name(self.main, target).lower() for target in list(targets) or [""]}

    def _picture_name(self, name: str, target: str) -> str:
        return f"{name}{self._stem}{f'_{file_stem(target)}' if target else ''}.png"

    def _by_target(self, history: History) -> dict[str, History]:
        """The part of a history about each target, the primary first; all of it where there is a single one."""
        return {target: history.about(target) for target in history.targets} or {"": history}

    def _has_content(self, history: History) -> bool:
        """Whether the main picture has anything to show."""
        return any(math.isfinite(point.i_xt) for point in history)

    def _draw_beside(self, history: History, to: Destination, files: bool) -> None:
        """The pictures beside the main one: the estimates, and the geometry of layers."""
        assert to.folder is not None
        for target, of_target in self._by_target(history).items():
            estimates = [one for one in of_target.estimates() if one.source not in COMPANIONS]
            # The probe is drawn in the plane already.
            if any(math.isfinite(one.value) for one in estimates if one.source != "probe"):
                name, picture = at_target("estimators", target), to.folder / self._picture_name("estimators", target)
                self._picture(name, picture, to, partial(plot_estimates, estimates), files)
        self._draw_all_geometry(history, to, files)

    def _draw_all_geometry(self, history: History, to: Destination, files: bool) -> None:
        for k, of_target in enumerate(self._by_target(history).values()):
            geometry = [one for one in of_target.estimates() if one.source in COMPANIONS]
            self._draw_geometry([one for one in geometry if one.target or k == 0], to, files)

    def _draw_geometry(self, geometry: Sequence[Record], to: Destination, files: bool) -> None:
        """The geometry of layers: what is about one target, and beside the first what is about none."""
        assert to.folder is not None
        shown = [one for one in geometry if not is_diagnostic(one.quantity, one.source)]
        target = next((one.target for one in shown if one.target), "")
        shown.sort(key=lambda one: COMPANIONS.index(one.source))  # a panel may begin late
        if any(math.isfinite(one.value) for one in shown):
            name, picture = at_target("geometry", target), to.folder / self._picture_name("geometry", target)
            self._picture(name, picture, to, partial(plot_estimates, shown), files)

    def _figure(self, history: History, to: Destination) -> Figure:
        """The main picture."""
        assert to.folder is not None
        run = "/".join(to.folder.parts[-2:]) if to.loggers else ""
        bound = self.bounds.get(next(iter(history.targets), ""))
        return plot_information_plane(history.points(), history.estimates(), run, bound=bound)

    def _picture(self, name: str, path: Path, to: Destination, draw: Callable[[], Figure], files: bool = True) -> bool:
        """Draw a picture, hand it to the loggers and save it; returns whether it was drawn."""
        with self.warned.on_error(f"the figure {name} could not be drawn"):
            figure = draw()
            log_figure(to.loggers, f"{self.prefix}/{name}", figure, to.step, self.warned)
            if files:
                save_figure(figure, path, self.warned)
                self._pictures[path] = None
        return path.is_file()

    def _project(self, n: int, rows: Mapping[str, Rows], to: Destination) -> None:
        """Hand the rows of the n-th measurement to the projector, if due; else keep them: they may be the last."""
        self._unprojected = None
        if is_projected(n) and n not in self._projected:
            self._projected.add(n)
            log_rows(to.loggers, self.prefix, rows, to.step, self.warned)
        else:
            self._unprojected = to.step, first_rows(rows)

    def finish(self, history: History, to: Destination) -> None:
        """The last rows for the projector, the main picture as an SVG, and the page of the run for the loggers."""
        if self._unprojected is not None:
            step, rows = self._unprojected
            log_rows(to.loggers, self.prefix, rows, step, self.warned)
        if self.figure_path is not None and to.folder is not None:
            folder = self.figure_path.parent
            for target, of_target in self._by_target(history).items():
                with self.warned.on_error(f"the figure {self.main} could not be drawn"):
                    path = (folder / self._picture_name(self.main, target)).with_suffix(".svg")
                    if self._has_content(of_target):
                        save_figure(self._figure(of_target, to._replace(folder=folder)), path, self.warned)
        if self.csv_name == self.main and history.records():  # of two callbacks with one history, the plane's
            run = "/".join(to.folder.parts[-2:]) if to.folder else self.prefix
            step = self._step_of_last(to)
            log_page(to.loggers, f"{self.prefix}/page", lambda: self._page(history, run), step, self.warned)
            log_table(to.loggers, f"{self.prefix}/table", COLUMNS, rows_of(history, run), step, self.warned)

    def _page(self, history: History, run: str) -> str:
        """The page of TensorBoard with the run inside, as one HTML file."""
        from lightning_ib.tensorboard_plugin.files import self_contained_html

        measured = {one.records()[0][:2]: one for one in measurements_of(history)}
        texts = [measurement_to_json(one, by=self.by, **self._beside.get(at, {})) for at, one in measured.items()]
        return self_contained_html({run: texts})

    def summary(self, history: History, loggers: Sequence[Any], *, is_dev_run: bool = False) -> str:
        """A table of the first and the last measurement, and where the files are.

        Args:
            history: of the whole run.
            loggers: those of the run.
            is_dev_run: whether the run writes nothing by design.
        """
        pictures = [] if self._csv_path is None else [path for path in (self.figure_path, *self._pictures) if path]
        where = file_locations(self._csv_path, list(dict.fromkeys(pictures)), board_folder(loggers, self.warned))
        has_files = self._csv_path is not None and self._csv_path.is_file()
        if not has_files and not loggers:
            where = "No file was written: the values are in the callback's .history."
            if not is_dev_run:
                where += " Give the Trainer a logger or default_root_dir=… for files."
        return "\n".join(filter(None, [self._table(history), where]))

    def _table(self, history: History) -> str:
        """The first and the last measurement, and the changes between."""
        return "\n".join(filter(None, [table(history.points(), self.by), changes(history, self.by)]))
