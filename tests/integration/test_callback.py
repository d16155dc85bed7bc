"""The callback in a real Trainer: when it measures, and that a resumed run measures the same."""

import inspect
import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib import FixedBins, InformationPlaneCallback, QuantileBins, Quantizer, UniformBins, measure
from lightning_ib.records import History
from tests.helpers.callbacks import FIXED, ModelCheckpoint, epochs
from tests.helpers.records import exact
from tests.helpers.tiny import N_TRAIN, N_VAL, TinyModule, fit, make_data, pl, train_loader, trainer, val_loader

pytestmark = pytest.mark.usefixtures("few_pictures", "few_probes")


FROZEN = {"hidden": Quantizer(bins=UniformBins(4)), "out": None}
"""Bins that are fitted and frozen beside the default, which is neither."""


# -- what is measured --------------------------------------------------------------------------------------------------


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


def test_uniform_bins_that_are_refitted_follow_the_layer(tmp_path):
    callback = InformationPlaneCallback({"out": Quantizer(bins=UniformBins(4, refit=True))})
    fit(tmp_path, callback)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(p.n_codes > 1 for p in callback.history)


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
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
    written = tmp_path / "lightning_logs" / "version_1" / "information_plane.csv"
    assert exact(History.read_csv(written)) == exact(resumed.history)


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
