"""A plugin for pytest that runs the suite on another device: functions of ``lightning_ib.functional``, and Trainers.

``LIGHTNING_IB_TEST_DEVICE=cuda python -m pytest -p tests.on_device tests/unit/functional``. What a test hands
to a public function is moved to the device, and what comes back to the host, so that tests stay as they are. Classes,
and functions that a test imports from a module within, stay on the host.
"""

import functools
import importlib
import inspect
import os
import pkgutil

import torch
from torch import nn

DEVICE = torch.device(os.environ.get("LIGHTNING_IB_TEST_DEVICE", "cuda"))


def moved(value, device):
    """A value with the tensors in it on a device."""
    if type(value) in (torch.Tensor, nn.Parameter):
        return value if value.device.type == "meta" else value.to(device)
    if isinstance(value, tuple):
        parts = [moved(one, device) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if type(value) is list:
        return [moved(one, device) for one in value]
    if type(value) is dict:
        return {key: moved(one, device) for key, one in value.items()}
    return value


class OnDevice:
    """A function at work on the device; what it calls in turn is there already."""

    inside = False

    @classmethod
    def wrapped(cls, function):
        @functools.wraps(function)
        def on_device(*args, **kwargs):
            if cls.inside:
                return function(*args, **kwargs)
            cls.inside = True
            try:
                found = function(*[moved(one, DEVICE) for one in args], **moved(kwargs, DEVICE))
                return moved(found, "cpu")
            finally:
                cls.inside = False

        return on_device


def trainers():
    """The Trainer of each of Lightning's two names."""
    import pytorch_lightning

    yield pytorch_lightning.Trainer
    try:
        import lightning.pytorch
    except ImportError:
        return
    yield lightning.pytorch.Trainer


def on_gpu(start):
    """A Trainer's start, on a GPU where a test asked for one process on the host."""

    @functools.wraps(start)
    def started(self, *args, **kwargs):
        alone = kwargs.get("devices", 1) in (1, "auto") and kwargs.get("strategy", "auto") == "auto"
        if alone and kwargs.get("accelerator", "cpu") == "cpu" and DEVICE.type == "cuda":
            kwargs |= {"accelerator": "gpu", "devices": 1}
        return start(self, *args, **kwargs)

    return started


def pytest_configure(config):
    import lightning_ib
    import lightning_ib.functional as public

    for module in pkgutil.walk_packages(lightning_ib.__path__, "lightning_ib."):  # those keep the functions as they are
        if "tensorboard_plugin" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in public.__all__:
        if inspect.isfunction(function := getattr(public, name)):
            setattr(public, name, OnDevice.wrapped(function))
    for trainer in trainers():
        trainer.__init__ = on_gpu(trainer.__init__)
