"""Estimators of one's own, and what becomes of those that fail."""

import math
import warnings

import pytest
import torch

from lightning_ib.estimators.base import Estimator
from tests.helpers.estimators import TANH, M, estimated, net, plane_of, shown, told, values


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


class Dimension(Estimator):
    name = "dimension"
    outputs = ("participation_ratio", "I_TY")
    unitless = ("participation_ratio",)

    def estimate(self, rows, calibration, unit):
        return {"participation_ratio": 2.5, "I_TY": 0.5}


def test_a_value_can_be_without_a_unit():
    x, y = torch.randn(64, 2), torch.arange(64) % 2
    found = estimated(plane_of(TANH, [Dimension()]), TANH, x, y)
    assert {(one.quantity, one.unit) for one in found} == {("participation_ratio", ""), ("I_TY", "bits")}


def test_an_estimator_keeps_its_calibration_where_its_name_was_spelled_otherwise():
    plane = plane_of(TANH, ["quantized8"])
    frozen = {"layers": {}, "estimators": {"act": {"quantised8": {"low": -1.0, "high": 1.0}}}}
    plane.load_frozen_state(frozen)
    assert plane.estimation.calibration == {"act": {"quantized8": {"low": -1.0, "high": 1.0}}}
