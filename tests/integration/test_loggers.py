"""Every logger with its own library, offline: what it wrote is read back with that library, and is the history."""

import gc
import io
import json
import math
import os
import re
import struct
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_ib import FixedBins, InformationPlaneCallback, Quantizer, UniformBins
from lightning_ib.plot.information_plane import plot_information_plane
from lightning_ib.records import History
from lightning_ib.records.reliability import UNDERSAMPLED, VerdictWarning
from lightning_ib.records.tags import parse_tag
from lightning_ib.report.layout import log_layout
from lightning_ib.report.loggers import (
    log_figure,
    log_page,
    log_scalars,
    log_table,
    rendered,
    run_folder,
    safe_name,
    scalars,
)
from lightning_ib.warn_once import WarnOnce
from tests.helpers.loggers import (
    Sick,
    assert_is_the_page,
    assert_is_the_table,
    pixels,
    read_metrics_csv,
)
from tests.helpers.records import exact
from tests.helpers.tiny import N_TRAIN, TinyModule, fit, has_hooks, pl

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_probes")]

FIXED = {"hidden": Quantizer(bins=FixedBins([-0.5, 0.5])), "out": Quantizer(bins=FixedBins([0.0]))}
TAG = "ib/information_plane"

# Lightning logs the figures of an epoch at the epoch's last step, and counts steps from 0.
STEPS = [0, 5, 11, 17]


def by_name(rows):
    """{name: [(step, value), …]} of the callback's scalars among (step, {name: value}) rows."""
    written = defaultdict(list)
    for step, row in rows:
        for name, value in row.items():
            if parse_tag(name) is not None:
                written[name].append((step, float(value)))
    return written


def drawn(callback, epoch, run=True):
    """The pixels of the picture after an epoch, of a run that a logger names."""
    buffer = io.BytesIO()
    name = "/".join(callback.figure_path.parent.parts[-2:]) if run else ""
    figure = plot_information_plane([point for point in callback.history if point.epoch <= epoch], run=name)
    figure.savefig(buffer, format="png")
    return pixels(buffer.getvalue())


def assert_is_drawn(png, callback, epoch, run=True):
    """Equal but for what drawing a figure again moves, below a pixel; the picture of another epoch is 0.3 away."""
    difference = pixels(png).astype(float) - drawn(callback, epoch, run)
    assert np.abs(difference).mean() < 0.1, epoch


def assert_scalars_are_the_history(rows, callback):
    of = {layer: [p for p in callback.history if p.layer == layer] for layer in ("hidden", "out")}
    names = {layer: scalars(History.of(points), "ib") for layer, points in of.items()}
    # A layer that was not measured is NaN under all its names.
    expected = by_name(
        (STEPS[p.epoch], dict.fromkeys(names[layer], math.nan) | scalars(History.of([p]), "ib"))
        for layer, points in of.items()
        for p in points
    )
    written = by_name(rows)
    assert written.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in written[name]] == [step for step, _ in points], name
        values = [value for _, value in points]
        # Lightning and TensorBoard keep 32 bits of a scalar.
        assert [value for _, value in written[name]] == pytest.approx(values, rel=1e-6, nan_ok=True), name
        assert math.isnan(values[2]) == name.endswith("out")


def assert_figures_are_the_history(pictures, callback):
    """``pictures``: (step, PNG) for every epoch. The last one is drawn again beside the files."""
    assert [step for step, _ in pictures] == STEPS
    assert_is_drawn(pictures[1][1], callback, 1)
    assert len({Path(png).read_bytes() if isinstance(png, Path) else bytes(png) for _, png in pictures}) == len(STEPS)


