"""The checkpoints of a run: files, their moments, and their weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_ib.cli.errors import UsageError

SUFFIXES = (".ckpt", ".pt", ".pth")
"""Of the files in a folder that are taken for checkpoints."""

_PLACES = ("state_dict", "model_state_dict", "model")
"""Of the weights in a checkpoint; a plain state dict has them at the top."""

_CALLBACK = "InformationPlaneCallback"


class Checkpoint(NamedTuple):
    """A file with weights, and when they were saved.

    Attributes:
        path: the file.
        epoch: the epochs of training that had begun, as the callback counts them.
        step: the optimizer steps so far; the epoch where the file holds none.
        is_dated: whether the file or its name says so; else it is its place among the others.
        has_step: whether the file holds the steps.
        is_shifted: whether the file counts epochs from 0, and has got one more here.
    """

    path: Path
    epoch: int
    step: int
    is_dated: bool = True
    has_step: bool = True
    is_shifted: bool = False

    def shifted(self) -> Checkpoint:
        """The checkpoint of a file that counts epochs from 0."""
        return self._replace(epoch=self.epoch + 1, step=self.step + 1, is_shifted=True)

    @property
    def moment(self) -> tuple[int, int]:
        """Epoch and step."""
        return self.epoch, self.step


def checkpoint_files(given: Sequence[str]) -> list[Path]:
    """The files that are given, those in given folders included, each once.

    Raises:
        UsageError: there is no such file, or a folder holds none.
    """
    files: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            # The folder of a run has them below.
            inside = _inside(path) or _inside(path / "checkpoints")
            if not inside:
                raise UsageError(
                    f"the folder {path} holds no checkpoint: expected files *{', *'.join(SUFFIXES)}.{_below(path)}"
                )
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"there is no checkpoint {path}: give a file, or a folder of them.")
    return list({file.resolve(): file for file in files}.values())


def _inside(folder: Path) -> list[Path]:
    """The checkpoints in a folder, in their natural order."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted((file for file in files if file.suffix in SUFFIXES), key=_natural)


def _below(folder: Path) -> str:
    """The end of a sentence: folders of checkpoints that are deeper."""
    below = sorted({one for depth in ("*", "*/*") for one in folder.glob(f"{depth}/checkpoints") if _inside(one)})
    return f" Did you mean {' or '.join(map(str, below[:3]))}?" if below else ""


def _natural(path: Path) -> list[tuple[int, str]]:
    """The order in which 9 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def load(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """What a checkpoint holds, on the host.

    Args:
        path: the file.
        trust: whether the file may run code while it is read, as pickles do.

    Raises:
        UsageError: the file is unreadable, holds objects that need trust, or no mapping.
    """
    import pickle

    import torch

    options: dict[str, Any] = {"map_location": "cpu", "weights_only": not trust}
    try:
        try:
            held = torch.load(path, mmap=True, **options)
        except RuntimeError:  # of the form before version 1.6 of PyTorch
            held = torch.load(path, **options)
    except pickle.UnpicklingError as error:
        if trust or any(sign in str(error) for sign in ("Unsupported operand", "invalid load key")):
            raise _unreadable(path) from error
        found = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:global|class) ([\w.]+)", str(error))
        what = next((one for one in (found.groups() if found else ()) if one), "other objects")
        raise UsageError(
            f"{path} holds {what} beside tensors and plain values, and reading it may run code: if you trust the file, "
            "add --trust."
        ) from error
    except Exception as error:
        raise _unreadable(path) from error
    if isinstance(held, torch.nn.Module):
        held = held.state_dict()
    if not isinstance(held, Mapping):
        raise UsageError(
            f"{path} holds a {type(held).__name__}: expected a checkpoint of Lightning or a state dict of a model."
        )
    return dict(held)


def _unreadable(path: Path) -> UsageError:
    size = f"{path.stat().st_size:,} bytes" if path.is_file() else "a folder"
    return UsageError(
        f"{path} ({size}) cannot be read as a checkpoint, it may be cut or of another kind: copy it again, or leave it "
        "out."
    )


def is_of_lightning(held: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is one of Lightning's Trainer, rather than a plain state dict."""
    return isinstance(held.get("state_dict"), Mapping)


