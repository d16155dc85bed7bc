"""Points and their records: fields, units, and values that are undefined."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib import History, InformationPoint, Record
from lightning_ib.records.record import unit_of
from tests.helpers.histories import BOUNDS, CERTAIN, DOUBTS, VALUES, point, record
from tests.helpers.records import ERRORS, bits


def test_the_fields_are_those_of_the_contract():
    assert Record._fields == (
        *("epoch", "step", "layer", "source", "quantity", "value", "standard_error"),
        *("unit", "n_samples", "verdict", "correction", "target"),
    )
    assert InformationPoint._fields == (
        *("epoch", "step", "layer", "i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y"),
        *("n_samples", "n_codes", "saturation", "unit"),
        *ERRORS,
        *DOUBTS,
        *("verdict", "correction", "source"),
        *CERTAIN,
        *BOUNDS,
        "target",
    )


def test_a_missing_point_is_nan_in_every_figure():
    missing = InformationPoint.missing("conv1", n_samples=5, unit="nats", epoch=2, step=9)
    assert (missing.layer, missing.n_samples, missing.n_codes, missing.unit) == ("conv1", 5, 0, "nats")
    assert (missing.epoch, missing.step, missing.source, missing.verdict) == (2, 9, "cells", "")
    assert all(math.isnan(getattr(missing, figure)) for figure in VALUES)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
finite_or_nan = st.floats(allow_nan=True, allow_infinity=False)


@st.composite
def any_point(draw, values=finite_or_nan):
    counts = {name: draw(st.integers(0, 2**63)) for name in ("epoch", "step", "n_samples")}
    counts["n_codes"] = draw(st.integers(0, 2**53 - 1))
    words = {name: draw(st.sampled_from(of)) for name, of in CHOICES.items()}
    return InformationPoint(**{name: draw(values) for name in VALUES}, **counts, **words, layer=draw(texts))


CHOICES = {
    "unit": ["bits", "nats"],
    "source": ["cells", "binned"],
    "verdict": ["ok", "saturated", ""],
    "correction": ["", "miller_madow"],
}


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(any_point())
def test_a_point_is_all_in_its_records(one):
    history = History.of([one])
    assert bits(history.points()) == bits([one])
    assert history.estimates() == []
    assert [record.quantity for record in history.records()][:3] == ["I_XT", "I_TY", "H_T"]


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(st.lists(any_point(), max_size=6, unique_by=lambda one: (one.epoch, one.step, one.layer, one.source)))
def test_points_come_back_in_their_order(points):
    assert bits(History.of(points).points()) == bits(points)
    estimates = [record(layer=one.layer, epoch=one.epoch) for one in points]
    history = History.of(points, estimates)
    assert bits(history.points()) == bits(points), "estimates make no points"
    assert history.estimates() == estimates


def test_a_record_holds_what_its_point_does():
    one = point(0.25, i_ty=1.25, i_ty_se=0.5, source="binned", verdict="clipped", correction="jackknife")
    records = {record.quantity: record for record in History.of([one]).records()}
    shared = {"n_samples": 60_000, "verdict": "clipped", "correction": "jackknife"}
    assert records["I_TY"] == Record(3, 1200, "conv1", "binned", "I_TY", 1.25, 0.5, "bits", **shared)
    codes = Record(3, 1200, "conv1", "binned", "n_codes", 17.0, **shared)
    assert bits([records["n_codes"]]) == bits([codes])
    assert {quantity: record.unit for quantity, record in records.items() if record.unit == ""} == dict.fromkeys(
        [
            *("saturation", "n_codes", "singleton_fraction", "clipped_fraction", "explained_variance", "accuracy"),
            "error_heuristic",
        ],
        "",
    )
    assert {quantity for quantity, record in records.items() if not math.isnan(record.standard_error)} == {
        *("I_XT", "I_TY", "H_T", "H_X", "H_Y", "H_Y_given_T", "I_XT_given_Y", "I_TY_gap")
    }


def test_an_undefined_value_has_no_record_but_the_four_that_every_point_has():
    records = History.of([InformationPoint.missing("out", n_samples=8, unit="bits")]).records()
    assert [record.quantity for record in records] == ["I_XT", "I_TY", "H_T", "saturation", "n_codes"]


def test_a_number_of_codes_that_is_no_number_is_none():
    codes = Record(0, 0, "out", "cells", "n_codes", math.nan)
    (found,) = History([*History.of([point(layer="out", epoch=0, step=0)]).records()[:3], codes])
    assert found.n_codes == 0


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [("I_XT", "nats"), ("H_T", "nats"), ("I_TY_floor", "nats"), ("accuracy", ""), ("top5_accuracy", "")]
    + [("noise_variance", ""), ("kernel_width", ""), ("singleton_fraction", ""), ("n_codes", "")],
)
def test_what_is_no_information_has_no_unit(quantity, unit):
    assert unit_of(quantity, "nats") == unit


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"h_t": 3.5}, "h_t > log N"),
        ({"h_t": 3.5, "i_xt": 3.25}, "h_t > log N, i_xt > H(X)"),
        ({"i_xt": -0.1, "i_ty": -0.1}, "i_xt < 0, i_ty < 0"),
        ({"i_ty": 1.1, "h_y_given_t": -0.1}, "i_ty > H(Y), h_y_given_t < 0"),
        ({"i_xt_given_y": -1e-9}, "i_xt_given_y < 0"),
        ({"h_t": 3.5, "correction": ""}, ""),
        ({"h_t": 3.5, "n_samples": 0}, ""),
        ({"h_t": 2.5, "unit": "nats"}, "h_t > log N"),
        ({"h_t": math.nan}, ""),
    ],
)
def test_what_a_correction_pushed_past_a_bound_is_named(changes, expected):
    sound = {"h_x": 3.0, "h_y": 1.0, "i_xt": 2.0, "i_ty": 0.5, "h_t": 2.0, "h_y_given_t": 0.5, "i_xt_given_y": 1.5}
    one = point(0.0, n_samples=8, correction="miller_madow", **sound)._replace(**changes)
    assert one.out_of_bounds == expected
    if expected:
        assert point(0.0, **sound).out_of_bounds == ""
