"""Lightning's two namespaces: ``pytorch_lightning`` and ``lightning.pytorch`` are two class trees of one library.

Either may be installed, or both, and a Trainer of either must take the callback. The callback's base class inherits
from those that the program itself imported: to import the other as well would move Lightning's log to the logger of
that one, past the user's settings. Everything else is taken from the namespace of the Trainer at hand.
"""

from __future__ import annotations

import importlib
import logging
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tqdm import tqdm

__all__ = ["CallbackBase", "follow_imports", "lightning_of", "say", "with_progress"]

Item = TypeVar("Item")

_NAMES = ("pytorch_lightning", "lightning.pytorch")


def _imported() -> list[ModuleType]:
    """The namespaces that are imported, or else the first that is installed."""
    imported = [module for module in map(sys.modules.get, _NAMES) if hasattr(module, "Callback")]
    for name in () if imported else _NAMES:
        try:
            return [importlib.import_module(name)]
        except ModuleNotFoundError as error:
            # An import error inside Lightning must surface.
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
    """A line in the log of the Trainer's namespace, from one process, that stands above the bars that are shown."""
    if trainer.is_global_zero:
        logger = logging.getLogger(f"{lightning_of(trainer).__name__}.utilities.rank_zero")
        with _above_the_bars(logger):
            logger.info(message)


@contextmanager
def _above_the_bars(logger: logging.Logger) -> Iterator[None]:
    """Clear tqdm's bars and draw them again below; where Rich's display is live, let the log go through it."""
    proxies = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "rich_proxied_file")]
    moved, at = [], cast("logging.Logger | None", logger)
    while at is not None:
        for handler in at.handlers:
            # A handler holds the stream of before; Rich has put its own in its place since.
            for proxy in proxies:
                if isinstance(handler, logging.StreamHandler) and handler.stream is proxy.rich_proxied_file:
                    moved.append((handler, handler.setStream(proxy)))
        at = at.parent if at.propagate else None
    try:
        with tqdm.external_write_mode(file=sys.stderr):
            yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)


def with_progress(trainer: Any, items: Iterable[Item], total: int | None, description: str) -> Iterable[Item]:
    """``items`` with a bar beside the one the Trainer shows, tqdm's or Rich's; as they are if it shows none."""
    bar = trainer.progress_bar_callback
    if bar is None or not getattr(bar, "is_enabled", False):
        return items
    progress = importlib.import_module(f"{lightning_of(trainer).__name__}.callbacks.progress")
    if isinstance(bar, progress.TQDMProgressBar):
        return _on_a_tqdm_bar(bar, progress.tqdm_progress.Tqdm, items, total, description)
    if isinstance(bar, progress.RichProgressBar):
        return _on_a_rich_bar(trainer, bar, progress.rich_progress.CustomProgress, items, total, description)
    return items


def _on_a_tqdm_bar(bar: Any, kind: Any, items: Iterable[Item], total: int | None, description: str) -> Iterator[Item]:
    options = {"leave": False, "dynamic_ncols": True, "file": sys.stdout, "bar_format": bar.BAR_FORMAT}
    # Drawn as often as the Trainer's own, and on the first free line: which of those are shown is unknown here.
    with kind(desc=description, total=total, miniters=bar.refresh_rate, mininterval=0, **options) as shown:
        for item in items:
            yield item
            shown.update()
        shown.total = shown.n  # it may be unknown, or too large
        shown.refresh()


def _on_a_rich_bar(
    trainer: Any, bar: Any, kind: Any, items: Iterable[Item], total: int | None, description: str
) -> Iterator[Item]:
    total_ = math.inf if total is None else total
    with _live_display(trainer, bar, kind) as progress:
        # Lightning finds its own tasks by their place: ours is hidden in the end instead of removed, and reused.
        # Bars of unknown length have a kind of their own.
        kinds = {(one.description, math.isinf(one.total)): one.id for one in progress.tasks}
        task = kinds.get((description, math.isinf(total_)))
        if task is None:
            task = progress.add_task(description, total=total_)
        progress.reset(task, total=total_, visible=True)
        try:
            n = 0
            for n, item in enumerate(items, 1):
                yield item
                progress.update(task, completed=n)
                # Lightning's display needs a refresh: by its own clock, or at once in older releases.
                getattr(progress, "soft_refresh", progress.refresh)()
            if math.isfinite(total_):
                progress.update(task, total=n)
            progress.refresh()
        finally:
            progress.update(task, visible=False)


@contextmanager
def _live_display(trainer: Any, bar: Any, kind: Any) -> Iterator[Any]:
    """The display of the Trainer's bar; before there is one, a temporary one."""
    if bar.progress is not None and bar.progress.live.is_started:
        yield bar.progress
    else:
        with kind(*bar.configure_columns(trainer), transient=True) as own:
            yield own
