"""The callback of gradients in real runs: training left alone, what its hook sees, histories shared, bad input."""

import copy
import math
import pickle
import re
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib import GradientSNRCallback, History, InformationPlaneCallback
from lightning_ib.callbacks.trainer import loss_scale
from lightning_ib.records import measurement_from_json
from tests.helpers.callbacks import ModelCheckpoint, equal, never_trained, trained_state
from tests.helpers.messages import exactly
from tests.helpers.tiny import BATCH, N_TRAIN, TinyModule, fit, make_data, pl, train_loader

pytestmark = pytest.mark.usefixtures("blank_pictures", "few_pictures", "few_probes")

N_STEPS = N_TRAIN // BATCH
QUANTITIES = ["grad_mean", "grad_std", "grad_snr", "grad_snr_unbiased", "grad_snr_floor"]
QUANTITIES += ["noise_scale", "weight_norm", "weight_distance"]


class Plain(TinyModule):
    """Plain SGD, and the gradients of each step as an optimizer sees them."""

    rate = 0.05

    def __init__(self):
        super().__init__()
        self.drop = nn.Identity()
        self.seen = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.seen.append(self.hidden.weight.grad.clone())


class Manual(TinyModule):
    """Two optimizers, the second stepping every other batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        first, second = self.optimizers()
        for optimizer in (first, second)[: 1 + batch_idx % 2]:
            optimizer.zero_grad()
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            second.step()
        self.losses.append(loss.item())

    def configure_optimizers(self):
        return [torch.optim.SGD(self.hidden.parameters(), 0.1), torch.optim.Adam(self.out.parameters(), 0.02)]


class Newton(TinyModule):
    def __init__(self):
        super().__init__()
        self.drop = nn.Identity()

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), 0.1, max_iter=4)


def of(callback, layer="hidden"):
    """Epoch → quantity → value of a layer."""
    found = {}
    for one in callback.history.gradients().records():
        if one.layer == layer:
            found.setdefault(one.epoch, {})[one.quantity] = one.value
    return found


# -- what training is owed ---------------------------------------------------------------------------------------------

RUNS = {
    "sgd": (Plain, {}),
    "adam, dropout": (TinyModule, {}),
    "accumulated": (TinyModule, {"accumulate_grad_batches": 4}),
    "clipped": (TinyModule, {"gradient_clip_val": 0.05}),
    "bf16": (TinyModule, {"precision": "bf16-mixed"}),
    "two optimizers": (Manual, {}),
    "lbfgs": (Newton, {}),
}


@pytest.mark.parametrize(
    ("run", "beside"), [*((name, False) for name in RUNS), ("adam, dropout", True), ("two optimizers", True)]
)
def test_training_is_bit_identical_with_and_without(tmp_path, run, beside):
    make, options = RUNS[run]
    found = []
    for callbacks in ([GradientSNRCallback(sketch=None if beside else 32)], []):
        if callbacks and beside:
            callbacks.append(InformationPlaneCallback(estimators=()))
        model, trainer = fit(tmp_path, *callbacks, model=seeded(make), **options)
        found.append([model.state_dict(), torch.get_rng_state(), {"losses": model.losses}])
        if callbacks:
            assert sorted(of(callbacks[0])) == [1, 2, 3]
            assert of(callbacks[0])[3]["grad_mean"] > 0
    assert all(map(equal, *found))


def seeded(make):
    pl.seed_everything(7, verbose=False)
    return make()


def test_with_all_random_states_and_no_validation(tmp_path):
    with_it = trained_state(tmp_path, GradientSNRCallback(), val=False, generator=True)
    without = trained_state(tmp_path, val=False, generator=True)
    assert all(equal(with_it[part], without[part]) for part in without)


# -- what the hook sees ------------------------------------------------------------------------------------------------


def test_plain_sgd_goes_the_way_of_its_gradients(tmp_path):
    """w_end − w_start = −lr Σ g, so that the distance of one epoch is lr · M · ‖mean gradient‖."""
    callback = GradientSNRCallback()
    model, _ = fit(tmp_path, callback, model=Plain())
    for layer in ("hidden", "out", "all_layers"):
        first = of(callback, layer)[1]
        assert first["weight_distance"] == pytest.approx(Plain.rate * N_STEPS * first["grad_mean"], rel=1e-6)
    g = torch.stack(model.seen).double().view(3, N_STEPS, -1)
    for epoch, found in of(callback).items():
        assert found["grad_mean"] == pytest.approx(float(g[epoch - 1].mean(0).norm()), rel=1e-6)
        assert found["grad_std"] == pytest.approx(float(g[epoch - 1].var(0).sum().sqrt()), rel=1e-5)
        assert list(found) == QUANTITIES
    assert of(callback)[1]["grad_snr_floor"] == pytest.approx(1 / math.sqrt(N_STEPS))
    assert {one.n_samples for one in callback.history.gradients().records()} == {N_TRAIN}


def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path):
    """At fixed weights, in a fixed order: two accumulated batches of eight are one of sixteen."""
    found = []
    for batch, every in ((BATCH, 1), (BATCH // 2, 2)):
        callback, model = GradientSNRCallback(), Plain()
        model.rate = 0.0
        loader = DataLoader(make_data(N_TRAIN), batch)
        fit(tmp_path, callback, model=seeded(type(model)), train=loader, accumulate_grad_batches=every, max_epochs=1)
        found.append(of(callback)[1])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_clipping_comes_after(tmp_path):
    found = []
    for options in ({}, {"gradient_clip_val": 1e-3}):
        callback = GradientSNRCallback(every_n_train_steps=2)
        fit(tmp_path, callback, model=seeded(Plain), max_epochs=1, **options)
        first = callback.history.gradients().records()[0]
        assert (first.epoch, first.step, first.quantity) == (0, 2, "grad_mean")
        found.append(first.value)
    assert found[1] > 0.5 * found[0] > 1e-3


def test_an_optimizer_counts_the_steps_that_it_takes(tmp_path):
    callback = GradientSNRCallback()
    fit(tmp_path, callback, model=Manual(), max_epochs=1)
    records = {(one.layer, one.quantity): one for one in callback.history.gradients().records()}
    assert records["hidden", "grad_snr_floor"].value == pytest.approx(1 / math.sqrt(N_STEPS))
    assert records["out", "grad_snr_floor"].value == pytest.approx(1 / math.sqrt(N_STEPS // 2))
    assert records["hidden", "grad_mean"].n_samples == N_TRAIN
    assert records["out", "grad_mean"].n_samples == N_TRAIN // 2  # of the batches that it steps on


def test_a_step_of_lbfgs_counts_once(tmp_path):
    callback = GradientSNRCallback()
    fit(tmp_path, callback, model=Newton(), max_epochs=1)
    assert of(callback)[1]["grad_snr_floor"] == pytest.approx(1 / math.sqrt(N_STEPS))
    assert {one.n_samples for one in callback.history.gradients().records()} == {N_TRAIN}


def test_steps_and_chosen_epochs(tmp_path):
    by_step, chosen = GradientSNRCallback(every_n_train_steps=4), GradientSNRCallback(epochs=[1, 3], prefix="chosen")
    fit(tmp_path, by_step, chosen)
    steps = {(one.epoch, one.step) for one in by_step.history.gradients().records()}
    assert steps == {(0, 4), (1, 8), (2, 12), (2, 16)}
    assert sorted(of(chosen)) == [1, 3]
    assert of(chosen)[3]["grad_snr_floor"] == pytest.approx(1 / math.sqrt(N_STEPS))


@pytest.mark.filterwarnings("ignore:.* there was one optimizer step to measure")
def test_gradients_at_steps_are_those_since_the_step_before(tmp_path):
    listed, log = GradientSNRCallback(at_steps=[0, 2, 6, 9]), GradientSNRCallback(at_steps="log", prefix="log")
    fit(tmp_path, listed, log, max_epochs=2)
    floors = {one.step: one.value for one in listed.history.gradients().records() if one.quantity == "grad_snr_floor"}
    assert floors == pytest.approx({2: 2**-0.5, 6: 0.5, 9: 3**-0.5})
    assert [*dict.fromkeys(one.step for one in log.history.records())] == [1, 2, 3, 4, 5, 6, 8, 10]


def test_an_epoch_that_is_cut_short_counts(tmp_path):
    callback = GradientSNRCallback()
    fit(tmp_path, callback, max_steps=N_STEPS + 2, max_epochs=-1)
    assert of(callback)[2]["grad_snr_floor"] == pytest.approx(1 / math.sqrt(2))


class Half(TinyModule):
    """A step whose gradients are infinite, as float16 makes them now and then."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * math.inf if batch_idx == 1 else loss


