"""Makes torchvision importable where its compiled operators do not load, as beside a PyTorch built for the CPU only."""

import importlib
import importlib.util
import sys

import torch

_library = None


def make_importable():
    """Declare the operators that torchvision, on being imported, expects to be there. No test here calls them.

    timm imports torchvision, and so does torchmetrics where it is installed.
    """
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
