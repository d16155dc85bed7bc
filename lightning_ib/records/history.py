"""Every value of a run, in the order of its measurements."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, overload

from lightning_ib.records.files import read_records, rows_of, write_rows
from lightning_ib.records.names import suggestion
from lightning_ib.records.points import InformationPoint, points_of, records_of
from lightning_ib.records.record import COUNTED, GRADIENT, Record, is_about_target
from lightning_ib.records.saved import records_in

if TYPE_CHECKING:
    from pandas import DataFrame


class History(Collection[InformationPoint]):
    """Every value of a run, or of one measurement, in the order in which they were measured.

    Iterating over it, indexing it and its length are about its points: an :class:`InformationPoint` for each layer and
    measurement. :meth:`records` are all values, those of estimators included. Where several :attr:`targets` were
    measured, points and estimates are those of the first one, the primary; :meth:`about` is the history of another.

    Args:
        records: the values.

    Example:
        >>> point = InformationPoint.missing("out", n_samples=80, unit="bits")._replace(i_ty=0.25, i_ty_se=0.01)
        >>> history = History.of([point], [Record(0, 0, "out", "probe", "I_TY", 0.5, unit="bits", n_samples=80)])
        >>> [point.i_ty for point in history], [(one.source, one.value) for one in history.estimates()]
        ([0.25], [('probe', 0.5)])
        >>> history
        History of 1 point and 1 estimate
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = list(records)
        wrong = next((one for one in self._records if not isinstance(one, Record)), None)
        if wrong is not None:
            raise TypeError(f"a History consists of Records, got {wrong!r}: History.of takes points.")
        self._points: list[InformationPoint] | None = None
        self._targets: list[str] | None = None
        self._csv: list[str] = []  # the rows of the file, as text
        self._n_written = 0  # the number of records in that

    @classmethod
    def of(cls, points: Iterable[InformationPoint], estimates: Iterable[Record] = ()) -> History:
        """The history that consists of these points and estimates; of several targets, those of the primary first."""
        return cls([*records_of(points), *estimates])

    def records(self) -> list[Record]:
        """Every value."""
        return list(self._records)

    @property
    def targets(self) -> list[str]:
        """The names of the targets, the primary first; empty where a single one was measured, or none."""
        if self._targets is None:
            self._targets = list(dict.fromkeys(record.target for record in self._records if record.target))
        return list(self._targets)

    def about(self, target: str) -> History:
        """The values about one of the :attr:`targets`, and those about none.

        Raises:
            ValueError: there is no such target; the message names the nearest.

        Example:
            >>> values = {"class": 3.0, "coarse": 2.0}
            >>> records = [Record(0, 0, "out", "probe", "I_TY", value, target=of) for of, value in values.items()]
            >>> history = History(records)
            >>> history.targets, [one.value for one in history.estimates()], history.about("coarse").records()[0].value
            (['class', 'coarse'], [3.0], 2.0)
        """
        if target not in self.targets:
            known = suggestion(target, self.targets) if self.targets else ", whose values are about one without a name."
            raise ValueError(f"there is no target {target!r} in this history{known}")
        return History(_about(self._records, target, self.targets))

    def points(self, target: str | None = None) -> list[InformationPoint]:
        """A point for each layer and measurement.

        Args:
            target: the name of one of the :attr:`targets`; ``None`` takes the primary one.

        Raises:
            ValueError: there is no such target.
        """
        return list(self._view) if target is None else self.about(target).points()

    def estimates(self, target: str | None = None) -> list[Record]:
        """The values of estimators, such as the probe.

        Args:
            target: as for :meth:`points`; values about no target are among those of each.

        Raises:
            ValueError: there is no such target.
        """
        if target is not None:
            return self.about(target).estimates()
        own = _about(self._records, *self._primary)
        return [record for record in own if record.source not in (*COUNTED, GRADIENT)]

    @property
    def _view(self) -> list[InformationPoint]:
        """The points of the primary target, built once."""
        if self._points is None:
            self._points = points_of(_about(self._records, *self._primary))
        return self._points

    @property
    def _primary(self) -> tuple[str, list[str]]:
        """The primary target, and all."""
        targets = self.targets
        return next(iter(targets), ""), targets

    def gradients(self) -> History:
        """The values of gradients and weights, as :class:`GradientSNRCallback` records them."""
        return History(record for record in self._records if record.source == GRADIENT)

    def information(self) -> History:
        """All values but those: of counted symbols and of estimators."""
        return History(record for record in self._records if record.source != GRADIENT)

    def at(self, epoch: int, step: int) -> History:
        """The values of one moment."""
        return History(record for record in self._records if record[:2] == (epoch, step))

    def last(self) -> History:
        """The measurement after the most epochs and steps."""
        moment = max((record[:2] for record in self._records), default=None)
        return History(record for record in self._records if record[:2] == moment)

    def until(self, epoch: int, step: int) -> History:
        """The measurements up to an epoch and a step, both included."""
        return History(record for record in self._records if record.epoch <= epoch and record.step <= step)

    def put(self, measured: History, by: str = "epoch") -> None:
        """Add a measurement, in place of one at the same moment; gradients and information stand side by side.

        Args:
            measured: the measurement.
            by: the unit of moments, ``"epoch"`` or ``"step"``.
        """
        if by not in ("epoch", "step"):
            raise ValueError(f"by must be 'epoch' or 'step', got {by!r}.")
        new = measured.records()
        now = {_kind_and_time(record, by) for record in new}
        if any(_kind_and_time(record, by) in now for record in self._records_since(new, by)):
            others = [record for record in self._records if _kind_and_time(record, by) not in now]
            self.assign(History(sorted(others + new, key=lambda record: getattr(record, by))))
        else:  # as a rule: time goes on
            before, of_new = self.targets, dict.fromkeys(record.target for record in new if record.target)
            self._records += new
            self._targets = list(dict.fromkeys([*before, *of_new]))
            if self._points is not None and (before or not of_new):
                self._points += points_of(_about(new, *self._primary))
            else:
                self._points = None

    def _records_since(self, new: Sequence[Record], by: str) -> Iterator[Record]:
        """The records from the first moment of new ones on, the latest first."""
        first = min((getattr(record, by) for record in new), default=math.inf)
        return takewhile(lambda record: getattr(record, by) >= first, reversed(self._records))

    def assign(self, other: History) -> None:
        """Become equal to another history, in place."""
        self._records, self._points, self._targets = other.records(), None, None
        self._csv, self._n_written = [], 0

    def __add__(self, other: History) -> History:
        if not isinstance(other, History):
            return NotImplemented
        return History([*self._records, *other._records])

    @overload
    def __getitem__(self, index: int) -> InformationPoint: ...

    @overload
    def __getitem__(self, index: slice) -> list[InformationPoint]: ...

    def __getitem__(self, index: int | slice) -> InformationPoint | list[InformationPoint]:
        return self._view[index]

    def __contains__(self, point: object) -> bool:
        return point in self._view

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[InformationPoint]:
        return iter(self.points())

    def __eq__(self, other: object) -> bool:
        """Whether all values are the same, NaN being the same as NaN."""
        if not isinstance(other, History):
            return NotImplemented
        return list(map(_comparable, self._records)) == list(map(_comparable, other._records))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        n = {"point": len(self), "estimate": len(self.estimates()), "gradient value": len(self.gradients().records())}
        parts = [f"{k} {name}{'s' * (k != 1)}" for name, k in n.items() if k or name == "point"]
        return f"History of {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}"

    def to_dataframe(self) -> DataFrame:
        """The records as a data frame, a row for each value and a column for each field of :class:`Record`.

        Raises:
            ModuleNotFoundError: pandas is missing.
        """
        try:
            from pandas import DataFrame
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_dataframe needs pandas: pip install pandas, or use to_csv.") from error
        return DataFrame(self._records, columns=list(Record._fields))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write every value to the last bit, one row each, replacing the file as a whole.

        Raises:
            OSError: writing failed; an older file is left as it was.
        """
        self._csv.append(rows_of(self._records[self._n_written :]))
        self._n_written = len(self._records)
        write_rows(self._csv, path)

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str]) -> History:
        """The history of a file that :meth:`to_csv` wrote, or that an earlier version wrote as points or estimates.

        Raises:
            ValueError: the file is of another kind.
        """
        return cls(read_records(path))

    def state_dict(self) -> dict[str, list[Any]]:
        """The columns of the history, in primitives, for a checkpoint."""
        return {name: [record[k] for record in self._records] for k, name in enumerate(Record._fields)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> tuple[History, list[str]]:
        """The history that the state of a callback holds, as far as it can be read.

        Args:
            state: a mapping with ``"history"``: from :meth:`state_dict`, or the points (and ``"estimates"``) of an
                earlier version.

        Returns:
            The history, and a list of the faults of the rest, in words: empty as a rule.
        """
        records, faults = records_in(state)
        return cls(records), faults


def _about(records: Sequence[Record], target: str, targets: Sequence[str]) -> list[Record]:
    """The records about a target or none.

    Where a run went on with several targets, its measurements of a single one before are those of the primary.
    """
    if target in targets[1:]:
        return [one for one in records if one.target == target or not (one.target or is_about_target(one.quantity))]
    return [one for one in records if one.target in ("", target)]


def _kind_and_time(record: Record, by: str) -> tuple[bool, int]:
    return record.source == GRADIENT, getattr(record, by)


def _comparable(record: Record) -> tuple[Any, ...]:
    return tuple("nan" if isinstance(value, float) and math.isnan(value) else value for value in record)
