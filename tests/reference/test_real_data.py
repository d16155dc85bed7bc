"""Networks on MNIST: what is known to be found there is found."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib import InformationPlaneCallback
from lightning_ib.evaluation.resolution import resolution_sweep
from tests.helpers.mnist import ThesisNet, channels_last
from tests.helpers.sweeps import batches
from tests.helpers.tiny import fit, pl


@pytest.mark.slow
def test_the_thesis_network_saturates_without_pools_and_not_behind_its_softmax(data_dir, mnist_test):
    model = ThesisNet()
    model.load_state_dict(torch.load(data_dir / "thesis" / "max_pool" / "epoch_9.pt", weights_only=True))
    x, y = (part[:2000] for part in mnist_test)
    pools = {"conv2": {"none": None, "max": nn.MaxPool3d((4, 3, 3))}, "out": {"softmax": nn.Softmax(dim=1)}}
    sweep = resolution_sweep(model, batches(x, y, 100), ["conv2", "out"], n_bins=(2, 10), pools=pools, unit="nats")
    for row in sweep.rows:
        if row.pool == "none":
            assert row.h_t == pytest.approx(math.log(row.n_samples), abs=1e-9)
            assert row.i_ty == pytest.approx(row.h_y, abs=1e-9)
            assert row.singleton_fraction == 1
        if row.pool == "softmax":
            assert row.saturation < 0.6
            assert row.i_ty == pytest.approx(row.h_y, abs=0.2)


class Thesis(pl.LightningModule):
    def __init__(self):
        super().__init__()
        net = channels_last(ThesisNet())
        self.conv1, self.conv2, self.out = net.conv1, net.conv2, net.out

    forward = ThesisNet.forward

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.002)


@pytest.fixture(scope="module")
def by_default(tmp_path_factory, mnist_train, mnist_test):
    """One training, measured by default on both kinds of data."""
    torch.manual_seed(0)
    train = DataLoader(torch.utils.data.TensorDataset(*(t[:10_000] for t in mnist_train)), 50, shuffle=True)
    val = DataLoader(torch.utils.data.TensorDataset(*(t[:3_000] for t in mnist_test)), 500)
    callbacks = {None: InformationPlaneCallback(), "train": InformationPlaneCallback(data="train", prefix="train")}
    fit(tmp_path_factory.mktemp("mnist"), *callbacks.values(), model=Thesis(), train=train, val=val, max_epochs=2)
    return callbacks


@pytest.mark.slow
@pytest.mark.parametrize("data", [None, "train"])
def test_the_default_works_without_tuning_on_mnist(by_default, data):
    """Every layer it picks can be believed at every epoch, and the head comes to what its accuracy proves (Fano)."""
    callback = by_default[data]
    assert {p.layer for p in callback.history} == {"conv1.0", "conv2.0", "out"}
    assert {p.verdict for p in callback.history} == {"ok"}
    of = {layer: [p for p in callback.history if p.layer == layer] for layer in ("conv1.0", "conv2.0", "out")}
    for points in of.values():
        assert all(p.i_ty > p.i_ty_permuted + 1 for p in points)
        assert len({p.i_ty for p in points}) == 3
    before, *_, after = of["out"]
    assert after.i_ty > before.i_ty + 0.5, "the head learns the label"
    assert after.h_t < before.h_t - 1, "and gathers its samples into ten clusters"
    assert after.accuracy > 0.95
    assert after.i_ty > after.i_ty_fano - 2 * after.i_ty_se
    probed = {
        one.layer: one.value for one in callback.history.estimates() if one.epoch == 2 and one.quantity == "accuracy"
    }
    assert min(probed.values()) > 0.8
