"""``lightning-ib replay``: measure the checkpoints of a past run as the callback would have."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning_ib.cli.board import Board
from lightning_ib.cli.checkpoints import (
    Checkpoint,
    callback_state,
    checkpoint_files,
    digest,
    fitting_weights,
    hyperparameters,
    in_order,
    load,
    load_weights,
    weights,
)
from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.folder import Known, ReplayFolder
from lightning_ib.cli.recorded import agreement
from lightning_ib.cli.settings import Settings, settings_of
from lightning_ib.cli.sources import Sources, sources_of
from lightning_ib.cli.subject import Transfer, defines, made_data, made_model, validation_loader, weights_dtype
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.history import History
from lightning_ib.records.measurement_json import measurements_of

_KEPT = "What was measured is kept, and the same command goes on."


def replay(arguments: Namespace) -> int:
    """Measure the checkpoints that are named, those that are measured already excepted.

    Returns:
        The exit code: 0, or 130 where the user interrupted it.

    Raises:
        UsageError: an argument or a file is wrong.
    """
    sources = sources_of(arguments)
    files = checkpoint_files(arguments.checkpoints)
    by = arguments.by or (sources.callback.schedule.by if sources.callback is not None else "epoch")
    checkpoints, first = in_order(files, by=by, trust=arguments.trust, say=say)
    state, prefix = callback_state(first, arguments.prefix or getattr(sources.callback, "prefix", None))
    recorded = History.restored(state)[0] if state else History()
    settings = settings_of(arguments, sources.callback, recorded, prefix, say)
    path = Path(arguments.output) if arguments.output is not None else files[0].parent / "replay"
    described = {"model": sources.model_name, "data": sources.data_name} | settings.described()
    described |= {"limit_batches": repr(arguments.limit_batches)} | hyperparameters(first)
    folder = ReplayFolder(path, described)
    layers = [point.layer for point in recorded.information().last()]
    run = _Replay(arguments, sources, settings, folder, first, layers)
    if folder.frozen is None:
        folder.frozen, run.follows_run = state.get("frozen"), True
    return run.measure(folder.counted(checkpoints))


class _Replay:
    """The measurements of one replay.

    Args:
        arguments: from the command line.
        sources: model and data.
        settings: how to measure.
        folder: where to.
        first: the first checkpoint, for hyperparameters.
        layers: those that the run measured, which are picked where none are named.
    """

    def __init__(
        self,
        arguments: Namespace,
        sources: Sources,
        settings: Settings,
        folder: ReplayFolder,
        first: Mapping[str, Any],
        layers: Sequence[str],
    ) -> None:
        from lightning_ib.report.reporter import Reporter

        self._arguments, self._sources, self._settings = arguments, sources, settings
        self._folder, self._first, self._layers = folder, first, layers
        self._board = Board(folder.path, folder.events)
        options = settings.options
        self._reporter = Reporter(settings.prefix, options.get("unit", "bits"), settings.beta, by=settings.by)
        self.history = folder.history(self._reporter.csv_path(folder.path))
        self.follows_run = False
        """Whether what is frozen comes from the run, which may have measured other samples."""

    def measure(self, checkpoints: Sequence[Checkpoint]) -> int:
        """Measure what is missing, and write the whole; the exit code."""
        before = {one.records()[0][:2]: one for one in measurements_of(self.history)}
        trust, by = self._arguments.trust, self._settings.by
        self._digests = {one.moment: digest(weights(load(one.path, trust=trust))) for one in checkpoints}
        known = [one for one in checkpoints if self._folder.is_known(one, self._digests[one.moment], by)]
        missing = [one for one in checkpoints if one not in known or one.moment not in before]
        if n_known := len(checkpoints) - len(missing):
            say(f"{n_known} of {len(checkpoints)} checkpoints are measured already, in {self._folder.path}.")
        interrupted = False
        if missing or not self._is_written():
            self._folder.probe()
            session, run = self._session(missing) if missing else (None, None)
            self._board.clear()
            try:
                self._measure(session, run, missing, before)
            except KeyboardInterrupt:
                interrupted = True
            except (Exception, SystemExit) as error:
                if self.history:
                    error.add_note(_KEPT)
                raise
            finally:
                if session is not None:
                    session.detach()
                self._reporter.finish(self.history, self._destination((0, 0)))
                self._board.close()
        self._conclude(checkpoints)
        if interrupted:
            say(f"Interrupted. {_KEPT}")
        return 130 if interrupted else 0

    def _is_written(self) -> bool:
        """Whether the event files and the pictures are there, besides the CSV."""
        pictures = self._reporter.main_pictures(self.history, self._folder.path)
        files = [picture.with_suffix(suffix) for picture in pictures for suffix in (".png", ".svg")]
        return self._board.is_there() and all(file.is_file() for file in files)

    def _session(self, missing: Sequence[Checkpoint]) -> tuple[Any, Any]:
        """A session that is attached to the model with the first of some weights, and the pass that it measures."""
        import torch

        from lightning_ib.callbacks.session import Host, Session
        from lightning_ib.cli.own_pass import OwnPass

        names, arguments = self._sources, self._arguments
        model = made_model(names.model, names.model_name, self._first)
        data = made_data(names.data, names.data_name, self._first) if names.data is not None else None
        asked = getattr(names.callback, "data", None)
        loader, validates = validation_loader(data, model, names.data_name, asked)
        device = _device(arguments.device)
        checkpoint = missing[0]
        dtype = weights_dtype(weights(load(checkpoint.path, trust=arguments.trust)))
        try:
            model.to(device, dtype)
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
            fault = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"--device {device}: {fault.rstrip('.')}: give --device cpu.") from error
        self._model = model
        for one in missing:
            fitting_weights(model, self._held(one), one.path, names.model_name)
        # Hooks of lazy layers and the like are made for a model that has its weights.
        self._load(checkpoint)
        transfer = Transfer(model, data, torch.device(device), dtype)
        run = OwnPass(model, loader, transfer, self._settings.unpack, arguments.limit_batches)
        if validates and asked is None:
            run.prefer_validation_step(say)
        try:
            session = Session(self._settings.options, self._settings.prefix)
            session.attach(model, Host(say=say))
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error
        if not session.is_attached:
            raise UsageError(f"--model {names.model_name} has no layer that can be measured: name some with --layers.")
        session.plane.keep_layers(self._layers)
        if self._folder.frozen is not None:
            try:
                session.plane.load_frozen_state(self._folder.frozen)
            except ValueError as error:
                say(f"the edges in {checkpoint.path} are damaged, and fitted anew where they are missing: {error}.")
            session.plane.estimation.drift.is_of_another_run = self.follows_run
        return session, run

    def _held(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The content of a checkpoint, after the hook of the model that Lightning would call."""
        held = load(checkpoint.path, trust=self._arguments.trust)
        if defines(self._model, "on_load_checkpoint"):
            self._model.on_load_checkpoint(held)
        return held

    def _load(self, checkpoint: Checkpoint) -> None:
        """Load the weights of a checkpoint into the model."""
        load_weights(self._model, self._held(checkpoint), checkpoint.path, self._sources.model_name)

    def _measure(
        self, session: Any, run: Any, missing: Sequence[Checkpoint], before: Mapping[tuple[int, int], History]
    ) -> None:
        """Go through the run in the order of time: log what is known again, measure the rest."""
        from lightning_ib.evaluation.passes import with_bar
        from lightning_ib.measurement.drift import with_similarity

        files = {one.moment: one for one in missing}
        moments = sorted(before.keys() | files.keys())
        if session is None:
            self._layout_of_known()
        with with_bar(None, "Checkpoints", len(moments)) as bar:
            for moment in moments:
                if moment in files:
                    self._measure_one(session, run, files[moment])
                else:
                    words, ends = self._folder.discretized.get(moment, {}), session is None and moment == moments[-1]
                    self._log(before[moment], words, is_new=ends)
                bar.update()
        if session is not None and (found := session.plane.cka_to_last(set(moments))):
            self.history.assign(with_similarity(self.history, found))
            self._reporter.write(self.history, {}, self._destination(moments[-1]))

    def _layout_of_known(self) -> None:
        """Lay out TensorBoard's custom scalars where nothing is measured."""
        records = self.history.records()
        sources, layers = {one.source for one in records}, dict.fromkeys(one.layer for one in records)
        options = self._settings.options
        estimators = [one for one in (*options["estimators"], *options["companions"]) if one.name in sources]
        about: dict[str, list[str]] = {target: [] for target in self.history.targets or [""]}
        self._reporter.layout([self._board], list(layers), estimators, "binned" in sources, about)

    def _measure_one(self, session: Any, run: Any, checkpoint: Checkpoint) -> None:
        from lightning_ib.callbacks.session import Moment
        from lightning_ib.evaluation.passes import ForwardError

        self._load(checkpoint)
        moment = Moment(checkpoint.epoch, checkpoint.step, f"of {checkpoint.path.name}", "The replay")
        try:
            measured = session.measure(run, moment)
        except (ForwardError, ValueError) as error:
            if self.history:
                raise
            raise UsageError(f"{checkpoint.path} cannot be measured: {error}") from error
        self._folder.frozen = session.frozen_state()
        self._folder.discretized[checkpoint.moment] = dict(measured.discretized)
        self._folder.known[checkpoint.moment] = Known(
            str(checkpoint.path),
            self._digests[checkpoint.moment],
            checkpoint.has_step,
            len(measured.history.records()),
        )
        self._folder.save()
        plane = session.plane
        estimators, binned = plane.estimation.estimators, bool(plane.fitted_quantizers)
        about = {target: bounds.quantities for target, bounds in plane.bounds_by_target.items()}
        self._reporter.layout([self._board], plane.layers, estimators, binned, about)
        self.history.put(measured.history, self._settings.by)
        self.history.assign(History(sorted(self.history.records(), key=lambda one: one[:2])))
        self._log(measured.history, measured.discretized, measured.bounds, is_new=True)

    def _log(
        self,
        measured: History,
        discretized: Mapping[str, str],
        bounds: Mapping[str, BoundLine | None] = MappingProxyType({}),
        *,
        is_new: bool,
    ) -> None:
        """Hand a measurement to TensorBoard, and bring CSV and picture up to date where it is new."""
        to = self._destination(measured.records()[0][:2])
        self._reporter.log_scalars(self._reporter.scalars(measured), to)
        self._reporter.log_measurement(measured, discretized, bounds, to)
        self._board.save()
        if self._folder.events != self._board.files:
            self._folder.events = list(self._board.files)
            self._folder.save()
        if is_new:
            self._reporter.write(self.history, {}, to)
        else:
            self._reporter.draw(self.history.until(*measured.records()[0][:2]), to, files=False)

    def _destination(self, moment: tuple[int, int]) -> Any:
        """Where a measurement goes: Lightning counts the steps from 0; without steps it is logged at the epoch."""
        from lightning_ib.report.reporter import Destination

        epoch, step = moment
        known = self._folder.known.get(moment)
        at = epoch if known is not None and not known.has_step else max(0, step - 1)
        return Destination([self._board], self._folder.path, at)

    def _conclude(self, checkpoints: Sequence[Checkpoint]) -> None:
        """The table, where the files are, and how the values compare with those that the run recorded."""
        from lightning_ib.report.summary import changes, file_locations, table

        if not self.history:
            return
        state, _ = callback_state(load(checkpoints[-1].path, trust=self._arguments.trust), self._settings.prefix)
        if state and (line := agreement(self.history, History.restored(state)[0])):
            say(line)
        csv = self._reporter.csv_path(self._folder.path)
        print(table(self.history.points(), self._settings.by))
        if changed := changes(self.history, self._settings.by):
            print(changed)
        picture = self._reporter.figure_path or csv.with_suffix(".png")
        print(file_locations(csv, [picture], self._folder.path))


def _device(asked: str | None) -> str:
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(asked))
    except RuntimeError as error:
        raise UsageError(f"--device must be cpu, cuda, cuda:1 or the like, got {asked!r}.") from error