def sick_fit(tmp_path, logger, **options):
    callback = InformationPlaneCallback(FIXED, estimators=())
    with pytest.warns(UserWarning, match="layer 'out' gave NaN or infinite values in 80 of 80 samples") as caught:
        _, run = fit(tmp_path, callback, model=Sick(), logger=logger, **options)
    assert [str(w.message) for w in caught if "could not" in str(w.message)] == []
    assert [p.step for p in callback.history if p.layer == "out"] == [k * N_TRAIN // 16 for k in range(4)]
    return callback, run


def assert_files_are_in(folder, callback, tmp_path):
    """CSV, PNG and SVG lie there, hold the history, and lie nowhere else."""
    assert {path.parent for path in tmp_path.rglob("information_plane.csv")} == {folder}
    assert exact(History.read_csv(folder / "information_plane.csv")) == exact(callback.history)
    assert callback.figure_path == folder / "information_plane.png"
    assert_is_drawn(callback.figure_path, callback, 3, run=folder != tmp_path)
    assert ET.parse(folder / "information_plane.svg").getroot().tag.endswith("svg")


# -- one logger --------------------------------------------------------------------------------------------------------


def read_tensorboard(log_dir):
    """(step, {name: value}) rows and (step, PNG) pictures."""
    events = EventAccumulator(str(log_dir), size_guidance={"images": 0, "scalars": 0}).Reload()
    rows = [(e.step, {name: e.value}) for name in events.Tags()["scalars"] for e in events.Scalars(name)]
    return rows, [(event.step, event.encoded_image_string) for event in events.Images(TAG)]


def test_tensorboard(tmp_path):
    callback, run = sick_fit(tmp_path, pl.loggers.TensorBoardLogger(tmp_path, sub_dir="deeper"))
    rows, pictures = read_tensorboard(run.log_dir)
    assert_scalars_are_the_history(rows, callback)
    assert_figures_are_the_history(pictures, callback)
    assert_files_are_in(tmp_path / "lightning_logs" / "version_0" / "deeper", callback, tmp_path)


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")  # TensorBoard's own
def test_a_chart_with_a_unit_shows_runs_of_that_unit_alone(tmp_path):
    """Two runs in one folder, as TensorBoard itself puts their layouts together and looks for what they show."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
    from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

    for unit in ("bits", "nats"):
        callback = InformationPlaneCallback(unit=unit, beta=1.5, estimators=["probe", "kde"])
        fit(tmp_path, callback, logger=pl.loggers.TensorBoardLogger(tmp_path, name="", version=unit), max_epochs=1)
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    others = {"scalars": ScalarsPlugin(TBContext(logdir=str(tmp_path), data_provider=provider))}
    plugin = CustomScalarsPlugin(
        TBContext(logdir=str(tmp_path), data_provider=provider, plugin_name_to_instance=others)
    )

    def found(pattern, run):
        answer = plugin.scalars_impl(RequestContext(), run, pattern, "")
        assert answer["regex_valid"]
        return answer["tag_to_events"]

    seen = defaultdict(set)
    titles = set()
    for category in json.loads(plugin.layout_impl(RequestContext(), ""))["category"]:
        for chart in category["chart"]:
            titles.add(chart["title"])
            patterns = chart.get("multiline", {}).get("tag", [])
            for series in chart.get("margin", {}).get("series", []):
                patterns += [f"^{re.escape(series[of])}$" for of in ("value", "lower", "upper")]
            for run in ("bits", "nats"):
                if any(found(pattern, run) for pattern in patterns):
                    seen[chart["title"]].add(run)
    in_unit = {title: runs for title, runs in seen.items() if title.endswith(("[bits]", "[nats]")) or "]: " in title}
    assert len(in_unit) == 2 * (5 + 3 * 2 + 5)
    for title, runs in in_unit.items():
        assert runs == {"bits" if "[bits]" in title else "nats"}, title
    # What has no unit is one chart of both, and every chart of the layout shows something: without bins, none of them.
    assert titles == set(seen)
    assert {title for title, runs in seen.items() if len(runs) == 2} == {
        "H(T)/log N",
        "samples whose symbol was seen once",
        "probe: accuracy",
        "kde: noise_variance",
    }


@pytest.mark.parametrize("data", [None, "train"])
def test_figures_and_scalars_are_at_the_same_steps_however_they_are_measured(tmp_path, data):
    _, run = fit(tmp_path, InformationPlaneCallback(FIXED, data=data))
    rows, pictures = read_tensorboard(run.log_dir)
    assert [step for step, _ in pictures] == STEPS
    assert {tuple(step for step, _ in points) for points in by_name(rows).values()} == {tuple(STEPS)}


def test_a_wide_figure_is_made_a_thousand_pixels_wide_for_tensorboard(tmp_path):
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    figure = Figure(figsize=(16, 8), dpi=100)
    figure.add_subplot().plot([0, 1], color="red", linewidth=40)
    log_figure([logger], TAG, figure, 3, WarnOnce())
    logger.experiment.flush()
    (picture,) = read_tensorboard(logger.log_dir)[1]
    shown = pixels(picture[1])
    assert (picture[0], shown.shape) == (3, (500, 1000, 3))
    assert rendered(figure).size == (1600, 800)
    assert np.abs(shown.mean((0, 1)) - np.asarray(rendered(figure)).mean((0, 1))).max() < 1


def test_csv(tmp_path):
    callback, run = sick_fit(tmp_path, pl.loggers.CSVLogger(tmp_path))
    assert_scalars_are_the_history(read_metrics_csv(run.log_dir), callback)
    assert_files_are_in(tmp_path / "lightning_logs" / "version_0", callback, tmp_path)


def test_the_point_before_training_is_on_the_disk_before_the_first_step(tmp_path):
    seen = []

    class Looking(TinyModule):
        def training_step(self, batch, batch_idx):
            if not seen:
                seen.extend(read_metrics_csv(self.logger.log_dir))
            return super().training_step(batch, batch_idx)

    callback = InformationPlaneCallback(FIXED, estimators=())
    fit(tmp_path, callback, model=Looking(), logger=pl.loggers.CSVLogger(tmp_path), max_epochs=1)
    ((step, row),) = seen
    assert step == 0
    assert {k: float(v) for k, v in row.items()} == scalars(History.of(callback.history[:2]), "ib")


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs the wandb library")
    # Lightning sets the mode; monkeypatch puts it back.
    for name, value in {"MODE": "offline", "SILENT": "true", "ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb_own" / name))
    yield wandb
    wandb.teardown()


def wandb_history(wandb, folder):
    """The file of the offline run below a folder, and its history: framed as LevelDB's log is, records by wandb."""
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.finish()
    wandb.teardown()  # only then is the file sure to be whole
    (path,) = folder.rglob("*.wandb")
    raw, at, block, record, rows = path.read_bytes(), 7, 32768, b"", []  # a header of 7 bytes comes first
    while at + 7 <= len(raw):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        record += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the end of one
            items = Record.FromString(record).history.item
            rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
            record = b""
    return path, [row for row in rows if row]


def test_wandb(tmp_path, wandb):
    logger = pl.loggers.WandbLogger(save_dir=tmp_path, project="digits", offline=True)
    callback, _ = sick_fit(tmp_path, logger)
    transactions, rows = wandb_history(wandb, tmp_path)
    assert [row["_step"] for row in rows] == list(range(len(rows))), "W&B drops a row whose step does not rise"
    assert_scalars_are_the_history([(row["trainer/global_step"], row) for row in rows], callback)
    pictures = [(row["trainer/global_step"], row[f"{TAG}/filenames"]) for row in rows if f"{TAG}/filenames" in row]
    files = transactions.parent / "files"
    assert_figures_are_the_history([(step, files / name) for step, (name,) in pictures], callback)
    assert_files_are_in(tmp_path / "digits" / logger.version, callback, tmp_path)
    ((page, step),) = [(row["ib/page/path"], row["trainer/global_step"]) for row in rows if "ib/page/path" in row]
    assert step == STEPS[-1]
    assert_is_the_page((files / page).read_text(), callback)
    (table,) = [json.loads((files / row["ib/table/path"]).read_text()) for row in rows if "ib/table/path" in row]
    assert_is_the_table(table["columns"], table["data"], callback)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the mlflow library")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")  # Lightning sets it for the process
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return mlflow


