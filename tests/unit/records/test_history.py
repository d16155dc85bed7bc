"""The history: its measurements, and a data frame of them."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest

import lightning_ib.records.history
from lightning_ib import History, InformationPoint, Record
from lightning_ib.records import earliest_layer
from tests.helpers.histories import measured, point, record
from tests.helpers.records import bits, estimate, exact

# -- A history and its measurements ------------------------------------------------------------------------------------


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


# -- As a data frame ---------------------------------------------------------------------------------------------------


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


# -- what a long run costs ---------------------------------------------------------------------------------------------


def measured_at(epoch, layers=("a", "b")):
    points = [InformationPoint.missing(layer, n_samples=9, unit="bits", epoch=epoch, step=epoch) for layer in layers]
    return History.of(points, [estimate(epoch, epoch, "a", "probe", "I_TY", 0.5)])


def test_a_measurement_is_added_without_building_the_earlier_ones_again(monkeypatch):
    history, built = History(), []
    real = lightning_ib.records.history.points_of
    monkeypatch.setattr(
        "lightning_ib.records.history.points_of", lambda records: built.append(len(records)) or real(records)
    )
    for epoch in range(20):
        history.put(measured_at(epoch))
        assert history[-1].epoch == epoch
    assert max(built) == len(measured_at(0).records())
    assert [point.epoch for point in history] == [epoch for epoch in range(20) for _ in "ab"]


def test_the_file_is_right_whatever_was_put_in_between(tmp_path):
    history, path = History(), tmp_path / "history.csv"
    for epoch in (0, 1, 2, 1, 3, 3):
        history.put(measured_at(epoch))
        history.to_csv(path)
        assert History.read_csv(path) == history
    assert sorted({point.epoch for point in history}) == [0, 1, 2, 3]


def test_a_history_changes_in_place_where_a_run_is_taken_up():
    history = measured_at(3)
    other = measured_at(1)
    history.assign(other)
    assert history == other
    history.put(measured_at(2))
    assert len(other) == 2


def test_wrong_parts_are_refused_at_once():
    with pytest.raises(TypeError, match="a History consists of Records, got Information.*: History.of takes points."):
        History([measured_at(0)[0]])
    with pytest.raises(ValueError, match="by must be 'epoch' or 'step', got 'layer'."):
        measured_at(0).put(measured_at(1), by="layer")
    with pytest.raises(TypeError, match="unsupported operand"):
        measured_at(0) + [1]


def test_a_layer_that_could_not_be_measured_has_all_core_records():
    point = InformationPoint.missing("a", n_samples=9, unit="bits")
    assert {record.quantity for record in point.records()} >= {"I_XT", "I_TY", "H_T", "saturation"}


def of_targets():
    """One layer and two targets, counted and by a probe."""
    point = InformationPoint.missing("out", n_samples=80, unit="bits")._replace(h_t=3.0, i_xt=3.0, saturation=0.5)
    points = [
        point._replace(target="class", i_ty=2.0, h_y=2.5, verdict="ok"),
        point._replace(target="coarse", i_ty=1.0, h_y=1.0, verdict="target_saturated"),
    ]
    values = {"class": 2.25, "coarse": 0.75}
    return points, [Record(0, 0, "out", "probe", "I_TY", value, target=of) for of, value in values.items()]


def test_several_targets_share_what_is_about_none():
    points, estimates = of_targets()
    history = History.of(points, estimates)
    assert history.targets == ["class", "coarse"]
    assert [(one.quantity, one.target) for one in history.records()].count(("H_T", "")) == 1
    assert bits(history.points("coarse")) == bits(points[1:])
    assert bits(list(history)) == bits(history.points("class")) == bits(points[:1])
    assert [one.value for one in history.estimates()] == [2.25]
    assert [one.value for one in history.estimates("coarse")] == [0.75]
    assert history.about("coarse").targets == ["coarse"]
    assert bits(list(history.about("coarse"))) == bits(points[1:])
    assert repr(history) == "History of 1 point and 1 estimate"


def test_a_target_that_is_unknown_is_named_with_the_nearest():
    points, estimates = of_targets()
    with pytest.raises(ValueError, match="no target 'corse' in this history: did you mean 'coarse'?"):
        History.of(points, estimates).points("corse")
    with pytest.raises(ValueError, match="no target 'a' in this history, whose values are about one without a name"):
        History.of([points[0]._replace(target="")]).estimates("a")


def test_targets_are_kept_in_files_and_states_and_put_moment_by_moment(tmp_path):
    points, estimates = of_targets()
    history = History()
    for epoch in range(3):
        later = [one._replace(epoch=epoch, step=epoch) for one in estimates]
        history.put(History.of([one._replace(epoch=epoch, step=epoch) for one in points], later))
        assert len(history) == epoch + 1
    history.to_csv(tmp_path / "history.csv")
    assert History.read_csv(tmp_path / "history.csv") == history
    assert History.restored({"history": history.state_dict()}) == (history, [])
    assert [point.target for point in history.points("coarse")] == ["coarse"] * 3
    known = History.of([one._replace(i_ty_se=0.1) for one in points])
    assert earliest_layer(known, source="cells") == "out"
    assert earliest_layer(known, source="cells", target="coarse") is None, "its values are flagged"


def test_measurements_of_a_single_target_before_are_those_of_the_primary():
    points, estimates = of_targets()
    single = points[0]._replace(epoch=0, target="")
    history = History.of([single]) + History.of([one._replace(epoch=1) for one in points], estimates)
    assert [(one.epoch, one.target) for one in history] == [(0, ""), (1, "class")]
    before, now = history.points("coarse")
    assert math.isnan(before.i_ty)
    assert (before.h_t, now.h_t, now.i_ty) == (3.0, 3.0, 1.0)


def test_files_and_states_from_before_there_were_targets_are_read(tmp_path):
    history = measured_at(3)
    history.to_csv(tmp_path / "new.csv")
    rows = (tmp_path / "new.csv").read_text().splitlines()
    (tmp_path / "old.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows) + "\n")
    assert History.read_csv(tmp_path / "old.csv") == history
    state = history.state_dict()
    del state["target"]
    assert History.restored({"history": state}) == (history, [])
