"""Where measurements go, without a Trainer."""

import math

import pytest
import torch

from lightning_ib.estimators import Rows
from lightning_ib.records import History, InformationPoint, Record
from lightning_ib.report.reporter import Destination, Reporter
from tests.helpers.records import estimate, exact
from tests.helpers.tiny import pl


def measured(epoch, layers=("conv", "out"), verdict="ok"):
    missing = InformationPoint.missing("", n_samples=64, unit="bits", epoch=epoch, step=3 * epoch)
    return History.of(
        missing._replace(
            layer=layer, i_xt=3.0 - k, i_ty=1.0 + 0.1 * epoch, h_t=3.0 - k, h_x=6.0, h_y=2.0, verdict=verdict
        )
        for k, layer in enumerate(layers)
    )


def test_files_are_brought_up_to_date_and_named_at_the_end(tmp_path):
    reporter, to = Reporter("ib", "bits", by="epoch"), Destination([], tmp_path, 0)
    history = measured(0)
    reporter.write(history, {}, to)
    first = reporter.figure_path.read_bytes()
    history.put(measured(1))
    reporter.write(history, {}, to)
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(history)
    assert reporter.figure_path.read_bytes() != first
    reporter.finish(history, to)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "information_plane.csv",
        "information_plane.png",
        "information_plane.svg",
    ]
    summary = reporter.summary(history, [])
    assert summary.splitlines()[0] == "epochs 0 and 1, in bits"
    assert summary.endswith(f"picture: {tmp_path / 'information_plane.png'}")
    history.put(measured(2) + History([Record(2, 2, "a", "spectrum", "effective_rank", 3.0)]))
    reporter.write(history, {}, to)
    assert reporter.summary(history, []).endswith("/information_plane.png\nbeside it: geometry.png")


def test_two_prefixes_share_a_folder(tmp_path):
    for prefix in ("ib", "other/one"):
        Reporter(prefix, "bits", by="epoch").write(measured(0), {}, Destination([], tmp_path, 0))
    assert {path.name for path in tmp_path.glob("*.csv")} == {
        "information_plane.csv",
        "information_plane_other_one.csv",
    }


def test_a_layer_that_was_not_measured_is_nan_under_the_names_it_had():
    reporter = Reporter("ib", "bits", by="epoch")
    before = reporter.scalars(measured(0))
    gone = [point._replace(i_xt=math.nan, i_ty=math.nan, h_t=math.nan) for point in measured(1, verdict="")]
    after = reporter.scalars(History.of(gone))
    assert after.keys() >= before.keys()
    assert math.isnan(after["ib/I_XT/conv"])


def test_a_logger_that_fails_costs_one_warning_and_the_others_go_on(tmp_path):
    class Broken:
        def log_metrics(self, metrics, step):
            raise OSError("the disk is full")

    kept = pl.loggers.CSVLogger(tmp_path, name="kept")
    reporter, to = Reporter("ib", "bits", by="epoch"), Destination([Broken(), kept], None, 5)
    first, second = (reporter.scalars(measured(epoch)) for epoch in (0, 1))
    with pytest.warns(UserWarning, match="Broken could not log the values: OSError: the disk is full"):
        reporter.log_scalars(first, to)
    reporter.log_scalars(second, to)  # a second warning would be an error
    assert "ib/I_XT/conv" in (tmp_path / "kept" / "version_0" / "metrics.csv").read_text()


def test_nowhere_nothing_is_written_and_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reporter, to = Reporter("ib", "bits", by="step", projector=True, tsne=True), Destination([], None, 0)
    rows = {"conv": Rows(torch.rand(8, 3), torch.arange(8) % 2)}
    history = measured(0) + History([estimate(0, 0, "conv", "kde", "I_TY", 1.0)])
    reporter.write(history, rows, to)
    reporter.finish(history, to)
    assert list(tmp_path.iterdir()) == []
    assert reporter.figure_path is None
