"""Estimators beside the plane: the figures of the pure functions on sampled rows, and what becomes of bad ones."""

import functools
import io
import math
import re
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import InformationPlane, Quantizer, UniformBins
from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.estimators.copula import GaussianCopula
from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.neighbors import KNN, KSG, MixedKNN
from lightning_ib.estimators.quantized import Quantized
from lightning_ib.estimators.registry import BY_NAME, checked_estimators
from lightning_ib.estimators.soft import Soft
from lightning_ib.estimators.variational import SMILE, InfoNCE, Probe
from lightning_ib.functional import (
    kernel_width_of,
    mutual_information_bounds_kde,
    mutual_information_gaussian_copula,
    mutual_information_gaussian_copula_labels,
    mutual_information_infonce,
    mutual_information_knn,
    mutual_information_ksg,
    mutual_information_mixed,
    mutual_information_quantized,
    mutual_information_renyi,
    mutual_information_renyi_labels,
    mutual_information_smile,
    noise_variance_of,
    probe_information,
    sketch,
    soft_information,
)
from lightning_ib.measurement.estimation import rows_for
from tests.helpers.nets import Function
from tests.helpers.records import exact

COARSE = Quantizer(bins=UniformBins(3))
QUICK = ["kde", "ksg", "knn", "mixed", "copula", "renyi", "probe", "quantized8", "soft"]
WIDTHS = ("noise_variance", "kernel_width")
N, M = 150, 64


