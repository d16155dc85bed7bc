"""The folder of a replay: what was measured in it already, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from lightning_ib.cli.checkpoints import Checkpoint, both_of_one_moment
from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.runs import whole_rows
from lightning_ib.records.files import replacing
from lightning_ib.records.history import History

_STATE = "replay.pt"


class Known(NamedTuple):
    """A checkpoint that was measured.

    Attributes:
        file: its path, as it was given.
        digest: of its weights.
        has_step: whether it holds the steps.
        n_values: the number of its values in the CSV.
    """

    file: str
    digest: str
    has_step: bool
    n_values: int


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
        known: (epoch, step) → the checkpoint that was measured.
        events: the names of the event files.
        counts_from_0: whether the plain files count epochs from 0.

    Raises:
        UsageError: the folder holds something else, or a replay with other settings.
    """

    def __init__(self, path: Path, described: Mapping[str, str]) -> None:
        self.path, self._described = path, dict(described)
        self.frozen: Mapping[str, Any] | None = None
        self.discretized: dict[tuple[int, int], Mapping[str, str]] = {}
        self.known: dict[tuple[int, int], Known] = {}
        self.events: list[str] = []
        self.counts_from_0 = False
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
            self.events, self.counts_from_0 = list(state["events"]), bool(state["counts_from_0"])
            self.known = {moment: Known(*one) for moment, one in state["known"].items()}
        except Exception as error:
            raise UsageError(f"{file} is damaged: give another --output, or move the folder away.") from error
        changed = [
            f"{name} {before.get(name, 'none')} instead of {self._described.get(name, 'none')}"
            for name in dict.fromkeys((*before, *self._described))
            if before.get(name) != self._described.get(name)
        ]
        if changed:
            raise UsageError(
                f"{self.path} holds a replay with {', '.join(changed[:3])}: give another --output, or the same options."
            )

    def counted(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Checkpoints with the epochs counted as those before, where plain files among them counted from 0."""
        shifted = any(one.is_shifted for one in checkpoints)
        plain = [one for one in checkpoints if one.is_dated and not one.has_step]
        if self.counts_from_0 and plain and not shifted:
            say(f"The files before counted epochs from 0: {plain[0].path} is taken for epoch {plain[0].epoch + 1}.")
            return [one.shifted() if one in plain else one for one in checkpoints]
        self.counts_from_0 |= shifted
        return list(checkpoints)

    def is_known(self, checkpoint: Checkpoint, digest: str, by: str) -> bool:
        """Whether a checkpoint was measured already.

        Args:
            checkpoint: a checkpoint.
            digest: of its weights.
            by: the unit of moments, ``"epoch"`` or ``"step"``.

        Raises:
            UsageError: another one of the same moment was measured.
        """
        known = self.known.get(checkpoint.moment)
        if known is not None and known.digest == digest:
            return True
        at = f"{by} {getattr(checkpoint, by)}"
        if known is not None:
            before = f" ({known.file})" if known.file != str(checkpoint.path) else ""
            raise UsageError(
                f"{self.path} holds {at} of other weights{before} than {checkpoint.path} has: give another --output."
            )
        for (epoch, step), one in self.known.items():
            other = Checkpoint(Path(one.file), epoch, step)
            if getattr(other, by) == getattr(checkpoint, by):
                raise both_of_one_moment(other, checkpoint, by, " and another --output")
        return False

    def save(self) -> None:
        """Write the state, replacing that of before as a whole."""
        import torch

        state: dict[str, Any] = {"described": self._described, "frozen": self.frozen, "discretized": self.discretized}
        state |= {"events": list(self.events), "counts_from_0": self.counts_from_0}
        state["known"] = {moment: tuple(one) for moment, one in self.known.items()}
        with replacing(self.path / _STATE) as partial:
            torch.save(state, partial)

    def history(self, csv: Path) -> History:
        """The measurements that are in the CSV already, whole ones; of a file that is cut the last one is missing.

        Raises:
            UsageError: the file is damaged.
        """
        if not csv.is_file():
            return History()
        try:
            records = whole_rows(csv, say).records()
        except (ValueError, TypeError) as error:
            sentence = str(error).rstrip(".")
            raise UsageError(f"{sentence}. Move the folder {self.path} away, or give another --output.") from error
        counts = Counter(record[:2] for record in records)
        cut = {moment for moment, n in counts.items() if moment in self.known and n < self.known[moment].n_values}
        if cut:
            say(f"{csv} lacks values of epoch {', '.join(str(epoch) for epoch, _ in sorted(cut))}: measured again.")
        return History(record for record in records if record[:2] not in cut)

    def probe(self) -> None:
        """Try to write a file in the folder, and leave all as it was.

        Raises:
            UsageError: that failed.
        """
        missing = [one for one in (self.path, *self.path.parents) if not one.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UsageError(f"--output {self.path} cannot be written: {error.strerror}.") from error
        finally:
            for one in missing:
                with suppress(OSError):
                    one.rmdir()
