"""The folder of a replay: what was measured in it already, and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_ib.cli.errors import UsageError
from lightning_ib.records.files import replacing
from lightning_ib.records.history import History

_STATE = "replay.pt"


class ReplayFolder:
    """A folder that a replay writes to, and goes on with.

    Nothing is written before the first :meth:`save`.

    Args:
        path: the folder.
        described: model, data and settings in words: a replay goes on with the same alone.

    Attributes:
        path: the folder.
        frozen: edges and calibrations of the first measurement; ``None`` before it.
        discretized: (epoch, step) → how the layers were discretized then, in words.

    Raises:
        UsageError: the folder holds something else, or a replay with other settings.
    """

    def __init__(self, path: Path, described: Mapping[str, str]) -> None:
        self.path, self._described = path, dict(described)
        self.frozen: Mapping[str, Any] | None = None
        self.discretized: dict[tuple[int, int], Mapping[str, str]] = {}
        state = path / _STATE
        if path.exists() and not path.is_dir():
            raise UsageError(f"--output {path} is a file: give a folder.")
        if state.is_file():
            self._read(state)
        elif path.is_dir() and any(path.iterdir()):
            raise UsageError(
                f"--output {path} holds files that are not those of a replay: give a new or an empty folder."
            )

    def _read(self, file: Path) -> None:
        import torch

        try:
            state = torch.load(file, weights_only=True)
            before, self.frozen = state["described"], state["frozen"]
            self.discretized = state["discretized"]
        except Exception as error:
            raise UsageError(f"{file} is damaged: give another --output, or remove the folder.") from error
        changed = [
            f"{name} {before.get(name, 'none')} instead of {self._described.get(name, 'none')}"
            for name in dict.fromkeys((*before, *self._described))
            if before.get(name) != self._described.get(name)
        ]
        if changed:
            raise UsageError(
                f"{self.path} holds a replay with {', '.join(changed[:3])}: give another --output, or the same options."
            )

    def save(self) -> None:
        """Write the state, replacing that of before as a whole."""
        import torch

        state = {"described": self._described, "frozen": self.frozen, "discretized": self.discretized}
        with replacing(self.path / _STATE) as partial:
            torch.save(state, partial)

    def history(self, csv: Path) -> History:
        """The measurements that are in the CSV already.

        Raises:
            UsageError: the file is damaged.
        """
        if not csv.is_file():
            return History()
        try:
            return History.read_csv(csv)
        except ValueError as error:
            raise UsageError(f"{error} Remove the file, or give another --output.") from error
