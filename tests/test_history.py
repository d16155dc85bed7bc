"""The history as a CSV file: every figure to the last bit, and never half a file."""

import csv
import math
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib import Estimate, InformationPoint
from lightning_ib.records.history import read_csv, restored_points, unit_of, write_csv

FIGURES = ("i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y", "saturation")
ERRORS = ("i_xt_se", "i_ty_se", "h_t_se", "h_x_se", "h_y_se", "h_y_given_t_se", "i_xt_given_y_se")
DOUBTS = ("i_ty_permuted", "i_ty_permuted_sd", "singletons", "outside")
CERTAIN = ("explained", "accuracy", "i_ty_fano", "fano_shortfall")


def point(value=1.5, *, layer="conv1", **changes):
    figures = dict.fromkeys((*FIGURES, *ERRORS, *DOUBTS, *CERTAIN), value)
    rest = {"epoch": 3, "step": 1200, "layer": layer, "n_samples": 60_000, "n_codes": 17, "unit": "bits"}
    return InformationPoint(**{**figures, **rest, **changes})


def bits(points):
    """The points with every float as its eight bytes, so that −0 does not equal 0, and one NaN equals another."""

    def cell(v):
        return struct.pack("d", math.nan if math.isnan(v) else v) if isinstance(v, float) else (type(v), v)

    return [tuple(map(cell, point)) for point in points]


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
    assert InformationPoint._fields == (
        *("epoch", "step", "layer", "i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y"),
        *("n_samples", "n_codes", "saturation", "unit"),
        *ERRORS,
        *DOUBTS,
        *("verdict", "correction", "beyond", "source"),
        *CERTAIN,
    )
    assert Estimate._fields == (
        *("epoch", "step", "layer", "estimator", "figure", "value", "unit", "n_samples", "verdict"),
    )


@pytest.mark.parametrize("value", AWKWARD)
def test_figures_come_back_to_the_last_bit(value, tmp_path):
    points = [point(value), point(-value, layer="conv2")]
    write_csv(points, tmp_path / "history.csv")
    found = read_csv(tmp_path / "history.csv")
    assert bits(found) == bits(points)
    assert all(type(p) is InformationPoint for p in found)


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(
    st.lists(st.floats(allow_nan=True), min_size=8, max_size=8),
    st.tuples(*[st.integers(0, 2**63)] * 4),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    st.sampled_from(["bits", "nats"]),
)
def test_any_point_comes_back(tmp_path_factory, figures, numbers, layer, unit):
    epoch, step, n_samples, n_codes = numbers
    whole = dict(zip(FIGURES, figures))
    points = [point(**whole, layer=layer, unit=unit, epoch=epoch, step=step, n_samples=n_samples, n_codes=n_codes)]
    path = tmp_path_factory.getbasetemp() / "any.csv"
    write_csv(points, path)
    assert bits(read_csv(path)) == bits(points)


@pytest.mark.parametrize("layer", ["a,b", 'a"b', "a\nb", "a\r\nb", " a ", "Ebene.größe", "层", "nan", "1", "'"])
def test_any_name_of_a_layer_comes_back(layer, tmp_path):
    write_csv([point(layer=layer)], tmp_path / "history.csv")
    (found,) = read_csv(tmp_path / "history.csv")
    assert found.layer == layer


def test_the_order_of_the_points_is_kept(tmp_path):
    points = [point(layer=str(k), epoch=k % 3) for k in range(50)]
    write_csv(iter(points), tmp_path / "history.csv")
    assert read_csv(tmp_path / "history.csv") == points


def test_an_empty_history_comes_back_empty(tmp_path):
    write_csv([], tmp_path / "history.csv")
    assert read_csv(tmp_path / "history.csv") == []


def test_a_missing_point_is_nan_in_every_figure():
    missing = InformationPoint.missing("conv1", n_samples=5, unit="nats", epoch=2, step=9)
    assert (missing.layer, missing.n_samples, missing.n_codes, missing.unit) == ("conv1", 5, 0, "nats")
    assert (missing.epoch, missing.step) == (2, 9)
    assert all(math.isnan(getattr(missing, figure)) for figure in FIGURES)


