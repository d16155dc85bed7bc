"""Notices every operation that waits for a device."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoSync(TorchDispatchMode):
    """Refuses every operation that would make the host wait for a device, or move data between devices."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "nonzero_static",
        "is_nonzero",
        "item",
        "masked_select",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "equal",
        "allclose",
    )

    def __init__(self):
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.seen += 1
        assert name not in self.WAITING, f"{func} waits for the device"
        if name == "_to_copy" and kwargs.get("device") is not None:
            assert torch.device(kwargs["device"]).type == args[0].device.type, f"{func} moves data to another device"
        if name in ("index", "index_put", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} waits for the device to count what its mask selects"
        if name == "copy_":
            assert args[0].device == args[1].device, f"{func} moves data to another device"
        return func(*args, **kwargs)


@contextmanager
def nothing_waits():
    def refused(name):
        def method(self, *args, **kwargs):
            raise AssertionError(f"Tensor.{name} waits for the device")

        return method

    with pytest.MonkeyPatch.context() as patch, NoSync() as mode:
        # The ways to a value that no operation is dispatched for on the CPU.
        for name in ("tolist", "numpy", "cpu", "item", "__bool__", "__int__", "__float__", "__index__", "__array__"):
            patch.setattr(torch.Tensor, name, refused(name))
        yield mode
