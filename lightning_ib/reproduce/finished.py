"""The runs of an experiment that are done: their rows in a folder, so that an interrupted experiment goes on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_ib.records.files import replacing
from lightning_ib.reproduce.errors import ExperimentError

Row = dict[str, Any]
"""A row of a table: a name for each column, and a number or a text."""

_OPTIONS = "settings.json"


class FinishedRuns:
    """The rows of runs that are done, a JSON file each, beside the settings that they belong to.

    Args:
        folder: is made when the first run is done. ``None`` keeps the rows of no run.
        options: that the rows depend on, plain values; a folder with others is refused.

    Raises:
        ExperimentError: the folder holds runs of other settings, or of settings that cannot be read.

    Example:
        >>> FinishedRuns(None, {}).rows("seed 0", lambda: [{"loss": 0.5}])
        [{'loss': 0.5}]
    """

    def __init__(self, folder: Path | None, options: Mapping[str, Any]) -> None:
        self._folder, self._options = folder, dict(options)
        if folder is None or not any(folder.glob("*.json")):
            return
        found = _read(folder / _OPTIONS)
        if not isinstance(found, dict):
            raise ExperimentError(
                f"{folder / _OPTIONS} is missing or damaged, so that the settings of the runs beside it are unknown: "
                f"give another --out, or delete the folder {folder}."
            )
        if found != self._options:
            names = [name for name in {**found, **self._options} if found.get(name) != self._options.get(name)]
            raise ExperimentError(
                f"{folder} holds runs of other settings ({', '.join(names)}): give another --out, or delete it."
            )

    def has(self, run: str) -> bool:
        """Whether a run is done."""
        return self._folder is not None and self._file(self._folder, run).exists()

    @property
    def n_done(self) -> int:
        """How many runs are done."""
        return 0 if self._folder is None else sum(file.name != _OPTIONS for file in self._folder.glob("*.json"))

    def rows(self, run: str, make: Callable[[], list[Row]]) -> list[Row]:
        """The rows of a run: read where it is done, else made and kept.

        Args:
            run: its name, different for each run; it becomes the name of a file.
            make: runs it and returns its rows, of numbers and texts.

        Raises:
            ExperimentError: the file of the run is damaged, or the rows cannot be kept.
        """
        if self._folder is None:
            return make()
        file = self._file(self._folder, run)
        if file.exists():
            rows = _kept(_read(file))
            if rows is None:
                raise ExperimentError(
                    f"{file} is damaged, changed or of another version: delete it, and its run is run again."
                )
            return rows
        made = make()
        try:
            _write(self._folder / _OPTIONS, self._options)
            _write(file, {"rows": made, "checksum": _checksum(made)})
        except OSError as error:
            raise ExperimentError(f"{file} cannot be written: {error.strerror}.") from error
        return made

    @staticmethod
    def _file(folder: Path, run: str) -> Path:
        return folder / f"{run.replace(' ', '_')}.json"


def _read(file: Path) -> Any:
    """What a file holds, or ``None`` where it is missing or no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _kept(content: Any) -> list[Row] | None:
    """The rows in a file of a run, or ``None`` where they are not those that were written: each counts in a result."""
    rows: list[Row] | None = content.get("rows") if isinstance(content, dict) else None
    return rows if rows and content.get("checksum") == _checksum(rows) else None


def _checksum(rows: list[Row]) -> int:
    return zlib.crc32(json.dumps(rows).encode())


def _write(file: Path, content: Any) -> None:
    with replacing(file) as partial:
        partial.write_text(json.dumps(content, indent=0), encoding="utf-8")
