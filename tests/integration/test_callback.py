"""The callback in a real Trainer: when it measures, what it logs, and what it leaves alone."""

import inspect
import math
import random
import re
import warnings

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_ib import (
    CellQuantizer,
    FixedBins,
    InformationPlaneCallback,
    QuantileBins,
    Quantizer,
    UniformBins,
    measure,
)
from lightning_ib.functional.discrete.fano import fano_information
from lightning_ib.records import History
from tests.helpers.mnist import ThesisNet
from tests.helpers.records import exact
from tests.helpers.tiny import (
    N_TRAIN,
    N_VAL,
    TinyModule,
    fit,
    has_hooks,
    make_data,
    pl,
    train_loader,
    trainer,
    val_loader,
)

EarlyStopping, ModelCheckpoint = pl.callbacks.EarlyStopping, pl.callbacks.ModelCheckpoint

FIXED = {
    "hidden": Quantizer(bins=FixedBins([-0.5, 0.5])),
    "out": Quantizer(nn.Softmax(dim=1), FixedBins([0.3, 0.6])),
}
FROZEN = {"hidden": Quantizer(bins=UniformBins(4)), "out": None}
"""Bins that are fitted and frozen beside the default, which is neither."""


def epochs(callback):
    return sorted({point.epoch for point in callback.history})


# -- what is measured ----------------------------------------------------------------------------------------------


def test_history_holds_every_layer_from_the_point_before_training_on(tmp_path):
    callback = InformationPlaneCallback()
    fit(tmp_path, callback)
    assert [(p.epoch, p.step, p.layer) for p in callback.history] == [
        (epoch, epoch * N_TRAIN // 16, layer) for epoch in range(4) for layer in ("hidden", "out")
    ]
    assert {p.n_samples for p in callback.history} == {N_VAL}
    assert {p.unit for p in callback.history} == {"bits"}
    assert all(p.h_y == pytest.approx(2.0) and p.i_xt == p.h_t for p in callback.history)


@pytest.mark.parametrize("data", [None, "val", "loader"])
@pytest.mark.parametrize(
    ("layers", "options", "batch_size"),
    # The last bits of an activation depend on the batch size, and cells on them.
    [(FIXED, {}, 7), (None, {}, 16), (None, {"head": False, "max_samples": 60}, 16)],
)
def test_validation_figures_are_those_of_measuring_the_trained_network(tmp_path, data, layers, options, batch_size):
    """Whether in the validation loop or in a pass of its own: what `measure` finds afterwards is what was logged."""
    own = val_loader() if data == "loader" else data
    callback = InformationPlaneCallback(layers, data=own, unit="nats", estimators=(), **options)
    model, run = fit(tmp_path, callback)
    found = measure(model, val_loader(batch_size=batch_size), layers, unit="nats", **options)
    assert len(found) == 2
    for logged, measured in zip(callback.history[-2:], found):
        assert exact([measured._replace(epoch=logged.epoch, step=logged.step)]) == exact([logged])
        assert run.callback_metrics[f"ib/I_TY/{logged.layer}"] == pytest.approx(logged.i_ty)
        assert run.callback_metrics[f"ib/I_XT/{logged.layer}"] == pytest.approx(logged.i_xt)
        assert run.callback_metrics[f"ib/H_T/{logged.layer}"] == pytest.approx(logged.h_t)
        assert run.callback_metrics[f"ib_diagnostics/saturation/{logged.layer}"] == pytest.approx(logged.saturation)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_are_measured_in_either_way(tmp_path, precision):
    in_loop, by_itself = InformationPlaneCallback(FIXED), InformationPlaneCallback(FIXED, data="val", prefix="own")
    fit(tmp_path, in_loop, by_itself, precision=precision, max_epochs=2)
    assert exact(in_loop.history) == exact(by_itself.history)


@pytest.mark.parametrize("data", [None, "train"])
def test_training_data_is_measured_whole_although_the_loader_drops_and_shuffles(tmp_path, data):
    callback = InformationPlaneCallback(FIXED, data=data, estimators=())
    loader = train_loader(batch_size=20, drop_last=True)
    model, _ = fit(tmp_path, callback, train=loader, val=None if data is None else "default")
    assert {p.n_samples for p in callback.history} == {N_TRAIN}
    expected = measure(model, DataLoader(make_data(N_TRAIN), batch_size=9), FIXED)
    assert exact(p._replace(epoch=0, step=0) for p in callback.history[-2:]) == exact(expected)


def test_input_and_target_quantizers_reach_the_measurement(tmp_path):
    callback = InformationPlaneCallback(
        FIXED,
        input=Quantizer(bins=FixedBins([0.0])),
        target=Quantizer(bins=QuantileBins(2)),
        unpack=lambda b: (b[0], b[0][:, 0]),
    )
    fit(tmp_path, callback, max_epochs=1)
    assert all(p.h_y == pytest.approx(1.0) and p.h_x < math.log2(N_VAL) for p in callback.history)
    assert callback.history.estimates() == [], "the default probe needs class labels, and nobody asked for it"


def test_batches_that_are_no_pairs_are_unpacked(tmp_path):
    class Mapped(TinyModule):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch["x"], batch["y"]), batch_idx)

        def validation_step(self, batch, batch_idx):
            return super().validation_step((batch["x"], batch["y"]), batch_idx)

    def mapped(data):
        return DataLoader([{"x": x, "y": y} for x, y in data], batch_size=16)

    callback = InformationPlaneCallback(unpack=lambda batch: (batch["x"], batch["y"]))
    fit(tmp_path, callback, model=Mapped(), train=mapped(make_data(N_TRAIN)), val=mapped(make_data(N_VAL)))
    assert epochs(callback) == [0, 1, 2, 3]