@pytest.mark.parametrize("store", [pytest.param("database", marks=pytest.mark.slow), "files"])
def test_mlflow(tmp_path, mlflow, store):
    where = {
        "database": {"tracking_uri": os.environ["MLFLOW_TRACKING_URI"], "artifact_location": str(tmp_path / "art")},
        "files": {"tracking_uri": f"file:{tmp_path}/mlruns"},
    }[store]
    logger = pl.loggers.MLFlowLogger(**where)
    callback, _ = sick_fit(tmp_path, logger)
    client, run_id = mlflow.MlflowClient(where["tracking_uri"]), logger.run_id
    names = client.get_run(run_id).data.metrics
    rows = [(m.step, {name: m.value}) for name in names for m in client.get_metric_history(run_id, name)]
    assert_scalars_are_the_history(rows, callback)
    picture = client.download_artifacts(run_id, f"{TAG}.png", str(tmp_path))
    assert_is_drawn(picture, callback, 3)
    page = Path(client.download_artifacts(run_id, "ib/page.html", str(tmp_path))).read_text()
    assert_is_the_page(page, callback)
    root = tmp_path if store == "database" else tmp_path / "mlruns"
    assert_files_are_in(root / logger.experiment_id / run_id, callback, tmp_path)


@pytest.fixture
def comet(monkeypatch):
    pytest.importorskip("comet_ml", reason="needs the comet_ml library")
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")  # Lightning sets it for the process
    monkeypatch.setenv("COMET_START_ONLINE", "false")  # CometLogger(online=False) disables the experiment
    yield
    gc.collect()


