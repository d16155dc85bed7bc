"""What is measured: a model and its data, made from names on the command line or from the config of a LightningCLI."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from inspect import isclass, signature
from typing import Any

from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.names import made

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
        return made(maker, name, option)
    import torch

    file = io.BytesIO()
    torch.save({**held, **_FOR_LOADING}, file)
    file.seek(0)
    options: dict[str, Any] = {"map_location": "cpu"}
    # The file was read with care already; releases before 2.6 lack the argument.
    options |= {"weights_only": False} if "weights_only" in signature(load).parameters else {}
    options |= {"strict": False} if "strict" in signature(load).parameters else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are no weights
            return load(file, **options)
    except Exception as error:
        raise UsageError(
            f"{option} {name} cannot be made with the checkpoint's hyperparameters: {type(error).__name__}: {error}"
        ) from error


def _is_datamodule(data: Any) -> bool:
    return any(kind.__name__ == "LightningDataModule" for kind in type(data).__mro__)


def validation_loader(data: Any, model: Any, name: str) -> Any:
    """The loader that a validation would read; without validation data that of the training.

    Args:
        data: from :func:`made_data`; ``None`` takes the loaders that the model defines.
        model: the model.
        name: how messages name the data.

    Raises:
        UsageError: there is none.
    """
    if data is not None and not _is_datamodule(data):
        return data
    owner = model if data is None else data
    try:
        if data is not None:
            data.prepare_data()
            data.setup("fit")
        for loaders in ("val_dataloader", "train_dataloader"):
            if _defines(owner, loaders):
                loader = _first(getattr(owner, loaders)())
                if loader is not None:
                    return loader
    except Exception as error:
        raise UsageError(f"the data of {name} cannot be read: {type(error).__name__}: {error}") from error
    if data is None:
        raise UsageError("no data is given: add --data module.Class, a datamodule or a function that returns a loader.")
    raise UsageError(f"--data {name} defines neither val_dataloader nor train_dataloader: one of them is needed.")


def _defines(owner: Any, hook: str) -> bool:
    """Whether a hook of Lightning's is defined by the user's class."""
    return not getattr(getattr(type(owner), hook, None), "__qualname__", "DataHooks.").startswith("DataHooks.")


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
    """

    def __init__(self, model: Any, data: Any, device: Any) -> None:
        self._owners, self._device = [data, model], device

    def __call__(self, batch: Any) -> Any:
        """The batch as a step sees it."""
        from lightning_ib.evaluation.passes import to

        batch = self._hook("on_before_batch_transfer", batch, batch, 0)
        batch = self._hook("transfer_batch_to_device", to(batch, self._device), batch, self._device, 0)
        return self._hook("on_after_batch_transfer", batch, batch, 0)

    def _hook(self, name: str, default: Any, *arguments: Any) -> Any:
        owner = next((one for one in self._owners if _defines(one, name)), None)
        return default if owner is None else getattr(owner, name)(*arguments)
