"""Runs that are done."""

import math

import pytest

from lightning_ib.reproduce.errors import ExperimentError
from lightning_ib.reproduce.finished import FinishedRuns

OPTIONS = {"quick": True, "seed": 0}
ROWS = [{"loss": 0.5}]


def never():
    raise AssertionError("the run is done")


def test_a_run_that_is_done_is_read_to_the_last_bit(tmp_path):
    rows = [{"step": 3, "loss": 0.1 + 0.2, "verdict": "ok"}, {"step": 4, "loss": 1e-300, "verdict": "coarse"}]
    first = FinishedRuns(tmp_path, OPTIONS)
    assert not first.has("decay 0.1 seed 0")
    assert first.rows("decay 0.1 seed 0", lambda: rows) == rows
    again = FinishedRuns(tmp_path, OPTIONS)
    assert again.has("decay 0.1 seed 0")
    assert not again.has("decay 0.1 seed 1")
    assert again.rows("decay 0.1 seed 0", never) == rows


def test_nan_and_infinity_are_kept(tmp_path):
    FinishedRuns(tmp_path, {}).rows("a", lambda: [{"x": math.nan, "y": math.inf}])
    (row,) = FinishedRuns(tmp_path, {}).rows("a", never)
    assert math.isnan(row["x"])
    assert row["y"] == math.inf


def test_a_run_that_fails_is_not_kept(tmp_path):
    with pytest.raises(AssertionError):
        FinishedRuns(tmp_path, OPTIONS).rows("a", never)
    assert not FinishedRuns(tmp_path, OPTIONS).has("a")


def test_runs_of_other_settings_are_refused(tmp_path):
    FinishedRuns(tmp_path, OPTIONS).rows("a", lambda: ROWS)
    with pytest.raises(
        ExperimentError, match=r"holds runs of other settings \(seed\): give another --out, or delete it"
    ):
        FinishedRuns(tmp_path, OPTIONS | {"seed": 1})


def test_done_runs_are_counted(tmp_path):
    finished = FinishedRuns(tmp_path / "runs", OPTIONS)
    assert (finished.n_done, FinishedRuns(None, {}).n_done) == (0, 0)
    finished.rows("a", lambda: ROWS)
    assert finished.n_done == 1


def test_rows_that_cannot_be_kept_are_an_error(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ExperimentError, match=r"runs.a\.json cannot be written: "):
        FinishedRuns(tmp_path / "runs", OPTIONS).rows("a", lambda: ROWS)


@pytest.mark.parametrize("content", [None, "", "[]", "null", '{"quick"'])
def test_runs_of_unknown_settings_are_refused(tmp_path, content):
    """They may be those of another setting, such as the quick one."""
    FinishedRuns(tmp_path, OPTIONS).rows("a", lambda: ROWS)
    if content is None:
        (tmp_path / "settings.json").unlink()
    else:
        (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ExperimentError, match=r"settings\.json is missing or damaged, .* delete the folder "):
        FinishedRuns(tmp_path, OPTIONS)


@pytest.mark.parametrize(
    "content", ["", "{", "\x00", "[]", "{}", "null", "[1]", '{"rows": 1}', '{"rows": [{"loss": 1}]}']
)
def test_a_damaged_run_is_named(tmp_path, content):
    FinishedRuns(tmp_path, OPTIONS).rows("a", lambda: ROWS)
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(
        ExperimentError, match=r"a\.json is damaged, changed or of another version: delete it, and its run"
    ):
        FinishedRuns(tmp_path, OPTIONS).rows("a", never)


@pytest.mark.parametrize(("found", "instead"), [("0.5", "0.25"), ('"loss"', '"lost"')])
def test_a_run_that_was_changed_is_named(tmp_path, found, instead):
    """A column that was cut out, or a value that was mended, would be an error later, or a finding."""
    FinishedRuns(tmp_path, OPTIONS).rows("a", lambda: ROWS)
    file = tmp_path / "a.json"
    file.write_text(file.read_text().replace(found, instead))
    with pytest.raises(
        ExperimentError, match=r"a\.json is damaged, changed or of another version: delete it, and its run"
    ):
        FinishedRuns(tmp_path, OPTIONS).rows("a", never)