# Offline, comet's look for this machine's address leaves a socket to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_comet(tmp_path, comet):
    logger = pl.loggers.CometLogger(offline_directory=str(tmp_path / "comet"))
    callback, _ = sick_fit(tmp_path, logger)
    logger.experiment.end()
    (archive,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(archive) as file:
        messages = [json.loads(line) for line in file.read("messages.json").splitlines()]
        payloads = [message["payload"] for message in messages]
        metrics = [payload["metric"] for payload in payloads if "metric" in payload]
        uploads = [payload for payload in payloads if payload.get("upload_type") == "visualization"]
        pictures = [file.read(upload["file_path"]).decode() for upload in uploads]
        assets = [payload for payload in payloads if payload.get("upload_type") == "asset"]
        pages = [file.read(asset["file_path"]).decode() for asset in assets]
    assert_scalars_are_the_history([(m["step"], {m["metricName"]: m["metricValue"]}) for m in metrics], callback)
    told = [upload["additional_params"] for upload in uploads]
    assert [(params["figName"], params["step"]) for params in told] == [(TAG, step) for step in STEPS]
    for svg in pictures:
        assert ET.fromstring(svg).tag.endswith("svg")
        assert all(f"<!-- {text} -->" in svg for text in ("I(X;T) [bits]", "hidden", "out"))
    (params,) = [asset["additional_params"] for asset in assets]
    assert (params["fileName"], params["step"], params["overwrite"]) == ("ib/page.html", STEPS[-1], True)
    assert_is_the_page(pages[0], callback)
    assert_files_are_in(tmp_path / "comet" / logger.version, callback, tmp_path)


# -- several, and none -------------------------------------------------------------------------------------------------


def test_several_at_once(tmp_path, wandb):
    loggers = [
        pl.loggers.WandbLogger(save_dir=tmp_path, offline=True),
        pl.loggers.CSVLogger(tmp_path, name="csv"),
        pl.loggers.TensorBoardLogger(tmp_path, name="tensorboard"),
    ]
    callback, _ = sick_fit(tmp_path, loggers)
    _, rows = wandb_history(wandb, tmp_path)
    assert_scalars_are_the_history([(row["trainer/global_step"], row) for row in rows], callback)
    assert_scalars_are_the_history(read_metrics_csv(loggers[1].log_dir), callback)
    rows, pictures = read_tensorboard(loggers[2].log_dir)
    assert_scalars_are_the_history(rows, callback)
    assert_figures_are_the_history(pictures, callback)
    assert_files_are_in(tmp_path / "lightning_logs" / loggers[0].version, callback, tmp_path)


def test_none(tmp_path):
    callback, _ = sick_fit(tmp_path, False)
    assert_files_are_in(tmp_path, callback, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".png", ".svg"}


def test_runs_do_not_overwrite_each_other_and_lie_beside_their_checkpoints(tmp_path, wandb):
    for _ in range(2):
        logger = pl.loggers.WandbLogger(save_dir=tmp_path, offline=True)
        _, run = fit(
            tmp_path,
            InformationPlaneCallback(FIXED, estimators=()),
            logger=logger,
            enable_checkpointing=True,
            max_epochs=1,
        )
        wandb.finish()
        folder = Path(run.checkpoint_callback.best_model_path).parent.parent
        assert (folder / "information_plane.csv").is_file()
    assert len(list(tmp_path.rglob("information_plane.csv"))) == 2


# -- what fails --------------------------------------------------------------------------------------------------------


def failures(caught):
    return [str(w.message) for w in caught if "Training goes on" in str(w.message)]


class OddNames(TinyModule):
    """Layers called as no one would, and no PyTorch forbids."""

    def __init__(self):
        super().__init__()
        self.odd = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("_in", "a/b", "größe", "α", "β", "/", "w (1)")})

    def forward(self, x):
        x = self.act(self.hidden(x))
        for layer in self.odd.values():
            x = x + layer(x)
        return self.out(x)


ODD = [f"odd.{name}" for name in ("_in", "a/b", "größe", "α", "β", "/", "w (1)")]