def net(**functions):
    """Layers side by side, each a function of the input."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, function in functions.items():
                self.add_module(name, Function(function))

        def forward(self, x):
            for layer in self.children():
                layer(x)

    return Net()


def plane_of(model, estimators, **options):
    return InformationPlane({name: COARSE for name, _ in model.named_children()}, estimators=estimators, **options)


def estimated(plane, model, x, y, *, batch=N, epoch=0):
    """One measurement, from the start: (layer, estimator, figure) → value."""
    plane.reset()
    with plane.attach(model):
        for k in range(0, len(x), batch):
            model(x[k : k + batch])
            plane.update(x[k : k + batch], None if y is None else y[k : k + batch])
    return plane.estimate(epoch=epoch, step=10 * epoch)


def shown(plane, estimator=None, layer="act"):
    """The rows that an estimator is shown of a layer."""
    return rows_for(plane.estimation.estimators[0] if estimator is None else estimator, layer, plane.drawn())


def values(estimates):
    return {(one.layer, one.source, one.quantity): one.value for one in estimates}


def same(a, b):
    return a.keys() == b.keys() and all(a[k] == b[k] or (math.isnan(a[k]) and math.isnan(b[k])) for k in a)


@pytest.fixture
def data():
    """Three classes a little apart, in four coordinates."""
    y = torch.arange(N) % 3
    return torch.randn(N, 4) + 1.5 * torch.eye(3, 4)[y], y


TANH = net(act=torch.tanh)


# -- which are asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_a_name_is_an_estimator_that_logs_under_it(name):
    (estimator,) = checked_estimators([name])
    assert estimator.name == name
    assert isinstance(estimator, Estimator)


def test_names_and_estimators_can_be_mixed():
    own = KDE(noise_variance=0.1)
    assert checked_estimators(("probe", own))[1] is own
    assert checked_estimators([]) == []


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        (["kdee"], ValueError, "there is no estimator 'kdee': did you mean 'kde'?"),
        (["mlp-probe"], ValueError, "there is no estimator 'mlp-probe': did you mean 'mlp_probe'?"),
        (["quantised8"], ValueError, "there is no estimator 'quantised8': did you mean 'quantized8'?"),
        (["zzz"], ValueError, "did you mean 'kde' or 'ksg' or 'knn' or .* or 'quantized8'?"),
        ("kde", TypeError, "estimators must be a list, got 'kde'. Did you mean ['kde']?"),
        (KDE(), TypeError, "estimators must be a list, got KDE(). Did you mean [KDE()]?"),
        (["kde", "kde"], ValueError, "two estimators would log as 'kde': give one of them another .name."),
        ([KDE(0.1), "kde"], ValueError, "two estimators would log as 'kde': give one of them another .name."),
        ([3], TypeError, "an estimator must be a name such as 'kde' or an Estimator such as KDE(), got 3."),
        ([None], TypeError, "an estimator must be a name such as 'kde' or an Estimator such as KDE(), got None."),
        ([KDE], TypeError, "an Estimator such as KDE(), got <class 'lightning_ib.estimators.kernels.KDE'>."),
    ],
)
def test_a_wrong_choice_is_refused(asked, kind, told):
    pattern = told if ".*" in told else re.escape(told)
    for ask in (checked_estimators, lambda asked: InformationPlane(["act"], estimators=asked)):
        with pytest.raises(kind, match=pattern):
            ask(asked)


def test_an_estimator_without_a_name_is_refused():
    class Nameless(Estimator):
        def estimate(self, rows, calibration, unit):
            return {"I_TY": 1.0}

    with pytest.raises((TypeError, ValueError), match="name"):
        checked_estimators([Nameless()])


def test_another_name_lets_one_estimator_work_twice(data):
    finer = KDE(noise_variance=0.01)
    finer.name = "kde_fine"
    found = values(estimated(plane_of(TANH, ["kde", finer]), TANH, *data))
    assert found["act", "kde_fine", "I_XT"] > found["act", "kde", "I_XT"]


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (
            lambda: KDE(noise_variance=0),
            ValueError,
            "KDE: noise_variance must be a positive finite number, got 0: give None",
        ),
        (
            lambda: KDE(noise_variance=math.nan),
            ValueError,
            "KDE: noise_variance must be a positive finite number, got nan: give None",
        ),
        (lambda: Probe("deep"), ValueError, "Probe: probe must be 'linear' or 'mlp', got 'deep'"),
        (lambda: Renyi(pool=3), TypeError, r"Renyi: pool must be a callable on rows \(M, …\) or None, got 3"),
    ],
)
def test_a_wrong_option_is_refused_at_once(make, kind, told):
    with pytest.raises(kind, match=told):
        make()


@pytest.mark.parametrize("n", [1, 0, -5, 2.0, "many", None, True])
def test_max_samples_must_be_a_number_of_rows(n):
    told = re.escape(f"max_samples must be an integer of at least 2, got {n!r}: ")
    with pytest.raises((TypeError, ValueError), match=told):
        InformationPlane(["act"], max_samples=n)


def test_an_estimator_shows_its_options():
    assert repr(KSG(k=5)) == "KSG(k=5, algorithm=1)"
    assert repr(Probe(folds=5)) == "Probe(probe='linear', folds=5)"
    assert repr(Quantized(None)) == "Quantized(per='layer')"
    assert repr(KDE(frozen=True, max_samples=500)) == "KDE(max_samples=500, frozen=True)"


# -- the figures are those of the pure functions -----------------------------------------------------------------------


def kde(rows, y=None, variance=None, unit="bits"):
    variance = noise_variance_of(rows.t) if variance is None else variance
    x = mutual_information_bounds_kde(rows.t, noise_variance=variance, unit=unit)
    found = {"I_XT": x.upper, "I_XT_lower": x.lower}
    if rows.y is not None and not rows.y.is_floating_point():
        about = mutual_information_bounds_kde(rows.t, rows.y, noise_variance=variance, unit=unit)
        found |= {"I_TY": about.upper, "I_TY_lower": about.lower}
    return found | {"noise_variance": variance}


def ksg(rows, unit="bits"):
    found = {"I_XT": mutual_information_ksg(rows.t, rows.x, unit=unit)}
    if rows.y is not None and rows.y.is_floating_point():
        found["I_TY"] = mutual_information_ksg(rows.t, rows.y, unit=unit)
    return found


def mixed(rows, unit="bits"):
    y = rows.y if rows.y.is_floating_point() else 1e6 * rows.y.double()  # classes farther apart than any rows
    return {"I_TY": mutual_information_mixed(rows.t, y, unit=unit)}


def renyi(rows, unit="bits"):
    found = {"I_XT": mutual_information_renyi(rows.t, rows.x, unit=unit), "kernel_width": kernel_width_of(rows.t)}
    if rows.y is None:
        return found
    of_labels = not rows.y.is_floating_point()
    function = mutual_information_renyi_labels if of_labels else mutual_information_renyi
    return found | {"I_TY": function(rows.t, rows.y, unit=unit)}


def probe(rows, unit="bits", kind="linear"):
    decoded = probe_information(rows.t, rows.y, probe=kind, folds=4, unit=unit)
    return {"I_TY": decoded.information, "accuracy": decoded.accuracy}


def quantized(rows, unit="bits"):
    found = {"I_XT": mutual_information_quantized(rows.t, unit=unit)}
    if rows.y is not None and not rows.y.is_floating_point():
        found["I_TY"] = mutual_information_quantized(rows.t, rows.y, unit=unit)
    return found


def soft(rows, unit="bits"):
    about = rows.y is not None and not rows.y.is_floating_point()
    found = soft_information(rows.t, rows.y if about else None, unit=unit)
    values = {"H_T": found.h_t, "I_XT": found.i_xt}
    if about:
        values |= {
            "I_TY": found.i_ty,
            "I_TY_floor": found.i_ty_floor,
            "I_TY_above_floor": found.i_ty - found.i_ty_floor,
        }
    return values


def one_hot(y):
    return y if y.is_floating_point() else torch.nn.functional.one_hot(y).double()


def copula(rows, unit="bits"):
    real = rows.y.is_floating_point()
    function = mutual_information_gaussian_copula if real else mutual_information_gaussian_copula_labels
    return {"I_TY": function(rows.t, rows.y, unit=unit)}


PURE = {
    "kde": kde,
    "ksg": ksg,
    "knn": lambda rows, unit="bits": {"I_TY": mutual_information_knn(rows.t, rows.y, unit=unit)},
    "mixed": mixed,
    "copula": copula,
    "renyi": renyi,
    "probe": probe,
    "mlp_probe": functools.partial(probe, kind="mlp"),
    "infonce": lambda rows, unit="bits": {"I_TY": mutual_information_infonce(rows.t, one_hot(rows.y), unit=unit)},
    "smile": lambda rows, unit="bits": {"I_TY": mutual_information_smile(rows.t, one_hot(rows.y), unit=unit)},
    "quantized8": quantized,
    "soft": soft,
}


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


@pytest.mark.parametrize("name", ["kde", "ksg", "mixed", "copula", "renyi", "infonce", "smile", "quantized8", "soft"])
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


@pytest.mark.parametrize("name", ["knn", "mixed", "copula", "probe", "infonce"])
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
        assert set(found) == set(estimator.outputs_for(rows))


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


# -- kinds of rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_another_precision_are_kept_and_estimated_as_they_are(dtype, data):
    x, y = data
    model = net(act=lambda x: torch.tanh(x).to(dtype))
    plane = plane_of(model, QUICK)
    found = values(estimated(plane, model, x, y))
    rows = shown(plane)
    assert rows.t.dtype == (torch.float64 if dtype == torch.float64 else torch.float32), "sketched"
    assert shown(plane, Quantized()).t.dtype == dtype, "raw"
    for name in QUICK:
        if dtype == torch.bfloat16 and name == "ksg":
            continue  # repeats of so few digits are too many for it
        for figure, value in PURE[name](rows).items():
            assert found["act", name, figure] == pytest.approx(value, abs=1e-6), (name, figure)


def test_half_precision_loses_its_digits_and_nothing_else(data):
    whole, half = net(act=torch.tanh), net(act=lambda x: torch.tanh(x).half())
    names = ["kde", "renyi", "copula", "knn"]
    of_whole, of_half = (values(estimated(plane_of(m, names), m, *data)) for m in (whole, half))
    assert of_half == {key: pytest.approx(value, abs=0.02) for key, value in of_whole.items()}


@pytest.mark.parametrize(
    "name",
    [
        "ksg",
        "renyi",
    ],
)
def test_inputs_that_are_integers(name, data):
    y = data[1]
    x = torch.randint(0, 1000, (N, 4))
    model = net(act=lambda x: x / 500 - 1)
    found = values(estimated(plane_of(model, [name]), model, x, y))
    as_reals = values(estimated(plane_of(model, [name]), model, x.double(), y))
    assert found == {key: pytest.approx(value, abs=1e-5) for key, value in as_reals.items()}
    assert all(map(math.isfinite, found.values()))


def test_labels_that_are_booleans(data):
    x, y = data
    found = values(estimated(plane_of(TANH, QUICK), TANH, x, y == 1))
    as_integers = values(estimated(plane_of(TANH, QUICK), TANH, x, (y == 1).long()))
    assert same(found, as_integers)


@pytest.mark.filterwarnings("ignore:layer 'act'. .* could not be estimated")
def test_labels_in_a_column(data):
    x, y = data
    column, flat = (values(estimated(plane_of(TANH, QUICK), TANH, x, labels)) for labels in (y[:, None], y))
    assert same(column, flat)


def test_labels_are_names_only(data):
    x, y = data
    other = torch.tensor([700, -3, 12])[y]
    names = [name for name in QUICK if name != "soft"]  # which counts them in rows of a table
    found, renamed = (values(estimated(plane_of(TANH, names), TANH, x, labels)) for labels in (y, other))
    assert renamed == {key: pytest.approx(value, abs=1e-9) for key, value in found.items()}


def test_a_layer_of_single_numbers(data):
    x, y = data
    flat, column = net(act=lambda x: x[:, 0]), net(act=lambda x: x[:, :1])
    assert same(*(values(estimated(plane_of(model, QUICK), model, x, y)) for model in (flat, column)))


def test_what_works_in_place_after_the_layer_changes_nothing(data):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = Function(torch.tanh)

        def forward(self, x):
            return self.act(x).mul_(0).relu_()

    found = values(estimated(plane_of(TANH, ["kde"]), InPlace(), *data))
    assert same(found, values(estimated(plane_of(TANH, ["kde"]), TANH, *data)))


# -- rows of no use ----------------------------------------------------------------------------------------------------


def told(caught):
    return [str(one.message) for one in caught if "could not be estimated" in str(one.message)]


def test_rows_that_are_not_finite_are_nan_with_one_warning_a_layer_and_estimator(data):
    x, y = data
    model = net(good=torch.tanh, bad=lambda x: torch.where(torch.arange(len(x)) == 5, torch.nan, x.T).T)
    names = ["kde", "probe"]
    plane = plane_of(model, names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = estimated(plane, model, x, y, epoch=57)
        again = estimated(plane, model, x, y, epoch=58)
    assert told(caught) == [
        f"layer 'bad': {name} could not be estimated at epoch 57, its values are NaN: t has NaN or infinite values in "
        f"1 of {N} rows: leave those rows out."
        for name in names
    ]
    for found in (first, again):
        assert {one.layer for one in found if math.isnan(one.value)} == {"bad"}
        assert sum(one.layer == "bad" for one in found) == sum(one.layer == "good" for one in found) == 7
        assert all(math.isnan(one.value) for one in found if one.layer == "bad")


@pytest.mark.filterwarnings("ignore:layer 'act'. .* could not be estimated")
@pytest.mark.filterwarnings("ignore:layer 'act' gave NaN")
@pytest.mark.parametrize("name", [name for name in QUICK if name not in ("quantized8", "soft")])
@pytest.mark.parametrize("bad", [lambda x: x * math.nan, lambda x: 0 * x + 1, lambda x: x / 0])
def test_it_comes_back_when_the_rows_are_of_use_again(name, bad, data):
    plane = plane_of(TANH, [name])
    estimated(plane, net(act=bad), *data)
    assert same(values(estimated(plane, TANH, *data)), values(estimated(plane_of(TANH, [name]), TANH, *data)))


@pytest.mark.filterwarnings("ignore:layer 'act'. .* could not be estimated")
@pytest.mark.parametrize("name", ["quantized8", "soft"])
@pytest.mark.parametrize("bad", [lambda x: x * math.nan, lambda x: 0 * x + 1, lambda x: x / 0])
def test_what_was_set_before_does_not_keep_finite_values_back(bad, name, data):
    plane = plane_of(TANH, [name])
    estimated(plane, net(act=bad), *data)
    assert all(map(math.isfinite, values(estimated(plane, TANH, *data)).values()))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("kde", "t is constant and has no scale to take a noise from"),
        ("ksg", "x is the same in all 150 rows"),
        ("copula", "is constant"),
        ("renyi", "x is constant and has no scale to take a kernel width from"),
    ],
)
def test_a_constant_layer_is_refused_by_those_it_tells_nothing(name, why, data):
    model = net(act=lambda x: 0 * x + 3)
    with pytest.warns(UserWarning, match=f"layer 'act': {name} could not be estimated at epoch 0, .*: .*{why}"):
        assert all(math.isnan(one.value) for one in estimated(plane_of(model, [name]), model, *data))


@pytest.mark.parametrize("name", ["mixed", "probe", "infonce"])
def test_a_constant_layer_tells_nothing(name, data):
    model = net(act=lambda x: 0 * x + 3)
    found = values(estimated(plane_of(model, [name]), model, *data))
    assert found["act", name, "I_TY"] == pytest.approx(0, abs=0.05)


@pytest.mark.filterwarnings("ignore:layer 'act'. .* could not be estimated")
def test_a_constant_layer_has_no_quantized_entropy(data):
    model = net(act=lambda x: 0 * x + 3)
    found = values(estimated(plane_of(model, ["quantized8"]), model, *data))
    assert found == {("act", "quantized8", "I_XT"): 0.0, ("act", "quantized8", "I_TY"): 0.0}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("knn", "class 9 of y has 1 of 150 samples, and k = 3 neighbors of the same class need at least 4"),
        ("copula", "needs at least 6 rows, got 1 in class 9"),
    ],
)
def test_one_sample_in_a_class(name, why, data):
    x, y = data
    y[17] = 9
    with pytest.warns(UserWarning, match=f"layer 'act': {name} could not be estimated at epoch 0, .*: .*{why}"):
        assert all(math.isnan(one.value) for one in estimated(plane_of(TANH, [name]), TANH, x, y))


def test_one_sample_in_a_class_is_no_matter_to_the_others(data):
    x, y = data
    y[17] = 9
    found = estimated(plane_of(TANH, ["kde", "mixed", "renyi", "quantized8", "infonce", "probe", "soft"]), TANH, x, y)
    assert all(math.isfinite(one.value) for one in found)


def test_fewer_rows_than_coordinates_are_too_few_for_the_copula():
    x, y = torch.randn(20, 30), torch.zeros(20).long()
    model = net(act=torch.tanh)
    with pytest.warns(UserWarning, match="copula could not be estimated .* a covariance of 30 coordinates needs at"):
        (one,) = estimated(plane_of(model, ["copula"]), model, x, y)
    assert math.isnan(one.value)


def test_what_fails_keeps_nothing_of_the_others_back(data):
    x, y = data
    y[17] = 9
    with pytest.warns(UserWarning, match="knn could not be estimated"):
        found = estimated(plane_of(TANH, ["knn", "kde"]), TANH, x, y)
    assert [math.isnan(one.value) for one in found] == [True, False, False, False, False, False]


def test_an_input_whose_first_axis_is_not_the_batch_keeps_nothing_else_back(data):
    x, y = data
    steps_first = x.reshape(N, 2, 2).transpose(0, 1)
    model = net(act=lambda x: x.sum(0))
    with pytest.warns(UserWarning, match="layer 'act': ksg could not be estimated"):
        found = values(estimated(plane_of(model, ["ksg", "probe"]), model, steps_first, y))
    assert math.isfinite(found["act", "probe", "I_TY"])


# -- estimators of one's own -------------------------------------------------------------------------------------------


class Norm(Estimator):
    name = "norm"

    def __init__(self, fails=(), pool=None):
        super().__init__(pool)
        self.fails = fails
        self.shown = []

    def calibrate(self, rows):
        return {"scale": float(rows.t.norm())}

    def estimate(self, rows, calibration, unit):
        self.shown.append((tuple(rows.t.shape), calibration, unit))
        if len(self.shown) in self.fails:
            raise RuntimeError("of no use")
        return {"I_TY": float(rows.t.norm()) / calibration["scale"], "accuracy": 0.5}


def test_an_estimator_of_ones_own(data):
    x, y = data
    own = Norm(pool=lambda t: t[:, :2])
    plane = plane_of(TANH, [own, "kde"], max_samples=M)
    estimated(plane, TANH, x, y)
    louder = net(act=lambda x: 3 * torch.tanh(x))
    found = {(one.source, one.quantity): (one.value, one.unit) for one in estimated(plane, louder, x, y)}
    assert found["norm", "I_TY"] == (pytest.approx(3, abs=1e-5), "bits")
    assert found["norm", "accuracy"] == (0.5, "")
    first = {"scale": float(shown(plane).t[:, :2].norm() / 3)}
    assert own.shown == [((M, 2), pytest.approx(first, abs=1e-4), "bits")] * 2


def test_one_that_raises_is_nan_with_one_warning_a_layer(data):
    model = net(a=torch.tanh, b=torch.relu)
    plane = plane_of(model, [Norm(fails=range(1, 5)), "kde"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first, second, third = (values(estimated(plane, model, *data, epoch=epoch)) for epoch in (4, 5, 6))
    assert told(caught) == [
        f"layer {layer!r}: norm could not be estimated at epoch 4, its values are NaN: of no use." for layer in "ab"
    ]
    for layer in "ab":
        for found in (first, second):
            assert math.isnan(found[layer, "norm", "I_TY"])
            assert math.isfinite(found[layer, "kde", "I_TY"])
        assert third[layer, "norm", "I_TY"] == 1


class Breaks(Norm):
    def __init__(self, gives=None, figures=None):
        super().__init__()
        self.at = {"gives": gives, "figures": figures}

    def outputs_for(self, rows):
        return self.at["gives"]()

    def estimate(self, rows, calibration, unit):
        return self.at["figures"]()


@pytest.mark.parametrize(
    "own", [Breaks(gives=lambda: 1 / 0, figures=lambda: 1 / 0), Breaks(gives=lambda: ["I_TY"], figures=lambda: None)]
)
def test_whatever_breaks_in_one_keeps_nothing_of_the_others_back(own, data):
    with pytest.warns(UserWarning, match="layer 'act': norm could not be estimated"):
        found = values(estimated(plane_of(TANH, [own, "kde"]), TANH, *data))
    assert math.isfinite(found["act", "kde", "I_TY"])


def test_a_figure_is_a_number_whatever_the_estimator_returned(data):
    own = Breaks(figures=lambda: {"I_TY": torch.tensor(1.0)})
    assert type(estimated(plane_of(TANH, [own]), TANH, *data)[0].value) is float


def test_a_figure_that_ends_in_accuracy_has_no_unit(data):
    own = Breaks(figures=lambda: {"top5_accuracy": 0.5})
    assert estimated(plane_of(TANH, [own]), TANH, *data)[0].unit == ""


# -- what is set once --------------------------------------------------------------------------------------------------


LOUD = net(act=lambda x: 2 * torch.tanh(x))


def scaled(factor, offset=0.0):
    return net(act=lambda x: factor * torch.tanh(x) + offset)


@pytest.mark.parametrize(("make", "name"), [(KDE, "noise_variance"), (Renyi, "kernel_width")])
def test_a_width_follows_the_layer_unless_it_is_frozen(make, name, data):
    x, y = (part.double() if part.is_floating_point() else part for part in data)
    follows, frozen = plane_of(TANH, [make()]), plane_of(TANH, [make(frozen=True)])
    of = [("act", make.name, figure) for figure in make.outputs if figure != name]
    first, first_frozen = (values(estimated(plane, TANH, x, y)) for plane in (follows, frozen))
    assert first == first_frozen
    louder, louder_frozen = (values(estimated(plane, scaled(10.0), x, y)) for plane in (follows, frozen))
    power = 100 if name == "noise_variance" else 10
    assert [louder[key] for key in of] == pytest.approx([first[key] for key in of], abs=1e-6)
    assert louder["act", make.name, name] == pytest.approx(power * first["act", make.name, name], rel=1e-6)
    assert all(abs(louder_frozen[key] - first[key]) > 0.1 for key in of)
    assert louder_frozen["act", make.name, name] == first["act", make.name, name]
    assert follows.estimation.calibration == {}
    assert frozen.estimation.calibration == {"act": {make.name: {name: first["act", make.name, name]}}}


@pytest.mark.parametrize("estimator", [KDE(noise_variance=0.3), Renyi(kernel_width=0.3), KDE(0.3, frozen=True)])
def test_a_width_that_is_given_stays(estimator, data):
    plane = plane_of(TANH, [estimator])
    for factor in (1.0, 10.0):
        found = values(estimated(plane, scaled(factor), *data))
        assert found["act", estimator.name, estimator.outputs[-1]] == 0.3
    assert plane.estimation.calibration == {}


def test_a_frozen_noise_is_that_of_the_first_measurement(data):
    plane = plane_of(TANH, [KDE(frozen=True)], max_samples=M)
    estimated(plane, TANH, *data)
    rows = shown(plane)
    variance = noise_variance_of(rows.t)
    assert plane.estimation.calibration == {"act": {"kde": {"noise_variance": variance}}}
    found = values(estimated(plane, LOUD, *data))
    assert plane.estimation.calibration == {"act": {"kde": {"noise_variance": variance}}}
    expected = kde(rows._replace(t=2 * rows.t), variance=variance)
    assert found == {("act", "kde", k): pytest.approx(v, abs=1e-9) for k, v in expected.items()}


def test_the_range_is_that_of_the_first_measurement(data):
    plane = plane_of(TANH, ["quantized8"], max_samples=M)
    estimated(plane, TANH, *data)
    rows = shown(plane)
    bounds = float(rows.t.min()), float(rows.t.max())
    assert plane.estimation.calibration == {"act": {"quantized8": dict(zip(("low", "high"), bounds))}}
    found = values(estimated(plane, net(act=lambda x: 0.01 * torch.tanh(x)), *data))
    expected = mutual_information_quantized(0.01 * rows.t, bounds=bounds)
    assert found["act", "quantized8", "I_XT"] == pytest.approx(expected, abs=1e-9)
    assert expected < mutual_information_quantized(0.01 * rows.t) - 0.5


def test_a_noise_that_was_given_is_not_set(data):
    plane = plane_of(TANH, [KDE(noise_variance=0.1), Quantized(8, per="tensor")])
    estimated(plane, TANH, *data)
    assert plane.estimation.calibration == {}


def reloaded(state):
    """As a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_it_is_frozen_state_and_taken_up_again(data):
    first = plane_of(TANH, [KDE(frozen=True), "quantized8"])
    estimated(first, TANH, *data)
    second = plane_of(TANH, [KDE(frozen=True), "quantized8"])
    with second.attach(TANH):
        second.load_frozen_state(reloaded(first.frozen_state()))
    assert second.estimation.calibration == first.estimation.calibration
    assert same(values(estimated(second, LOUD, *data)), values(estimated(first, LOUD, *data)))
    anew = plane_of(LOUD, [KDE(frozen=True), "quantized8"])
    assert not same(values(estimated(second, LOUD, *data)), values(estimated(anew, LOUD, *data)))


