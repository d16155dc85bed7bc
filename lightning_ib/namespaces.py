"""Lightning's two namespaces: ``pytorch_lightning`` and ``lightning.pytorch`` are two class trees of one library.

Either may be installed, or both, and a Trainer of either must take the callback. The callback's base class inherits
from those that the program itself imported: to import the other as well would move Lightning's log to the logger of
that one, past what the user set. Everything else is taken from the namespace of the Trainer at hand.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

_NAMES = ("pytorch_lightning", "lightning.pytorch")


def _imported() -> list[ModuleType]:
    """The namespaces that are imported; where there is none yet, the first that is installed."""
    imported = [module for module in map(sys.modules.get, _NAMES) if hasattr(module, "Callback")]
    for name in () if imported else _NAMES:
        try:
            return [importlib.import_module(name)]
        except ModuleNotFoundError as error:
            # Something else that is missing, inside Lightning, is not ours to hide.
            if error.name not in (name, name.split(".")[0]):
                raise
    if not imported:
        raise ModuleNotFoundError(
            "InformationPlaneCallback needs PyTorch Lightning: pip install pytorch-lightning (or lightning). "
            "InformationPlane and measure work without it."
        )
    return [module for module in imported if module is not None]


if TYPE_CHECKING:
    from pytorch_lightning import Callback as CallbackBase
else:

    class CallbackBase(*(module.Callback for module in _imported())):
        """Lightning's ``Callback``, of every namespace that is imported by the time an instance is made."""

        def __new__(cls, *_: Any, **__: Any) -> CallbackBase:
            """An instance that a Trainer of every namespace at hand takes for one of its callbacks."""
            follow_imports()
            return super().__new__(cls)


def follow_imports() -> None:
    """Make the callback one of every namespace that was imported meanwhile."""
    bases = tuple(module.Callback for module in _imported())
    if CallbackBase.__bases__ != bases:
        CallbackBase.__bases__ = bases


def lightning_of(trainer: Any) -> ModuleType:
    """The namespace that a Trainer belongs to, as a module."""
    for kind in type(trainer).__mro__:
        for name in _NAMES:
            if kind.__module__.startswith(f"{name}."):
                return importlib.import_module(name)
    raise TypeError(f"{type(trainer).__name__} is no Trainer of pytorch_lightning or lightning.pytorch.")


def say(trainer: Any, message: str) -> None:
    """A line in the log of the Trainer's namespace, from one process."""
    if trainer.is_global_zero:
        logging.getLogger(f"{lightning_of(trainer).__name__}.utilities.rank_zero").info(message)


def with_progress(trainer: Any, batches: Iterable[Any], total: int | None, description: str) -> Iterable[Any]:
    """``batches`` with a bar beside the one the Trainer shows, tqdm's or Rich's; as they are where it shows none."""
    bar = trainer.progress_bar_callback
    if bar is None or not getattr(bar, "is_enabled", False):
        return batches
    progress = importlib.import_module(f"{lightning_of(trainer).__name__}.callbacks.progress")
    if isinstance(bar, progress.TQDMProgressBar):
        tqdm, position = progress.tqdm_progress.Tqdm, bar.process_position + 1
        return tqdm(batches, desc=description, total=total, position=position, leave=False, dynamic_ncols=True)
    if isinstance(bar, progress.RichProgressBar) and bar.progress is not None:
        return _on_a_rich_bar(bar.progress, batches, total, description)
    return batches


def _on_a_rich_bar(progress: Any, batches: Iterable[Any], total: int | None, description: str) -> Iterator[Any]:
    total_ = float("inf") if total is None else total
    task = next((task.id for task in progress.tasks if task.description == description), None)
    if task is None:
        task = progress.add_task(description, total=total_)
    progress.reset(task, total=total_, visible=True)
    try:
        for batch in batches:
            yield batch
            progress.advance(task)
    finally:
        # Lightning finds its own tasks by their place: it is hidden, not removed.
        progress.update(task, visible=False)
