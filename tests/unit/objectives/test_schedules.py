"""How a weight changes in training, and that a resumed run goes on with the same weights."""

import math
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib.objectives import Annealing, GaussianBottleneck, VIBLoss
from tests.helpers.tiny import make_data, pl, trainer


@pytest.mark.parametrize(("shape", "half"), [("linear", 0.505), ("exponential", 0.1), ("cosine", 0.505)])
def test_it_goes_from_start_to_end_and_stays_there(shape, half):
    annealing = Annealing(0.01, 1, 100, shape, first_step=10)
    assert [annealing(step) for step in (0, 10, 110, 5000)] == [0.01, 0.01, 1, 1]
    assert annealing(60) == pytest.approx(half)
    values = [annealing(step) for step in range(10, 111)]
    assert values == sorted(values)
    falling = Annealing(1, 0.01, 100, shape, first_step=10)
    assert falling(60) == pytest.approx(half)


def test_the_shapes():
    assert Annealing(0, 1, 4)(1) == 0.25
    assert Annealing(0, 1, 4, "cosine")(1) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    assert Annealing(1e-4, 1, 4, "exponential")(1) == pytest.approx(1e-3)


def test_it_is_a_value():
    annealing = Annealing(0, 1, 4)
    assert annealing == Annealing(0, 1, 4) == pickle.loads(pickle.dumps(annealing))
    assert repr(annealing) == "Annealing(start=0, end=1, n_steps=4, shape='linear', first_step=0)"
    with pytest.raises(AttributeError):
        annealing.end = 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Annealing(-1, 1, 4), ValueError, "Annealing: start must be a finite number of at least 0, got -1"),
        (lambda: Annealing(0, math.nan, 4), ValueError, "Annealing: end must .* got nan"),
        (lambda: Annealing(0, 1, 0), ValueError, "Annealing: n_steps must be an integer of at least 1, got 0"),
        (lambda: Annealing(0, 1, 4, first_step=-1), ValueError, "Annealing: first_step must .* got -1"),
        (lambda: Annealing(0, 1, 4, "exponential"), ValueError, "start must be positive for an exponential shape, got"),
        (lambda: Annealing(0, 1, 4, "sine"), ValueError, "Annealing: shape must be .* got 'sine'"),
        (lambda: Annealing(0, 1, 4)(-1), ValueError, "step must be an integer of at least 0, got -1"),
        (lambda: Annealing(0, 1, 4)(1.5), TypeError, "step must be an integer of at least 0, got 1.5"),
    ],
)
def test_schedules_that_make_no_sense(make, error, message):
    with pytest.raises(error, match=message):
        make()


class Annealed(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.bottleneck, self.decoder = GaussianBottleneck(6, 2), nn.Linear(2, 4)
        self.objective, self.annealing, self.betas = VIBLoss(0), Annealing(0, 1, 12), []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.objective.beta = self.annealing(self.global_step)
        self.betas.append(self.objective.beta)
        code = self.bottleneck(x)
        return self.objective(self.decoder(code.sample), y, code.kl).loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_resumed_run_goes_on_with_the_same_weights(tmp_path):
    batches = DataLoader(make_data(32, 0), batch_size=8)
    whole, first, rest = Annealed(), Annealed(), Annealed()
    trainer(tmp_path, max_epochs=4).fit(whole, batches)
    part = trainer(tmp_path, max_epochs=2)
    part.fit(first, batches)
    part.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, max_epochs=4).fit(rest, batches, ckpt_path=tmp_path / "half.ckpt")
    assert first.betas + rest.betas == whole.betas
    assert whole.betas[:4] == pytest.approx([0, 1 / 12, 2 / 12, 3 / 12])
    assert whole.betas[-1] == 1
