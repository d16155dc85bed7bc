"""Soft entropies summed over every sample of a pass: the same in any batches, trimmed, resumed, and in checkpoints."""

import io
import math
import re
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import InformationPlane, InformationPlaneCallback, Quantizer, UniformBins
from lightning_ib.estimators.soft import Soft
from lightning_ib.functional import SoftEntropy, sketch, soft_information
from lightning_ib.measurement.streams import Streams
from lightning_ib.records import History
from lightning_ib.report.reporter import Reporter
from tests.helpers.records import exact
from tests.helpers.resume import go_on, in_checkpoint, resumes_exactly, same
from tests.helpers.tiny import N_VAL

N, M = 400, 60
FIGURES = ["H_T", "I_XT", "I_TY", "I_TY_floor", "I_TY_above_floor"]


class Net(nn.Module):
    """A wide layer, and a head of three classes."""

    def __init__(self):
        super().__init__()
        self.wide, self.out = nn.Tanh(), nn.Identity()

    def forward(self, x):
        return self.out(2 * self.wide(x.repeat(1, 50))[:, :3])


@pytest.fixture
def data():
    y = torch.arange(N) % 3
    return torch.randn(N, 4) + 1.5 * torch.eye(3, 4)[y], y


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing takes most of the time of a small run."""
    monkeypatch.setattr(Reporter, "_picture", lambda *_: False)


@pytest.fixture
def net():
    return Net()


def plane_of(**options):
    soft = Soft(64, **{key: options.pop(key) for key in ("max_classes", "beta") if key in options})
    return InformationPlane(["wide", "out"], **{"estimators": [soft], "max_samples": M} | options)


def passed(plane, net, x, y, *, batch=N):
    """One pass, without what is asked at its end."""
    plane.reset()
    with plane.attach(net):
        for k in range(0, len(x), batch):
            net(x[k : k + batch])
            plane.update(x[k : k + batch], None if y is None else y[k : k + batch])
    return plane


def values(plane, epoch=0):
    """Layer → figure → value, and over how many samples."""
    found = plane.estimate(epoch=epoch)
    by_layer = {layer: {one.quantity: one.value for one in found if one.layer == layer} for layer in plane.layers}
    (n,) = {one.n_samples for one in found}
    return by_layer, n


def named(found):
    floor = {"I_TY_floor": found.i_ty_floor, "I_TY_above_floor": found.i_ty - found.i_ty_floor}
    return {"H_T": found.h_t, "I_XT": found.i_xt, "I_TY": found.i_ty} | floor


def close(value, within=1e-9):
    """The same values, of all layers."""
    return {layer: pytest.approx(of, abs=within) for layer, of in value.items()}


# -- what is measured on what ------------------------------------------------------------------------------------------


def test_the_first_measurement_is_of_the_sample_and_those_after_it_are_of_every_sample(data, net):
    plane = plane_of()
    first, n = values(passed(plane, net, *data, batch=32))
    rows, y = plane.drawn().outputs, plane.drawn().others["y"]
    assert (n, len(y)) == (M, M)
    assert first == close({layer: named(soft_information(rows[layer], y, n_anchors=64)) for layer in rows})
    center = {layer: rows[layer].double().mean(0) for layer in rows}
    x, y = data
    whole = {"wide": sketch(x.tanh().repeat(1, 50)), "out": 2 * x.tanh()[:, :3]}
    for _ in range(2):
        later, n = values(passed(plane, net, *data, batch=32))
        assert n == N
        expected = {
            layer: named(soft_information(whole[layer], y, n_anchors=64, center=center[layer])) for layer in whole
        }
        assert later == close(expected)
        center = {layer: whole[layer].double().mean(0) for layer in whole}  # that of the pass before


def test_the_layer_is_sketched_and_the_head_is_measured_on_its_outputs(data, net):
    plane = plane_of()
    for _ in range(2):
        passed(plane, net, *data).compute()
        plane.estimate()
    assert plane.head.layer == "out"
    assert {layer: tuple(center.shape) for layer, center in plane.estimation.streams.centers.items()} == {
        "wide": (128,), "out": (3,)
    }  # fmt: skip
    assert torch.allclose(
        plane.estimation.streams.centers["out"], 2 * data[0].tanh()[:, :3].double().mean(0), atol=1e-6
    )


@pytest.mark.parametrize("batch", [1, 7, 64, N - 1])
def test_the_batches_make_no_difference(batch, data, net):
    found = []
    for size in (N, batch):
        plane = plane_of()
        values(passed(plane, net, *data, batch=N))  # the same center for both
        found.append(values(passed(plane, net, *data, batch=size))[0])
    assert found[1] == close(found[0])


def test_the_order_makes_no_difference_to_a_pass_over_everything(data, net):
    order = torch.randperm(N)
    plane, found = plane_of(), []
    values(passed(plane, net, *data))
    state = plane.frozen_state()
    for x, y in (data, tuple(part[order] for part in data)):
        with plane.attach(net):
            plane.load_frozen_state(state)
        found.append(values(passed(plane, net, x, y, batch=50))[0])
    assert found[1] == close(found[0])


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_unit(unit, data, net):
    bits, plane = plane_of(), plane_of(unit=unit)
    for _ in range(2):
        found, expected = (values(passed(one, net, *data))[0] for one in (plane, bits))
        scale = 1.0 if unit == "bits" else math.log(2)
        assert found == close({layer: {k: scale * v for k, v in of.items()} for layer, of in expected.items()})


@pytest.mark.parametrize("target", [None, Quantizer(bins=UniformBins(4))])
def test_without_class_labels_only_what_is_not_about_the_target(target, data, net):
    x, _ = data
    plane = plane_of(target=target)
    for n in (M, N):
        found, seen = values(passed(plane, net, x, None if target is None else x[:, 0], batch=30))
        assert seen == n
        assert {tuple(of) for of in found.values()} == {("H_T", "I_XT")}
        assert all(math.isfinite(value) for of in found.values() for value in of.values())


def test_options_reach_the_sums(data, net):
    plane, blunt = plane_of(), plane_of(beta=1.0)
    for _ in range(2):
        sharp, of_blunt = (values(passed(one, net, *data))[0]["wide"] for one in (plane, blunt))
        assert of_blunt["I_XT"] < 0.1 < sharp["I_XT"]


def test_layers_in_bins_are_summed_up_too(data, net):
    x, y = data
    plane = InformationPlane({"wide": Quantizer(lambda a: a[:, :2], UniformBins(4))}, estimators=[Soft(64)])
    for _ in range(2):
        found, n = values(passed(plane, net, x, y, batch=33))
    assert n == N
    center = sketch(x.tanh().repeat(1, 50)).double().mean(0)
    expected = soft_information(sketch(x.tanh().repeat(1, 50)), y, n_anchors=64, center=center)
    assert found["wide"] == pytest.approx(named(expected), abs=1e-9)


def test_nothing_is_summed_where_nobody_asks(data, net):
    plane = plane_of(estimators=["probe"])
    passed(plane, net, *data).estimate()
    assert plane.estimation.streams.state() == {}
    assert "centers" not in plane.frozen_state()


def test_no_random_state_is_touched(data, net):
    plane, before = plane_of(), torch.get_rng_state()
    for _ in range(2):
        values(passed(plane, net, *data))
    assert torch.equal(torch.get_rng_state(), before)


# -- padded samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [32, 103, 404])
def test_what_is_trimmed_leaves_no_trace(batch, data, net):
    x, y = data
    # Far away, and in a class of their own: their share of an anchor must go without a rest.
    padded, labels = torch.cat([x, -50 + 0 * x[:4]]), torch.cat([y, torch.full((4,), 3)])
    plane, other = plane_of(), plane_of()
    for one in (plane, other):
        values(passed(one, net, x, y))
    passed(plane, net, padded, labels, batch=batch).trim(N)
    assert values(plane) == (close(values(passed(other, net, x, y))[0]), N)
    centers = plane.estimation.streams.centers, other.estimation.streams.centers
    assert all(torch.allclose(centers[0][layer], centers[1][layer], atol=1e-12) for layer in centers[1])


def test_trimming_nothing_changes_nothing(data, net):
    plane = plane_of()
    values(passed(plane, net, *data))
    before = plane.frozen_state()
    expected, _ = values(passed(plane, net, *data))
    with plane.attach(net):
        plane.load_frozen_state(before)
    passed(plane, net, *data).trim(N + 5)
    assert values(plane)[0] == expected


def test_what_is_trimmed_never_was_in_the_sums():
    """Subtracted again, a large number would leave its rounding, of either sign, in place of a small one."""
    rows, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]]), torch.tensor([0, 0, 1])
    streams = Streams(Soft(64))
    streams.centers = {"layer": torch.zeros(2, dtype=torch.float64)}
    streams.keep({"layer": rows}, {"": labels}, 3)
    streams.trim(2)
    expected = SoftEntropy(torch.zeros(2), n_anchors=64)
    expected.update(rows[:2], labels[:2])
    state = streams.summed(shared=False)["layer"][""].state()
    assert all(torch.equal(state[name], value) for name, value in expected.state().items())


# -- rows and labels of no use -----------------------------------------------------------------------------------------


def test_labels_beyond_the_table_are_nan_with_one_warning(data, net):
    x, y = data
    plane = plane_of(max_classes=2, head=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [values(passed(plane, net, x, y, batch=50), epoch)[0] for epoch in range(3)]
    n = int((plane.drawn().others["y"] == 2).sum())
    told = f"soft could not be estimated at epoch 0, its values are NaN: {n} of {M} labels are outside 0 … 1: give a "
    assert [str(one.message) for one in caught] == [
        f"layer {layer!r}: {told}larger max_classes." for layer in ("wide", "out")
    ]
    for of in found:
        assert all(list(figures) == FIGURES and all(map(math.isnan, figures.values())) for figures in of.values())
    anew = plane_of(max_classes=3)
    with anew.attach(net):
        anew.load_frozen_state(plane.frozen_state())
    assert all(map(math.isfinite, values(passed(anew, net, x, y))[0]["wide"].values()))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_layer_that_is_not_finite_for_a_while(bad, data, net):
    x, y = data
    broken = x.clone()
    broken[7, 0] = bad
    net.wide = nn.Identity()
    plane = plane_of()
    first, _ = values(passed(plane, net, x, y, batch=50))
    centers = plane.estimation.streams.state()
    with pytest.warns(
        UserWarning, match=r"soft could not be estimated .*: 1 of 400 rows, less the center, are not fin"
    ):
        found, _ = values(passed(plane, net, broken, y, batch=50))
    assert all(math.isnan(value) for of in found.values() for value in of.values())
    assert same(plane.estimation.streams.state(), centers), "no center of a row that is not finite"
    again, n = values(passed(plane, net, x, y, batch=50))
    assert n == N
    assert all(math.isfinite(value) for of in again.values() for value in of.values())


class Widens(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.width = nn.Identity(), 4

    def forward(self, x):
        self.layer(x.repeat(1, 2)[:, : self.width])


def test_a_layer_of_another_width_begins_anew_and_costs_nothing_else(data):
    """As the layer of a checkpoint may have been."""
    model = Widens()
    plane = InformationPlane(["layer"], estimators=[Soft(64)], head=False)
    values(passed(plane, model, *data))
    model.width = 6
    with pytest.warns(
        UserWarning, match="soft could not .* a sample has 6 coordinates here and had 4 before: the next"
    ):
        found, _ = values(passed(plane, model, *data, batch=100))
    assert list(found["layer"]) == FIGURES
    assert all(map(math.isnan, found["layer"].values()))
    assert math.isfinite(plane.compute()[0].i_ty)
    anew, _ = values(passed(plane, model, *data))
    x = data[0].repeat(1, 2)[:, :6]
    assert anew["layer"] == pytest.approx(named(soft_information(x, data[1], n_anchors=64)), abs=1e-9)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"n_anchors": 0}, "Soft: n_anchors must be an integer of at least 1, got 0: give at least 1."),
        (
            {"n_anchors": 2.5},
            "Soft: n_anchors must be an integer of at least 1, got 2.5: give a whole number such as 1.",
        ),
        (
            {"max_classes": True},
            "Soft: max_classes must be an integer of at least 1, got True: give a whole number such as 1.",
        ),
        ({"beta": 0.0}, "Soft: beta must be a positive finite number, got 0.0."),
        ({"beta": math.inf}, "Soft: beta must be a positive finite number, got inf."),
    ],
)
def test_a_wrong_option_is_refused(wrong, told):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(told)}$"):
        Soft(**wrong)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def reloaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_centers_are_in_a_checkpoint_and_back(data, net):
    first, second = plane_of(), plane_of()
    values(passed(first, net, *data))
    state = first.frozen_state()
    with second.attach(net):
        second.load_frozen_state(reloaded(state))
    expected = values(passed(first, net, *data, batch=50))
    assert values(passed(second, net, *data, batch=50)) == expected
    assert same(second.frozen_state(), first.frozen_state())
    assert not same(state, first.frozen_state()), "a copy"


@pytest.mark.parametrize(
    "damaged",
    [3, [1.0], {"wide": 3}, {"wide": [1.0]}, {"wide": torch.zeros(2, 3)}, {"wide": torch.tensor([1.0, math.nan])}],
)
def test_damaged_centers_are_refused_and_all_else_taken_up(damaged, data, net):
    first = plane_of(estimators=[Soft(64), "quantized8"])
    passed(first, net, *data).estimate()
    second = plane_of(estimators=[Soft(64), "quantized8"])
    told = "the centers of its soft entropies are no mapping from layers to finite tensors"
    with second.attach(net), pytest.raises(ValueError, match=f"^{told}$"):
        second.load_frozen_state(first.frozen_state() | {"centers": damaged})
    assert second.estimation.streams.centers == {}
    assert second.estimation.calibration == first.estimation.calibration


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_damaged_centers_of_a_checkpoint_cost_one_warning(tmp_path):
    go_on(tmp_path, InformationPlaneCallback(["out"], estimators=["soft"]), max_epochs=1)
    path = tmp_path / "checkpoints" / "epoch=0.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    (key,) = (key for key in checkpoint["callbacks"] if key.startswith("InformationPlaneCallback"))
    checkpoint["callbacks"][key]["frozen"]["centers"] = {"out": "gone"}
    torch.save(checkpoint, path)
    callback = InformationPlaneCallback(["out"], estimators=["soft"])
    with pytest.warns(UserWarning, match="the centers of its soft entropies are no mapping") as caught:
        go_on(tmp_path, callback, max_epochs=2, ckpt_path=path)
    assert len([one for one in caught if str(one.message).startswith("ib: ")]) == 1
    assert [p.epoch for p in callback.history] == [0, 1, 2]
    assert all(math.isfinite(e.value) for e in callback.history.estimates())


@resumes_exactly
@pytest.mark.parametrize("data", [None, "train"])
def test_a_resumed_run_has_the_estimates_of_an_uninterrupted_one(tmp_path, data):
    def callback():
        return InformationPlaneCallback(data=data, estimators=["soft"], max_samples=50)

    whole, resumed = callback(), callback()
    go_on(tmp_path, whole)
    path = tmp_path / "checkpoints" / "epoch=0.ckpt"
    frozen = in_checkpoint(path)["frozen"]
    assert {layer: len(center) for layer, center in frozen["centers"].items()} == {"hidden": 8, "out": 4}
    go_on(tmp_path, resumed, ckpt_path=path)
    assert exact(resumed.history) == exact(whole.history) == exact(History.read_csv(tmp_path / "information_plane.csv"))
    assert same(resumed.plane.frozen_state(), whole.plane.frozen_state())
    n = N_VAL if data is None else 96
    assert [e.n_samples for e in whole.history.estimates()[:: len(FIGURES)]] == [50, 50] + 6 * [n]
