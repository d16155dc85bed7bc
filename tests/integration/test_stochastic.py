"""The plane of a stochastic layer: rate and distortion of the network itself, in every way to measure."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import InformationPlane, InformationPlaneCallback, measure
from lightning_ib.objectives import GaussianBottleneck
from lightning_ib.plot import plot_information_plane
from lightning_ib.plot.content import VARIATIONAL_BOUNDS
from tests.helpers.callbacks import equal
from tests.helpers.tiny import N_VAL, TinyModule, fit, make_data, pl, val_loader

pytestmark = pytest.mark.usefixtures("few_pictures", "few_probes")


class Stochastic(TinyModule):
    def __init__(self):
        super().__init__()
        self.act = GaussianBottleneck(8, 3, init_std=0.3)
        self.out = nn.Linear(3, 4)

    def forward(self, x):
        if self._trainer is not None:
            self.log("calls", 1.0, reduce_fx="sum")  # a forward that is called once more must leave no trace
        return self.out(self.act(self.hidden(x)).sample)


class Formless(Stochastic):
    forward = pl.LightningModule.forward

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.out(self.act(self.hidden(batch[0])).sample), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self.out(self.act(self.hidden(batch[0])).sample)


def bounds(history, epoch):
    return {
        one.quantity: one
        for one in history.estimates()
        if (one.source, one.layer, one.epoch) == ("variational", "act", epoch)
    }


def by_hand(model, data, draws=400):
    """Rate, and H(Y) less the cross-entropy over many draws, in bits."""
    x, y = data[:]
    with torch.no_grad():
        code = model.act(model.hidden(x), samples=draws)
        log_q = model.out(code.sample).double().log_softmax(-1)
        picked = log_q.gather(-1, y.expand(draws, -1)[..., None])[..., 0]
    p = y.bincount().double() / len(y)
    information = (picked.mean(1) - (p * p.log()).sum()) / math.log(2)
    return float(code.kl.double().mean()) / math.log(2), float(information.mean()), float(information.std())


@pytest.mark.parametrize("options", [{}, {"data": "val"}, {"estimators": ()}])
def test_rate_and_distortion_are_those_of_the_network(tmp_path, options):
    callback = InformationPlaneCallback(**options)
    model, _ = fit(tmp_path, callback, model=Stochastic())
    rate, information, spread = by_hand(model, make_data(N_VAL, seed=1))
    found = bounds(callback.history, 3)
    assert list(found) == ["I_XT", "I_TY"]
    assert found["I_XT"].value == pytest.approx(rate, rel=1e-5)
    # One draw a sample: four standard deviations of it.
    assert found["I_TY"].value == pytest.approx(information, abs=4 * spread)
    assert {(one.unit, one.n_samples, one.verdict) for one in found.values()} == {("bits", N_VAL, "ok")}
    assert found["I_TY"].standard_error > 0
    assert {epoch for epoch in range(4) if bounds(callback.history, epoch)} == {0, 1, 2, 3}


def test_drawing_costs_information(tmp_path):
    """The mean code knows more than a draw of it: a bound from the mean would be too high."""
    model = Stochastic()
    with torch.no_grad():
        model.act.bias[3:] += 3.0
    history = measure(model, val_loader(), ["act", "out"])
    rate, information, spread = by_hand(model, make_data(N_VAL, seed=1))
    assert bounds(history, 0)["I_TY"].value == pytest.approx(information, abs=4 * spread)
    again = measure(model, val_loader(), ["act", "out"])
    assert bounds(again, 0) == bounds(history, 0)
    in_nats = measure(model, val_loader(), ["act", "out"], unit="nats")
    assert bounds(in_nats, 0)["I_XT"].value == pytest.approx(rate * math.log(2), rel=1e-5)


def test_training_is_bit_identical_with_and_without(tmp_path):
    found = []
    for callbacks in ([InformationPlaneCallback()], []):
        pl.seed_everything(7, verbose=False)
        model, run = fit(tmp_path, *callbacks, model=Stochastic())
        logged = {name: value for name, value in run.callback_metrics.items() if not name.startswith("ib")}
        found.append([model.state_dict(), torch.get_rng_state(), {"losses": model.losses}, logged])
    assert all(map(equal, *found))


def test_other_layers_have_the_values_they_have_without(tmp_path):
    model = Stochastic()
    plane = InformationPlane()
    with plane.attach(model), torch.no_grad():
        model.eval()
        model(make_data(N_VAL, seed=1)[:][0])
        plane.update(*make_data(N_VAL, seed=1)[:])
    alone = plane.compute()
    assert measure(model, val_loader(batch_size=N_VAL)).information().points() == alone.points()


def test_ignored_and_padded_rows_are_left_out():
    x, y = make_data(N_VAL, seed=1)[:]
    y = y.clone()
    y[::5] = -100
    model = Stochastic().eval()
    history = measure(model, DataLoader(TensorDataset(x, y), 16), ["act", "out"], ignore_index=-100)
    kept = y != -100
    rate, information, spread = by_hand(model, TensorDataset(x[kept], y[kept]))
    found = bounds(history, 0)
    assert found["I_XT"].n_samples == int(kept.sum())
    assert found["I_XT"].value == pytest.approx(rate, rel=1e-5)
    assert found["I_TY"].value == pytest.approx(information, abs=4 * spread)


def test_without_class_labels_there_is_the_rate_alone():
    x, _ = make_data(N_VAL, seed=1)[:]
    model = Stochastic().eval()
    for y in (torch.randn(N_VAL), torch.arange(N_VAL)):
        history = measure(model, [(x, y)], ["act", "out"])
        assert list(bounds(history, 0)) == ["I_XT"]


class Two(TinyModule):
    """Two bottlenecks side by side; the second sees noise that has nothing to do with the input."""

    def __init__(self, join="parallel"):
        super().__init__()
        self.join = join
        self.act, self.other = GaussianBottleneck(8, 3, init_std=0.3), GaussianBottleneck(8, 3, init_std=0.3)
        self.last = GaussianBottleneck(3, 3, init_std=0.3)
        self.out = nn.Linear(3 if self.join == "chain" else 6, 4)

    def forward(self, x):
        h = self.hidden(x)
        one = self.act(h).sample
        if self.join == "chain":
            return self.out(self.last(one).sample)
        two = self.other(torch.zeros_like(h)).sample if self.join == "parallel" else h[:, :3]
        return self.out(torch.cat((one, two), 1))


@pytest.mark.filterwarnings("ignore:.*layer '(other|last)'.*never ran")
@pytest.mark.parametrize(
    ("join", "sources"),
    [
        ("parallel", {"act": ["I_XT", "I_TY"], "other": ["I_XT"]}),
        ("skip", {"act": ["I_XT"]}),
        ("chain", {"act": ["I_XT", "I_TY"], "last": ["I_XT", "I_TY"]}),
    ],
)
def test_only_what_the_head_sees_alone_has_a_bound_of_its_target(join, sources):
    """Beside a code of pure noise the head knows the target all the same; past a code, too."""
    model = Two(join)
    layers = ["hidden", *sources, "out"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = measure(model, val_loader(), layers, head="out")
    found = {}
    for one in history.estimates():
        found.setdefault(one.layer, []).append(one.quantity)
    assert found == sources
    told = [str(one.message) for one in caught if "is no bound of its I(T;Y)" in str(one.message)]
    assert len(told) == sum(quantities == ["I_XT"] for quantities in sources.values())


def test_the_rate_of_a_code_with_places_is_that_of_the_whole_sample():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.out = GaussianBottleneck(6, 3, init_std=0.3), nn.Linear(3, 4)

        def forward(self, x):
            return self.out(self.act(x).sample.mean(1))

    torch.manual_seed(0)
    x, model = torch.randn(80, 5, 6), Places().eval()
    history = measure(model, [(x, torch.arange(80) % 4)], ["act", "out"])
    found = bounds(history, 0)
    with torch.no_grad():
        rate = float(model.act(x).kl.double().sum(1).mean()) / math.log(2)
    assert (found["I_XT"].n_samples, found["I_XT"].value) == (80, pytest.approx(rate, rel=1e-6))
    assert found["I_TY"].n_samples == 80


def test_labels_of_one_logit_may_be_numbers():
    class Yes(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.out = GaussianBottleneck(6, 3, init_std=0.3), nn.Linear(3, 1)

        def forward(self, x):
            return self.out(self.act(x).sample)

    torch.manual_seed(0)
    x, model = torch.randn(80, 6), Yes().eval()
    found = [
        bounds(measure(model, [(x, (x[:, 0] > 0).to(dtype))], ["act", "out"]), 0)["I_TY"].value
        for dtype in (torch.int64, torch.float32, torch.bool)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.filterwarnings("ignore:.*there is no point before training")
def test_a_module_without_a_forward_is_named_once(tmp_path):
    callback = InformationPlaneCallback()
    message = "the rate of 'act' is not recorded, for which each batch runs through the network once more: Formless "
    with pytest.warns(UserWarning, match=message + "defines no forward") as caught:
        fit(tmp_path, callback, model=Formless())
    assert sum(message in str(one.message) for one in caught) == 1
    assert not any(bounds(callback.history, epoch) for epoch in range(4))
    assert callback.history[-1].layer == "out"
    assert callback.history[-1].i_ty > 0


def test_a_copy_of_the_instrument_is_alone(tmp_path):
    callback = InformationPlaneCallback()
    fit(tmp_path, callback, model=Stochastic(), max_epochs=1)
    assert not copy.deepcopy(callback).plane.stochastic.layers
    assert not callback.plane.stochastic.layers


@pytest.mark.parametrize("n_epochs", [0, 3])
def test_they_are_drawn_on_the_plane(tmp_path, n_epochs):
    callback = InformationPlaneCallback()
    fit(tmp_path, callback, model=Stochastic(), max_epochs=3)
    history = callback.history.until(n_epochs, 10**9)
    figure = plot_information_plane(history, history.estimates())
    (axes,) = figure.axes
    found = bounds(history, n_epochs)
    place = (found["I_XT"].value, found["I_TY"].value)
    if place[0] <= axes.get_xlim()[1]:
        offsets = [tuple(at) for one in axes.collections for at in one.get_offsets()]
        assert any(at == pytest.approx(place) for at in offsets)
    else:
        assert any(text.get_text() == f"rate {place[0]:.1f} →" for text in axes.texts)
    assert VARIATIONAL_BOUNDS in [text.get_text() for text in figure.legends[0].get_texts()]