def test_every_n_epochs(tmp_path):
    callback = InformationPlaneCallback(every_n_epochs=2)
    fit(tmp_path, callback, max_epochs=5)
    assert epochs(callback) == [0, 2, 4]


def test_an_epoch_without_validation_is_made_up_for(tmp_path):
    callback = InformationPlaneCallback(every_n_epochs=3)
    fit(tmp_path, callback, max_epochs=5, check_val_every_n_epoch=2)
    assert epochs(callback) == [0, 4]


def test_sanity_check_is_not_measured_and_several_validation_runs_leave_one_point_an_epoch(tmp_path):
    callback = InformationPlaneCallback(FIXED)
    fit(tmp_path, callback, num_sanity_val_steps=2, val_check_interval=0.5, max_epochs=2)
    assert [(p.epoch, p.layer) for p in callback.history] == [(e, layer) for e in range(3) for layer in FIXED]
    assert {p.n_samples for p in callback.history} == {N_VAL}


def test_the_first_of_several_validation_loaders_is_measured(tmp_path):
    callback = InformationPlaneCallback(FIXED)
    fit(tmp_path, callback, val=[val_loader(), DataLoader(make_data(24, seed=3), 8)], max_epochs=1)
    assert {p.n_samples for p in callback.history} == {N_VAL}


def test_limits_of_the_trainer_hold_in_every_pass(tmp_path):
    for data in (None, "train", "val"):
        callback = InformationPlaneCallback(FIXED, data=data)
        fit(tmp_path, callback, limit_val_batches=2, limit_train_batches=2, max_epochs=1)
        assert {p.n_samples for p in callback.history} == {32}, data


@pytest.mark.parametrize("limit", [1, 0.25])
def test_one_batch_is_one_batch_at_every_epoch(tmp_path, limit):
    callback = InformationPlaneCallback(FIXED, estimators=())
    fit(tmp_path, callback, limit_val_batches=limit, max_epochs=2)
    assert len({p.n_samples for p in callback.history}) == 1
    assert callback.history[0].n_samples == 16


def test_the_users_hooks_see_a_validation_while_data_is_measured(tmp_path):
    seen = []

    class Augmenting(TinyModule):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            seen.append((self.trainer.training, len(batch[1])))
            return batch

    fit(tmp_path, InformationPlaneCallback(data="train"), model=Augmenting(), val=None, max_epochs=1)
    assert [training for training, _ in seen] == [False] * 6 + [True] * 6 + [False] * 6


@pytest.mark.filterwarnings("ignore:Total length of")
def test_several_validation_loaders_in_a_mapping_and_none_at_all(tmp_path):
    callback = InformationPlaneCallback(FIXED)
    fit(tmp_path, callback, val={"a": val_loader(), "b": DataLoader(make_data(24, seed=3), 8)}, max_epochs=1)
    assert {p.n_samples for p in callback.history} == {N_VAL}
    fit(tmp_path, callback, val=[], max_epochs=1)
    assert {p.n_samples for p in callback.history} == {N_TRAIN}


def test_a_forward_that_takes_something_else_costs_the_point_before_training_only(tmp_path):
    class TwoInputs(TinyModule):
        def forward(self, x, noise):
            return super().forward(x + noise)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0], 0.0), batch[1])

        def validation_step(self, batch, batch_idx):
            self(batch[0], 0.0)

    callback = InformationPlaneCallback(FIXED)
    with pytest.warns(UserWarning, match="there is no point before training: .*TwoInputs as module.*raised TypeError"):
        fit(tmp_path, callback, model=TwoInputs())
    assert epochs(callback) == [1, 2, 3]
    with pytest.raises(
        RuntimeError, match=r"x being a Tensor of shape \(16, 6\), and it raised TypeError.*Give unpack"
    ):
        fit(tmp_path, InformationPlaneCallback(FIXED, data="train"), model=TwoInputs())


