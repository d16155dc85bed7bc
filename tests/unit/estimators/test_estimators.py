"""The figures of estimators are those of the pure functions on the sampled rows."""

import math
import re
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import InformationPlane, Quantizer, UniformBins, measure
from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.estimators.copula import GaussianCopula
from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.neighbors import KNN, KSG, MixedKNN
from lightning_ib.estimators.quantized import Quantized
from lightning_ib.estimators.registry import BY_NAME
from lightning_ib.estimators.soft import Soft
from lightning_ib.estimators.variational import SMILE, InfoNCE, Probe
from lightning_ib.functional import (
    kernel_width_of,
    mutual_information_knn,
    mutual_information_ksg,
    mutual_information_mixed,
    mutual_information_quantized,
    mutual_information_renyi_labels,
    sketch,
    soft_information,
)
from tests.helpers.estimators import (
    COARSE,
    PURE,
    QUICK,
    TANH,
    M,
    N,
    estimated,
    kde,
    net,
    plane_of,
    quantized,
    same,
    shown,
    told,
    values,
)
from tests.helpers.nets import Function

WIDTHS = ("noise_variance", "kernel_width")


def test_every_name_has_its_function_here():
    assert PURE.keys() == BY_NAME.keys()


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_figures_are_those_of_the_function_on_the_sampled_rows(name, unit, data):
    x, y = data
    plane = plane_of(TANH, [name], unit=unit, max_samples=M)
    found = estimated(plane, TANH, x, y, epoch=3)
    rows = shown(plane)
    assert rows.x is None or torch.equal(rows.x, x[_where(plane, x)])
    expected = PURE[name](rows, unit=unit)
    assert values(found) == {("act", name, figure): pytest.approx(v, abs=1e-12) for figure, v in expected.items()}
    for one in found:
        assert (one.epoch, one.step, one.n_samples) == (3, 30, M)
        assert one.unit == ("" if one.quantity in ("accuracy", *WIDTHS) else unit)
        assert type(one.value) is float


def _where(plane, x):
    """Which samples the sampled rows of the tanh layer are."""
    rows = shown(plane)
    return (rows.t[:, None] == torch.tanh(x)[None]).all(2).int().argmax(1)


def test_the_rows_are_samples_of_the_pass_each_with_its_own_input_and_target(data):
    x, y = data
    plane = plane_of(TANH, ["renyi"], max_samples=M)
    estimated(plane, TANH, x, y, batch=16)
    rows, where = shown(plane), _where(plane, x)
    assert len(where.unique()) == M
    assert torch.equal(rows.t, torch.tanh(x[where]))
    assert torch.equal(rows.x, x[where])
    assert torch.equal(rows.y, y[where])


def test_the_input_is_kept_only_where_it_is_needed(data):
    plane = plane_of(TANH, ["kde"])
    estimated(plane, TANH, *data)
    assert shown(plane).x is None


@pytest.mark.parametrize(
    "name", ["kde", "ksg", "mixed", "projected", "copula", "renyi", "infonce", "smile", "quantized8", "soft"]
)
def test_a_real_valued_target(name, data):
    x, _ = data
    y = x[:, :2].sum(1, keepdim=True) + 0.3 * torch.randn(N, 1)
    plane = plane_of(TANH, [name], target=Quantizer(bins=UniformBins(5)), max_samples=M)
    found = values(estimated(plane, TANH, x, y))
    rows = shown(plane)
    assert torch.equal(rows.y, y[_where(plane, x)])
    assert found == {("act", name, k): pytest.approx(v, abs=1e-12) for k, v in PURE[name](rows).items()}


@pytest.mark.parametrize("name", ["kde", "ksg", "renyi", "quantized8", "soft"])
def test_without_a_target_the_figures_about_the_input_are_left(name, data):
    x, y = data
    with_target = values(estimated(plane_of(TANH, [name]), TANH, x, y))
    without = values(estimated(plane_of(TANH, [name]), TANH, x, None))
    assert without == pytest.approx({k: v for k, v in with_target.items() if not k[2].startswith("I_TY")}, rel=1e-9)
    assert without


