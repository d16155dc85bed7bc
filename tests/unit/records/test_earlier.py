"""Files and states that versions before this one wrote."""

import csv
import json
import math

import pytest

from lightning_ib import History
from tests.helpers.histories import BOUNDS, OLD_HEADER, measured, written
from tests.helpers.records import VERSION_1, in_version_1, of


def cells(name):
    """The rows of an old file, by column, as text."""
    with (VERSION_1 / name).open(newline="") as file:
        return list(csv.DictReader(file))


def saved():
    """The state in a checkpoint of version 1."""
    return json.loads((VERSION_1 / "state.json").read_text())


RENAMED = {
    "i_ty_permuted": "i_ty_shuffled",
    "i_ty_permuted_sd": "i_ty_shuffled_sd",
    "clipped_fraction": "outside",
    "explained_variance": "explained",
}


def assert_is_the_old_point(point, old, cell):
    """Every value of an old point is in the new one, to the last bit; ``cell`` gives the value that a cell holds."""
    for name, value in point._asdict().items():
        if name == "source":
            assert value == {"bins": "binned"}.get(old["source"], old["source"])
        elif name == "singleton_fraction":
            seen_once = cell(old["singletons"], float) * cell(old["n_codes"], int)
            assert value == pytest.approx(seen_once / cell(old["n_samples"], int), rel=1e-15)
            assert value * point.n_samples == pytest.approx(round(value * point.n_samples), abs=1e-9)
        elif name in BOUNDS:
            assert math.isnan(value)
        elif name == "target":
            assert value == ""
        else:
            was = cell(old[RENAMED.get(name, name)], type(value))
            assert value == was or (value != value and was != was), name
    assert point.out_of_bounds == old["beyond"]


def test_the_points_of_an_old_file_are_read():
    history, rows = History.read_csv(VERSION_1 / "information.csv"), cells("information.csv")
    assert [(p.epoch, p.layer) for p in history] == [(e, layer) for e in range(3) for layer in ("hidden", "act", "out")]
    for one, row in zip(history, rows, strict=True):
        assert_is_the_old_point(one, row, lambda cell, kind: kind(cell))
    assert history.estimates() == []


def test_the_estimates_of_an_old_file_are_read():
    history, rows = History.read_csv(VERSION_1 / "estimators.csv"), cells("estimators.csv")
    assert len(history.estimates()) == len(history.records()) == len(rows) == 72
    for one, row in zip(history.records(), rows, strict=True):
        assert math.isnan(one.standard_error)
        assert one.correction == ""
        assert [str(value) for value in one[:6]] == [row[k] for k in list(row)[:6]]
        assert [one.unit, str(one.n_samples), one.verdict] == [row[k] for k in ("unit", "n_samples", "verdict")]
    assert len(history) == 0


def test_old_files_come_to_one_history_that_is_written_anew(tmp_path):
    history = History.read_csv(VERSION_1 / "information.csv") + History.read_csv(VERSION_1 / "estimators.csv")
    history.to_csv(tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv") == history
    assert (len(history), len(history.estimates())) == (9, 72)
    last = history.last()
    assert ({p.epoch for p in last}, len(last), len(last.estimates())) == ({2}, 3, 24)
    assert of(last.estimates(), layer="out", source="probe", quantity="I_TY") == [0.8280842017077422]


def test_an_old_file_that_ends_in_the_middle_of_a_row_is_refused(tmp_path):
    text = (VERSION_1 / "information.csv").read_text()
    with pytest.raises(ValueError, match="no whole history: line 2 has 4 of 33 cells"):
        History.read_csv(written(tmp_path, "\n".join([OLD_HEADER, "0,0,hidden,4.7"])))
    with pytest.raises(ValueError, match="history"):
        History.read_csv(written(tmp_path, text[: len(text) // 2]))


def test_an_old_state_is_read_and_is_what_its_files_held():
    old = saved()
    assert old["version"] == 1
    history, faults = History.restored(old)
    assert faults == []
    for one, row in zip(history, old["history"], strict=True):
        assert_is_the_old_point(one, row, lambda value, kind: value)
    assert [(*one[:5], one.value, one.unit, one.n_samples, one.verdict) for one in history.estimates()] == [
        tuple(row.values()) for row in old["estimates"]
    ]
    files = History.read_csv(VERSION_1 / "information.csv") + History.read_csv(VERSION_1 / "estimators.csv")
    assert history == files.last()


def test_an_old_state_is_restored_measurement_by_measurement():
    old = in_version_1(measured(0) + measured(1) + measured(2))
    assert [point["epoch"] for point in old["history"]] == [0, 0, 1, 1, 2, 2]
    assert History.restored(old) == (measured(0) + measured(1) + measured(2), [])
    del old["estimates"][2:]  # there were estimators at the first measurement alone
    assert History.restored(old)[0].last() == History.of(measured(2))


def test_a_point_of_a_version_without_a_source_was_counted_in_cells():
    old = in_version_1(measured(0, ["out"], []))
    old["history"][0]["source"] = ""
    assert [point.source for point in History.restored(old)[0]] == ["cells"]


@pytest.mark.parametrize(
    ("before", "now"),
    [("quantized8", "quantized8"), ("quantised", "quantized"), ("my_quantised", "my_quantised"), ("kde", "kde")],
)
def test_an_estimator_has_the_name_it_has_now(before, now):
    old = in_version_1(measured(0, ["out"], [before]))
    assert [one.source for one in History.restored(old)[0].estimates()] == [now]


def test_estimates_of_a_version_without_verdicts_have_none():
    old = in_version_1(measured(0))
    for one in old["estimates"]:
        del one["verdict"]
    found, faults = History.restored(old)
    assert [one.verdict for one in found.estimates()] == [""] * 2
    assert faults == ["estimates of its history lack ['verdict']"]
