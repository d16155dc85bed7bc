"""The runs that are named on the command line: folders with a CSV of the callback, or such files."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from lightning_ib.cli.errors import UsageError, nearest
from lightning_ib.records.history import History
from lightning_ib.records.units import in_unit, unit_of_history

_FILES = ("information_plane*.csv", "information.csv")
"""Of a run in its folder; the second in a version before this one, with the values of estimators beside it."""

_GRADIENTS = "gradients*.csv"
"""Where the gradients of a run are that has no plane, or another prefix for it."""

_EARLIER_ESTIMATES = "estimators.csv"


class Run(NamedTuple):
    """A run that was read.

    Attributes:
        name: short, and different from the others.
        file: its CSV.
        history: its values.
    """

    name: str
    file: Path
    history: History

    @property
    def title(self) -> str:
        """The name, and the target that is shown of several."""
        return f"{self.name}, {self.history.targets[0]}" if self.history.targets else self.name

    @property
    def by(self) -> str:
        """The unit of moments: ``"step"`` where several measurements share an epoch."""
        moments = {record[:2] for record in self.history.records()}
        return "step" if len({epoch for epoch, _ in moments}) < len(moments) else "epoch"


def read_runs(
    given: Sequence[str],
    say: Callable[[str], None],
    layers: Sequence[str] | None = None,
    *,
    target: str | None = None,
    gradients: bool = False,
) -> list[Run]:
    """The runs that are named, in their order.

    Args:
        given: folders and CSV files.
        say: takes a line, such as about a file that is cut.
        layers: names or patterns of the layers to keep; ``None`` keeps all.
        target: the one to keep, where several were measured in one pass; ``None`` keeps all, the primary one first.
        gradients: whether their gradients are wanted, rather than their information.

    Raises:
        UsageError: a run is missing, given twice, of another kind, or without a value.
    """
    files = [file for name in given for file in (_with_gradients if gradients else _files)(Path(name))]
    for file in files:
        if [other.resolve() for other in files].count(file.resolve()) > 1:
            raise UsageError(f"{file} is given twice: give each run once.")
    runs = []
    for name, file in zip(run_names(files), files):
        history = _read(file, say)
        if layers is not None:
            history = _chosen(history, layers, file)
        if target is not None:
            history = _about(history, target, file)
        has_gradients = bool(history.gradients().records())
        if gradients and not has_gradients:
            raise UsageError(f"{file} holds no gradients: GradientSNRCallback records them, epoch by epoch.")
        if not gradients and has_gradients and not history:
            raise UsageError(f"{file} holds gradients alone: lightning-ib plot --gradients draws them.")
        if not gradients and not any(math.isfinite(point.i_xt) for point in history):
            raise UsageError(f"{file} holds no measured value: all I(X;T) are NaN or missing.")
        runs.append(Run(name, file, history))
    return runs


def in_one_unit(runs: Sequence[Run], unit: str | None, say: Callable[[str], None]) -> list[Run]:
    """The runs in one unit: the given one, or that of the first run."""
    wanted = unit or unit_of_history(runs[0].history)
    others = [run.name for run in runs if unit_of_history(run.history) != wanted]
    if others and unit is None:
        say(f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} converted into {wanted}.")
    return [run._replace(history=in_unit(run.history, wanted)) for run in runs]


def _with_gradients(path: Path) -> list[Path]:
    """The files with gradients in a folder: by themselves, or else those of the plane."""
    return sorted(path.glob(_GRADIENTS)) or _files(path)


def _files(path: Path) -> list[Path]:
    """The files of values in a folder, one for each callback, or the file itself."""
    if path.is_file():
        if path.suffix != ".csv":
            raise UsageError(f"{path} is no run: give the folder with information_plane.csv, or that file.")
        return [path]
    if not path.is_dir():
        raise UsageError(f"there is no run {path}: give the folder of a run, or its information_plane.csv.")
    for pattern in _FILES:
        if found := sorted(path.glob(pattern)):
            return found
    below = sorted({file.parent for depth in ("*", "*/*", "*/*/*") for file in path.glob(f"{depth}/{_FILES[0]}")})
    if any(path.glob(_GRADIENTS)):
        raise UsageError(f"the folder {path} holds gradients alone: lightning-ib plot --gradients draws them.")
    remedy = f"did you mean {' or '.join(map(str, below[:3]))}?" if below else "give the folder of a run."
    raise UsageError(f"the folder {path} holds no information_plane.csv: {remedy}")


def run_names(files: Sequence[Path]) -> list[str]:
    """Short and different names: the parts of the paths in which they differ.

    Example:
        >>> run_names([Path(f"logs/{name}/version_0/information_plane.csv") for name in ("tanh", "relu")])
        ['tanh', 'relu']
        >>> run_names([Path("logs/version_3/information_plane.csv")])
        ['version_3']
    """
    parts = []
    for file in files:
        stem = file.stem.removeprefix("information_plane").removeprefix("gradients").strip("_")
        folders = [part for part in file.resolve().parent.parts if part != "lightning_logs"]
        parts.append([*folders, *([stem] if stem and stem != "information" else [])])
    if len(parts) == 1:
        return [parts[0][-1]]
    if len({len(one) for one in parts}) == 1:
        varied = [len(set(column)) > 1 for column in zip(*parts)]
        return ["/".join(part for part, varies in zip(one, varied) if varies) for one in parts]
    while len({one[0] for one in parts}) == 1 and all(len(one) > 1 for one in parts):
        parts = [one[1:] for one in parts]
    if parts[0][:1] == parts[1][:1] and len({one[0] for one in parts}) == 1:  # one lies in the other
        return ["/".join(one) for one in parts]
    # Of each the shortest end that no other has.
    ends = (["/".join(one[-n:]) for one in parts] for n in range(1, max(map(len, parts)) + 1))
    return next((names for names in ends if len(set(names)) == len(names)), ["/".join(one) for one in parts])


def _read(file: Path, say: Callable[[str], None]) -> History:
    """The values of a file; of one that is cut, those of its whole rows."""
    try:
        history = whole_rows(file, say)
        beside = file.with_name(_EARLIER_ESTIMATES)
        if file.name == _FILES[1] and beside.is_file():
            history = history + whole_rows(beside, say)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no text: expected the CSV of a run.") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{str(error).rstrip('.')}. Give the information_plane.csv of a run.") from error
    return history


def whole_rows(file: Path, say: Callable[[str], None]) -> History:
    """The values of a file; where it ends in the middle of a row, those before it.

    Args:
        file: a CSV.
        say: takes a line about such a file.

    Raises:
        ValueError: it is of another kind, or damaged.
    """
    text = file.read_bytes().decode("utf-8")
    if text.endswith("\n") or text.count("\n") == 0:
        return History.read_csv(file)
    say(f"{file} ends in the middle of a row: that row is left out.")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, file.name)
        whole.write_bytes(text[: text.rindex("\n") + 1].encode())
        try:
            return History.read_csv(whole)
        except ValueError as error:
            raise ValueError(str(error).replace(str(whole), str(file))) from error


def _chosen(history: History, layers: Sequence[str], file: Path) -> History:
    """The values of some layers."""
    known = dict.fromkeys(record.layer for record in history.records())
    for pattern in layers:
        if not any(fnmatchcase(layer, pattern) for layer in known):
            raise UsageError(f"{file} has no layer {pattern}{nearest(pattern, known)}")
    chosen = {layer for layer in known for pattern in layers if fnmatchcase(layer, pattern)}
    return History(record for record in history.records() if record.layer in chosen)


def _about(history: History, target: str, file: Path) -> History:
    """The values about one of several targets."""
    if not history.targets:
        raise UsageError(f"{file} has no targets by name, so that --target {target} chooses nothing: leave it out.")
    if target not in history.targets:
        raise UsageError(f"{file} has no target {target}{nearest(target, history.targets)}")
    return history.about(target)