def test_a_layer_that_starts_as_a_constant_has_one_cell_until_it_varies(tmp_path):
    class ZeroHead(TinyModule):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    callback = InformationPlaneCallback()
    fit(tmp_path, callback, model=ZeroHead())
    out = [p for p in callback.history if p.layer == "out"]
    assert (out[0].h_t, out[0].i_ty, out[0].n_codes, out[0].verdict) == (0.0, 0.0, 1, "constant")
    assert math.isnan(out[0].explained_variance)
    assert all(p.n_codes > 1 and 0 < p.saturation < 0.9 for p in out[1:])


def test_layers_that_no_one_named_and_whose_rows_are_not_samples_are_left_out(tmp_path):
    class Patches(TinyModule):
        def __init__(self):
            super().__init__()
            self.patch = nn.Linear(2, 2)

        def forward(self, x):
            return super().forward(self.patch(x.reshape(-1, 2)).reshape(len(x), -1))

    callback = InformationPlaneCallback()
    with pytest.warns(UserWarning, match="layer 'patch' is left out: picked by default, it put out 48 rows for 16"):
        fit(tmp_path, callback, model=Patches())
    assert {p.layer for p in callback.history} == {"hidden", "out"}


def test_a_module_without_forward_is_measured_in_validation_and_misses_the_point_before(tmp_path):
    class Stepping(TinyModule):
        forward = pl.LightningModule.forward

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(TinyModule.forward(self, batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            TinyModule.forward(self, batch[0])

    callback = InformationPlaneCallback(FIXED)
    with pytest.warns(UserWarning, match="Stepping defines no forward, so there is no point before training"):
        fit(tmp_path, callback, model=Stepping())
    assert epochs(callback) == [1, 2, 3]
    with pytest.raises(ValueError, match="Stepping defines no forward, which a pass of its own calls"):
        fit(tmp_path, InformationPlaneCallback(FIXED, data="train"), model=Stepping())


# -- what is logged ------------------------------------------------------------------------------------------------


def test_tensorboard_gets_scalars_figure_and_layout_at_the_right_steps(tmp_path):
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


def test_csv_and_png_lie_beside_the_loggers_files(tmp_path):
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


def test_fast_dev_run_measures_one_batch_and_writes_nothing(tmp_path):
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


# -- the head ------------------------------------------------------------------------------------------------------


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


def test_a_disk_that_cannot_be_written_costs_a_warning_not_the_run(tmp_path):
    (tmp_path / "information_plane.csv").mkdir()
    (tmp_path / "information_plane.png").mkdir()
    callback = InformationPlaneCallback()
    with (
        pytest.warns(UserWarning, match="the history could not be written to .*Training goes on"),
        pytest.warns(UserWarning, match="the figure could not be written to .*Training goes on"),
    ):
        fit(tmp_path, callback, logger=False)
    assert epochs(callback) == [0, 1, 2, 3]


def test_a_logger_that_raises_costs_a_warning_not_the_run(tmp_path):
    logger = pl.loggers.TensorBoardLogger(tmp_path)

    def refuse(*args, **kwargs):
        raise OSError("no space left on device")

    logger.experiment.add_image = refuse
    callback = InformationPlaneCallback()
    with pytest.warns(UserWarning, match="could not log the figure ib/information_plane: OSError: no space left"):
        fit(tmp_path, callback, logger=logger)
    assert epochs(callback) == [0, 1, 2, 3]


# -- what training is owed -----------------------------------------------------------------------------------------


class Augmented(torch.utils.data.Dataset):
    """Random augmentation from all three global random states."""

    def __init__(self, n):
        self.data = make_data(n)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return x + 0.1 * torch.randn(6) + 0.1 * float(np.random.randn()) + 0.1 * random.random(), y


def trained_state(tmp_path, *callbacks, val, generator, workers=0):
    own = torch.Generator().manual_seed(3) if generator else None
    loader = DataLoader(Augmented(N_TRAIN), 16, shuffle=True, generator=own, num_workers=workers)
    model, run = fit(tmp_path, *callbacks, train=loader, val=DataLoader(Augmented(N_VAL), 16) if val else None)
    return {
        "weights": model.state_dict(),
        "optimizer": run.optimizers[0].state_dict()["state"],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "generator": loader.generator.get_state() if generator else None,
        "losses": model.losses,
        "logged": {k: v for k, v in run.callback_metrics.items() if not k.startswith("ib")},
        "modes": [module.training for module in model.modules()],
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a == b


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize(("data", "val"), [(None, True), (None, False), ("train", True), ("val", True)])
def test_training_is_bit_identical_with_and_without(tmp_path, data, val, generator):
    callback = InformationPlaneCallback(data=data, estimators=["probe", "soft"], max_samples=50)
    with_it = trained_state(tmp_path, callback, val=val, generator=generator)
    without = trained_state(tmp_path, val=val, generator=generator)
    assert epochs(callback) == [0, 1, 2, 3]
    assert without["losses"]
    for part in without:
        assert equal(with_it[part], without[part]), part


class OwnLoader(DataLoader):
    """A loader only it itself knows how to make again."""


class Streaming(torch.utils.data.IterableDataset):
    def __init__(self, n):
        self.data = Augmented(n)

    def __iter__(self):
        return (self.data[k] for k in range(len(self.data)))


def loader_of(kind, n):
    data = Augmented(n)
    return {
        "subclass": lambda: OwnLoader(data, 16, shuffle=True),
        "iterable": lambda: DataLoader(Streaming(n), 16),
        "batch sampler": lambda: DataLoader(
            data, batch_sampler=BatchSampler(RandomSampler(data), batch_size=16, drop_last=False)
        ),
        "subset": lambda: DataLoader(data, 16, sampler=SubsetRandomSampler(range(n // 2))),
        "weighted": lambda: DataLoader(data, 16, sampler=WeightedRandomSampler(torch.rand(n), n)),
    }[kind]()


@pytest.mark.filterwarnings("ignore:.*sampler has shuffling enabled")
@pytest.mark.parametrize("data", [None, "train"])
@pytest.mark.parametrize("kind", ["subclass", "iterable", "batch sampler", "subset", "weighted"])
def test_training_is_bit_identical_with_any_loader(tmp_path, kind, data):
    weights = []
    for callbacks in ([InformationPlaneCallback(data=data)], []):
        pl.seed_everything(1, verbose=False)
        model, _ = fit(
            tmp_path,
            *callbacks,
            train=loader_of(kind, N_TRAIN),
            val=loader_of(kind, N_VAL),
            max_epochs=2,
            limit_train_batches=6,
        )
        weights.append((model.state_dict(), model.losses, torch.get_rng_state()))
    for with_it, without in zip(*weights):
        assert equal(with_it, without)


@pytest.mark.slow
def test_training_is_bit_identical_with_worker_processes(tmp_path):
    with_it = trained_state(tmp_path, InformationPlaneCallback(data="train"), val=True, generator=False, workers=2)
    without = trained_state(tmp_path, val=True, generator=False, workers=2)
    for part in without:
        assert equal(with_it[part], without[part]), part


def test_frozen_submodules_keep_their_mode(tmp_path):
    class Frozen(TinyModule):
        def on_train_epoch_start(self):
            self.drop.eval()

        def on_train_batch_start(self, batch, batch_idx):
            assert self.training
            assert not self.drop.training

    fit(tmp_path, InformationPlaneCallback(data="train"), model=Frozen())


# -- hooks off in every ending -------------------------------------------------------------------------------------


class Failing(TinyModule):
    """Raises where it is told to, in the second epoch, so that there is something to clean up."""

    def __init__(self, where, error):
        super().__init__()
        self.where, self.error = where, error

    def training_step(self, batch, batch_idx):
        if self.where == "train" and self.current_epoch == 1:
            raise self.error
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        if self.where == "validation" and self.current_epoch == 1 and batch_idx == 1:
            raise self.error


@pytest.mark.parametrize("where", ["train", "validation"])
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_hooks_come_off_when_training_breaks(tmp_path, where, error):
    model, callback = Failing(where, error), InformationPlaneCallback()
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        fit(tmp_path, callback, model=model)
    assert not has_hooks(model)
    assert epochs(callback) == [0, 1]
    assert not callback.plane.n_updates
    # A fit that the user interrupts ends as one that is over.
    assert bool(list(tmp_path.rglob("*.svg"))) == isinstance(error, KeyboardInterrupt)


def test_hooks_come_off_at_a_normal_end_and_a_second_fit_begins_anew(tmp_path):
    model, callback = TinyModule(), InformationPlaneCallback()
    fit(tmp_path, callback, model=model)
    assert not has_hooks(model)
    first = list(callback.history)
    fit(tmp_path, callback, model=TinyModule(), max_epochs=2)
    assert epochs(callback) == [0, 1, 2]
    assert first[0].epoch == 0


def test_hooks_come_off_when_the_pass_before_training_fails(tmp_path):
    model = TinyModule()
    with pytest.raises(ValueError, match="unpack must return a pair"):
        fit(tmp_path, InformationPlaneCallback(unpack=lambda batch: batch[0]), model=model)
    assert not has_hooks(model)


# -- resume --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, "train"])
def test_a_resumed_run_has_the_history_of_an_uninterrupted_one(tmp_path, data):
    def callbacks(folder):
        checkpoint = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        return InformationPlaneCallback(FROZEN, data=data, estimators=["probe", "soft"]), checkpoint

    whole, checkpoint = callbacks(tmp_path)
    fit(tmp_path, whole, checkpoint, enable_checkpointing=True, max_epochs=4)
    path = tmp_path / "epoch=1.ckpt"
    state = torch.load(path, weights_only=True)
    assert any("InformationPlaneCallback" in key for key in state["callbacks"])
    resumed, checkpoint = callbacks(tmp_path)
    fit(tmp_path, resumed, checkpoint, enable_checkpointing=True, max_epochs=4, ckpt_path=path)
    # Up to the checkpoint to the last bit; after it the shuffling differs, as Lightning does not restore it.
    assert exact(resumed.history[:6]) == exact(whole.history[:6])
    assert exact(resumed.history.estimates()[:42]) == exact(whole.history.estimates()[:42])
    assert [(p.epoch, p.step, p.layer) for p in resumed.history] == [(p.epoch, p.step, p.layer) for p in whole.history]
    assert torch.equal(whole.plane.fitted_quantizers["hidden"].edges, resumed.plane.fitted_quantizers["hidden"].edges)
    assert exact(History.read_csv(resumed.figure_path.with_suffix(".csv"))) == exact(resumed.history)


def test_a_checkpoint_that_is_only_evaluated_leaves_the_history_alone(tmp_path):
    callback, checkpoint = InformationPlaneCallback(), ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    model, run = fit(tmp_path, callback, checkpoint, enable_checkpointing=True)
    history = History(callback.history.records())
    # Lightning takes weights_only since 2.6.
    safely = {"weights_only": True} if "weights_only" in inspect.signature(run.validate).parameters else {}
    run.validate(model, val_loader(), ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False, **safely)
    assert exact(callback.history) == exact(history)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_measures_when_the_whole_run_would_have(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    whole = InformationPlaneCallback(FIXED, every_n_epochs=3)
    fit(tmp_path, whole, checkpoint, enable_checkpointing=True, max_epochs=4)
    resumed = InformationPlaneCallback(FIXED, every_n_epochs=3)
    fit(tmp_path, resumed, max_epochs=4, ckpt_path=tmp_path / "epoch=1.ckpt", logger=False)
    assert epochs(resumed) == epochs(whole) == [0, 3]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_what_was_fitted_for_another_setup_is_not_taken_up(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    fit(tmp_path, InformationPlaneCallback(FROZEN), checkpoint, enable_checkpointing=True, max_epochs=1)
    options = {"max_epochs": 2, "ckpt_path": tmp_path / "epoch=0.ckpt", "logger": False}
    with pytest.raises(ValueError, match="the history so far is in bits, and the callback has unit='nats'"):
        fit(tmp_path, InformationPlaneCallback(unit="nats"), **options)
    changed = InformationPlaneCallback({"hidden": Quantizer(bins=UniformBins(3)), "out": None})
    sentence = r"the checkpoint's edges were fitted for .*UniformBins\(n_bins=4\).* are fitted anew"
    with pytest.warns(UserWarning, match=sentence):
        fit(tmp_path, changed, **options)
    assert changed.plane.fitted_quantizers["hidden"].edges.shape == (8, 2)
    fit(tmp_path, InformationPlaneCallback(), **options)  # cells have no edges: there is nothing to say


def test_fitting_on_with_the_same_trainer_goes_on_with_history_and_edges(tmp_path):
    model, callback = TinyModule(), InformationPlaneCallback(FROZEN)
    run = trainer(tmp_path, callback, max_epochs=2)
    run.fit(model, train_loader(), val_loader())
    edges = callback.plane.fitted_quantizers["hidden"].edges
    run.fit_loop.max_epochs = 4
    run.fit(model, train_loader(), val_loader())
    assert [p.epoch for p in callback.history] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert torch.equal(callback.plane.fitted_quantizers["hidden"].edges, edges)


def test_two_callbacks_in_one_trainer(tmp_path):
    first, second = InformationPlaneCallback(FIXED), InformationPlaneCallback(["out"], prefix="ib/auto", data="train")
    _, run = fit(tmp_path, first, second)
    assert first.state_key != second.state_key
    assert {"ib/I_XT/hidden", "ib/auto/I_XT/out"} <= set(run.callback_metrics)
    assert {path.name for path in tmp_path.rglob("*.csv")} == {f"information_plane{of}.csv" for of in ("", "_ib_auto")}
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `InformationPlaneCallback`"):
        fit(tmp_path, InformationPlaneCallback(), InformationPlaneCallback())


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"layers": []}, ValueError, "layers is empty"),
        ({"layers": "hidden"}, TypeError, r"Did you mean \['hidden'\]"),
        (
            {"layers": {"hidden": 30}},
            TypeError,
            "the layer 'hidden' needs a Quantizer, a CellQuantizer or None, got 30",
        ),
        ({"input": 4}, TypeError, "input must be a Quantizer or None, got 4"),
        ({"target": "class"}, TypeError, "target must be a Quantizer or None, got 'class'"),
        ({"data": "test"}, ValueError, "data must be None, 'train', 'val' or a DataLoader, got 'test'"),
        ({"data": 3}, TypeError, "data must be None, 'train', 'val' or a DataLoader, got 3"),
        ({"unpack": 1}, TypeError, "unpack must be a callable"),
        ({"every_n_epochs": 0}, ValueError, "every_n_epochs must be an integer of at least 1, got 0"),
        ({"unit": "bit"}, ValueError, "unit must be 'bits' or 'nats', got 'bit'"),
        ({"beta": float("nan")}, ValueError, "beta must be a finite number, got nan"),
        ({"prefix": ""}, ValueError, "prefix must be a name such as 'ib', got ''"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(options, error, sentence):
    with pytest.raises(error, match=sentence):
        InformationPlaneCallback(**options)


def never_trained(tmp_path, callback, error, sentence, **options):
    model = options.pop("model", None) or TinyModule()
    with pytest.raises(error, match=sentence):
        fit(tmp_path, callback, model=model, **options)
    assert model.losses == []
    assert not has_hooks(model)


def test_what_is_set_up_wrongly_stops_before_the_first_step(tmp_path):
    class Unused(TinyModule):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    def callback(*args, **kwargs):
        return InformationPlaneCallback(*args, **kwargs)

    never_trained(tmp_path, callback(["hiden"]), ValueError, "TinyModule has no layer 'hiden': did you mean 'hidden'?")
    never_trained(tmp_path, callback(["hidden.*"]), ValueError, r"has no layer 'hidden.\*'")
    never_trained(tmp_path, callback(["spare"]), RuntimeError, "layer 'spare' never ran", model=Unused())
    never_trained(tmp_path, callback(data="val"), ValueError, "data='val' needs validation data", val=None)
    never_trained(tmp_path, callback(data=[]), ValueError, "the data to measure on is empty")
    never_trained(tmp_path, callback(data=iter([1])), ValueError, "list_iterator, which can be read only once")
    never_trained(
        tmp_path, callback(unpack=lambda batch: batch[0]), ValueError, "unpack must return a pair .*, got a Tensor"
    )
    never_trained(
        tmp_path,
        callback({"hidden": Quantizer(lambda t: t.t(), FixedBins([0.0]))}),
        ValueError,
        "layer 'hidden' could not be recorded: the pool",
    )


def test_layers_that_no_one_named_and_that_never_run_are_left_out(tmp_path):
    class Unused(TinyModule):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(2, 2)

    callback = InformationPlaneCallback()
    with pytest.warns(UserWarning, match="layer 'spare' is left out: picked by default, it never ran"):
        fit(tmp_path, callback, model=Unused())
    assert {p.layer for p in callback.history} == {"hidden", "out"}
    assert epochs(callback) == [0, 1, 2, 3]


@pytest.mark.parametrize("quantizer", [None, Quantizer(bins=UniformBins(4))])
def test_a_layer_that_turns_nan_gives_nan_points_and_one_warning_and_comes_back(tmp_path, quantizer):
    class Sick(TinyModule):
        def validation_step(self, batch, batch_idx):
            sick = self.current_epoch in (1, 2)
            handle = self.hidden.register_forward_pre_hook(lambda m, args: args[0] * math.nan) if sick else None
            self(batch[0])
            if handle:
                handle.remove()

    callback = InformationPlaneCallback({"hidden": None, "act": quantizer})
    with pytest.warns(UserWarning, match="NaN or infinite") as caught:
        model, run = fit(tmp_path, callback, model=Sick(), max_epochs=4)
    messages = [str(w.message) for w in caught if "NaN" in str(w.message)]
    assert len(messages) == 2
    assert any("layer 'hidden' gave NaN or infinite values in 80 of 80 samples at epoch 2" in m for m in messages)
    assert [math.isnan(p.h_t) for p in callback.history if p.layer == "hidden"] == [False, False, True, True, False]
    probed = [
        math.isnan(one.value) for one in callback.history.estimates() if (one.layer, one.quantity) == ("act", "I_TY")
    ]
    assert probed == [False, False, True, True, False]
    assert len(model.losses) == 4 * N_TRAIN // 16


def test_a_measurement_that_fails_in_training_costs_its_points_not_the_run(tmp_path):
    broken = []

    def unpack(batch):
        if broken:
            raise RuntimeError("the disk is gone.")
        return batch

    class Breaking(TinyModule):
        def on_train_epoch_end(self):
            broken.clear()
            if self.current_epoch == 0:
                broken.append(True)

    for data in (None, "train"):
        callback = InformationPlaneCallback(FIXED, unpack=unpack, data=data)
        broken.clear()
        with pytest.warns(UserWarning, match="after epoch 2 failed, its points are NaN: the disk is gone."):
            model, _ = fit(tmp_path, callback, model=Breaking(), max_epochs=3)
        nan = [math.isnan(p.h_t) for p in callback.history if p.layer == "out"]
        assert nan == [False, False, True, False]
        assert not has_hooks(model)


def test_one_class_is_said(tmp_path):
    data = make_data(N_VAL)
    data.tensors = (data.tensors[0], torch.zeros(N_VAL, dtype=torch.long))
    callback = InformationPlaneCallback(FIXED)
    with pytest.warns(UserWarning, match="all 80 samples have the same target at epoch 0: H.Y. is 0") as caught:
        fit(tmp_path, callback, val=DataLoader(data, 16))
    assert len([w for w in caught if "same target" in str(w.message)]) == 1
    assert all(math.isnan(p.i_ty) and p.h_y == 0 and math.isfinite(p.i_xt) for p in callback.history)


# -- the default, on the real thing --------------------------------------------------------------------------------


class Thesis(pl.LightningModule):
    def __init__(self):
        super().__init__()
        net = ThesisNet()
        self.conv1, self.conv2, self.out = net.conv1, net.conv2, net.out

    forward = ThesisNet.forward

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.002)


@pytest.mark.slow
@pytest.mark.parametrize("data", [None, "train"])
def test_the_default_works_without_tuning_on_mnist(tmp_path, mnist_train, mnist_test, data):
    """Every layer it picks can be believed at every epoch, and the head comes to what its accuracy proves (Fano)."""
    train = DataLoader(torch.utils.data.TensorDataset(*(t[:10_000] for t in mnist_train)), 50, shuffle=True)
    val = DataLoader(torch.utils.data.TensorDataset(*(t[:5_000] for t in mnist_test)), 500)
    callback = InformationPlaneCallback(data=data)
    fit(tmp_path, callback, model=Thesis(), train=train, val=val, max_epochs=2)
    assert {p.layer for p in callback.history} == {"conv1.0", "conv2.0", "out"}
    assert {p.verdict for p in callback.history} == {"ok"}
    of = {layer: [p for p in callback.history if p.layer == layer] for layer in ("conv1.0", "conv2.0", "out")}
    for points in of.values():
        assert all(p.i_ty > p.i_ty_permuted + 1 for p in points)
        assert len({p.i_ty for p in points}) == 3
    before, *_, after = of["out"]
    assert after.i_ty > before.i_ty + 0.5, "the head learns the label"
    assert after.h_t < before.h_t - 1, "and gathers its samples into ten clusters"
    assert after.accuracy > 0.95
    assert after.i_ty > after.i_ty_fano - 2 * after.i_ty_se
    probed = {
        one.layer: one.value for one in callback.history.estimates() if one.epoch == 2 and one.quantity == "accuracy"
    }
    assert min(probed.values()) > 0.8


def test_uniform_bins_that_are_refitted_follow_the_layer(tmp_path):
    callback = InformationPlaneCallback({"out": Quantizer(bins=UniformBins(4, refit=True))})
    fit(tmp_path, callback)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(p.n_codes > 1 for p in callback.history)


# -- what a compiler sees, and models with few, late or lazy layers ----------------------------------------------------


class Exports(pl.Callback):
    """Exports the model whenever a user might, before and after the callback at work."""

    def __init__(self):
        self.exported = []

    def export(self, trainer, module):
        scripted = torch.jit.script(nn.Sequential(module.hidden, module.act, module.out))
        x, mode = torch.ones(2, 6), module.training
        module.eval()
        self.exported.append(torch.equal(scripted(x), module(x)) and not has_hooks(module))
        module.train(mode)

    on_train_start = on_train_epoch_end = on_train_end = on_fit_end = export

    def on_validation_end(self, trainer, module):
        self.export(trainer, module)

    def on_train_batch_end(self, trainer, module, *_):
        self.export(trainer, module)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated", "ignore:.*to_torchscript.* has been deprecated")
@pytest.mark.parametrize("val", ["default", None])
def test_the_model_can_be_exported_at_any_time_of_a_fit(tmp_path, val):
    class Exporting(TinyModule):
        def on_train_end(self):
            self.exported = [self.to_torchscript()]

    callback, before, after = InformationPlaneCallback(estimators=()), Exports(), Exports()
    model, _ = fit(tmp_path, before, callback, after, model=Exporting(), val=val, max_epochs=2)
    assert epochs(callback) == [0, 1, 2]
    assert all(before.exported + after.exported)
    assert len(before.exported) > 15
    assert torch.equal(model.exported[0].eval()(torch.ones(2, 6)), model.eval()(torch.ones(2, 6)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_a_torchscript_part_is_left_out_or_stops_a_fit_that_names_it(tmp_path):
    class Scripted(TinyModule):
        def __init__(self):
            super().__init__()
            self.hidden = torch.jit.script(nn.Sequential(nn.Linear(6, 8), nn.Tanh()))

    callback = InformationPlaneCallback()
    with pytest.warns(UserWarning, match="layer 'hidden' is not among the layers picked by default: TorchScript"):
        model, _ = fit(tmp_path, callback, model=Scripted(), max_epochs=1)
    assert not has_hooks(model.out)
    assert {p.layer for p in callback.history} == {"out"}
    model = Scripted()
    with pytest.raises(ValueError, match="layer 'hidden' is TorchScript, which takes no hooks: name a module of"):
        fit(tmp_path, InformationPlaneCallback(["out", "hidden"]), model=model)
    assert model.losses == []
    assert not has_hooks(model.out)


def in_both_ways(tmp_path, make, **options):
    """Train with the default callback and without: nothing may differ. The callback and what it warned of."""
    callback = InformationPlaneCallback()
    pl.seed_everything(7, verbose=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, _ = fit(tmp_path, callback, model=make(), **options)
    pl.seed_everything(7, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain, _ = fit(tmp_path, model=make(), **options)
    assert model.losses == plain.losses
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert not has_hooks(model)
    return callback, [str(warning.message) for warning in caught]


class Weightless(TinyModule):
    """Its weights are its own, and no layer has any."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 4))
        del self.hidden, self.out

    def forward(self, x):
        return x @ self.weight


class Speechless(nn.Linear):
    """It puts out nothing that can be measured, but where it is told to speak."""

    speaks = False

    def forward(self, x):
        return super().forward(x) if self.speaks else None


class Unfit(TinyModule):
    """None of its layers puts out anything."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 4))
        self.hidden, self.out = Speechless(6, 8), Speechless(8, 4)

    def forward(self, x):
        self.hidden(x)
        self.out(x)
        return x @ self.weight


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            Weightless,
            "ib: nothing is measured. Weightless has no leaf module with weights to watch by default: name",
        ),
        (Unfit, "ib: nothing is measured. layer 'hidden', 'out' could not be recorded"),
    ],
)
def test_a_model_without_a_layer_to_measure_trains_on(tmp_path, make, told):
    callback, warned = in_both_ways(tmp_path, make, val=None, max_epochs=1)
    assert sum(told in sentence for sentence in warned) == 1
    assert callback.history == History()
    assert not (tmp_path / "information_plane.csv").exists()
    never_trained(tmp_path, InformationPlaneCallback(["layer"]), ValueError, "has no layer 'layer'", model=make())
    never_trained(tmp_path, InformationPlaneCallback(head="out"), ValueError, "has no leaf module", model=Weightless())


def test_layers_that_fit_in_the_validation_loop_alone_are_measured_there(tmp_path):
    class Otherwise(Unfit):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.hidden.speaks = self.out.speaks = True
            self.out(self.hidden(batch[0]))
            self.hidden.speaks = self.out.speaks = False

    callback, warned = in_both_ways(tmp_path, Otherwise, max_epochs=1)
    assert epochs(callback) == [1]
    assert sum("there is no point before training: layer 'hidden', 'out' could not be" in told for told in warned) == 1


def test_a_target_that_does_not_fit_the_rows_of_any_layer_is_left_out(tmp_path):
    """As of a network that runs several views of every sample."""

    class Twofold(TinyModule):
        def forward(self, x):
            return super().forward(x.repeat_interleave(2, 0))[::2]

    callback, warned = in_both_ways(tmp_path, Twofold, max_epochs=1)
    assert {(point.n_samples, math.isnan(point.i_ty)) for point in callback.history} == {(2 * N_VAL, True)}
    (told,) = [one for one in warned if one.startswith("the target")]
    assert told.startswith(
        "the target has 16 rows where the layers put out 32, so I(X;T) and H(T) are measured without"
    )
    assert told.endswith('views of a batch at once, data="val" measures in a pass of its own.')


class Lazy(TinyModule):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.LazyLinear(8), nn.LazyLinear(4)


class Configured(TinyModule):
    def configure_model(self):
        if self.hidden.out_features == 8:
            self.hidden, self.out = nn.Linear(6, 9), nn.Linear(9, 4)


class Late(TinyModule):
    def training_step(self, batch, batch_idx):
        if not hasattr(self, "late"):
            self.late = nn.Linear(6, 3)
        self.late(batch[0])
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("val", ["default", None])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Lazy, "there is no point before training: 'hidden.weight' gets its values in the first forward"),
        (Configured, None),
        (Late, "layer 'late' is left out: it was made after the run began. Make it in __init__ or configure_model."),
    ],
)
def test_layers_made_late_are_measured_or_left_out(tmp_path, make, told, val):
    callback, warned = in_both_ways(tmp_path, make, val=val, max_epochs=2, num_sanity_val_steps=0)
    ours = [sentence for sentence in warned if "left out" in sentence or "before training" in sentence]
    assert len(ours) == (told is not None)
    assert all(told in sentence for sentence in ours)
    assert epochs(callback) == ([1, 2] if make is Lazy else [0, 1, 2])
    assert {point.layer for point in callback.history} == {"hidden", "out"}