@pytest.mark.parametrize("name", ["knn", "mixed", "projected", "copula", "probe", "infonce"])
def test_one_that_needs_a_target_says_so(name, data):
    with pytest.warns(UserWarning, match=f"layer 'act': {name} could not be estimated .*: there is no target, and "):
        assert not [one for one in estimated(plane_of(TANH, [name]), TANH, data[0], None) if math.isfinite(one.value)]


@pytest.mark.parametrize("name", ["knn", "probe"])
def test_one_that_needs_labels_says_so(name, data):
    x, _ = data
    plane = plane_of(TANH, [name], target=COARSE)
    with pytest.warns(UserWarning, match="the target is real-valued, and .* needs class labels"):
        found = estimated(plane, TANH, x, x[:, 0])
    assert found
    assert all(math.isnan(one.value) for one in found)


TARGETS = {"labels": torch.arange(M) % 3, "real": torch.linspace(0, 1, M).sin(), "none": None}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", BY_NAME)
def test_what_it_says_it_gives_is_what_it_gives(name, kind):
    """Else a figure would come and go with its failures."""
    estimator = BY_NAME[name]()
    rows = Rows(torch.randn(M, 3), TARGETS[kind], torch.randn(M, 4))
    try:
        found = estimator.estimate(rows, estimator.calibrate(rows), "bits")
    except ValueError:
        assert kind == "real" or estimator.outputs_for(rows) == []
    else:
        assert {name for name in found if not name.endswith("_se")} == set(estimator.outputs_for(rows))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batches_make_no_difference(batch, data):
    found = [values(estimated(plane_of(TANH, QUICK, max_samples=M), TANH, *data, batch=b)) for b in (N, batch)]
    assert same(*found)


def test_the_unit_is_the_only_difference_between_bits_and_nats(data):
    bits, nats = (values(estimated(plane_of(TANH, QUICK, unit=unit), TANH, *data)) for unit in ("bits", "nats"))
    for key, value in bits.items():
        same_in_both = key[2] in ("accuracy", *WIDTHS)
        assert nats[key] == pytest.approx(value if same_in_both else value * math.log(2), abs=1e-9)


@pytest.mark.parametrize("name", ["kde", "ksg", "knn", "mixed", "renyi", "probe", "soft"])
def test_a_wide_layer_is_sketched(name):
    """Whatever its shape: the rows are those of the sketch of the whole activation, and so is a wide input."""
    x = torch.randn(N, 3, 8, 8)
    y = x[:, 0, 0, 0].sign().long().clamp(0) if name in ("knn", "probe", "soft", "mixed") else x[:, 0, 0, 0]
    model = net(act=lambda x: torch.cat([x, x.flip(1)], 1))
    plane = plane_of(model, [name], target=None if y.dtype == torch.int64 else COARSE, max_samples=M)
    found = values(estimated(plane, model, x, y))
    rows = shown(plane)
    assert rows.t.shape == (M, 128)
    whole = sketch(torch.cat([x, x.flip(1)], 1))
    where = torch.cdist(rows.t, whole).argmin(1)
    assert len(where.unique()) == M
    assert torch.allclose(rows.t, whole[where], atol=1e-5)
    assert rows.x is None or torch.equal(rows.x, sketch(x)[where])
    assert found == {("act", name, k): pytest.approx(v, abs=1e-6) for k, v in PURE[name](rows).items()}


WIDE = net(act=lambda x: torch.tanh(x.repeat(1, 40)).reshape(len(x), 4, 5, 8))


