"""The history: its points, its measurements and its CSV file, every value to the last bit and never half a file."""

import csv
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib import History, InformationPoint, Record
from lightning_ib.records.files import write_records
from lightning_ib.records.record import unit_of
from tests.helpers.records import ERRORS, VERSION_1, bits, estimate, exact, in_version_1, of

FIGURES = ("i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y", "saturation")
DOUBTS = ("i_ty_permuted", "i_ty_permuted_sd", "singleton_fraction", "clipped_fraction")
CERTAIN = ("explained_variance", "accuracy", "i_ty_fano", "fano_shortfall")
VALUES = (*FIGURES, *ERRORS, *DOUBTS, *CERTAIN)


def point(value=1.5, *, layer="conv1", **changes):
    figures = dict.fromkeys(VALUES, value)
    rest = {"epoch": 3, "step": 1200, "layer": layer, "n_samples": 60_000, "n_codes": 17, "unit": "bits"}
    return InformationPoint(**{**figures, **rest, **changes})


def record(value=1.5, *, layer="conv1", **changes):
    rest = {"epoch": 3, "step": 1200, "layer": layer, "source": "probe", "quantity": "I_TY", "n_samples": 60_000}
    return Record(**{**rest, "value": value, "standard_error": value / 2, "unit": "bits", "verdict": "ok", **changes})


def measured(epoch, layers=("conv", "out"), estimators=("probe",), value=1.5):
    """One measurement."""
    points = [point(value, layer=layer, epoch=epoch, step=10 * epoch) for layer in layers]
    estimates = [estimate(epoch, 10 * epoch, layer, name, "I_TY", value) for layer in layers for name in estimators]
    return History.of(points, estimates)


AWKWARD = [
    0.0,
    -0.0,
    0.1,
    1 / 3,
    math.pi,
    11.002099841204238,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    1 + 2**-52,
    1e22,
    1e23,
    math.inf,
    -math.inf,
    math.nan,
]


def test_the_fields_are_those_of_the_contract():
    assert Record._fields == (
        *("epoch", "step", "layer", "source", "quantity", "value", "standard_error"),
        *("unit", "n_samples", "verdict", "correction"),
    )
    assert InformationPoint._fields == (
        *("epoch", "step", "layer", "i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y"),
        *("n_samples", "n_codes", "saturation", "unit"),
        *ERRORS,
        *DOUBTS,
        *("verdict", "correction", "source"),
        *CERTAIN,
    )


# --- Points and records ----------------------------------------------------------------------------------------------


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
        ["saturation", "n_codes", "singleton_fraction", "clipped_fraction", "explained_variance", "accuracy"], ""
    )
    assert {quantity for quantity, record in records.items() if not math.isnan(record.standard_error)} == {
        *("I_XT", "I_TY", "H_T", "H_X", "H_Y", "H_Y_given_T", "I_XT_given_Y")
    }


def test_an_undefined_value_has_no_record_but_the_three_that_every_point_has():
    records = History.of([InformationPoint.missing("out", n_samples=8, unit="bits")]).records()
    assert [record.quantity for record in records] == ["I_XT", "I_TY", "H_T", "n_codes"]


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


# --- A history and its measurements ----------------------------------------------------------------------------------


def test_a_history_is_a_collection_of_its_points():
    history = measured(0) + measured(1)
    assert len(history) == len(history.points()) == 4
    assert list(history) == history.points() == history[:] == [history[k] for k in range(4)]
    assert (history[-1].layer, history[-1].epoch) == ("out", 1)
    assert history[1] in history
    assert history[1]._replace(i_xt=9.0) not in history
    assert repr(history) == "History of 4 points and 4 estimates"
    assert repr(measured(0, ["out"])) == "History of 1 point and 1 estimate"
    assert repr(History.of([point()])) == "History of 1 point"
    assert (repr(History()), len(History()), bool(History())) == ("History of 0 points", 0, False)
    with pytest.raises(IndexError):
        History()[0]


def test_estimates_alone_are_no_points():
    history = History([record(), record(source="kde")])
    assert (len(history), len(history.estimates()), len(history.records())) == (0, 2, 2)
    assert repr(history) == "History of 0 points and 2 estimates"


def test_what_a_history_hands_out_is_not_its_own():
    history = measured(0)
    for handed in (history.points(), history.records(), history.estimates(), history.state_dict()["value"]):
        handed.clear()
    assert history == measured(0)