def scaler_of(tmp_path, **options):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugin = pl.plugins.precision.MixedPrecision("16-mixed", "cpu", scaler=scaler)
    return {"plugins": [plugin], "max_epochs": 1, **options}


def test_steps_that_a_loss_scaler_skips_are_left_out(tmp_path):
    callback = GradientSNRCallback()
    with pytest.warns(UserWarning, match="1 steps? before this, after epoch 1, were skipped by the loss scaler"):
        fit(tmp_path, callback, model=Half(), **scaler_of(tmp_path))
    found = of(callback)[1]
    assert found["grad_snr_floor"] == pytest.approx(1 / math.sqrt(N_STEPS - 1))
    assert 0 < found["grad_mean"] < 10  # unscaled


def test_gradients_that_an_optimizer_unscales_itself_are_unscaled(tmp_path):
    model, run = fit(tmp_path, **scaler_of(tmp_path))
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.out.weight.grad = torch.ones_like(model.out.weight)
    assert loss_scale(run, optimizer) == 1
    optimizer._step_supports_amp_scaling = True
    assert loss_scale(run, optimizer) == run.precision_plugin.scaler.get_scale() > 1
    model.out.weight.grad[0, 0] = math.nan
    assert loss_scale(run, optimizer) is None


def test_epochs_that_are_left_out_count_for_nothing(tmp_path):
    found = []
    for options in ({}, {"every_n_epochs": 3}, {"epochs": [3]}):
        callback = GradientSNRCallback(**options)
        fit(tmp_path, callback)
        found.append([one for one in callback.history.records() if one.epoch == 3])
    assert found[0] == found[1] == found[2]


