"""What estimators set from a layer once: its width, its range, and both in a checkpoint."""

import io
import math

import pytest
import torch

from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.quantized import Quantized
from lightning_ib.functional import mutual_information_quantized, noise_variance_of
from tests.helpers.estimators import LOUD, TANH, M, estimated, kde, net, plane_of, same, shown, values


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