def test_names_of_any_kind_stay_in_tags_csv_and_checkpoints(tmp_path):
    callback = InformationPlaneCallback(estimators=())
    logger = pl.loggers.TensorBoardLogger(tmp_path)
    _, run = fit(tmp_path, callback, model=OddNames(), max_epochs=1, logger=logger)
    assert set(ODD) < {point.layer for point in callback.history}
    assert {f"ib/I_TY/{layer}" for layer in ODD} < run.callback_metrics.keys()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    for layer in ("hidden", *ODD):
        assert len(events.Scalars(f"ib/I_TY/{layer}")) == 2, "before training, and after an epoch"
        assert {e.step for e in events.Scalars(f"ib/I_TY/{layer}")} == {e.step for e in events.Scalars("ib/I_TY/out")}
    assert exact(History.read_csv(callback.figure_path.with_suffix(".csv"))) == exact(callback.history)
    run.save_checkpoint(tmp_path / "odd.ckpt")
    resumed = InformationPlaneCallback(estimators=())
    fit(tmp_path, resumed, model=OddNames(), max_epochs=2, ckpt_path=tmp_path / "odd.ckpt")
    assert exact(resumed.history[: len(callback.history)]) == exact(callback.history)


def test_mlflow_takes_names_of_any_kind(tmp_path, mlflow):
    where = {"tracking_uri": f"file:{tmp_path}/mlruns"}
    logger = pl.loggers.MLFlowLogger(**where)
    fit(tmp_path, InformationPlaneCallback(prefix="ib: mine?", estimators=()), model=OddNames(), logger=logger)
    metrics = mlflow.MlflowClient(where["tracking_uri"]).get_run(logger.run_id).data.metrics
    odd = {name for name in metrics if "/I_TY/odd." in name and "diagnostics" not in name}
    assert odd == {safe_name(f"ib: mine?/I_TY/{layer}") for layer in ODD}
    assert len(odd) == len(ODD)


def test_a_store_that_takes_no_files_costs_a_warning_for_each_and_the_others_get_their_figures(tmp_path, mlflow):
    (tmp_path / "file").touch()
    loggers = [
        pl.loggers.MLFlowLogger(save_dir=tmp_path / "mlruns", artifact_location=str(tmp_path / "file" / "below")),
        pl.loggers.TensorBoardLogger(tmp_path),
    ]
    callback = InformationPlaneCallback(FIXED, estimators=())
    with pytest.warns(UserWarning, match="MLFlowLogger could not log the (figure|page) ib/") as caught:
        fit(tmp_path, callback, logger=loggers)
    assert [text.partition(": ")[0] for text in failures(caught)] == [
        "MLFlowLogger could not log the figure ib/information_plane",
        "MLFlowLogger could not log the page ib/page",
    ]
    rows, pictures = read_tensorboard(loggers[1].log_dir)
    assert_figures_are_the_history(pictures, callback)
    client = mlflow.MlflowClient(f"file:{tmp_path}/mlruns")
    history = client.get_metric_history(loggers[0].run_id, "ib/I_TY/out")
    assert [metric.step for metric in history] == STEPS


class Failing(pl.loggers.CSVLogger):
    """Refuses one of the callback's calls, in other words each time."""

    def __init__(self, tmp_path, refused):
        super().__init__(tmp_path, name="failing")
        self.refused, self.calls = refused, 0

    def refuse(self, call):
        if call == self.refused:
            self.calls += 1
            raise ConnectionError(f"the server is gone, attempt {self.calls}")

    def log_metrics(self, metrics, step=None):
        if "epoch" not in metrics:  # the point before training, the only one Lightning has no hand in
            self.refuse("log_metrics")
        super().log_metrics(metrics, step)

    def log_image(self, key, images, step=None):
        self.refuse("log_image")


@pytest.mark.parametrize(
    ("refused", "calls", "sentence"),
    [
        ("log_metrics", 1, "Failing could not log the values"),
        ("log_image", 4, "Failing could not log the figure ib/information_plane"),
    ],
)
def test_a_logger_that_fails_costs_one_warning_and_the_others_get_everything(tmp_path, refused, calls, sentence):
    callback = InformationPlaneCallback(FIXED, estimators=())
    failing, other = Failing(tmp_path, refused), pl.loggers.TensorBoardLogger(tmp_path)
    with pytest.warns(UserWarning, match=sentence) as caught:
        fit(tmp_path, callback, logger=[failing, other])
    assert failures(caught) == [f"{sentence}: ConnectionError: the server is gone, attempt 1. Training goes on."]
    assert failing.calls == calls
    rows, pictures = read_tensorboard(other.log_dir)
    assert {tuple(step for step, _ in points) for points in by_name(rows).values()} == {tuple(STEPS)}
    assert_figures_are_the_history(pictures, callback)


