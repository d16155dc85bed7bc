"""A measurement as JSON: nothing is lost, and what cannot be read is named."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_ib.records import History, InformationPoint, Record
from lightning_ib.records.measurement_json import (
    history_to_json,
    measurement_from_json,
    measurement_to_json,
    measurements_of,
)

NAMES = st.sampled_from(["a", "b/c", "net.0", "größe </script>", "Ā\u2028"])
VALUES = st.floats(allow_nan=True, allow_infinity=True)
RECORDS = st.builds(
    Record,
    epoch=st.just(3),
    step=st.just(40),
    layer=NAMES,
    source=st.sampled_from(["cells", "probe"]),
    quantity=st.sampled_from(["I_XT", "I_TY", "accuracy"]),
    value=VALUES,
    standard_error=VALUES,
    unit=st.sampled_from(["bits", "nats", ""]),
    n_samples=st.integers(0, 10**9),
    verdict=st.sampled_from(["", "ok", "outgrown"]),
    correction=st.sampled_from(["", "miller_madow"]),
    target=st.sampled_from(["", "class", "coarse"]),
)


def by_name(history):
    return sorted(map(repr, history.records()))


@given(st.lists(RECORDS, min_size=1, max_size=12, unique_by=lambda one: (*one[2:5], one.target)))
def test_every_record_comes_back_to_the_last_bit(records):
    text = measurement_to_json(History(records))
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert by_name(measurement_from_json(text)) == by_name(History(records))


def test_words_and_reasons_come_along_by_layer():
    point = InformationPoint.missing("out", n_samples=80, unit="bits")
    history = History.of([point._replace(h_t=3.0, saturation=0.95, verdict="saturated")])
    made = json.loads(measurement_to_json(history, by="step", discretized={"out": "16 cells", "hidden": ""}))
    assert made["by"] == "step"
    assert made["discretized"] == {"out": "16 cells"}
    assert made["reasons"] == {"out": "H(T) is 0.95 of log N: its values tell the samples apart, not what was learned"}


def test_a_measurement_has_one_moment():
    records = [Record(epoch, 0, "out", "cells", "I_XT", 1.0) for epoch in (2, 0, 1, 0)]
    assert [one.records()[0].epoch for one in measurements_of(History(records))] == [0, 1, 2]
    with pytest.raises(ValueError, match="a measurement is of one moment, got 3"):
        measurement_to_json(History(records))
    with pytest.raises(ValueError, match="a measurement is of one moment, got 0"):
        measurement_to_json(History())


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"layers": None}', '{"version": 1, "epo'])
def test_another_text_is_named(text):
    with pytest.raises(ValueError, match="this is no measurement, or an incomplete one"):
        measurement_from_json(text)


@pytest.mark.parametrize(
    "damage", [{"series": 3}, {"layers": None}, {"epoch": None, "series": [{"source": "cells"}]}, {"series": [{}]}]
)
def test_a_damaged_measurement_is_named(damage):
    text = measurement_to_json(History([Record(1, 8, "out", "probe", "I_TY", 0.5)]))
    with pytest.raises(ValueError, match="this measurement is incomplete or damaged"):
        measurement_from_json(json.dumps(json.loads(text) | damage))


def test_a_history_by_steps_keeps_all_measurements_of_an_epoch():
    records = [Record(epoch, step, "out", "cells", "I_XT", 1.0) for epoch, step in ((0, 0), (1, 5), (1, 10))]
    assert {json.loads(text)["by"] for text in history_to_json(History(records))} == {"step"}
    assert {json.loads(text)["by"] for text in history_to_json(History(records[:2]))} == {"epoch"}


def test_a_later_version_is_named():
    text = measurement_to_json(History([Record(1, 8, "out", "probe", "I_TY", math.inf)]))
    with pytest.raises(ValueError, match="is of version 3, known is 2: update lightning-ib"):
        measurement_from_json(json.dumps(json.loads(text) | {"version": 3}))
