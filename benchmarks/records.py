"""The results of a run: a row for each estimator on each case at each N, in a CSV that rows are added to one by one."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_type_hints

from cases import CASES
from estimators import ESTIMATORS
from peer_estimators import PEERS

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Row:
    """One estimator on one case at one N: a row of the CSV.

    Attributes:
        seeds: how many samples it was run on; a failure counts too.
        mean: over the samples with a finite value, in bits; NaN if all failed. So are ``bias`` and ``rmse``.
        median_seconds: of a call.
        values: one for each sample, in order.
        note: the package and version of a peer, limits that were applied, and errors; between semicolons.
    """

    case: str
    kind: str
    dims: str
    truth_bits: float
    estimator: str
    n: int
    seeds: int
    mean: float
    bias: float
    rmse: float
    median_seconds: float
    values: str
    note: str

    @property
    def key(self) -> Key:
        """The key of a row."""
        return self.case, self.estimator, self.n

    @property
    def failed(self) -> bool:
        """Whether any sample failed."""
        return len(self.values.split()) < self.seeds

    @property
    def within(self) -> bool:
        """Whether the bias is at most 0.1 bit or 10 % of the truth; False if all samples failed."""
        return abs(self.bias) <= max(0.1, 0.1 * self.truth_bits)


HEADER = [field.name for field in fields(Row)]


def read(path: Path) -> dict[Key, Row]:
    """The rows of a file; of two with the same key the later one; truncated rows are dropped.

    Raises:
        SystemExit: the file is of another kind.
    """
    if not path.exists():
        return {}
    hints, rows = get_type_hints(Row), {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, HEADER)
        if header != HEADER:
            raise SystemExit(f"{path} has the columns {header}, not {HEADER}: name another file with --results.")
        for values in reader:
            if len(values) == len(HEADER):
                row = Row(**{name: hints[name](value) for name, value in zip(HEADER, values)})
                rows[row.key] = row
    return rows


def ordered(rows: Iterable[Row]) -> list[Row]:
    """By case, N and estimator, as they are listed; a case or estimator that was removed comes last."""
    places = [{name: i for i, name in enumerate(names)} for names in (CASES, [*ESTIMATORS, *PEERS])]
    last = max(map(len, places))
    return sorted(rows, key=lambda row: (places[0].get(row.case, last), row.n, places[1].get(row.estimator, last)))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a file anew, in order, by way of a second one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, ordered(rows)))
    os.replace(draft, path)


def append(path: Path, row: Row) -> None:
    """Add one row to a file."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, HEADER, lineterminator="\n").writerow(asdict(row))