# -- where it goes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["plane", "gradients"])
@pytest.mark.parametrize("options", [{}, {"data": "train"}])
def test_beside_a_plane_both_share_a_history_and_a_file(tmp_path, first, options):
    plane, gradients = InformationPlaneCallback(estimators=(), **options), GradientSNRCallback()
    callbacks = [plane, gradients] if first == "plane" else [gradients, plane]
    logger = pl.loggers.CSVLogger(tmp_path)
    fit(tmp_path, *callbacks, logger=logger)
    assert gradients.history is plane.history
    assert len(plane.history) == 4 * 2
    assert sorted(of(plane)) == [1, 2, 3]
    (csv,) = (tmp_path / "lightning_logs").rglob("information_plane.csv")
    assert History.read_csv(csv) == plane.history
    assert not list(csv.parent.glob("gradients*.csv"))
    alone = InformationPlaneCallback(estimators=(), **options)
    fit(tmp_path, alone)
    assert plane.history.information() == alone.history
    again = GradientSNRCallback()
    fit(tmp_path, again)
    assert plane.history.gradients() == again.history


@pytest.mark.slow
def test_alone_it_has_files_of_its_own_and_tags(tmp_path, pictures):
    callback = GradientSNRCallback()
    _, run = fit(tmp_path, callback, logger=pl.loggers.TensorBoardLogger(tmp_path))
    folder = next(tmp_path.rglob("gradients.csv")).parent
    assert History.read_csv(folder / "gradients.csv") == callback.history
    assert (folder / "gradients.png").is_file()
    assert (folder / "gradients.svg").is_file()
    assert callback.figure_path == folder / "gradients.png"
    assert not (folder / "information_plane.csv").exists()
    for quantity in QUANTITIES:
        group = "ib_diagnostics" if quantity in ("grad_snr_unbiased", "grad_snr_floor") else "ib"
        assert float(run.callback_metrics[f"{group}/{quantity}/hidden"]) == pytest.approx(of(callback)[3][quantity])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()
    logged = events.Scalars("ib/grad_snr/hidden")
    assert [one.step for one in logged] == [N_STEPS - 1, 2 * N_STEPS - 1, 3 * N_STEPS - 1]
    assert [one.value for one in logged] == pytest.approx([of(callback)[epoch]["grad_snr"] for epoch in (1, 2, 3)])
    assert "ib/gradients" in events.Tags()["images"]


