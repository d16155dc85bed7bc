"""The CSV file of a history: every value to the last bit, and never half a file."""

import csv
import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib import History, InformationPoint, Record
from tests.helpers.histories import OLD_HEADER, point, record, written
from tests.helpers.records import bits

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


# -- The CSV file ------------------------------------------------------------------------------------------------------


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


@pytest.mark.slow
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
    History(iter(records)).to_csv(tmp_path / "history.csv")
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


# -- Never half a file -------------------------------------------------------------------------------------------------


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

    History(records()).to_csv(path)
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
        History(records()).to_csv(path)
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


# -- Files that are no history -----------------------------------------------------------------------------------------

HEADER = ",".join(Record._fields)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", r"\(\)"),
        ("a,b\n1,2\n", r"\('a', 'b'\)"),
        (HEADER.replace("unit", "units") + "\n", "'units'"),
        (HEADER + ",more\n", "'more'"),
        (HEADER.removesuffix(",correction,target") + "\n", "'verdict'"),
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
    with pytest.raises(ValueError, match=r"other.csv is no whole history: line 2 has \d+ of 12 cells"):
        History.read_csv(written(tmp_path, f"{HEADER}\n{row}\n"))


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        History.read_csv(tmp_path / "none.csv")
