"""The rows that estimators are shown: of every kind, of no use, and none that nobody asks for."""

import math
import warnings

import pytest
import torch
from torch import nn

from lightning_ib.estimators.quantized import Quantized
from tests.helpers.estimators import LOUD, PURE, QUICK, TANH, M, N, estimated, net, plane_of, same, shown, told, values
from tests.helpers.nets import Function
from tests.helpers.records import exact

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