@pytest.mark.parametrize("library", ["wandb", "litlogger"])
def test_a_logger_that_is_not_installed_is_named_before_anything_is_measured(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    made = {"wandb": pl.loggers.WandbLogger, "litlogger": pl.loggers.LitLogger}[library]
    where = {"wandb": {"save_dir": tmp_path, "offline": True}, "litlogger": {"root_dir": tmp_path, "name": "digits"}}
    callback, model = InformationPlaneCallback(FIXED, estimators=()), TinyModule()
    with pytest.raises(ModuleNotFoundError, match=library):
        fit(tmp_path, callback, model=model, logger=made(**where[library]))
    assert not callback.history
    assert not has_hooks(model)


class Unreachable:
    """Answers nothing at all."""

    def __getattr__(self, name):
        raise ConnectionError(f"no {name}")


def test_a_logger_that_cannot_be_asked_costs_one_warning_each_for_what_it_did_not_get(tmp_path):
    def ask(loggers, warned):
        log_layout(loggers, "ib", "bits", warned=warned)
        log_scalars(loggers, {}, 0, warned)
        log_figure(loggers, TAG, None, 0, warned)
        log_page(loggers, "ib/page", lambda: "", 0, warned)
        log_table(loggers, "ib/table", ["epoch"], [[0]], 0, warned)
        assert run_folder(loggers, str(tmp_path), warned) == tmp_path

    warned = WarnOnce(every_rank=True)
    with pytest.warns(UserWarning, match="Training goes on") as caught:
        ask([Unreachable(), Unreachable()], warned)
    ask([Unreachable()], warned)
    assert failures(caught) == [
        "Unreachable could not lay out the charts: ConnectionError: no experiment. Training goes on.",
        "Unreachable could not log the values: ConnectionError: no experiment. Training goes on.",
        "Unreachable could not log the figure ib/information_plane: ConnectionError: no log_image. Training goes on.",
        "Unreachable could not log the page ib/page: ConnectionError: no log_image. Training goes on.",
        "Unreachable could not log the table ib/table: ConnectionError: no log_image. Training goes on.",
        "Unreachable does not say where its files are: ConnectionError: no log_dir. Training goes on.",
    ]


def test_a_logger_without_folder_name_or_version_leaves_the_files_in_the_default_folder(tmp_path):
    class Bare:
        log_dir = save_dir = name = version = None

    assert run_folder([Bare()], str(tmp_path), WarnOnce()) == tmp_path


FULL_DISK = """
import resource, sys, warnings
from pathlib import Path

import matplotlib.font_manager  # before the limit: it may write a cache

from lightning_ib import InformationPlaneCallback
from lightning_ib.records import History
from tests.integration.test_loggers import FIXED
from tests.helpers.tiny import fit, pl


class Freed(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 5:
            assert repr(History.read_csv(path)[:]) == repr(callback.history[:4]), "the last file that fitted is whole"
            assert len(callback.history) == 12
            assert sorted(path.parent.iterdir()) == [path]
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


warnings.simplefilter("always")
folder = Path(sys.argv[1])
path, callback = folder / "information_plane.csv", InformationPlaneCallback(FIXED, estimators=())
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
fit(folder, callback, Freed(), logger=False, max_epochs=6)
assert History.read_csv(path) == callback.history and len(callback.history) == 14
assert sorted(path.parent.iterdir()) == [path, path.with_suffix(".png"), path.with_suffix(".svg")]
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_costs_one_warning_a_file_and_loses_nothing(tmp_path, programs):
    """Files over 4000 bytes are refused from the second epoch to the fifth; then there is room again."""
    done = programs.run(FULL_DISK, tmp_path, environment={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the history could not be written to") == 1, done.stderr
    assert done.stderr.count("the figure could not be written to") == 1, done.stderr
    assert done.stderr.count("File too large. Training goes on.") == 2, done.stderr


def test_singletons_are_logged_as_the_share_of_samples_that_the_verdict_uses(tmp_path):
    callback = InformationPlaneCallback({"out": Quantizer(bins=UniformBins(12))}, estimators=())
    with pytest.warns(VerdictWarning, match="undersampled|saturated"):
        _, run = fit(tmp_path, callback, max_epochs=1)
    last = callback.history[-1]
    logged = float(run.callback_metrics["ib_diagnostics/singleton_fraction/out"])
    assert logged == pytest.approx(last.singleton_fraction, rel=1e-6)
    assert UNDERSAMPLED < logged < 1
