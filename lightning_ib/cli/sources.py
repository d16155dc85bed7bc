"""Where model, data and options come from: names on the command line, or the config of a LightningCLI."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from inspect import isclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_ib.cli.errors import UsageError, in_words
from lightning_ib.cli.names import made, named_object

_CALLBACK = "InformationPlaneCallback"


class Sources(NamedTuple):
    """What a replay is made of.

    Attributes:
        model: a class, a function without arguments, or a model.
        model_name: how messages name it.
        data: likewise; ``None`` takes the loaders that the model defines.
        data_name: how messages name it.
        callback: the callback of the run, with its options; ``None`` without one.
    """

    model: Any
    model_name: str
    data: Any
    data_name: str
    callback: Any = None


def sources_of(arguments: Namespace) -> Sources:
    """Model, data and callback, as they are named.

    Raises:
        UsageError: a name leads nowhere, or the model is missing.
    """
    config = _read_config(Path(arguments.config)) if arguments.config else {}
    model, model_name = _source(arguments.model, "--model", config.get("model"))
    data, data_name = _source(arguments.data, "--data", config.get("data"))
    if model is None:
        raise UsageError("which model? Give --model module.Class, such as train.Net, or --config config.yaml.")
    callback = None
    if arguments.callback:
        callback = named_object(arguments.callback, "--callback")
        if isclass(callback) and not any(kind.__name__ == _CALLBACK for kind in callback.__mro__):
            raise UsageError(
                f"--callback {arguments.callback} is no {_CALLBACK}: give the run's, or a function that returns it."
            )
        if isclass(callback) or not hasattr(callback, "session"):
            callback = made(callback, arguments.callback, "--callback")
    elif (section := _callback_in(config)) is not None:
        callback = _instantiated(section, "the callback in --config")
    if callback is not None and not all(hasattr(callback, name) for name in ("session", "reporter", "schedule")):
        raise UsageError(f"--callback {arguments.callback} gives a {type(callback).__name__}: expected an {_CALLBACK}.")
    return Sources(model, model_name, data, data_name or model_name, callback)


def _source(name: str | None, option: str, section: Any) -> tuple[Any, str]:
    """An object that is named, with the arguments of a section of the config where there is one."""
    path = section.get("class_path") if isinstance(section, Mapping) else None
    if section is None or (name is not None and path is not None):
        return (None, "") if name is None else (named_object(name, option), name)
    if path is None and name is None:
        raise UsageError(
            f"the config holds the arguments of {option[2:]} and not its class: add {option} module.Class."
        )
    named_object(path or str(name), option)  # a better message, and the current folder on the path
    whole = section if path is not None else {"class_path": name, "init_args": section}
    return partial(_instantiated, whole, option), str(path or name)


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UsageError("--config needs jsonargparse: pip install 'lightning-ib[cli]'.") from error
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, Mapping):
        raise UsageError(f"--config {path} holds no mapping: expected the config of a LightningCLI.")
    fit = config.get("fit")
    found = fit if "model" not in config and isinstance(fit, Mapping) else config
    if not any(section in found for section in ("model", "data", "trainer")):
        raise UsageError(
            f"--config {path} has no `model:` section; it looks like hparams.yaml, whose values are in the checkpoint "
            "already: give the config.yaml of a LightningCLI, or --model module.Class."
        )
    return found


def _callback_in(config: Mapping[str, Any]) -> Any:
    """The section of the InformationPlaneCallback in a config; ``None`` without one."""
    trainer = config.get("trainer")
    callbacks = trainer.get("callbacks") if isinstance(trainer, Mapping) else None
    for one in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(one, Mapping) and str(one.get("class_path", "")).endswith(_CALLBACK):
            return one
    return None


def _instantiated(section: Mapping[str, Any], option: str) -> Any:
    """The object of a section with ``class_path`` and ``init_args``."""
    try:
        from jsonargparse import ArgumentParser
    except ModuleNotFoundError as error:
        raise UsageError("--config needs jsonargparse: pip install 'lightning-ib[cli]'.") from error
    kind = named_object(str(section["class_path"]), option)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, "it", required=True)
    try:
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # before 4.49
        return instantiate(parser.parse_object({"it": dict(section)})).it
    except (Exception, SystemExit) as error:
        words = in_words(error) if isinstance(error, SystemExit) else " ".join(str(error).split())
        raise UsageError(f"{option}: {section['class_path']} cannot be made from the config: {words}") from error