@pytest.mark.parametrize("bins", [COARSE, None])
def test_raw_rows_are_for_a_pool_and_for_what_is_quantized(bins, data):
    x, y = data
    shapes = {}

    class Shape(Estimator):
        def estimate(self, rows, calibration, unit):
            shapes[self.name] = tuple(rows.t.shape), rows.t
            return {"I_TY": 0.0}

    plain, pooling = Shape(), Shape(pool=lambda t: t.mean((2, 3)))
    plain.name, pooling.name = "plain", "pooling"
    plane = InformationPlane({"act": bins}, estimators=[plain, pooling, "quantized8"], max_samples=M)
    found = values(estimated(plane, WIDE, x, y))
    raw = shown(plane, plane.estimation.estimators[2])
    assert shapes["plain"][0] == (M, 128)
    assert shapes["pooling"][0] == (M, 4)
    assert raw.t.shape == (M, 4, 5, 8)
    assert torch.equal(shapes["pooling"][1], raw.t.mean((2, 3)))
    assert found == {("act", "plain", "I_TY"): 0.0, ("act", "pooling", "I_TY"): 0.0} | {
        ("act", "quantized8", k): pytest.approx(v, abs=1e-12) for k, v in quantized(raw).items()
    }


def test_without_one_that_asks_for_them_no_raw_rows_are_kept(data):
    plane = plane_of(WIDE, [name for name in QUICK if name not in ("quantized8", "copula")], max_samples=M)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coordinates that repeat
        estimated(plane, WIDE, *data)
    assert plane.drawn().raw == {}


def test_rows_of_several_shapes_cost_those_that_ask_for_them_raw_and_no_others(data):
    """A sequence longer than the sketch is compared as if padded; its raw rows do not fit together."""

    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = Function(torch.tanh)

        def forward(self, x):
            self.act(x[:, None].repeat(1, 40 + int(x[0, 0] > 0), 1))

    names = ["knn", "quantized8", "soft"]
    plane = InformationPlane(["act"], estimators=names, max_samples=M)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [estimated(plane, Sequences(), *data, batch=10, epoch=epoch) for epoch in range(3)]
    (message,) = told(caught)
    assert message.startswith(
        "layer 'act': quantized8 could not be estimated at epoch 0, its values are NaN: its samples have different "
        "shapes, (40, 4) and (41, 4)"
    )
    for estimates in found:
        assert [(one.source, one.quantity) for one in estimates[:3]] == [
            ("knn", "I_TY"), ("quantized8", "I_XT"), ("quantized8", "I_TY")
        ]  # fmt: skip
        assert len(estimates) == 8
        assert all(math.isnan(one.value) == (one.source == "quantized8") for one in estimates)
    assert math.isfinite(plane.compute()[0].i_ty)


class Asks(Estimator):
    """Keeps what it is shown."""

    def __init__(self, name, max_samples=None, pool=None):
        super().__init__(pool, max_samples)
        self.name = name

    def estimate(self, rows, calibration, unit):
        self.seen = rows
        return {"I_TY": 0.0}


@pytest.mark.parametrize("batch", [N, 16])
def test_each_sees_the_first_of_the_same_rows(batch, data):
    x, y = data
    few, more, raw = Asks("few", 20), Asks("more", 50), Asks("raw", 30, pool=lambda t: t)
    most, default = Asks("most", 10_000), Asks("default")
    estimators = [few, more, raw, most, default]
    found = estimated(plane_of(TANH, estimators, max_samples=90), TANH, x, y, batch=batch)
    assert {one.source: one.n_samples for one in found} == {
        "few": 20, "more": 50, "raw": 30, "most": 90, "default": 90
    }  # fmt: skip
    for one in estimators:
        n = len(one.seen.t)
        assert torch.equal(one.seen.t, most.seen.t[:n])
        assert torch.equal(one.seen.y, most.seen.y[:n])


def test_two_thousand_rows_unless_another_number_is_asked_for():
    x, y = torch.randn(3000, 2), torch.arange(3000) % 2
    found = estimated(plane_of(TANH, ["knn", Quantized(4), "soft", KDE(max_samples=100)]), TANH, x, y)
    assert {one.source: one.n_samples for one in found} == {
        "knn": 2000,
        "quantized4": 2000,
        "soft": 3000,
        "kde": 100,
    }
    fewer = KNN(max_samples=500)
    plane = plane_of(TANH, [fewer])
    (one,) = estimated(plane, TANH, x, y)
    rows = shown(plane)
    assert (one.n_samples, len(rows.t)) == (500, 500)
    assert one.value == mutual_information_knn(rows.t, rows.y)


