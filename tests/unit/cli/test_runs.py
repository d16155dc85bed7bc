"""Runs on the command line: folders and files, short names, damage."""

import math
from pathlib import Path

import pytest

from lightning_ib import History
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.runs import in_one_unit, read_runs, run_names
from tests.helpers.histories import VALUES, measured, point
from tests.helpers.records import VERSION_1, exact


@pytest.fixture
def said():
    return []


@pytest.fixture
def folder(tmp_path):
    """A run of three measurements."""
    history = measured(0) + measured(1) + measured(2)
    history.to_csv(tmp_path / "logs" / "version_3" / "information_plane.csv")
    return tmp_path / "logs" / "version_3"


def test_a_folder_and_its_file_are_one_run(folder, said):
    for given in (folder, folder / "information_plane.csv"):
        (run,) = read_runs([str(given)], said.append)
        assert (run.name, run.by, run.file) == ("version_3", "epoch", folder / "information_plane.csv")
        assert exact(run.history) == exact(measured(0) + measured(1) + measured(2))
    assert said == []


def test_callbacks_with_prefixes_are_runs(folder, said):
    measured(0).to_csv(folder / "information_plane_mine.csv")
    assert [run.name for run in read_runs([str(folder)], said.append)] == ["version_3", "version_3/mine"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["logs/version_0", "logs/version_1"], ["version_0", "version_1"]),
        (["tanh/version_0", "relu/version_0"], ["tanh", "relu"]),
        (["a/logs/version_0", "b/logs/version_1"], ["a/version_0", "b/version_1"]),
        (["logs", "logs/replay"], ["logs", "logs/replay"]),
        (["logs"], ["logs"]),
    ],
)
def test_names_are_short_and_different(paths, names):
    assert run_names([Path("/home", path, "information_plane.csv") for path in paths]) == names


def test_a_row_that_is_cut_is_left_out(folder, said):
    file = folder / "information_plane.csv"
    text = file.read_bytes()
    file.write_bytes(text[:-9])
    (run,) = read_runs([str(folder)], said.append)
    assert exact(run.history) == exact(measured(0) + measured(1) + measured(2))[:-1]
    assert said == [f"{file} ends in the middle of a row: that row is left out."]


def test_a_log_of_an_earlier_version(said):
    (run,) = read_runs([str(VERSION_1)], said.append)
    assert len(run.history) > 0
    assert run.history.estimates()


def test_layers_are_chosen_by_name_and_pattern(folder, said):
    (run,) = read_runs([str(folder)], said.append, ["c*"])
    assert {record.layer for record in run.history.records()} == {"conv"}
    with pytest.raises(UsageError, match="has no layer ou: did you mean out?"):
        read_runs([str(folder)], said.append, ["ou"])


def test_runs_in_several_units_are_converted(folder, tmp_path, said):
    History.of([point(layer="conv", unit="nats")]).to_csv(tmp_path / "logs" / "nats" / "information_plane.csv")
    runs = read_runs([str(folder), str(tmp_path / "logs" / "nats")], said.append)
    converted = in_one_unit(runs, None, said.append)
    assert said == ["nats is converted into bits."]
    (only,) = converted[1].history
    assert (only.unit, only.i_xt, only.i_ty_se) == ("bits", *[pytest.approx(1.5 / math.log(2))] * 2)
    assert only.saturation == 1.5
    assert {p.unit for run in in_one_unit(runs, "nats", said.append) for p in run.history} == {"nats"}


def test_steps_tell_measurements_of_one_epoch_apart(tmp_path, said):
    points = [point(epoch=1, step=step) for step in (5, 10)]
    History.of(points).to_csv(tmp_path / "information_plane.csv")
    assert read_runs([str(tmp_path)], said.append)[0].by == "step"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\r\n1,2\r\n", "is no history: its columns are"),
        ("", "is no history: its columns are"),
        (b"\xff\xfe\x00", "is no text: expected the CSV of a run"),
    ],
)
def test_a_file_of_another_kind(tmp_path, said, content, sentence):
    file = tmp_path / "information_plane.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=sentence):
        read_runs([str(file)], said.append)


def test_wrong_runs_are_one_sentence(folder, tmp_path, said):
    History.of([point(**dict.fromkeys(VALUES, math.nan))]).to_csv(tmp_path / "nan.csv")
    for given, sentence in (
        ([tmp_path / "nowhere"], "there is no run"),
        ([tmp_path], "holds no information_plane.csv: did you mean .*version_3?"),
        ([tmp_path / "nan.csv"], "holds no measured value"),
        ([folder, folder / "information_plane.csv"], "is given twice"),
        ([__file__], "is no run: give the folder with information_plane.csv"),
    ):
        with pytest.raises(UsageError, match=sentence):
            read_runs(list(map(str, given)), said.append)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("1.5,", "1.x5,", "information_plane.csv, line 2: value is '1.x5', expected a number"),
        (",bits,", ",bitz,", "information_plane.csv, line 2: unit is 'bitz', expected bits or nats"),
    ],
)
def test_a_bad_cell_is_named_by_its_line(tmp_path, said, before, after, sentence):
    file = tmp_path / "information_plane.csv"
    History.of([point()]).to_csv(file)
    text = file.read_text()
    assert before in text
    for changed in (text.replace(before, after, 1), text.replace(before, after, 1)[:-9]):
        file.write_text(changed)
        with pytest.raises(UsageError, match=f"^{tmp_path / sentence}"):
            read_runs([str(file)], said.append)


def test_the_mark_that_editors_add_is_no_fault(tmp_path, said):
    file = tmp_path / "information_plane.csv"
    History.of([point()]).to_csv(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (run,) = read_runs([str(file)], said.append)
    assert exact(run.history) == exact(History.of([point()]))
