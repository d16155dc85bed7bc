"""The history as a CSV file: one row for each value."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_type_hints

from lightning_ib.records.earlier import EARLIER, records_of_earlier
from lightning_ib.records.record import Record
from lightning_ib.records.tags import UNITS


def rows_of(records: Iterable[Record]) -> str:
    """Records as rows of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(records)
    return text.getvalue()


def write_rows(rows: Iterable[str], path: str | os.PathLike[str]) -> None:
    """Write rows below a header, replacing the file as a whole: a reader always sees a complete file.

    Raises:
        OSError: writing failed; an older file is left as it was.
    """
    with replacing(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(Record._fields)
        file.writelines(rows)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``; once it is written whole it takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a file that :func:`write_rows` wrote, every value to the last bit.

    Files that versions before wrote are read too: without a target, and those of points and of estimates.

    Raises:
        ValueError: the file is of another kind, ends in the middle of a row, or has a cell that cannot be.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:  # editors add a mark
        rows = csv.reader(file)
        header = tuple(next(rows, ()))
        earlier = next((kind for kind in EARLIER if tuple(kind) == header), None)
        if header != Record._fields and earlier is None:
            raise ValueError(f"{path} is no history: its columns are {header}, expected {Record._fields}.")
        types = get_type_hints(Record) if earlier is None else earlier
        records: list[Record] = []
        for row in rows:
            if len(row) != len(header):
                raise ValueError(
                    f"{path} is no whole history: line {rows.line_num} has {len(row)} of {len(header)} cells."
                )
            values = {}
            for (name, of), cell in zip(types.items(), row):
                try:
                    values[name] = of(cell)
                except ValueError as error:
                    raise ValueError(f"{path}, line {rows.line_num}: {name} is {cell!r}, expected a number.") from error
            if values["unit"] not in ("", *UNITS):
                raise ValueError(
                    f"{path}, line {rows.line_num}: unit is {values['unit']!r}, expected {' or '.join(UNITS)}."
                )
            records += [Record(**values)] if earlier is None else records_of_earlier(values)
        return records
