"""What is measured: a model and its data, made from names on the command line or from the config of a LightningCLI."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from inspect import isclass, signature
from typing import Any

from lightning_ib.cli.errors import UsageError, in_words
from lightning_ib.cli.names import lacks, made, needed

_FOR_LOADING: dict[str, Any] = {"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "callbacks": {}}
"""The parts of a checkpoint that making an object leaves out: weights are loaded with a better message."""


def made_model(maker: Any, name: str, held: Mapping[str, Any]) -> Any:
    """The model to measure, in eval mode, with the hyperparameters of a checkpoint.

    Args:
        maker: a class, a function without arguments, or a model.
        name: how messages name it.
        held: the checkpoint.

    Raises:
        UsageError: it cannot be made, or is no module.
    """
    from torch import nn

    model = maker if isinstance(maker, nn.Module) else _from_checkpoint(maker, name, "--model", held)
    if not isinstance(model, nn.Module):
        raise UsageError(f"--model {name} gives a {type(model).__name__}: expected a torch.nn.Module.")
    return model.eval()


def made_data(maker: Any, name: str, held: Mapping[str, Any]) -> Any:
    """The data to measure on: a datamodule, or an iterable of batches.

    Args:
        maker: a class, a function without arguments, or the data.
        name: how messages name it.
        held: a checkpoint, for the hyperparameters of a datamodule.

    Raises:
        UsageError: it cannot be made, or is neither of the two.
    """
    from lightning_ib.evaluation.loaders import checked_loader, iter_once

    is_maker = isclass(maker) or (callable(maker) and not hasattr(maker, "__iter__"))
    data = _from_checkpoint(maker, name, "--data", held) if is_maker else maker
    if _is_datamodule(data):
        return data
    try:
        checked_loader(data)
    except TypeError as error:
        raise UsageError(f"--data {name}: {error}") from error
    # A generator is read once, and every checkpoint takes a pass.
    return list(data) if iter_once(data) else data


def _from_checkpoint(maker: Any, name: str, option: str, held: Mapping[str, Any]) -> Any:
    """An object with the hyperparameters that a checkpoint holds for its class, where it can take them."""
    key = getattr(maker, "CHECKPOINT_HYPER_PARAMS_KEY", None)
    load = getattr(maker, "load_from_checkpoint", None)
    if not (isclass(maker) and isinstance(key, str) and held.get(key) and callable(load)):
        thing = made(maker, name, option)
        if defines(thing, "configure_model"):  # layers that Lightning has made late
            thing.configure_model()
        return thing
    takes = signature(load).parameters
    # The file was read with care already; releases before 2.6 lack the argument.
    options: dict[str, Any] = {"weights_only": False} if "weights_only" in takes else {}
    without = options | ({"strict": False} if "strict" in takes else {})
    try:
        return _loaded(load, {**held, **_FOR_LOADING}, without)
    except (Exception, SystemExit):  # a hook of the class may look for weights, or insist on all of them
        try:
            return _loaded(load, held, options)
        except (Exception, SystemExit) as error:
            lacking = [one for one in needed(maker) if one not in held[key]]
            if lacking and isinstance(error, TypeError):
                raise lacks(lacking, name, option) from error
            raise UsageError(
                f"{option} {name} cannot be made with the checkpoint's hyperparameters: {in_words(error).rstrip('.')}. "
                "Give a function without arguments that returns it instead."
            ) from error


def _loaded(load: Callable[..., Any], held: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """What Lightning's ``load_from_checkpoint`` makes of a checkpoint."""
    import torch

    file = io.BytesIO()
    torch.save(dict(held), file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no weights
        return load(file, map_location="cpu", **options)


def _is_datamodule(data: Any) -> bool:
    return any(kind.__name__ == "LightningDataModule" for kind in type(data).__mro__)


def validation_loader(data: Any, model: Any, name: str, asked: Any = None) -> tuple[Any, bool]:
    """The loader that a validation would read; without validation data that of the training.

    Args:
        data: from :func:`made_data`; ``None`` takes the loaders that the model defines.
        model: the model.
        name: how messages name the data.
        asked: of the callback: ``"train"``, ``"val"``, a loader, or ``None``.

    Returns:
        The loader, and whether a validation reads it.

    Raises:
        UsageError: there is none.
    """
    if not (asked is None or isinstance(asked, str)):
        return asked, False
    if data is not None and not _is_datamodule(data):
        return data, True
    owner = model if data is None else data
    try:
        if data is not None:
            data.prepare_data()
            data.setup("fit")
        for loaders in ("train_dataloader",) if asked == "train" else ("val_dataloader", "train_dataloader"):
            if defines(owner, loaders):
                loader = _first(getattr(owner, loaders)())
                if loader is not None:
                    return loader, loaders == "val_dataloader"
    except (Exception, SystemExit) as error:
        raise UsageError(f"the data of {name} cannot be read: {in_words(error)}") from error
    if data is None:
        raise UsageError("no data is given: add --data module.Class, a datamodule or a function that returns a loader.")
    raise UsageError(f"--data {name} defines neither val_dataloader nor train_dataloader: one of them is needed.")


def defines(owner: Any, hook: str) -> bool:
    """Whether a hook of Lightning's is defined by the user's class."""
    found = getattr(getattr(type(owner), hook, None), "__qualname__", "DataHooks.")
    return not found.startswith(("DataHooks.", "ModelHooks.", "CheckpointHooks.", "LightningModule."))


def _first(loaders: Any) -> Any:
    """The first of several loaders, as the callback takes it; a list of batches as it is."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    of_loaders = isinstance(loaders, (list, tuple)) and loaders and hasattr(loaders[0], "dataset")
    return loaders[0] if of_loaders else loaders


class Transfer:
    """Takes a batch to the device, through the hooks that a Trainer would call.

    Args:
        model: may define the hooks.
        data: may define them, and goes first.
        device: where to.
        dtype: that of the weights, where it is another than float32: real numbers get it too.
    """

    def __init__(self, model: Any, data: Any, device: Any, dtype: Any = None) -> None:
        self._owners, self._device, self._dtype = [data, model], device, dtype

    def __call__(self, batch: Any) -> Any:
        """The batch as a step sees it."""
        from lightning_ib.evaluation.passes import to

        if self._dtype is not None:
            batch = _real_as(batch, self._dtype)
        batch = self._hook("on_before_batch_transfer", batch, batch, 0)
        batch = self._hook("transfer_batch_to_device", to(batch, self._device), batch, self._device, 0)
        return self._hook("on_after_batch_transfer", batch, batch, 0)

    def _hook(self, name: str, default: Any, *arguments: Any) -> Any:
        owner = next((one for one in self._owners if defines(one, name)), None)
        return default if owner is None else getattr(owner, name)(*arguments)


def weights_dtype(state: Mapping[str, Any]) -> Any:
    """The type of all real weights, where it is another than float32, as in a run with true double precision."""
    import torch

    kinds = {one.dtype for one in state.values() if isinstance(one, torch.Tensor) and one.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 and kinds != {torch.float32} else None


def _real_as(batch: Any, dtype: Any) -> Any:
    """A batch with its real tensors in a type, as Lightning converts them for such a run."""
    from torch import Tensor

    if isinstance(batch, Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    if type(batch) is dict:
        return {key: _real_as(value, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_real_as(value, dtype) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_real_as(value, dtype) for value in batch)
    return batch
