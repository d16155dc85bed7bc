"""The metrics that a run logged: Lightning's ``metrics.csv``, and TensorBoard's event files."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lightning_ib.cli.errors import UsageError, nearest
from lightning_ib.records.tags import PLUGIN, parse_tag

_CSV = "metrics.csv"
_OF_LOGGERS = ("epoch", "step", "hp_metric")


class Logged(NamedTuple):
    """A logged value.

    Attributes:
        epoch: the epochs that were over, as Lightning counts them; NaN where it is unknown.
        step: of the logger.
        value: the value.
    """

    epoch: float
    step: int
    value: float


Series = Callable[[], Sequence[Logged]]
"""Reads a series when it is asked for: others may hold text."""


class Metric(NamedTuple):
    """A metric of a run: a logged value, or the difference of two.

    Attributes:
        folder: where its logs are.
        names: one or two names.
        series: the values of each, in the order of time.
        epochs: the epoch of every step that anything was logged at.
    """

    folder: Path
    names: Sequence[str]
    series: Sequence[Sequence[Logged]]
    epochs: Sequence[Logged] = ()

    def last(self, until: float = math.inf) -> float:
        """The value that was logged last, in an epoch or before it; of a difference that of each part.

        Raises:
            UsageError: nothing was logged until then.
        """
        ends = []
        for name, values in zip(self.names, self.series):
            before = [one for one in values if math.isinf(until) or one.epoch <= until]
            if not before:
                raise UsageError(f"{self.folder} logged no {name} until the end of epoch {until + 1:.0f}.")
            ends.append(before[-1].value)
        return ends[0] if len(ends) == 1 else ends[0] - ends[1]

    def best_epoch(self, sign: int) -> float:
        """The epoch, from 0 on, of its lowest value (``sign`` 1) or its highest (−1); of equal ones the first.

        Raises:
            UsageError: it has no finite value, or the log no epochs; or it is a difference, whose parts may be logged
                at different steps.
        """
        if len(self.names) > 1:
            option = "--at-min" if sign > 0 else "--at-max"
            raise UsageError(f"{option} takes one metric, got the difference of {' and '.join(self.names)}: give one.")
        values = [one for one in self.series[0] if math.isfinite(one.value)]
        if not values:
            raise UsageError(f"{self.folder} logged no finite {self.names[0]}.")
        best = min(values, key=lambda one: (sign * one.value, one.step))
        if math.isnan(best.epoch):
            raise UsageError(f"{self.folder} logged {self.names[0]} without its epoch, so that none is the best.")
        return best.epoch

    def steps_until(self, epoch: float, measured: int) -> float:
        """The optimizer steps at the end of an epoch; NaN where the log counts other steps.

        A step of the log is that of the batch, from 0 on.

        Args:
            epoch: from 0 on.
            measured: the steps at the last measurement of the run: a log that ends before counts otherwise, as where
                several optimizers step, or a metric ``step`` was logged.
        """
        ended = max((one.step + 1 for one in self.epochs if one.value <= epoch), default=0)
        last = max((one.step + 1 for one in self.epochs), default=0)
        return ended if measured <= last else math.nan


def metric_of(file: Path, expression: str) -> Metric:
    """A metric of the run whose values are in a file.

    Args:
        file: its CSV of information; the logs lie beside it, or above a replay.
        expression: a name, or two with a minus between.

    Raises:
        UsageError: nothing was logged, or no such metric.
    """
    prefix = file.stem.removeprefix(PLUGIN).strip("_") or "ib"
    folder, known = file.parent, dict[str, Series]()
    # A replay lies beside the checkpoints, in the folder of the run or one below.
    for folder in [file.parent, *(file.parent.parents[:2] if (file.parent / "replay.pt").is_file() else ())]:
        for read in (_of_csv, _of_events):
            known = {**read(folder), **known}
            if (names := _names_in(expression, known)) is not None:
                epochs = known["epoch"]() if "epoch" in known else ()
                return Metric(folder, names, [known[name]() for name in names], epochs)
    own = [name for name in known if name not in _OF_LOGGERS and parse_tag(name, prefix) is None]
    if not own:
        raise UsageError(
            f"{file.parent} holds no logged metric: --gap reads {_CSV} of CSVLogger and TensorBoard's event files, in "
            "the folder of information_plane.csv."
        )
    if not (missing := _unknown_in(expression, own)):
        raise UsageError(f"{expression!r} lacks a name on one side of the minus: give a metric, or two as 'a - b'.")
    suggestion = nearest(missing, own)
    if "did you mean" in suggestion or suggestion == ".":
        shown = ", ".join(sorted(own)[:12]) + ", …" * (len(own) > 12)
        suggestion = f": it has {shown}{suggestion.replace(': did', '; did')}"
    raise UsageError(f"{file.parent} logged no {missing}{suggestion}")


def _names_in(expression: str, known: Iterable[str]) -> tuple[str, ...] | None:
    """The one or two known names that an expression consists of; ``None`` where one is unknown."""
    known = set(known)
    if expression.strip() in known:
        return (expression.strip(),)
    pairs = ((left.strip(), right.strip()) for left, right in _split(expression))
    return next((pair for pair in pairs if set(pair) <= known), None)


def _split(expression: str) -> list[tuple[str, str]]:
    """The two sides of each minus, those with spaces around first: names may hold some of their own."""
    places = [k for k, letter in enumerate(expression) if letter in "-−"]
    places.sort(key=lambda k: expression[max(0, k - 1) : k + 2].strip() != expression[k])
    return [(expression[:k], expression[k + 1 :]) for k in places]


def _unknown_in(expression: str, known: Sequence[str]) -> str:
    """The part of an expression that is unknown, where the other is known or a minus has spaces around."""
    sides = [(left.strip(), right.strip()) for left, right in _split(expression)]
    for left, right in sides:
        if left in known or right in known:
            return right if left in known else left
    if " - " in expression and sides:
        return sides[0][0]
    return expression.strip()


def _of_csv(folder: Path) -> Mapping[str, Series]:
    """The columns of ``metrics.csv``, each with its rows that have a value."""
    file = folder / _CSV
    if not file.is_file():
        return {}
    found: dict[str, list[tuple[int, str, str, str]]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.DictReader(lines), 2):
                epoch, step = (row.get(name) or "nan" for name in ("epoch", "step"))
                for name, cell in (row | {"epoch": epoch}).items():  # every row has a step, whether an epoch or not
                    if name and cell and name != "step":
                        found.setdefault(name, []).append((number, epoch, step, cell))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error

    def numbers(name: str) -> Sequence[Logged]:
        of = f"{file}, line {{}}: {name}"
        return _in_order([_logged(epoch, step, cell, of.format(n)) for n, epoch, step, cell in found[name]])

    return {name: partial(numbers, name) for name in found}


def _logged(epoch: str, step: str, cell: str, where: str) -> Logged:
    try:
        at = float(step)
        return Logged(float(epoch), int(at) if math.isfinite(at) else 0, float(cell))
    except ValueError as error:
        raise UsageError(f"{where} is {cell!r} at epoch {epoch!r}, step {step!r}: expected numbers.") from error


def _of_events(folder: Path) -> Mapping[str, Series]:
    """The scalars of TensorBoard's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    nothing = {"images": 1, "compressedHistograms": 1, "histograms": 1, "audio": 1, "tensors": 1}
    events = EventAccumulator(str(folder), size_guidance=nothing | {"scalars": 0})
    events.Reload()
    names = events.Tags()["scalars"]
    epochs = sorted((one.step, one.value) for one in (events.Scalars("epoch") if "epoch" in names else ()))
    steps = [step for step, _ in epochs]

    def epoch_at(step: int) -> float:
        k = bisect_right(steps, step)
        return epochs[k - 1][1] if k else math.nan

    def numbers(name: str) -> Sequence[Logged]:
        return _in_order([Logged(epoch_at(one.step), one.step, one.value) for one in events.Scalars(name)])

    return {name: partial(numbers, name) for name in names}


def _in_order(values: list[Logged]) -> list[Logged]:
    """In the order of steps; of several at one step the one that was written last comes last."""
    return sorted(values, key=lambda one: one.step)
