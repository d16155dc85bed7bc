"""The page and the table of a run, as the reporter hands them to loggers."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from lightning_ib.records import History, InformationPoint, Record
from lightning_ib.records.bound import BoundLine
from lightning_ib.report import custom_chart
from lightning_ib.report.custom_chart import COLUMNS, rows_of, spec
from lightning_ib.report.gradients import GradientReporter
from lightning_ib.report.loggers import log_page
from lightning_ib.report.reporter import Destination, Reporter
from lightning_ib.warn_once import WarnOnce
from tests.helpers.loggers import runs_in
from tests.unit.report.test_reporter import measured


class Assets:
    """A logger whose experiment takes files."""

    def __init__(self):
        self.experiment, self.taken = self, []

    def log_asset(self, file, name, overwrite, step):
        self.taken.append((name, step, file.read()))


def test_the_page_is_logged_once_at_the_step_of_the_last_measurement_with_what_stood_beside_it(tmp_path):
    logger, reporter = Assets(), Reporter("mine", "bits", by="epoch")
    history, to = measured(0), Destination([logger], tmp_path / "logs" / "first", 0)
    bound = BoundLine([0.0, 1.0], [0.0, 0.5], "bits", "the bound")
    reporter.log_measurement(measured(0), {"conv": "8 cells"}, {"": bound}, to)
    history.put(measured(1))
    reporter.log_measurement(measured(1), {"conv": "9 cells"}, {"": bound}, to._replace(step=2))
    assert logger.taken == []
    reporter.finish(history, to._replace(step=3))
    ((name, step, page),) = logger.taken
    assert (name, step) == ("mine/page.html", 2)
    assert runs_in(page).keys() == {"logs/first"}
    data = json.loads(re.search(r'id="data">(.*)</script>\n<script', page)[1])[0][1]
    assert [one["discretized"] for one in data] == [{"conv": "8 cells"}, {"conv": "9 cells"}]
    assert ["bound" in one for one in data] == [True, False], "a bound that stays is written once"


def of_two_targets(epoch):
    """A measurement about two targets."""
    points = [point._replace(target=target) for point in measured(epoch) for target in ("class", "coarse")]
    return History.of(points)


def test_the_page_and_the_table_hold_every_target_with_its_bound(tmp_path):
    logger, reporter, history = Assets(), Reporter("ib", "bits", by="epoch"), of_two_targets(0)
    to = Destination([logger], tmp_path / "logs" / "first", 0)
    bounds = {name: BoundLine([0.0, 1.0], [0.0, k / 2], "bits", name) for k, name in enumerate(history.targets)}
    reporter.log_measurement(history, {}, bounds, to)
    reporter.finish(history, to)
    ((_, _, page),) = logger.taken
    ((made,),) = (of for _, of in json.loads(re.search(r'id="data">(.*)</script>\n<script', page)[1]))
    assert made["targets"] == ["class", "coarse"]
    assert (made["bound"]["label"], made["about"]["coarse"]["bound"]["label"]) == ("class", "coarse")
    assert {one.get("target", "") for one in made["series"]} == {"", "class", "coarse"}
    rows = rows_of(history, "run")
    assert [row[0] for row in rows] == ["run, class"] * 2 + ["run, coarse"] * 2


@pytest.mark.parametrize("beside_the_plane", [False, True])
def test_of_two_callbacks_with_one_history_the_plane_logs_the_page(tmp_path, beside_the_plane):
    logger, reporter = Assets(), GradientReporter("ib", "bits", by="epoch")
    reporter.csv_name = "information_plane" if beside_the_plane else reporter.main
    history = History([Record(1, 3, "conv", "gradient", "grad_std", 0.5)])
    reporter.finish(history, Destination([logger], tmp_path, 3))
    assert [name for name, *_ in logger.taken] == ([] if beside_the_plane else ["ib/page.html"])


def test_no_page_without_a_measurement(tmp_path):
    logger = Assets()
    Reporter("ib", "bits", by="epoch").finish(History(), Destination([logger], tmp_path, 0))
    assert logger.taken == []


def test_the_page_is_made_once_and_only_where_a_logger_takes_it():
    made = []

    def page():
        made.append(1)
        return "<!doctype html>"

    log_page([SimpleNamespace(experiment=None)], "ib/page", page, 0, WarnOnce())
    assert made == []
    loggers = [Assets(), Assets()]
    log_page(loggers, "ib/page", page, 0, WarnOnce())
    assert made == [1]
    assert [one.taken for one in loggers] == [[("ib/page.html", 0, "<!doctype html>")]] * 2


def test_an_experiment_may_be_the_module_of_trackio(monkeypatch):
    logged = []
    trackio = ModuleType("trackio")
    trackio.Html = lambda file: file.read()
    trackio.log = lambda metrics, step: logged.append((metrics, step))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    log_page([SimpleNamespace(experiment=trackio)], "ib/page", lambda: "<!doctype html>", 4, WarnOnce())
    assert logged == [({"ib/page": "<!doctype html>"}, 4)]


def test_a_library_that_lacks_what_is_asked_for_costs_one_warning(monkeypatch):
    trackio = ModuleType("trackio")  # an old one
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    other = Assets()
    with pytest.warns(UserWarning, match="SimpleNamespace could not log the page ib/page: AttributeError") as caught:
        log_page([SimpleNamespace(experiment=trackio), other], "ib/page", lambda: "<!doctype html>", 4, WarnOnce())
    assert len(caught) == 1
    assert len(other.taken) == 1


def test_the_table_of_a_long_run_keeps_evenly_spaced_measurements_and_the_last(monkeypatch):
    monkeypatch.setattr(custom_chart, "MOST_ROWS", 20)
    history = History.of(point for epoch in range(25) for point in measured(epoch))
    rows = rows_of(history, "run")
    epochs = sorted({row[1] for row in rows})
    assert epochs == list(range(0, 25, 3)), "of 50 rows a third, up to the last epoch"
    assert len(rows) == 2 * len(epochs)
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert {type(value) for row in rows for value in row} <= {str, int, float, type(None)}


def test_of_a_long_run_the_last_measurement_is_whole(monkeypatch):
    monkeypatch.setattr("lightning_ib.report.custom_chart.MOST_ROWS", 100)
    missing = InformationPoint.missing("", n_samples=8, unit="bits")._replace(i_xt=1.0)
    points = [missing._replace(epoch=k, step=k, layer=f"l{j}") for k in range(33) for j in range(7)]
    rows = rows_of(History.of(points), "run")
    assert len(rows) <= 100
    assert [row[3] for row in rows if row[1] == 32] == [f"l{j}" for j in range(7)]


def test_the_specification_asks_for_columns_of_the_table_and_names_each_field_once():
    fields = re.findall(r"\$\{field:(\w+)\}", spec())
    assert set(fields) < set(COLUMNS)
    assert len(fields) == len(set(fields))
    made = json.loads(spec())
    copies = {one["as"] for one in made["transform"][0]["window"]}
    used = set(re.findall(r"\bp_\w+", json.dumps(made)))
    assert used == copies
    time = [one["joinaggregate"][0]["field"] for one in made["transform"] if "joinaggregate" in one]
    time += [layer["encoding"]["order"]["field"] for layer in made["layer"] if "order" in layer["encoding"]]
    assert time == ["p_step"] * 3, "within one epoch there may be many measurements"
    assert "datum.p_epoch" not in spec()
    (slider,) = made["params"]
    assert slider["bind"]["input"] == "range"
    assert re.search(rf"\b{slider['name']}\b", made["transform"][2]["filter"])