def test_a_later_fit_of_the_plane_alone_has_no_gradients(tmp_path):
    plane = InformationPlaneCallback(estimators=())
    fit(tmp_path, plane, GradientSNRCallback(), max_epochs=1)
    fit(tmp_path, plane, max_epochs=1)
    assert len(plane.history) == 4
    assert not plane.history.gradients().records()


def test_it_can_be_pickled_after_a_fit(tmp_path):
    callback = GradientSNRCallback()
    fit(tmp_path, callback, max_epochs=1)
    again = pickle.loads(pickle.dumps(callback))
    assert again.history == callback.history
    assert equal(again.state_dict()["frozen"], callback.state_dict()["frozen"])


def test_its_values_can_be_monitored(tmp_path):
    stop = pl.callbacks.EarlyStopping("ib/grad_snr/out", stopping_threshold=1e9, mode="min")
    best = ModelCheckpoint(tmp_path, monitor="ib/weight_distance/all_layers", mode="max", filename="best")
    callback = GradientSNRCallback()
    _, run = fit(tmp_path, stop, best, callback, enable_checkpointing=True)
    assert sorted(of(callback)) == [1]
    assert float(best.best_model_score) == pytest.approx(of(callback, "all_layers")[1]["weight_distance"])


# -- a run that goes on ------------------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on(tmp_path):
    whole = GradientSNRCallback()
    loader = DataLoader(make_data(N_TRAIN), BATCH)
    fit(tmp_path, whole, model=seeded(Plain), train=loader, max_epochs=4)
    first = GradientSNRCallback()
    _, run = fit(tmp_path, first, model=seeded(Plain), train=loader, max_epochs=2)
    run.save_checkpoint(tmp_path / "last.ckpt")
    second = GradientSNRCallback()
    fit(tmp_path, second, model=Plain(), train=loader, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert second.history == whole.history


def test_a_checkpoint_of_the_validation_holds_the_epoch(tmp_path):
    callback = GradientSNRCallback()
    saving = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, filename="{epoch}")
    fit(tmp_path, callback, saving, enable_checkpointing=True, max_epochs=2)
    held = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["callbacks"]
    state = held["GradientSNRCallback{'prefix': 'ib'}"]
    assert set(state["history"]["epoch"]) == {1}
    assert set(state["frozen"]["start"]) == {"hidden.weight", "out.weight"}


def test_a_second_fit_goes_on_and_a_fresh_one_begins_anew(tmp_path):
    callback, model = GradientSNRCallback(), Plain()
    pl.seed_everything(7, verbose=False)
    from tests.helpers.tiny import trainer

    run = trainer(tmp_path, callback, max_epochs=1)
    run.fit(model, train_loader())
    start = copy.deepcopy(callback.session.frozen_state())
    run.fit_loop.max_epochs = 2
    run.fit(model, train_loader())
    assert sorted(of(callback)) == [1, 2]
    assert equal(callback.session.frozen_state(), start)
    fit(tmp_path, callback, max_epochs=1)
    assert sorted(of(callback)) == [1]
    assert not equal(callback.session.frozen_state(), start)


