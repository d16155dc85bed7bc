"""The thesis' recorded figures, met by measuring its networks again."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ib import Bins, FixedBins, Quantizer, measure
from tests.helpers.mnist import ThesisNet, channels_last


class ThesisBins(Bins):
    """The thesis' two edges a coordinate, fitted with NumPy."""

    def edges(self, z):
        values = z.numpy()
        low = np.quantile(values, 0.01, axis=0) - 0.1
        high = (np.quantile(values, 0.99, axis=0) + 0.1) / 2
        return torch.from_numpy(np.stack([low, high], axis=1))


def thesis_layers() -> dict[str, Quantizer]:
    return {
        "conv1": Quantizer(nn.MaxPool3d((4, 4, 4)), ThesisBins()),
        "conv2": Quantizer(nn.MaxPool3d((4, 3, 3)), ThesisBins()),
        "out": Quantizer(nn.Softmax(dim=1), FixedBins([0.0, 0.5])),
    }


@pytest.mark.slow
def test_thesis_record_is_met(data_dir, mnist_train):
    epoch = 9
    run = data_dir / "thesis" / "max_pool"
    model = ThesisNet()
    model.load_state_dict(torch.load(run / f"epoch_{epoch}.pt", weights_only=True))
    points = measure(
        channels_last(model),
        list(zip(mnist_train[0].split(100), mnist_train[1].split(100))),
        thesis_layers(),
        input=Quantizer(nn.MaxPool2d(4), FixedBins([0.0, 0.5])),
        unit="nats",
    )
    measured = {"h_x": points[0].h_x, "h_y": points[0].h_y}
    for k, point in enumerate(points, start=1):
        measured |= {f"mi_xz{k}": point.i_xt, f"mi_yz{k}": point.i_ty, f"h_z{k}": point.h_t}
    recorded = json.loads((run / "recorded.json").read_text())[epoch]
    assert measured.keys() == recorded.keys()
    assert measured == pytest.approx(recorded, abs=1e-4)
