"""What forward passes change in a model beside its weights is put back after a pass that is not the user's."""

import collections
import copy

import pytest
import torch
import torchmetrics
from torch import nn

from lightning_ib import InformationPlaneCallback, measure
from lightning_ib.evaluation.preserve import module_state_kept
from tests.tiny import TinyModule, fit


class Busy(nn.Module):
    """It counts, averages, remembers and measures in every forward, in eval mode too, and some of it shows outside."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.register_buffer("center", torch.zeros(6))
        self.register_buffer("replaced", torch.zeros(1), persistent=False)
        self.mean = torchmetrics.MeanMetric()
        self.calls, self.last, self.scratch = 0, None, torch.zeros(6)
        self.seen, self.by_name, self.recent = [], {"sum": 0.0}, collections.deque(maxlen=3)

    def forward(self, x):
        self.norm.train()
        self.center.mul_(0.9).add_(0.1 * x.detach().mean(0))
        self.replaced = self.replaced + 1
        self.mean.update(x.detach())
        self.calls += 1
        self.last = x.detach().sum()
        self.scratch += 1
        self.seen.append(self.calls)
        self.by_name["sum"] = self.by_name["sum"] + self.last.item()
        self.recent.append(self.calls)
        if not hasattr(self, "first"):
            self.first = x.detach()[0]
        return self.norm(x) - self.center + 0.01 * self.calls * self.first.sum() + 0.001 * len(self.seen)


class BusyModule(TinyModule):
    def __init__(self):
        super().__init__()
        self.busy = Busy()

    def forward(self, x):
        x = super().forward(self.busy(x))
        self.log("mean", self.busy.mean.compute())
        return x


@pytest.mark.filterwarnings("ignore:You are trying to `self.log\\(\\)` but the loop's result collection")
@pytest.mark.parametrize("data", [None, "val", "train"])
def test_training_is_bit_identical_where_a_forward_has_side_effects(tmp_path, data):
    model = BusyModule()
    without, plain = fit(tmp_path, model=copy.deepcopy(model))
    watched, run = fit(tmp_path, InformationPlaneCallback(data=data), model=copy.deepcopy(model))
    assert watched.losses == without.losses
    assert plain.logged_metrics["mean"] == run.logged_metrics["mean"]
    for name, value in without.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert (watched.busy.calls, list(watched.busy.recent)) == (without.busy.calls, list(without.busy.recent))


def test_everything_is_put_back_as_the_object_it_was():
    busy = Busy()
    x = torch.rand(8, 6)
    busy(x)
    lists, center, seen = busy.seen, busy.center, {**vars(busy)}
    before = {name: value.clone() for name, value in busy.named_buffers()}

    def interrupted():
        with module_state_kept(busy):
            busy(2 * x)
            busy(3 * x)
            busy.extra = 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert busy.seen is lists == [1]
    assert busy.center is center
    assert not hasattr(busy, "extra")
    assert {name for name in seen if vars(busy)[name] is not seen[name]} == set()
    assert all(torch.equal(value, before[name]) for name, value in busy.named_buffers())
    assert torch.equal(busy.scratch, torch.ones(6))
    assert busy.mean.update_count == 1
    assert busy.mean.compute() == pytest.approx(x.mean().item())


def test_a_measured_model_is_what_it_was():
    busy = nn.Sequential(Busy(), nn.Linear(6, 2))
    measure(busy, [(torch.rand(20, 6), torch.arange(20) % 2)] * 3)
    assert (busy[0].calls, busy[0].seen, busy[0].last, hasattr(busy[0], "first")) == (0, [], None, False)


def test_lazy_modules_stay_made():
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 2))
    data = [(torch.rand(20, 6), torch.arange(20) % 2)]
    model(data[0][0])
    assert [point.layer for point in measure(model, data)] == ["0", "2"]
    assert model[0].in_features == 6