def weights(held: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict in a checkpoint."""
    for key in _PLACES:
        if isinstance(held.get(key), Mapping):
            return dict(held[key])
    return dict(held)


def check_weights(held: Mapping[str, Any], path: Path) -> None:
    """Check that a file holds weights; one of Lightning may get them from a hook of the model.

    Raises:
        UsageError: it holds none.
    """
    from torch import Tensor

    if is_of_lightning(held) or any(isinstance(value, Tensor) for value in weights(held).values()):
        return
    if any(isinstance(value, Mapping) for value in held.values()) and not any(place in held for place in _PLACES):
        places = ", ".join(_PLACES)
        raise UsageError(f"{path}: weights are looked for under {places}; it has {', '.join(map(str, held))}.")
    raise UsageError(f"{path} holds no weights: expected a checkpoint of Lightning or a state dict of a model.")


def callback_state(held: Mapping[str, Any], prefix: str | None) -> tuple[Mapping[str, Any], str]:
    """The state of the InformationPlaneCallback in a checkpoint, and its prefix; both empty without one.

    Args:
        held: the checkpoint.
        prefix: that of the callback, where there are several; ``None`` takes the first.
    """
    callbacks = held.get("callbacks")
    states = callbacks if isinstance(callbacks, Mapping) else {}
    ours = {str(key): state for key, state in states.items() if str(key).startswith(_CALLBACK)}
    exact = f"{_CALLBACK}{ {'prefix': prefix}!r}"
    key = exact if exact in ours else next(iter(ours), "")
    found = re.search(r"'prefix': '([^']+)'", key)
    state = ours.get(key)
    return (state, found[1] if found else "") if isinstance(state, Mapping) else ({}, "")


def moment_of(held: Mapping[str, Any], path: Path, place: int, by: str) -> Checkpoint:
    """When a checkpoint was saved.

    Args:
        held: its content.
        path: its file: the epoch of a plain state dict is read from the name.
        place: its place among the others, from 1 on: the epoch where the name has none.
        by: ``"epoch"`` counts the epoch at work, ``"step"`` counts it once it is over.
    """
    if not is_of_lightning(held):
        found = re.search(r"epoch\D?0*(\d+)", path.stem) or re.search(r"(?:^|[_-])0*(\d+)$", path.stem)
        if isinstance(held.get("epoch"), int):
            return Checkpoint(path, held["epoch"], held["epoch"], has_step=False)
        epoch = int(found[1]) if found else place
        return Checkpoint(path, epoch, epoch, found is not None, has_step=False)
    epoch, step = int(held.get("epoch", place - 1)) + 1, int(held.get("global_step") or 0)
    loops = held.get("loops")
    loop = loops.get("fit_loop") if isinstance(loops, Mapping) else None
    if isinstance(loop, Mapping):
        # After the end of a fit Lightning has counted its last epoch already.
        epochs = loop.get("epoch_progress", {}).get("current", {})
        epoch = int(epochs.get("started", epoch))
        is_over = loop.get("epoch_loop.batch_progress", {}).get("is_last_batch", True)
        if by == "step" and not is_over:
            epoch = int(epochs.get("completed", epoch - 1))
    return Checkpoint(path, epoch, step or epoch, has_step=step > 0 or epoch == 0)


def in_order(
    files: Sequence[Path], *, by: str, trust: bool, say: Callable[[str], None]
) -> tuple[list[Checkpoint], dict[str, Any]]:
    """The checkpoints in the order of time, and the content of the first.

    A second file of one moment with the same weights, as ``last.ckpt`` is, is left out with a line.

    Args:
        files: their files.
        by: the unit of moments, ``"epoch"`` or ``"step"``.
        trust: whether files may run code.
        say: takes a line.

    Raises:
        UsageError: a file is unreadable, or two files are of one moment.
    """
    found: dict[int, Checkpoint] = {}
    ordered = sorted(files, key=lambda file: file.stem.startswith("last"))
    dated = _dated(ordered, by, trust, say)
    for one in sorted(dated, key=lambda one: not one.is_dated):
        path, known = one.path, list(found.values())
        if known and known[0].is_dated and not one.is_dated:
            twin = next((other for other in known if _same_weights(other.path, path, trust)), None)
            if twin is None:
                raise UsageError(f"{path} has no epoch in its name, and others have: rename it such as epoch=3.pt.")
            say(f"{path} is left out: it holds the same weights as {twin.path}.")
            continue
        other = found.setdefault(getattr(one, by), one)
        if other is one:
            continue
        if other.moment == one.moment and _same_weights(other.path, path, trust):
            say(f"{path} is left out: it holds the same weights as {other.path}.")
            continue
        raise both_of_one_moment(other, one, by)
    in_time = sorted(found.values(), key=lambda one: one.moment)
    return in_time, load(in_time[0].path, trust=trust)


def _dated(files: Sequence[Path], by: str, trust: bool, say: Callable[[str], None]) -> list[Checkpoint]:
    """The moments of files; where plain ones count the epochs from 0, they get the number that the callback counts."""
    dated, plain = [], []
    for place, path in enumerate(files, 1):
        held = load(path, trust=trust)
        check_weights(held, path)
        dated.append(moment_of(held, path, place, by))
        plain += [] if is_of_lightning(held) else [dated[-1]]
    first = min(plain, key=lambda one: one.epoch, default=None)
    if first is None or first.epoch > 0:
        return dated
    say(f"The files count epochs from 0: {first.path} is taken for epoch 1, the end of the first, and so on.")
    return [one.shifted() if one in plain else one for one in dated]


def both_of_one_moment(one: Checkpoint, other: Checkpoint, by: str, more: str = "") -> UsageError:
    """The error of two checkpoints that the unit of moments cannot tell apart.

    Args:
        one: a checkpoint.
        other: another of the same epoch or step.
        by: the unit of moments.
        more: what ``--by step`` needs besides.
    """
    remedy = "give one of them" + (f", or --by step{more}" if other.step != one.step else "")
    return UsageError(f"{one.path} and {other.path} are both of {by} {getattr(one, by)}: {remedy}.")


def digest(state: Mapping[str, Any]) -> str:
    """A short text that is the same for the same weights alone.

    Args:
        state: a state dict.
    """
    from hashlib import sha256

    import torch
    from torch.nn.parameter import is_lazy

    found = sha256()
    for key, value in sorted(state.items()):
        found.update(key.encode())
        if not isinstance(value, torch.Tensor) or is_lazy(value):
            found.update(re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode())
            continue
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        dense = value.detach().cpu()
        dense = (
            dense.dequantize() if dense.is_quantized else dense.to_dense() if dense.layout != torch.strided else dense
        )
        found.update(dense.resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def hyperparameters(held: Mapping[str, Any]) -> dict[str, str]:
    """The hyperparameters of model and data in a checkpoint, in words."""
    words = {}
    for key, of in (("hyper_parameters", ""), ("datamodule_hyper_parameters", " of the data")):
        found = held.get(key)
        for name, value in found.items() if isinstance(found, Mapping) else ():
            # The order of a set is another in each process.
            shown = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
            words[f"hyperparameter {name}{of}"] = re.sub(r" at 0x[0-9a-f]+", "", repr(shown))
    return words


def _same_weights(one: Path, other: Path, trust: bool) -> bool:
    from torch import Tensor, equal

    a, b = weights(load(one, trust=trust)), weights(load(other, trust=trust))
    if a.keys() != b.keys():
        return False
    tensors = [(a[key], b[key]) for key in a if isinstance(a[key], Tensor) and isinstance(b[key], Tensor)]
    return all(x.shape == y.shape and equal(x, y) for x, y in tensors)


def fitting_weights(model: Any, held: Mapping[str, Any], path: Path, name: str) -> dict[str, Any]:
    """The weights of a checkpoint, under the names that they have in the model.

    Raises:
        UsageError: a key is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    state = _unwrapped(weights(held), own)
    strict = getattr(model, "strict_loading", True) is not False
    where = f"{path} is a checkpoint of another model than {name}"
    for key, value in state.items():
        if key not in own:
            if not strict:
                continue
            raise UsageError(
                f"{where}: its {key!r} is unexpected, the model has no such weight. Give the right --model."
            )
        came, mine = _shape(value), _shape(own[key])
        if None not in (came, mine) and came != mine:
            shapes = f"{came}, and the model's has {mine}"
            raise UsageError(f"{where}: its {key!r} has shape {shapes}. Give the right --model.")
    if strict and (lacking := [key for key in own if key not in state]):
        raise UsageError(f"{where}: it lacks {lacking[0]!r}, which the model has. Give the right --model.")
    return state


def load_weights(model: Any, held: Mapping[str, Any], path: Path, name: str) -> None:
    """Load the weights of a checkpoint into a model, all of them.

    Raises:
        UsageError: a key is missing, unexpected or of another shape; the model is left as it was.
    """
    state = fitting_weights(model, held, path, name)
    try:
        model.load_state_dict(state, strict=getattr(model, "strict_loading", True) is not False)
    except Exception as error:
        raise UsageError(f"{path} cannot be loaded into {name}: {type(error).__name__}: {error}") from error


def _unwrapped(state: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the traces of wrappers, DistributedDataParallel and torch.compile, that the model lacks."""
    for trace in ("module.", "_orig_mod."):
        shorter = {key.replace(trace, "", 1): value for key, value in state.items()}
        if not state.keys() & own.keys() and shorter.keys() & own.keys():
            return shorter
    return state


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of a weight; ``None`` where it has none, or none yet."""
    from torch import Tensor
    from torch.nn.parameter import is_lazy

    return tuple(value.shape) if isinstance(value, Tensor) and not is_lazy(value) else None