def test_histories_are_equal_where_all_their_values_are():
    assert measured(0, value=math.nan) == measured(0, value=float("nan"))
    assert measured(0) != measured(0, estimators=["kde"])
    assert measured(0) != measured(0) + measured(1)
    assert measured(0) != History(reversed(measured(0).records()))
    assert measured(0) != measured(0).points()
    with pytest.raises(TypeError, match="unhashable"):
        hash(measured(0))


def test_the_last_measurement_has_its_points_and_estimates():
    history = measured(0) + measured(1) + measured(2, ["out"])
    assert history.last() == measured(2, ["out"])
    assert History().last() == History()
    # Some histories end with estimates of an earlier measurement: points and estimates were saved apart.
    apart = History.of([*measured(0), *measured(1)], measured(0).estimates())
    assert apart.last() == History.of(measured(1))


def test_until_a_moment_both_ends_are_included():
    history = measured(0) + measured(1) + measured(2)
    assert history.until(1, 10) == measured(0) + measured(1)
    assert history.until(1, 9) == history.until(0, 10) == measured(0)
    assert history.until(9, 99) == history
    assert history.until(-1, 0) == History()


def test_a_measurement_takes_the_place_of_one_at_the_same_moment():
    history = measured(0) + measured(1)
    history.put(measured(2, estimators=["probe", "kde"]))
    assert history == measured(0) + measured(1) + measured(2, estimators=["probe", "kde"])
    assert len(history) == 6, "the points were counted before"
    history.put(measured(2, ["out"], estimators=()))
    assert history == measured(0) + measured(1) + measured(2, ["out"], estimators=())
    assert len(history) == 5
    history.put(History())
    assert len(history) == 5


def test_by_step_measurements_of_one_epoch_stand_beside_one_another():
    first, second = (History.of([point(epoch=1, step=step)]) for step in (4, 8))
    history = History()
    for one in (first, second, second):
        history.put(one, "step")
    assert history == first + second
    history.put(History.of([point(epoch=1, step=12)]))
    assert [one.step for one in history] == [12]


# --- As a data frame -------------------------------------------------------------------------------------------------


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="^to_dataframe needs pandas: pip install pandas, or use to_csv.$"):
        measured(0).to_dataframe()


def test_a_data_frame_is_given_a_row_for_each_value(monkeypatch):
    given = []

    def frame(rows, columns):
        given.append((rows, columns))
        return "a frame"

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=frame))
    assert measured(0).to_dataframe() == "a frame"
    ((rows, columns),) = given
    assert columns == list(Record._fields)
    assert exact(rows) == exact(measured(0))


def test_pandas_has_every_value():
    pytest.importorskip("pandas")
    history = measured(0) + measured(1, value=math.nan)
    frame = history.to_dataframe()
    assert list(frame.columns) == list(Record._fields)
    assert exact(Record(*row) for row in frame.itertuples(index=False, name=None)) == exact(history)
    pivoted = frame[frame.source == "probe"].pivot(index="epoch", columns="layer", values="value")
    assert list(pivoted["out"])[0] == 1.5
    assert list(History().to_dataframe().columns) == list(Record._fields)


def test_pandas_is_imported_by_nobody_else():
    code = "import sys; sys.modules['pandas'] = None; from lightning_ib import History; assert not History().records()"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- The CSV file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", AWKWARD)
def test_values_come_back_to_the_last_bit(value, tmp_path):
    history = History([record(value), record(-value, layer="conv2", source="cells"), record(standard_error=value)])
    history.to_csv(tmp_path / "history.csv")
    found = History.read_csv(tmp_path / "history.csv")
    assert bits(found) == bits(history)
    assert all(type(one) is Record for one in found.records())