def test_other_programs_can_read_the_file(tmp_path):
    path = tmp_path / "history.csv"
    write_csv([point(0.25, layer="a,b"), point(math.nan)], path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["a,b", "conv1"]
    assert (rows[0]["i_xt"], rows[1]["i_xt"], rows[0]["n_samples"]) == ("0.25", "nan", "60000")


def test_folders_are_made_and_paths_may_be_strings(tmp_path):
    path = str(tmp_path / "not" / "there" / "history.csv")
    write_csv([point()], path)
    assert read_csv(path) == [point()]


# --- Never half a file -----------------------------------------------------------------------------------------------


def test_writing_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "history.csv"
    write_csv([point(layer=str(k)) for k in range(100)], path)
    with path.open(encoding="utf-8") as reader:  # opened before, it still sees the old file, all of it
        write_csv([point()], path)
        assert len(reader.readlines()) == 101
    assert read_csv(path) == [point()]
    assert os.listdir(tmp_path) == ["history.csv"]


def test_a_reader_in_the_middle_of_a_write_sees_the_old_file(tmp_path):
    path = tmp_path / "history.csv"
    write_csv([point(0.0)], path)
    seen = []

    def points():
        for _ in range(5000):  # more than any buffer holds
            yield point(1.0)
        seen.append(read_csv(path))

    write_csv(points(), path)
    assert seen == [[point(0.0)]]
    assert len(read_csv(path)) == 5000


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "history.csv"
    write_csv([point(0.0)], path)

    def points():
        yield point(1.0)
        raise error

    with pytest.raises(error):
        write_csv(points(), path)
    assert read_csv(path) == [point(0.0)]
    assert os.listdir(tmp_path) == ["history.csv"]


def test_a_disk_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "history.csv"
    write_csv([point(0.0)], path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_csv([point(1.0)], path)
    assert read_csv(path) == [point(0.0)]
    assert os.listdir(tmp_path) == ["history.csv"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "history.csv"
    write_csv([point(0.0)], path)
    (tmp_path / "history.csv.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_csv([point(1.0)], path)
    assert read_csv(path) == [point(0.0)]
    assert os.listdir(tmp_path) == ["history.csv"]


def test_a_folder_in_the_way_is_an_error_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "history.csv").mkdir()
    with pytest.raises(OSError, match="directory|denied"):
        write_csv([point()], tmp_path / "history.csv")
    assert os.listdir(tmp_path) == ["history.csv"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="exists|directory"):
        write_csv([point()], tmp_path / "file" / "history.csv")


def test_what_an_interrupted_process_left_behind_is_no_obstacle(tmp_path):
    (tmp_path / "history.csv.partial").write_text("half a fi")
    write_csv([point()], tmp_path / "history.csv")
    assert read_csv(tmp_path / "history.csv") == [point()]
    assert os.listdir(tmp_path) == ["history.csv"]


# --- Files that are no history ---------------------------------------------------------------------------------------


def written(tmp_path, text):
    path = tmp_path / "other.csv"
    path.write_text(text, encoding="utf-8")
    return path


HEADER = ",".join(InformationPoint._fields)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", r"\(\)"),
        ("a,b\n1,2\n", r"\('a', 'b'\)"),
        (HEADER.replace("unit", "units") + "\n", "'units'"),
        (HEADER + ",more\n", "'more'"),
        (HEADER.removesuffix(",fano_shortfall") + "\n", "'i_ty_fano'"),
        (HEADER.upper() + "\n", "'EPOCH'"),
    ],
)
def test_a_file_with_other_columns_is_refused(tmp_path, text, columns):
    path = written(tmp_path, text)
    with pytest.raises(
        ValueError, match=rf"other.csv is no history: its columns are .*{columns}.*, expected \('epoch',"
    ):
        read_csv(path)


def test_a_cell_that_is_no_number_is_refused(tmp_path):
    row = [str(cell) for cell in point()]
    for k, bad in ((0, "1.5"), (3, "much"), (10, "nan")):
        cells = [*row[:k], bad, *row[k + 1 :]]
        with pytest.raises(ValueError, match=bad):
            read_csv(written(tmp_path, HEADER + "\n" + ",".join(cells) + "\n"))


@pytest.mark.parametrize("row", ["3,1200,conv1,1.5", ",".join(str(cell) for cell in point()) + ",7"])
def test_a_row_of_another_length_is_refused(tmp_path, row):
    with pytest.raises(ValueError, match="history"):
        read_csv(written(tmp_path, f"{HEADER}\n{row}\n"))


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv")


# --- Estimates -------------------------------------------------------------------------------------------------------


ESTIMATES = [
    Estimate(2, 12, "out", "kde", figure, value, unit_of(figure, "nats"), 500, verdict)
    for figure, value, verdict in (
        ("I_XT", 6.1, "saturated"),
        ("I_TY", math.nan, ""),
        ("accuracy", 0.75, "ok"),
        ("noise_variance", 1e-3, ""),
    )
]


def test_estimates_come_back_with_their_verdicts(tmp_path):
    write_csv(ESTIMATES, tmp_path / "estimators.csv", Estimate)
    found = read_csv(tmp_path / "estimators.csv", Estimate)
    assert bits(found) == bits(ESTIMATES)
    assert [one.verdict for one in found] == ["saturated", "", "ok", ""]


@pytest.mark.parametrize(
    ("figure", "unit"),
    [("I_XT", "nats"), ("H_T", "nats"), ("I_TY_floor", "nats"), ("accuracy", ""), ("top5_accuracy", "")]
    + [("noise_variance", ""), ("kernel_width", "")],
)
def test_what_is_no_information_has_no_unit(figure, unit):
    assert unit_of(figure, "nats") == unit


def test_a_history_in_a_checkpoint_comes_back_with_all_its_fields():
    for records, kind in (
        ([point(), point(layer="out", verdict="target_saturated", source="cells")], InformationPoint),
        (ESTIMATES, Estimate),
    ):
        found, faults = restored_points([record._asdict() for record in records], kind)
        assert (bits(found), faults) == (bits(records), [])


def test_estimates_of_a_version_without_verdicts_have_none():
    old = [{k: v for k, v in one._asdict().items() if k != "verdict"} for one in ESTIMATES]
    found, faults = restored_points(old, Estimate)
    assert [one.verdict for one in found] == [""] * 4
    assert faults == ["points of its history lack ['verdict']"]
