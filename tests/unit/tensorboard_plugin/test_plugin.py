"""The plugin at TensorBoard's start: light, exact about where it is active, and never in the way."""

import argparse
import json
import logging
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

import lightning_ib.tensorboard_plugin.plugin as module
from lightning_ib.records import History, Record
from lightning_ib.records.measurement_json import measurement_to_json
from lightning_ib.records.tags import PLUGIN
from lightning_ib.report.page import log_measurement
from lightning_ib.tensorboard_plugin import InformationPlaneLoader
from lightning_ib.tensorboard_plugin.files import PAGE, page_html, self_contained_html
from lightning_ib.warn_once import WarnOnce
from tests.helpers import ROOT


def measured(epoch):
    return History([Record(epoch, 10 * epoch, "out", "cells", "I_XT", 1.0 + epoch, unit="bits", n_samples=80)])


class Logger:
    def __init__(self, folder):
        from torch.utils.tensorboard import SummaryWriter

        self.experiment = SummaryWriter(str(folder))

    def log(self, *epochs, prefix="ib"):
        for epoch in epochs:
            log_measurement([self], prefix, measurement_to_json(measured(epoch)), epoch, WarnOnce())
        self.experiment.flush()


def plugin_on(folder):
    events = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={PLUGIN: 0})
    events.AddRunsFromDirectory(str(folder))
    events.Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(folder))
    return InformationPlaneLoader().load(base_plugin.TBContext(data_provider=provider)), provider


def asked(plugin, path, **query):
    answer = Client(plugin.get_plugin_apps()[path]).get(path, query_string=query)
    assert answer.status_code == 200
    return json.loads(answer.text)


def test_the_entry_point_is_found_and_loads_neither_torch_nor_matplotlib():
    (found,) = [one for one in entry_points(group="tensorboard_plugins") if one.name == PLUGIN]
    code = (
        f"import importlib, sys; importlib.import_module({found.module!r}).{found.attr}; "
        "import lightning_ib.tensorboard_plugin.plugin; "
        "print(sorted({'torch', 'matplotlib', 'pytorch_lightning', 'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout == "[]\n", ran.stderr


def test_every_measurement_is_served_as_it_was_logged(tmp_path):
    Logger(tmp_path / "run_10").log(0, 1, 2)
    Logger(tmp_path / "run_9").log(5)
    plugin, provider = plugin_on(tmp_path)
    runs = asked(plugin, "/runs")["runs"]
    assert [one["name"] for one in runs] == ["run_9", "run_10"]
    found = asked(plugin, "/measurements", run="run_10", tag="ib/measurement")["measurements"]
    assert found == [json.loads(measurement_to_json(measured(epoch))) for epoch in range(3)]
    assert PLUGIN in provider.list_plugins(RequestContext(), experiment_id="")


def test_two_callbacks_in_one_run_are_two_runs_of_the_page(tmp_path):
    logger = Logger(tmp_path / "a")
    logger.log(1)
    logger.log(1, prefix="train")
    plugin, _ = plugin_on(tmp_path)
    assert [one["name"] for one in asked(plugin, "/runs")["runs"]] == ["a (ib)", "a (train)"]


def test_a_log_without_measurements_leaves_the_page_inactive(tmp_path):
    logger = Logger(tmp_path)
    logger.experiment.add_scalar("ib/I_XT/out", 1.0, 0)
    logger.experiment.flush()
    plugin, provider = plugin_on(tmp_path)
    assert asked(plugin, "/runs") == {"runs": []}
    assert PLUGIN not in provider.list_plugins(RequestContext(), experiment_id="")
    assert not plugin.is_active()
    assert plugin.data_plugin_names() == (PLUGIN,)


@pytest.mark.filterwarnings("ignore")  # TensorBoard's own, about the end of the file
def test_a_log_that_was_cut_off_keeps_its_whole_measurements(tmp_path):
    Logger(tmp_path).log(0, 1, 2)
    (file,) = tmp_path.glob("events*")
    file.write_bytes(file.read_bytes()[:-40])
    plugin, _ = plugin_on(tmp_path)
    (run,) = asked(plugin, "/runs")["runs"]
    found = asked(plugin, "/measurements", run=run["run"], tag=run["tag"])["measurements"]
    assert [one["epoch"] for one in found] == [0, 1]


def test_an_unknown_run_and_a_foreign_tensor_are_no_measurements(tmp_path):
    logger = Logger(tmp_path / "a")
    log_measurement([logger], "ib", "no json", 0, WarnOnce())
    logger.log(1)
    plugin, _ = plugin_on(tmp_path)
    assert asked(plugin, "/measurements", run="b", tag="ib/measurement") == {"until": 0.0, "measurements": []}
    assert [one["epoch"] for one in asked(plugin, "/measurements", run="a", tag="ib/measurement")["measurements"]] == [
        1
    ]


def test_more_samples_are_kept_unless_the_flag_says_otherwise():
    flags = argparse.Namespace(samples_per_plugin={"images": 7, "text": 3})
    InformationPlaneLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {"images": 7, "text": 3, "scalars": 5000, PLUGIN: 0}
    flags = argparse.Namespace(samples_per_plugin=None)
    InformationPlaneLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {"images": 100, "scalars": 5000, PLUGIN: 0}


def test_a_fault_of_ours_is_a_line_in_the_log_of_tensorboard(monkeypatch, caplog):
    def fails(self, context):
        raise RuntimeError("broken")

    monkeypatch.setattr(module.InformationPlanePlugin, "__init__", fails)
    with caplog.at_level(logging.ERROR):
        assert InformationPlaneLoader().load(base_plugin.TBContext()) is None
        InformationPlaneLoader().fix_flags(argparse.Namespace())
    assert "could not be loaded" in caplog.text
    assert "its own numbers of samples" in caplog.text


def test_the_files_of_the_page_ask_for_nothing_elsewhere(tmp_path):
    plugin, _ = plugin_on(tmp_path)
    routes = plugin.get_plugin_apps()
    for file in PAGE.iterdir():
        answer = Client(routes[f"/{file.name}"]).get("/")
        assert answer.text == file.read_text("utf-8")
        assert answer.content_type.startswith("text/css" if file.suffix == ".css" else "text/javascript")
        assert "http" not in file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    page = Client(routes["/page.html"]).get("/")
    assert page.text == page_html()
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_one_file_holds_its_data_whatever_the_names_hold():
    made = self_contained_html({"</script><b>": [measurement_to_json(measured(1))]}, title="<i>")
    assert made.count("</script>") == 2
    assert "<title>&lt;i></title>" in made
    data = made.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data) == [["</script><b>", [json.loads(measurement_to_json(measured(1)))]]]
    assert "import " not in made.split('<script type="module">')[1]
