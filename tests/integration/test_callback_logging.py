"""What the callback logs and says, and the figures of the head."""

import math
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import CellQuantizer, InformationPlaneCallback
from lightning_ib.functional.discrete.fano import fano_information
from lightning_ib.records import History
from tests.helpers.callbacks import FIXED, EarlyStopping, ModelCheckpoint, epochs, never_trained
from tests.helpers.records import exact
from tests.helpers.tiny import N_VAL, TinyModule, fit, make_data, pl

pytestmark = pytest.mark.usefixtures("blank_pictures", "few_pictures", "few_probes")

# -- what is logged ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("probes")
def test_tensorboard_gets_scalars_figure_and_layout_at_the_right_steps(tmp_path, pictures):
    callback = InformationPlaneCallback(beta=2.0)
    _, run = fit(tmp_path, callback)
    events = EventAccumulator(run.log_dir, size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()
    for name, field in (
        ("ib/I_XT", "i_xt"),
        ("ib/I_TY", "i_ty"),
        ("ib/H_T", "h_t"),
        ("ib_diagnostics/bits/I_TY", "i_ty"),
        ("ib_diagnostics/saturation", "saturation"),
    ):
        for layer in ("hidden", "out"):
            written = events.Scalars(f"{name}/{layer}")
            points = [p for p in callback.history if p.layer == layer]
            assert [event.value for event in written] == pytest.approx([getattr(p, field) for p in points])
            # Lightning logs the figures of an epoch at its last step
            assert [event.step for event in written] == [0, 5, 11, 17]
    assert [event.value for event in events.Scalars("ib_diagnostics/bits/IB/out")] == pytest.approx(
        [p.i_xt - 2 * p.i_ty for p in callback.history if p.layer == "out"]
    )
    assert len(events.Images("ib/information_plane")) == 4
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    figures, bands, others = layout.category
    assert others.title == "Information plane (ib): other estimators"
    assert {chart.title: list(chart.multiline.tag) for chart in others.chart} == {
        "probe: I_TY [bits]": ["^ib_diagnostics/bits/probe/I_TY/.+"],
        "probe: accuracy": ["^ib/probe/accuracy/.+"],
    }
    assert {chart.title: list(chart.multiline.tag) for chart in figures.chart} == {
        "I(X;T) [bits]": ["^ib_diagnostics/bits/I_XT/.+"],
        "I(T;Y) [bits]": ["^ib_diagnostics/bits/I_TY/.+"],
        "H(T) [bits]": ["^ib_diagnostics/bits/H_T/.+"],
        "H(T)/log N": ["^ib_diagnostics/saturation/.+"],
        "I(T;Y) under permuted labels [bits]": ["^ib_diagnostics/bits/I_TY_permuted/.+"],
        "samples whose symbol was seen once": ["^ib_diagnostics/singleton_fraction/.+"],
        "I(X;T) − β I(T;Y) [bits]": ["^ib_diagnostics/bits/IB/.+"],
    }
    assert bands.title == "Information plane (ib): ± 2 standard errors"
    margins = {chart.title: chart.margin.series[0] for chart in bands.chart}
    assert list(margins) == [
        f"{of} [bits]: {layer}" for of in ("I(X;T)", "I(T;Y)", "H(T)") for layer in ("hidden", "out")
    ]
    of_out = [p for p in callback.history if p.layer == "out"]
    band = margins["I(T;Y) [bits]: out"]
    for tag, sign in ((band.value, 0), (band.lower, -2), (band.upper, 2)):
        written = [event.value for event in events.Scalars(tag)]
        assert written == pytest.approx([p.i_ty + sign * p.i_ty_se for p in of_out])
    shuffled = [event.value for event in events.Scalars("ib_diagnostics/bits/I_TY_permuted/out")]
    assert shuffled == pytest.approx([p.i_ty_permuted for p in of_out])


def test_csv_and_png_lie_beside_the_loggers_files(tmp_path, pictures):
    callback = InformationPlaneCallback()
    _, run = fit(tmp_path, callback)
    folder = tmp_path / "lightning_logs" / "version_0"
    assert str(folder) == str(run.log_dir)
    assert exact(History.read_csv(folder / "information_plane.csv")) == exact(callback.history)
    assert exact(History.read_csv(folder / "information_plane.csv").estimates()) == exact(callback.history.estimates())
    assert callback.figure_path == folder / "information_plane.png"
    assert callback.figure_path.read_bytes().startswith(b"\x89PNG")


def test_without_a_logger_history_and_csv_are_kept(tmp_path):
    callback = InformationPlaneCallback()
    fit(tmp_path, callback, logger=False)
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(callback.history)


def test_fast_dev_run_measures_one_batch_and_writes_nothing(tmp_path, pictures):
    callback = InformationPlaneCallback()
    fit(tmp_path, callback, fast_dev_run=True)
    assert {p.n_samples for p in callback.history} == {16}
    assert list(tmp_path.rglob("*")) == []


def said(caplog):
    """The lines that the callback wrote to the log, but for the table at the end."""
    lines = [record.message for record in caplog.records if record.message.startswith("ib: ")]
    return [line for line in lines if not line.startswith("ib: epoch")]


CELLS = r"\d cells with \d+% of the variance, 80 samples\."


def test_how_each_layer_was_discretized_is_said_once(tmp_path, caplog):
    callback = InformationPlaneCallback()
    with caplog.at_level("INFO"):
        fit(tmp_path, callback)
    hidden, out = said(caplog)
    assert re.fullmatch(f"ib: hidden: 8 coordinates; {CELLS}", hidden)
    head = r"the head \(the last layer to run, 4 coordinates for 4 classes\)"
    assert re.fullmatch(rf"ib: out: {head}, measured on its softmax \(head=False: as it is\); {CELLS}", out)
    assert (callback.plane.head.layer, callback.plane.head.n_classes) == ("out", 4)


def test_a_layer_in_bins_is_not_said_to_be_in_cells(tmp_path, caplog):
    callback = InformationPlaneCallback({"hidden": FIXED["hidden"], "act": CellQuantizer(2)}, estimators=())
    with caplog.at_level("INFO"):
        fit(tmp_path, callback, max_epochs=1)
    assert [line[: len("ib: act: 8 coordinates; 2 cells")] for line in said(caplog)] == [
        "ib: act: 8 coordinates; 2 cells"
    ]
    assert [point.source for point in callback.history] == ["binned", "cells"] * 2
    assert callback.plane.head is None


@pytest.mark.usefixtures("probes")
def test_at_the_end_layers_of_which_the_probe_reads_far_more_are_named(tmp_path, caplog):
    """Classes in small coordinates, beside others of a great spread that the next layer throws away."""

    class Crowded(TinyModule):
        def __init__(self):
            super().__init__()
            self.stem = nn.Identity()

        def forward(self, x):
            return super().forward(self.stem(x)[:, :6])

    def crowded(n, seed):
        x, y = make_data(n, seed).tensors
        return DataLoader(TensorDataset(torch.cat([3 * x, 300 * torch.randn(n, 12)], 1), y), batch_size=50)

    with caplog.at_level("INFO"):
        callback = InformationPlaneCallback(["stem", "out"])
        fit(tmp_path, callback, model=Crowded(), train=crowded(400, 0), val=crowded(400, 1), max_epochs=1)
    *_, last = said(caplog)
    assert last.startswith("ib: at the last measurement a linear probe reads far more of the 2.00 bits of the target ")
    assert "'stem' (" in last
    assert "'out' (" not in last


# -- the head ----------------------------------------------------------------------------------------------------------


def test_the_head_has_its_accuracy_and_what_it_proves_of_all_layers(tmp_path):
    callback = InformationPlaneCallback()
    model, run = fit(tmp_path, callback)
    hidden, out = callback.history[-2:]
    x, y = make_data(N_VAL, seed=1)[:]
    with torch.no_grad():
        accuracy = float((model.eval()(x).argmax(1) == y).float().mean())
    assert out.accuracy == pytest.approx(accuracy, abs=1e-6)
    assert math.isnan(hidden.accuracy)
    assert (
        out.i_ty_fano == hidden.i_ty_fano == fano_information(out.accuracy, h_y=out.h_y, n_classes=4, unit="bits") > 0.5
    )
    for point in (hidden, out):
        assert point.fano_shortfall == max(0.0, point.i_ty_fano - point.i_ty)
    logged = run.callback_metrics
    assert logged["ib_diagnostics/accuracy/out"] == pytest.approx(out.accuracy, rel=1e-6)
    assert logged["ib_diagnostics/bits/I_TY_fano/out"] == pytest.approx(out.i_ty_fano, rel=1e-6)
    assert not {"ib_diagnostics/accuracy/hidden", "ib_diagnostics/bits/I_TY_fano/hidden"} & set(logged)


@pytest.mark.parametrize("options", [{"head": False}, {"layers": ["hidden", "act"]}])
def test_no_head_is_measured_on_its_softmax_where_none_is_wanted_or_watched(tmp_path, caplog, options):
    callback = InformationPlaneCallback(**options)
    with caplog.at_level("INFO"):
        _, run = fit(tmp_path, callback, max_epochs=1)
    assert callback.plane.head is None
    assert all(math.isnan(p.accuracy) and math.isnan(p.i_ty_fano) for p in callback.history)
    assert not any("accuracy/" in name and "probe" not in name for name in run.callback_metrics)
    assert len(said(caplog)) == 2
    assert not any("head" in line for line in said(caplog))


def test_a_head_by_name_is_one_that_has_a_coordinate_for_each_class(tmp_path):
    assert_out = InformationPlaneCallback(["hidden", "out"], head="out")
    fit(tmp_path, assert_out, max_epochs=1)
    assert assert_out.plane.head.layer == "out"
    sentence = r"head='hidden' has 8 coordinates, and the labels do not number its classes 0 … C − 1"
    never_trained(tmp_path, InformationPlaneCallback(head="hidden"), ValueError, sentence)
    sentence = r"head='drop' is none of the layers watched, \['hidden', 'out'\]"
    never_trained(tmp_path, InformationPlaneCallback(head="drop"), ValueError, sentence)


def test_a_model_whose_last_layer_is_no_head_has_none(tmp_path, caplog):
    """An autoencoder with labels: its output has as many coordinates as its input, not one for each class."""

    class Autoencoder(TinyModule):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(8, 6)

        def training_step(self, batch, batch_idx):
            return nn.functional.mse_loss(self(batch[0]), batch[0])

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    callback = InformationPlaneCallback()
    with caplog.at_level("INFO"):
        fit(tmp_path, callback, model=Autoencoder())
    assert callback.plane.head is None
    assert re.fullmatch(f"ib: out: 6 coordinates; {CELLS}", said(caplog)[1])
    for point in callback.history:
        assert point.i_ty > 0
        assert math.isnan(point.accuracy)
        assert math.isnan(point.i_ty_fano)
    assert all(math.isfinite(one.value) for one in callback.history.estimates())


def test_a_single_logit_is_the_head_of_two_classes(tmp_path, caplog):
    class Binary(TinyModule):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(8, 1)

        def loss(self, batch):
            return nn.functional.binary_cross_entropy_with_logits(self(batch[0]).squeeze(1), batch[1].float())

        def training_step(self, batch, batch_idx):
            return self.loss((batch[0], batch[1] % 2))

        def validation_step(self, batch, batch_idx):
            self.loss((batch[0], batch[1] % 2))

    callback = InformationPlaneCallback(unpack=lambda batch: (batch[0], batch[1] % 2))
    with caplog.at_level("INFO"):
        fit(tmp_path, callback, model=Binary())
    assert "the head (the last layer to run, 1 logit for 2 classes), measured on its sigmoid" in said(caplog)[1]
    assert callback.history[-1].accuracy > 0.5


def test_no_validation_loop_is_told(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, InformationPlaneCallback(), val=None, max_epochs=1)
    assert any("measured in a pass of their own over the training data" in r.message for r in caplog.records)


@pytest.mark.parametrize("data", [None, "train"])
def test_early_stopping_and_checkpoints_can_monitor_the_figures(tmp_path, data):
    callback = InformationPlaneCallback(FIXED, data=data)
    stopping = EarlyStopping("ib/I_TY/out", mode="min", patience=1)
    checkpoint = ModelCheckpoint(tmp_path, monitor="ib/I_TY/out", mode="max", filename="{epoch}")
    _, run = fit(tmp_path, callback, stopping, checkpoint, enable_checkpointing=True, max_epochs=8)
    i_ty = [p.i_ty for p in callback.history if p.layer == "out" and p.epoch > 0]
    assert checkpoint.best_model_score == pytest.approx(max(i_ty), rel=1e-6)
    assert run.current_epoch < 8, "I(T;Y) rises, so a stop on its fall must have come early"


def test_figures_can_be_monitored_in_epochs_that_are_not_measured(tmp_path):
    stopping = EarlyStopping("ib/I_TY/out", mode="max", patience=9)
    checkpoint = ModelCheckpoint(tmp_path, monitor="ib/I_TY/out", mode="max")
    callback = InformationPlaneCallback(FIXED, every_n_epochs=2)
    _, run = fit(tmp_path, callback, stopping, checkpoint, enable_checkpointing=True, max_epochs=3)
    assert (run.current_epoch, epochs(callback)) == (3, [0, 2])


def test_a_monitor_before_the_callback_is_refused_where_it_would_see_nothing(tmp_path):
    stopping = EarlyStopping("ib/I_TY/out", mode="max")
    with pytest.raises(ValueError, match="EarlyStopping monitors 'ib/I_TY/out' but comes before"):
        fit(tmp_path, stopping, InformationPlaneCallback(data="train"))
    fit(tmp_path, stopping, InformationPlaneCallback())  # in the validation loop any order works


def test_a_disk_that_cannot_be_written_costs_a_warning_not_the_run(tmp_path, pictures):
    (tmp_path / "information_plane.csv").mkdir()
    (tmp_path / "information_plane.png").mkdir()
    callback = InformationPlaneCallback()
    with (
        pytest.warns(UserWarning, match="the history could not be written to .*Training goes on"),
        pytest.warns(UserWarning, match="the figure could not be written to .*Training goes on"),
    ):
        fit(tmp_path, callback, logger=False)
    assert epochs(callback) == [0, 1, 2, 3]


def test_a_logger_that_raises_costs_a_warning_not_the_run(tmp_path, pictures):
    logger = pl.loggers.TensorBoardLogger(tmp_path)

    def refuse(*args, **kwargs):
        raise OSError("no space left on device")

    logger.experiment.add_image = refuse
    callback = InformationPlaneCallback()
    with pytest.warns(UserWarning, match="could not log the figure ib/information_plane: OSError: no space left"):
        fit(tmp_path, callback, logger=logger)
    assert epochs(callback) == [0, 1, 2, 3]
