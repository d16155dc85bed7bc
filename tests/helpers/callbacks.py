"""Quantizers for the callback, and a training that is compared to the last bit."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib import FixedBins, Quantizer
from tests.helpers.tiny import N_TRAIN, N_VAL, TinyModule, fit, has_hooks, make_data, pl

EarlyStopping, ModelCheckpoint = pl.callbacks.EarlyStopping, pl.callbacks.ModelCheckpoint

FIXED = {
    "hidden": Quantizer(bins=FixedBins([-0.5, 0.5])),
    "out": Quantizer(nn.Softmax(dim=1), FixedBins([0.3, 0.6])),
}


def epochs(callback):
    return sorted({point.epoch for point in callback.history})


class Augmented(torch.utils.data.Dataset):
    """Random augmentation from all three global random states."""

    def __init__(self, n):
        self.data = make_data(n)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return x + 0.1 * torch.randn(6) + 0.1 * float(np.random.randn()) + 0.1 * random.random(), y


def trained_state(tmp_path, *callbacks, val, generator, workers=0):
    own = torch.Generator().manual_seed(3) if generator else None
    loader = DataLoader(Augmented(N_TRAIN), 16, shuffle=True, generator=own, num_workers=workers)
    model, run = fit(tmp_path, *callbacks, train=loader, val=DataLoader(Augmented(N_VAL), 16) if val else None)
    return {
        "weights": model.state_dict(),
        "optimizer": run.optimizers[0].state_dict()["state"],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "generator": loader.generator.get_state() if generator else None,
        "losses": model.losses,
        "logged": {k: v for k, v in run.callback_metrics.items() if not k.startswith("ib")},
        "modes": [module.training for module in model.modules()],
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a == b


def never_trained(tmp_path, callback, error, sentence, **options):
    model = options.pop("model", None) or TinyModule()
    with pytest.raises(error, match=sentence):
        fit(tmp_path, callback, model=model, **options)
    assert model.losses == []
    assert not has_hooks(model)