def test_a_state_without_estimators_is_none_that_was_set(data):
    plane, before = plane_of(TANH, [KDE(frozen=True)]), plane_of(TANH, [])
    estimated(before, TANH, *data)
    before.compute()
    with plane.attach(TANH):
        plane.load_frozen_state(before.frozen_state())
    assert plane.estimation.calibration == {}
    assert all(map(math.isfinite, values(estimated(plane, TANH, *data)).values()))


@pytest.mark.parametrize(
    "damaged",
    [[1], 3, {"act": [1]}, {"act": {"kde": 3}}, {"act": {"kde": {"noise_variance": "much"}}}, {"act": {"kde": None}}],
)
def test_a_damaged_state_is_refused_and_all_else_taken_up(damaged, data):
    first = plane_of(TANH, [KDE(frozen=True)])
    estimated(first, TANH, *data)
    first.compute()
    second = plane_of(TANH, [KDE(frozen=True)])
    with (
        second.attach(TANH),
        pytest.raises(ValueError, match="^what its estimators were set to is no mapping from layers to estimators"),
    ):
        second.load_frozen_state(first.frozen_state() | {"estimators": damaged})
    assert second.estimation.calibration == {}
    assert torch.equal(second.fitted_quantizers["act"].edges, first.fitted_quantizers["act"].edges)