def test_another_sketch_goes_on_where_it_can(tmp_path):
    """A sketch is taken of the weights of the start; from a sketch they cannot be had back."""
    loader, found = DataLoader(make_data(N_TRAIN), BATCH), {}
    for name, (first, second) in {"same": (None, None), "to": (None, 16), "from": (16, None)}.items():
        _, run = fit(tmp_path, GradientSNRCallback(sketch=first), model=seeded(Plain), train=loader, max_epochs=2)
        run.save_checkpoint(tmp_path / f"{name}.ckpt")
        callback = GradientSNRCallback(sketch=second)
        resumed = {"train": loader, "max_epochs": 3, "ckpt_path": tmp_path / f"{name}.ckpt"}
        if name == "from":
            with pytest.warns(UserWarning, match="the weights of the start are a sketch of another size"):
                fit(tmp_path, callback, model=seeded(Plain), **resumed)
        else:
            fit(tmp_path, callback, model=seeded(Plain), **resumed)
        found[name] = of(callback, "all_layers")[3]["weight_distance"]
    assert found["to"] == pytest.approx(found["same"], rel=0.5)
    assert found["from"] < 0.8 * found["same"]


def test_a_state_that_is_damaged_costs_what_is_damaged(tmp_path):
    callback = GradientSNRCallback()
    callback.load_state_dict({"version": 2, "history": {"epoch": [1]}, "frozen": 3})
    with pytest.warns(UserWarning, match="the weights of the start are missing, so that distances are from where"):
        fit(tmp_path, callback, max_epochs=1)
    assert sorted(of(callback)) == [1]


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_one_batch_an_epoch_is_nan_and_one_warning(tmp_path):
    callback = GradientSNRCallback()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, callback, train=train_loader(batch_size=N_TRAIN))
    ours = [str(one.message) for one in caught if str(one.message).startswith("ib:")]
    assert len(ours) == 1
    assert ours[0].startswith("ib: after epoch 1 there was one optimizer step to measure")
    for found in of(callback).values():
        assert found["grad_mean"] > 0
        assert all(math.isnan(found[name]) for name in ("grad_std", "grad_snr", "grad_snr_unbiased", "noise_scale"))


def test_layers_that_take_no_part_are_named_once(tmp_path):
    class Spare(TinyModule):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(3, 2)

    callback = GradientSNRCallback()
    with pytest.warns(
        UserWarning, match="after epoch 1 no gradient came to the weights of 'spare', which take no part"
    ):
        fit(tmp_path, callback, model=Spare())
    assert of(callback, "spare")[2]["weight_norm"] > 0


def test_gradients_that_are_infinite_are_named_once(tmp_path):
    callback = GradientSNRCallback()
    with pytest.warns(UserWarning, match="gradients of 'hidden', 'out' were infinite or NaN"):
        fit(tmp_path, callback, model=Half(), max_epochs=1)
    assert math.isnan(of(callback)[1]["grad_mean"])


def test_a_batch_of_unknown_size_costs_the_noise_scale(tmp_path):
    class Hostile(dict):
        def keys(self):
            raise RuntimeError("no keys.")

    class Odd(Plain):
        def training_step(self, batch, batch_idx):
            return super().training_step((dict.__getitem__(batch, "a"), dict.__getitem__(batch, "b")), batch_idx)

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            return batch

    class Loader:
        def __iter__(self):
            return (Hostile(a=x, b=y) for x, y in DataLoader(make_data(N_TRAIN), BATCH))

    batches = Loader()
    callback = GradientSNRCallback()
    with pytest.warns(
        UserWarning, match="the size of a batch is unknown, and noise_scale, which needs it, is NaN. Give"
    ):
        fit(tmp_path, callback, model=Odd(), train=batches, max_epochs=1)
    assert math.isnan(of(callback)[1]["noise_scale"])
    named = GradientSNRCallback(unpack=lambda batch: (dict.__getitem__(batch, "a"), None))
    fit(tmp_path, named, model=Odd(), train=batches, max_epochs=1)
    assert named.history.records()[0].n_samples == N_TRAIN