@pytest.mark.parametrize("value", AWKWARD)
def test_points_come_back_to_the_last_bit(value, tmp_path):
    points = [point(value), point(-value, layer="conv2")]
    History.of(points).to_csv(tmp_path / "history.csv")
    found = History.read_csv(tmp_path / "history.csv").points()
    assert bits(found) == bits(points)
    assert all(type(one) is InformationPoint for one in found)


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(
    st.tuples(st.floats(allow_nan=True), st.floats(allow_nan=True)),
    st.tuples(*[st.integers(0, 2**63)] * 3),
    st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)] * 3),
    st.sampled_from(["bits", "nats", ""]),
    st.sampled_from(["", "miller_madow"]),
)
def test_any_record_comes_back(tmp_path_factory, numbers, counts, names, unit, correction):
    (value, error), (epoch, step, n_samples), (layer, source, quantity) = numbers, counts, names
    one = Record(epoch, step, layer, source, quantity, value, error, unit, n_samples, "ok", correction)
    path = tmp_path_factory.getbasetemp() / "any.csv"
    History([one]).to_csv(path)
    assert bits(History.read_csv(path)) == bits([one])
    state = json.loads(json.dumps({"history": History([one]).state_dict()}))
    found, faults = History.restored(state)
    assert (bits(found), faults) == (bits([one]), [])


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a\r\nb", " a ", "Ebene.größe", "层", "nan", "1", "'"])
def test_any_name_comes_back(name, tmp_path):
    one = record(layer=name, source=name, quantity=name)
    History([one]).to_csv(tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv").records() == [one]


def test_the_order_of_the_records_is_kept(tmp_path):
    records = [record(layer=str(k), epoch=k % 3) for k in range(50)]
    write_records(iter(records), tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv").records() == records


def test_an_empty_history_comes_back_empty(tmp_path):
    History().to_csv(tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv") == History()


def test_other_programs_can_read_the_file(tmp_path):
    path = tmp_path / "history.csv"
    History([record(0.25, layer="a,b"), record(math.nan, source="cells")]).to_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["a,b", "conv1"]
    assert [(row["source"], row["quantity"], row["unit"]) for row in rows] == [
        ("probe", "I_TY", "bits"),
        ("cells", "I_TY", "bits"),
    ]
    assert (rows[0]["value"], rows[1]["value"], rows[0]["standard_error"]) == ("0.25", "nan", "0.125")
    assert rows[0]["n_samples"] == "60000"


def test_folders_are_made_and_paths_may_be_strings(tmp_path):
    path = str(tmp_path / "not" / "there" / "history.csv")
    History([record()]).to_csv(path)
    assert History.read_csv(path) == History([record()])


# --- Never half a file -----------------------------------------------------------------------------------------------


def test_writing_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "history.csv"
    History([record(layer=str(k)) for k in range(100)]).to_csv(path)
    with path.open(encoding="utf-8") as reader:  # opened before, it still sees the old file, all of it
        History([record()]).to_csv(path)
        assert len(reader.readlines()) == 101
    assert History.read_csv(path) == History([record()])
    assert os.listdir(tmp_path) == ["history.csv"]


def test_a_reader_in_the_middle_of_a_write_sees_the_old_file(tmp_path):
    path = tmp_path / "history.csv"
    History([record(0.0)]).to_csv(path)
    seen = []

    def records():
        for _ in range(5000):  # more than any buffer holds
            yield record(1.0)
        seen.append(History.read_csv(path))

    write_records(records(), path)
    assert seen == [History([record(0.0)])]
    assert len(History.read_csv(path).records()) == 5000


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "history.csv"
    History([record(0.0)]).to_csv(path)

    def records():
        yield record(1.0)
        raise error

    with pytest.raises(error):
        write_records(records(), path)
    assert History.read_csv(path) == History([record(0.0)])
    assert os.listdir(tmp_path) == ["history.csv"]


def test_a_disk_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "history.csv"
    History([record(0.0)]).to_csv(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="No space left"):
        History([record(1.0)]).to_csv(path)
    assert History.read_csv(path) == History([record(0.0)])
    assert os.listdir(tmp_path) == ["history.csv"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "history.csv"
    History([record(0.0)]).to_csv(path)
    (tmp_path / "history.csv.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        History([record(1.0)]).to_csv(path)
    assert History.read_csv(path) == History([record(0.0)])
    assert os.listdir(tmp_path) == ["history.csv"]


def test_a_folder_in_the_way_is_an_error_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "history.csv").mkdir()
    with pytest.raises(OSError, match="directory|denied"):
        History([record()]).to_csv(tmp_path / "history.csv")
    assert os.listdir(tmp_path) == ["history.csv"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="exists|directory"):
        History([record()]).to_csv(tmp_path / "file" / "history.csv")


def test_what_an_interrupted_process_left_behind_is_no_obstacle(tmp_path):
    (tmp_path / "history.csv.partial").write_text("half a fi")
    History([record()]).to_csv(tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv") == History([record()])
    assert os.listdir(tmp_path) == ["history.csv"]


# --- Files that are no history ---------------------------------------------------------------------------------------


def written(tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text, encoding="utf-8")
    return path


HEADER = ",".join(Record._fields)
OLD_HEADER = (VERSION_1 / "information.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", r"\(\)"),
        ("a,b\n1,2\n", r"\('a', 'b'\)"),
        (HEADER.replace("unit", "units") + "\n", "'units'"),
        (HEADER + ",more\n", "'more'"),
        (HEADER.removesuffix(",correction") + "\n", "'verdict'"),
        (HEADER.upper() + "\n", "'EPOCH'"),
        (OLD_HEADER.removesuffix(",fano_shortfall") + "\n", "'i_ty_fano'"),
        (",".join(InformationPoint._fields) + "\n", "'i_ty_permuted'"),
    ],
)
def test_a_file_with_other_columns_is_refused(tmp_path, text, columns):
    path = written(tmp_path, text)
    with pytest.raises(
        ValueError, match=rf"other.csv is no history: its columns are .*{columns}.*, expected \('epoch',"
    ):
        History.read_csv(path)


def test_a_cell_that_is_no_number_is_refused(tmp_path):
    row = [str(cell) for cell in record()]
    for k, bad in ((0, "1.5"), (5, "much"), (6, "unknown"), (8, "nan")):
        cells = [*row[:k], bad, *row[k + 1 :]]
        with pytest.raises(ValueError, match=bad):
            History.read_csv(written(tmp_path, HEADER + "\n" + ",".join(cells) + "\n"))


@pytest.mark.parametrize("row", ["3,1200,conv1,probe,I_T", ",".join(str(cell) for cell in record()) + ",7"])
def test_a_row_of_another_length_is_refused(tmp_path, row):
    with pytest.raises(ValueError, match=r"other.csv is no whole history: line 2 has \d+ of 11 cells"):
        History.read_csv(written(tmp_path, f"{HEADER}\n{row}\n"))


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        History.read_csv(tmp_path / "none.csv")


# --- In a checkpoint -------------------------------------------------------------------------------------------------


def test_a_state_comes_back_with_all_its_fields():
    history = measured(0, value=math.nan) + History.of([point(layer="out", verdict="target_saturated")])
    state = history.state_dict()
    assert list(state) == list(Record._fields)
    assert {type(value) for column in state.values() for value in column} == {int, float, str}
    found, faults = History.restored({"history": state})
    assert (bits(found), faults) == (bits(history), [])
    assert History.restored({"history": History().state_dict()}) == (History(), [])


def test_a_state_needs_no_more_than_weights_only(tmp_path):
    torch.save(measured(0).state_dict(), tmp_path / "state.pt")
    found, _ = History.restored({"history": torch.load(tmp_path / "state.pt", weights_only=True)})
    assert found == measured(0)


def state(**changes):
    """A state of one measurement, with columns changed by functions of the old ones."""
    columns = measured(0, ["out"]).state_dict()
    return {"history": columns | {name: change(columns[name]) for name, change in changes.items()}}


def lacking(name):
    columns = measured(0, ["out"]).state_dict()
    del columns[name]
    return {"history": columns}


@pytest.mark.parametrize(
    ("damaged", "n_kept", "fault"),
    [
        ({}, 0, "its history is missing, and a mapping of columns is expected"),
        ({"history": 3}, 0, "its history is of type int, and a mapping of columns is expected"),
        ({"history": {}}, 0, "the columns of its history differ in length or kind"),
        (state(value=lambda of: of[1:]), 0, "the columns of its history differ in length or kind"),
        (state(value=tuple), 0, "the columns of its history differ in length or kind"),
        (state(value=lambda of: ["1", *of[1:]]), -1, "a record of its history has value='1', of type str, and float"),
        (state(epoch=lambda of: [True, *of[1:]]), -1, "a record of its history has epoch=True, of type bool, and int"),
        (state(value=lambda of: [1, *of[1:]]), None, None),
        (lacking("quantity"), 0, "records of its history lack ['quantity']"),
        (lacking("source"), 0, "records of its history lack ['source']"),
        (lacking("unit"), 0, "records of its history lack ['unit']"),
        (lacking("n_samples"), None, "records of its history lack ['n_samples']"),
        (lacking("value"), None, "records of its history lack ['value']"),
        ({"history": [3]}, 0, "a point of its history is of type int, and a mapping is expected"),
        ({"history": [], "estimates": [3]}, 0, "an estimate of its history is of type int, and a mapping is expected"),
        ({"history": [], "estimates": {}}, 0, "its estimates are of type dict, and a list is expected"),
    ],
)
def test_of_a_damaged_state_is_kept_what_can_be_read(damaged, n_kept, fault):
    found, faults = History.restored(damaged)
    n = len(measured(0, ["out"]).records())
    assert len(found.records()) == (n if n_kept is None else n - 1 if n_kept else 0)
    assert len(faults) == (fault is not None)
    assert all(told.startswith(fault) for told in faults)
    assert len(found.points()) <= 1


# --- What versions before wrote --------------------------------------------------------------------------------------


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