@pytest.mark.filterwarnings("ignore:layer 'act'. kde could not be estimated")
def test_what_was_given_before_and_is_left_out_now_is_set_now(data):
    first, second = plane_of(TANH, [KDE(noise_variance=0.1)]), plane_of(TANH, [KDE(frozen=True)])
    estimated(first, TANH, *data)
    with second.attach(TANH):
        second.load_frozen_state(first.frozen_state())
    assert all(map(math.isfinite, values(estimated(second, TANH, *data)).values()))


def test_the_frozen_state_is_a_copy(data):
    plane = plane_of(TANH, [KDE(frozen=True)])
    estimated(plane, TANH, *data)
    plane.frozen_state()["estimators"]["act"]["kde"]["noise_variance"] = 99.0
    assert plane.estimation.calibration["act"]["kde"]["noise_variance"] < 1


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_with_bins_alone_no_row_is_kept(data, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("no sample was asked for")

    monkeypatch.setattr("lightning_ib.measurement.sampled.Reservoir.choose", refuse)
    monkeypatch.setattr("lightning_ib.measurement.sampled.Reservoir.keep", refuse)
    plane = plane_of(TANH, [])
    assert estimated(plane, TANH, *data) == []
    assert len(plane.compute()) == 1
    plane.trim(10)
    assert "estimators" not in plane.frozen_state()


def test_rows_can_be_kept_without_estimators(data):
    x, y = data
    plane = plane_of(TANH, [], keep_rows=True, max_samples=M)
    assert estimated(plane, TANH, x, y) == []
    rows = plane.labeled_rows()["act"]
    assert (len(rows.t), len(rows.y), rows.x) == (M, M, None)


def test_the_points_are_the_same_with_estimators_and_without(data):
    planes = plane_of(TANH, []), plane_of(TANH, QUICK)
    for plane in planes:
        estimated(plane, TANH, *data)
    assert exact(planes[0].compute()) == exact(planes[1].compute())


def test_the_same_rows_at_every_measurement_and_none_of_the_one_before(data):
    x, y = data
    plane = plane_of(TANH, ["kde"], max_samples=M)
    estimated(plane, TANH, x, y)
    first = shown(plane)
    estimated(plane, LOUD, x, y)
    assert torch.equal(shown(plane).t, 2 * first.t)


def test_what_is_counted_in_after_an_estimate_is_in_the_next(data):
    x, y = data
    plane = plane_of(TANH, ["kde"])
    with plane.attach(TANH):
        for half in (slice(0, 75), slice(75, None)):
            TANH(x[half])
            plane.update(x[half], y[half])
            found = plane.estimate()
    assert found[0].n_samples == plane.compute()[0].n_samples == N


def test_what_is_trimmed_is_not_estimated(data):
    x, y = data
    plane = plane_of(TANH, ["kde"])
    with plane.attach(TANH):
        TANH(torch.cat([x, x[:5]]))
        plane.update(torch.cat([x, x[:5]]), torch.cat([y, y[:5]]))
    plane.trim(N)
    assert same(values(plane.estimate()), values(estimated(plane_of(TANH, ["kde"]), TANH, x, y)))


def test_no_random_state_is_touched(data):
    before = torch.random.get_rng_state()
    estimated(plane_of(TANH, [*QUICK, "infonce"]), TANH, *data)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_estimates_can_be_had_in_inference_mode(data):
    x, y = data
    names = ["kde", "probe", "infonce"]
    with torch.inference_mode():
        found = values(estimated(plane_of(TANH, names), TANH, x.clone(), y.clone()))
    assert same(found, values(estimated(plane_of(TANH, names), TANH, x, y)))


def test_the_progress_is_of_layers_and_estimators(data):
    model, seen = net(a=torch.tanh, b=torch.relu), []

    def progress(pairs):
        seen.extend((layer, estimator.name) for layer, estimator in pairs)
        return pairs

    plane = plane_of(model, ["kde", "probe"])
    estimated(plane, model, *data)
    plane.estimate(progress=progress)
    assert seen == [("a", "kde"), ("a", "probe"), ("b", "kde"), ("b", "probe")]