def test_of_a_pattern_the_layers_with_weights_are_meant(tmp_path):
    callback = GradientSNRCallback(["**"])
    fit(tmp_path, callback, max_epochs=1)
    assert {one.layer for one in callback.history.records()} == {"hidden", "out", "all_layers"}
    message = "'dro*' match no layer with weights in TinyModule: name one that has, such as 'hidden'."
    never_trained(tmp_path, GradientSNRCallback(["dro*"]), ValueError, exactly(message))


def test_a_wrong_layer_stops_the_run_before_it_begins(tmp_path):
    near = "TinyModule has no layer 'hiden': did you mean 'hidden'?"
    never_trained(tmp_path, GradientSNRCallback(["hiden"]), ValueError, exactly(near))
    message = "layer 'act' (Tanh) has no weights, and so no gradients: name one that has, such as 'hidden'."
    never_trained(tmp_path, GradientSNRCallback(["act"]), ValueError, exactly(message))


def test_a_model_without_layers_trains_all_the_same(tmp_path):
    class Bare(TinyModule):
        def __init__(self):
            super().__init__()
            del self.hidden, self.act, self.drop, self.out
            self.weights = nn.Parameter(torch.zeros(6, 4))

        def forward(self, x):
            return x @ self.weights

    callback = GradientSNRCallback()
    with pytest.warns(UserWarning, match="no gradients are recorded: Bare has no leaf module with weights"):
        model, _ = fit(tmp_path, callback, model=Bare())
    assert len(model.losses) == 3 * N_STEPS
    assert not callback.history.records()


def test_a_strategy_that_keeps_gradients_is_named(tmp_path):
    class DeepSpeedStrategy(pl.strategies.SingleDeviceStrategy):
        pass

    callback = GradientSNRCallback()
    with pytest.warns(UserWarning, match="DeepSpeedStrategy keeps the gradients to itself, so that they are unavail"):
        model, _ = fit(tmp_path, callback, strategy=DeepSpeedStrategy("cpu"))
    assert len(model.losses) == 3 * N_STEPS


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prefix": ""}, ValueError, "prefix must be a name such as 'ib', got ''."),
        ({"verbose": 1}, TypeError, "verbose must be True or False, got 1."),
        ({"every_n_epochs": 2, "epochs": [1]}, ValueError, "give one schedule, got every_n_epochs and epochs."),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=exactly(message)):
        GradientSNRCallback(**arguments)


@pytest.mark.parametrize("beside", [False, True])
def test_tensorboard_has_a_chart_for_each_quantity(tmp_path, beside):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2

    callbacks = [GradientSNRCallback(), *([InformationPlaneCallback(estimators=())] if beside else [])]
    fit(tmp_path, *callbacks, logger=pl.loggers.TensorBoardLogger(tmp_path), max_epochs=1)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    found = EventAccumulator(str(events), {"tensors": 0, "scalars": 0}).Reload()
    (layout,) = found.Tensors("custom_scalars__config__")
    sections = {one.title: one for one in layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category}
    assert ("Information plane (ib)" in sections) == beside
    charts = sections["Gradients (ib)"].chart
    assert len(charts) == len(QUANTITIES) - 1
    tags = found.Tags()["scalars"]
    for chart in charts:
        (pattern,) = chart.multiline.tag
        assert sum(re.match(pattern, tag) is not None for tag in tags) == 3, chart.title


def test_the_page_has_one_measurement_of_both(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callbacks = [InformationPlaneCallback(estimators=()), GradientSNRCallback()]
    fit(tmp_path, *callbacks, logger=pl.loggers.TensorBoardLogger(tmp_path), max_epochs=2)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    texts = EventAccumulator(str(events), {"tensors": 0}).Reload().Tensors("ib/measurement")
    last = History()
    for text in texts:  # a later one takes the place of that of the same moment
        measured = measurement_from_json(text.tensor_proto.string_val[0].decode())
        moments = {record[:2] for record in measured.records()}
        last = History(record for record in last.records() if record[:2] not in moments) + measured
    whole = callbacks[0].history
    assert sorted(map(repr, last.records())) == sorted(map(repr, whole.records()))
