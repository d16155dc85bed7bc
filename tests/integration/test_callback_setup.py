"""Wrong arguments, bad data, and models of every make: refused in a sentence, or left out in a warning."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib import FixedBins, InformationPlaneCallback, Quantizer, UniformBins
from lightning_ib.records import History
from tests.helpers.callbacks import FIXED, epochs, never_trained
from tests.helpers.tiny import N_TRAIN, N_VAL, TinyModule, fit, has_hooks, make_data, pl

pytestmark = pytest.mark.usefixtures("few_pictures", "few_probes")

# -- bad input ---------------------------------------------------------------------------------------------------------


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
@pytest.mark.usefixtures("probes")
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


@pytest.mark.slow
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


def test_a_monitor_finds_every_name_from_the_first_measurement_on_also_of_a_layer_that_is_not_finite(tmp_path):
    class Broken(TinyModule):
        def __init__(self):
            super().__init__()
            with torch.no_grad():
                self.hidden.weight.fill_(float("nan"))

    names = [f"ib/{name}/hidden" for name in ("I_XT", "I_TY", "H_T")] + ["ib_diagnostics/saturation/hidden"]
    stops = [pl.callbacks.EarlyStopping(name, check_finite=False) for name in names]
    with pytest.warns(UserWarning, match="NaN or infinite"):
        fit(tmp_path, InformationPlaneCallback(), *stops, model=Broken(), max_epochs=1)
