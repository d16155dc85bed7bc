"""What forward passes change in a model beside its weights is put back after a pass that is not the user's."""

import collections
import copy
import math

import pytest
import torch
import torchmetrics
from torch import nn

from lightning_ib import InformationPlaneCallback, measure
from lightning_ib.evaluation.preserve import module_state_kept
from tests.helpers.tiny import TinyModule, fit

pytestmark = pytest.mark.slow


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
    with module_state_kept(model):
        model.eval()(data[0][0])
    assert (model[0].in_features, model[1].num_features) == (6, 4)
    assert model[1].running_mean.shape == (4,)
    assert [point.layer for point in measure(model, data)] == ["0", "2"]


class Nested(nn.Module):
    """Tensors in containers in containers, of which some change in place and some are replaced."""

    def __init__(self):
        super().__init__()
        self.averages = {"mean": torch.zeros(2), "by class": [torch.zeros(2)]}
        self.hidden = (torch.zeros(2), torch.zeros(2))
        self.itself = [1]
        self.itself.append(self.itself)
        self.bank = nn.Parameter(torch.zeros(1, 2), requires_grad=False)
        self.register_buffer("queue", torch.zeros(1, 2))
        self.register_buffer("adjacency", torch.eye(3).to_sparse())
        self.register_buffer("missing", torch.full((1,), math.nan).expand(3))
        self.weight = torch.ones(2)
        self.weight.untyped_storage().resize_(0)  # as FSDP does

    def forward(self, x):
        self.averages["mean"].add_(1)
        self.averages["by class"][0].mul_(0).add_(3)
        self.averages["by class"].append(x)
        self.hidden[0].add_(1)
        self.hidden = (x, x)
        self.itself.append(2)
        self.queue.data = torch.cat([self.queue, torch.ones(1, 2)])
        return x


def test_what_containers_hold_is_put_back_and_what_cannot_be_is_left():
    model = Nested()
    hidden, averages = model.hidden, model.averages
    with module_state_kept(model):
        model(torch.ones(2))
    assert model.averages is averages
    assert [value.tolist() for value in (averages["mean"], averages["by class"][0])] == [[0, 0], [0, 0]]
    assert len(averages["by class"]) == 1
    assert model.hidden is hidden
    assert hidden[0].tolist() == [0, 0]
    assert model.itself == [1, model.itself]
    assert model.queue.tolist() == [[0, 0]]


def test_a_model_with_a_sparse_buffer_is_trained_and_measured(tmp_path):
    class Graph(TinyModule):
        def __init__(self):
            super().__init__()
            self.register_buffer("adjacency", torch.eye(6).to_sparse())

        def forward(self, x):
            return super().forward((self.adjacency @ x.T).T)

    callback = InformationPlaneCallback()
    fit(tmp_path, callback, model=Graph(), max_epochs=1)
    assert {point.epoch for point in callback.history if math.isfinite(point.i_xt)} == {0, 1}


@pytest.mark.parametrize("inference", [True, False])
def test_a_buffer_that_was_made_in_inference_mode_stays(inference):
    class Replacing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen = self.seen + 1
            return x

    model = Replacing()
    with torch.inference_mode(inference):
        model(torch.ones(1))
    before = model.seen
    with module_state_kept(model), torch.no_grad():
        model(torch.ones(1))
    assert model.seen is before
    assert before.tolist() == [1]
