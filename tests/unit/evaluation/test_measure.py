"""``measure`` leaves nothing of the model, its data or its randomness disturbed."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from lightning_ib import InformationPlane, measure
from lightning_ib.evaluation.passes import preserve_state, to
from lightning_ib.records import History
from tests.helpers.nets import Function
from tests.helpers.planes import Branches, branches_data, counted, hooks_on
from tests.helpers.records import exact
from tests.helpers.samples import generator

pytestmark = pytest.mark.usefixtures("one_thread")


class Stirring(torch.utils.data.Dataset):
    """Draws from every random generator there is, as augmentation does."""

    def __len__(self):
        return 40

    def __getitem__(self, k):
        noise = torch.rand(4) + np.random.rand() + random.random()
        return noise, k % 2


class Touchy(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        self.fails_at = None
        self.calls = SimpleNamespace(n=0)  # out of sight of what is put back

    def forward(self, x):
        self.calls.n += 1
        if self.calls.n == self.fails_at:
            raise ArithmeticError("in the middle")
        torch.rand(1)
        return self.head(self.drop(self.norm(self.frozen(x))))


def loaders(g):
    data = Stirring()
    return {
        "shuffling": DataLoader(data, batch_size=8, shuffle=True),
        "own generator": DataLoader(data, batch_size=8, shuffle=True, generator=g),
        "sampler": DataLoader(data, batch_size=8, sampler=RandomSampler(data, generator=g)),
        "subset": DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(24), generator=g)),
        "weighted": DataLoader(data, batch_size=8, sampler=WeightedRandomSampler([1.0] * 40, 24, generator=g)),
        "batch sampler": DataLoader(
            data, batch_sampler=torch.utils.data.BatchSampler(RandomSampler(data, generator=g), 8, drop_last=False)
        ),
        "no batch sampler": DataLoader(
            list(DataLoader(data, batch_size=8)), batch_size=None, sampler=RandomSampler(range(5), generator=g)
        ),
        "list": [next(iter(DataLoader(data, batch_size=8))) for _ in range(3)],
        "iterator": (next(iter(DataLoader(data, batch_size=8))) for _ in range(3)),
    }


LOADERS = list(loaders(torch.Generator()))


@pytest.mark.parametrize("fails_at", [None, 2])
@pytest.mark.parametrize("loader", LOADERS)
def test_measuring_puts_everything_back(loader, fails_at):
    g = generator(7)
    dataloader = loaders(g)[loader]
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    model = Touchy().train()
    model.norm.eval()
    model.drop.train()
    model.head.training = False
    model(torch.rand(8, 4)).sum().backward()
    model.calls.n, model.fails_at = 0, fails_at
    gradients = {name: p.grad for name, p in model.named_parameters()}

    def state():
        return {
            "modes": [module.training for module in model.modules()],
            "weights": {name: value.clone() for name, value in model.state_dict().items()},
            "identity": {name: (id(p), p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()},
            "gradients": {n: None if g is None else (id(g), g.clone()) for n, g in gradients.items()},
            "is the gradient": all(p.grad is gradients[name] for name, p in model.named_parameters()),
            "torch": torch.get_rng_state(),
            "numpy": [np.array(part) for part in np.random.get_state()[1:]],
            "python": random.getstate(),
            "loader": g.get_state(),
            "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
            "hooks": hooks_on(model),
        }

    before = state()
    if fails_at is None:
        points = measure(model, dataloader, ["frozen", "head"])
        assert [point.layer for point in points] == ["frozen", "head"]
        assert model.calls.n > 1
    else:
        with pytest.raises(ArithmeticError, match="in the middle"):
            measure(model, dataloader, ["frozen", "head"])
    assert_same(state(), before)


def assert_same(found, expected, where="state"):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for k, (a, b) in enumerate(zip(found, expected)):
            assert_same(a, b, f"{where}[{k}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, np.ndarray):
        assert np.array_equal(found, expected), where
    else:
        assert found == expected, where


def test_the_generator_of_a_wrapped_loader_is_put_back():
    tqdm = pytest.importorskip("tqdm").tqdm
    g = generator(7)
    before = g.get_state()
    loader = loaders(g)["own generator"]
    measure(Touchy(), tqdm(loader, disable=True), ["head"])
    assert torch.equal(g.get_state(), before)


def test_measuring_runs_in_eval_mode_without_gradient():
    seen = []
    model = nn.Sequential(
        Function(lambda x: seen.append((torch.is_grad_enabled(), model.training)) or x), nn.Linear(4, 2)
    )
    measure(model.train(), branches_data(), ["1"])
    assert seen == [(False, False)]


def test_measuring_twice_gives_the_same_points_whatever_the_augmentation():
    model = Touchy()
    loader = DataLoader(Stirring(), batch_size=8, shuffle=True)
    first = measure(model, loader)
    torch.rand(5), random.random(), np.random.rand()
    assert measure(model, loader) == first


def test_estimators_that_are_asked_for_by_name_are_measured_too():
    model, data = Branches(), branches_data(200)
    found = measure(model, data, ["head"], estimators=["probe", "kde"], unit="nats")
    assert {(one.source, one.quantity) for one in found.estimates()} == {
        *(("probe", quantity) for quantity in ("I_TY", "accuracy")),
        *(("kde", quantity) for quantity in ("I_XT", "I_TY", "I_XT_lower", "I_TY_lower", "noise_variance")),
    }
    assert {(one.epoch, one.step, one.layer, one.n_samples) for one in found.estimates()} == {(0, 0, "head", 200)}
    assert all(math.isfinite(one.value) for one in found.estimates())
    plane = InformationPlane(["head"], estimators=["probe", "kde"], unit="nats")
    counted(plane, model, data)
    assert exact(plane.estimate()) == exact(found.estimates())
    assert exact(plane.compute()) == exact(History.of(found))
    assert exact(measure(model, data, ["head"], unit="nats")) == exact(History.of(found)), (
        "none is asked for by default"
    )


def test_an_estimator_in_a_measurement_moves_no_random_state_and_leaves_the_mode():
    model = Touchy().train()
    before = torch.get_rng_state()
    found = measure(model, branches_data(), estimators=["infonce"])
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert {one.source for one in found.estimates()} == {"infonce"}


def test_points_do_not_depend_on_the_mode_the_model_was_in():
    model = Touchy()
    assert measure(model.train(), branches_data()) == measure(model.eval(), branches_data())


def test_modules_that_share_a_mode_flag_of_their_own_get_it_back():
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout())
    model.train(False)
    model[1].training = True
    with preserve_state(model):
        assert [m.training for m in model.modules()] == [False, False, False]
    assert [m.training for m in model.modules()] == [False, False, True]


def test_batches_in_mappings_and_models_with_keywords():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, *, values, mask):
            return {"logits": self.inner(values * mask)}

    x, y = branches_data()[0]
    rows = [{"values": x, "mask": torch.ones(40, 1), "labels": y}]
    points = measure(Keywords(), rows, ["inner"], unpack=lambda b: ({k: b[k] for k in ("values", "mask")}, b["labels"]))
    assert points[0].n_samples == 40


def test_no_device_means_where_the_model_is_and_the_cpu_is_named_in_any_way():
    model, data = Branches(), branches_data()
    assert measure(model, data, ["head"], device="cpu") == measure(model, data, ["head"])
    assert measure(model, data, ["head"], device=torch.device("cpu")) == measure(model, data, ["head"])


class Detour(nn.Module):
    """Notes where it was sent."""

    def __init__(self):
        super().__init__()
        self.weight, self.sent = nn.Parameter(torch.ones(1)), []

    def to(self, device):
        self.sent.append(torch.device(device).type)
        return self

    def forward(self, x):
        raise ArithmeticError("in the middle")


def test_the_model_comes_home_from_another_device():
    model = Detour()
    with pytest.raises(ValueError, match="no leaf module|no layer"):
        measure(model, branches_data(), ["weight"], device="meta")
    assert model.sent[-1] == "cpu"
    assert model.sent[0] == "meta"


def test_a_model_on_several_devices_is_left_where_it_is():
    model = Branches()
    model.register_buffer("elsewhere", torch.empty(3, device="meta"))
    points = measure(model, branches_data(), ["head"])
    assert points[0].n_samples == 40
    assert model.elsewhere.device.type == "meta"


def test_batches_are_moved_however_they_are_nested():
    batch = {
        "x": [torch.ones(1), (torch.ones(1), "text")],
        "y": None,
        "named": torch.return_types.max((torch.ones(1),) * 2),
    }
    moved = to(batch, torch.device("meta"))
    assert moved["x"][0].device.type == moved["x"][1][0].device.type == "meta"
    assert moved["x"][1][1] == "text"
    assert moved["y"] is None


def test_packed_sequences_are_moved():
    packed = nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    assert to(packed, torch.device("meta")).data.device.type == "meta"
