"""timm, whose torchvision has compiled operators that do not load beside a PyTorch built for the CPU only.

torchmetrics imports torchvision wherever it is found, and with it breaks what uses torchmetrics. So the two lie in a
folder of their own, ``vision`` in the environment, that only the tests of timm's networks put on their path.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

_library = None


def timm():
    """The module; a test that asks for it is skipped where it is not there."""
    folder = str(Path(sys.prefix) / "vision")
    if folder not in sys.path:
        sys.path.append(folder)
    _make_torchvision_importable()
    return pytest.importorskip("timm", reason="needs timm and torchvision: make test installs them")


def _make_torchvision_importable():
    """Declare the operators that torchvision, on being imported, expects to be there. No test here calls them."""
    global _library
    if _library is not None or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")  # it takes its operators along when it is collected
        for operator in ("nms", "qnms"):
            _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