@pytest.mark.parametrize("n", [1, 0, 2.0, "many", True])
@pytest.mark.parametrize("kind", [KDE, KSG, KNN, MixedKNN, GaussianCopula, Renyi, Probe, InfoNCE, SMILE, Quantized])
def test_an_estimator_needs_two_rows_at_least(kind, n):
    told = f"{kind.__name__}: max_samples must be an integer of at least 2, got {n!r}: "
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(told)}"):
        kind(max_samples=n)


def test_the_head_is_shown_as_probabilities_and_soft_as_its_outputs(data):
    x, y = data
    model = net(hidden=torch.tanh, out=lambda x: 3 * x[:, :3])
    one, soft = Asks("one"), Soft(64)
    plane = InformationPlane(["hidden", "out"], estimators=[one, soft])
    estimated(plane, model, x, y)
    plane.compute()
    assert plane.head.layer == "out"
    found = values(plane.estimate())
    rows = plane.drawn()
    assert torch.allclose(one.seen.t, rows.outputs["out"].softmax(1), atol=1e-6)
    expected = soft_information(rows.outputs["out"], rows.others["y"], n_anchors=64)
    assert found["out", "soft", "I_TY"] == pytest.approx(expected.i_ty, abs=1e-9)


@pytest.mark.parametrize(
    "estimator", [KDE, KSG, KNN, MixedKNN, GaussianCopula, Renyi, Probe, InfoNCE, SMILE, Quantized]
)
def test_a_pool_of_ones_own_takes_its_place(estimator):
    t = torch.randn(20, 3, 40)
    assert torch.equal(estimator(pool=lambda t: t[:, 0, :2]).pooled(t), t[:, 0, :2])


def test_options_reach_the_function(data):
    x, y = data
    estimators = [KSG(k=5, algorithm=2), KNN(k=7), MixedKNN(k=4), Renyi(alpha=2.0), KDE(noise_variance=0.5)]
    plane = plane_of(TANH, [*estimators, Quantized(4)])
    found = values(estimated(plane, TANH, x, y))
    rows = shown(plane)
    assert found["act", "ksg", "I_XT"] == mutual_information_ksg(rows.t, rows.x, k=5, algorithm=2)
    assert found["act", "knn", "I_TY"] == mutual_information_knn(rows.t, y[_where(plane, x)], k=7)
    assert found["act", "mixed", "I_TY"] == mutual_information_mixed(rows.t, 1e6 * rows.y.double(), k=4)
    width = kernel_width_of(rows.t)
    expected = mutual_information_renyi_labels(rows.t, rows.y, alpha=2.0, kernel_width=width)
    assert found["act", "renyi", "I_TY"] == expected
    assert found["act", "kde", "I_TY"] == kde(rows, variance=0.5)["I_TY"]
    assert found["act", "quantized4", "I_TY"] == mutual_information_quantized(rows.t, rows.y, bits=4)


def test_a_network_that_is_quantized_already_is_counted_as_it_is(data):
    x, y = data
    model = net(act=lambda x: torch.floor(x[:, :1]))
    found = values(estimated(plane_of(model, [Quantized(None)]), model, x, y))
    share = torch.floor(x[:, 0]).unique(return_counts=True)[1].double() / N
    assert found["act", "quantized", "I_XT"] == pytest.approx(float(-(share * share.log2()).sum()), abs=1e-12)


class WithErrors(Estimator):
    """Gives the error of one of its values; another one is merely named like an error."""

    name = "with_errors"
    outputs = ("base_se", "I_TY")

    def estimate(self, rows, calibration, unit):
        return {"base_se": 1.0, "I_TY": 0.5, "I_TY_se": 0.1}


def test_an_error_is_recorded_beside_its_value():
    data = [(torch.rand(40, 3), torch.arange(40) % 2)]
    found = measure(nn.Sequential(nn.Linear(3, 4)), data, ["0"], estimators=[WithErrors()], head=False).estimates()
    errors = {one.quantity: one.standard_error for one in found}
    assert set(errors) == {"base_se", "I_TY"}
    assert errors["I_TY"] == 0.1
    assert math.isnan(errors["base_se"])
