"""The default callback in runs of every kind: they train as they do without it, and what can be measured is."""

import math
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_ib import InformationPlaneCallback, measure, resolution_sweep
from tests.helpers.tiny import has_hooks, make_data, pl, trainer

pytestmark = pytest.mark.usefixtures("few_pictures", "few_probes")


N = 64
X, Y = make_data(N)[:]


class Anything(pl.LightningModule):
    """Trains on whatever a batch holds: its first tensor, of shape (B, 6)."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.losses = []

    def forward(self, x):
        return self.net(inputs(x))

    def training_step(self, batch, batch_idx):
        loss = self(batch).square().mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def inputs(batch):
    if isinstance(batch, torch.Tensor):
        return batch
    if isinstance(batch, dict):
        return inputs(next(iter(batch.values())))
    return inputs(batch[0]) if isinstance(batch, (tuple, list)) else batch.image


@dataclass
class Pair:
    image: torch.Tensor
    target: torch.Tensor


class Rows(Dataset):
    """Samples made by a function of their number."""

    def __init__(self, of):
        self.of = of

    def __len__(self):
        return N

    def __getitem__(self, i):
        return self.of(i)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y))


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield from zip(X, Y)


class NoLength:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        raise NotImplementedError


class Anew(NoLength):
    """It has a ``__next__``, and begins anew whenever it is asked for its iterator."""

    def __iter__(self):
        self.current = iter(self.loader)
        return self.current

    def __next__(self):
        return next(self.current)


def rows(of, **options):
    return lambda: DataLoader(Rows(of), **({"batch_size": 16} | options))


def pairs(xs):
    return Pair(torch.stack([x for x, _ in xs]), torch.stack([y for _, y in xs]))


def some_none(xs):
    return None if xs[0][2] == 16 else torch.utils.data.default_collate([x[:2] for x in xs])


NONE = "none at times"
BATCHES = {
    "a tensor": (rows(lambda i: X[i]), None),
    "a tuple of one": (rows(lambda i: (X[i],)), None),
    "three": (rows(lambda i: (X[i], Y[i], i)), None),
    "a dictionary": (rows(lambda i: {"x": X[i], "labels": Y[i]}), 2.0),
    "a dictionary without a label": (rows(lambda i: {"x": X[i], "z": Y[i]}), None),
    "a dataclass": (rows(lambda i: (X[i], Y[i]), collate_fn=pairs), 2.0),
    "strings": (rows(lambda i: (X[i], "abcd"[Y[i]])), None),
    "real numbers": (rows(lambda i: (X[i], X[i, 0])), math.log2(6)),
    "rows of real numbers": (rows(lambda i: (X[i], X[i])), ...),
    "yes and no": (rows(lambda i: (X[i], (Y[i] >= torch.arange(1, 4)).float())), 2.0),
    "tokens": (rows(lambda i: (X[i], Y[i] + torch.arange(5))), None),
    "a mask": (rows(lambda i: (X[i], Y[i] + torch.arange(9).view(3, 3))), None),
    "a detection": (rows(lambda i: (X[i], [{"box": i}]), collate_fn=lambda b: (X[:16], [{}] * 16)), None),
    "two views": (rows(lambda i: ((X[i], X[i]), Y[i])), 2.0),
    NONE: (rows(lambda i: (X[i], Y[i], i), collate_fn=some_none), 2.0),
    "one sample at a time": (rows(lambda i: (X[i], Y[i]), batch_size=None), None),
}
LOADERS = {
    "a stream": lambda: DataLoader(Stream(), 16),
    "no length": lambda: NoLength(DataLoader(Stream(), 16)),
    "begins anew": lambda: Anew(rows(lambda i: (X[i], Y[i]))()),
    "batches at hand": lambda: NoLength(list(zip(X.split(16), Y.split(16)))),
    "a list of one loader": lambda: [rows(lambda i: (X[i], Y[i]))()],
    "two loaders": lambda: {"a": rows(lambda i: (X[i], Y[i]))(), "b": rows(lambda i: (X[i], Y[i]))()},
    "combined": lambda: pl.utilities.CombinedLoader([rows(lambda i: (X[i], Y[i]))()] * 2, "max_size_cycle"),
}


def fitted(tmp_path, module, train, val, *callbacks, **options):
    """The losses of a run, the warnings of the callback in it, and whether it left a hook."""
    torch.manual_seed(0)
    model = module()
    options = {"max_epochs": 2, "num_sanity_val_steps": 0, "logger": False} | options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, *callbacks, **options).fit(model, train(), None if val is None else val())
    assert not has_hooks(model)
    return model.losses, [str(one.message) for one in caught]


# Lightning hands None to a validation step, where it leaves it out of training.
KINDS = [(name, validates) for name in BATCHES for validates in (True, False) if (name, validates) != (NONE, True)]


@pytest.mark.parametrize(("name", "validates"), KINDS)
def test_batches_of_every_kind(tmp_path, name, validates):
    loader, h_y = BATCHES[name]
    val = loader if validates else None
    alone, _ = fitted(tmp_path, Anything, loader, val, max_epochs=1)
    callback = InformationPlaneCallback()
    losses, told = fitted(tmp_path, Anything, loader, val, callback, max_epochs=1)
    assert losses == alone
    assert [one for one in told if "failed" in one] == []
    if name == "one sample at a time":
        return
    last = callback.history[-2:]
    assert [(point.layer, point.epoch) for point in last] == [("net.0", 1), ("net.2", 1)]
    assert all(math.isfinite(point.h_t) for point in last)
    if h_y is None:
        assert len([one for one in told if "measured without" in one]) == 1
        assert all(math.isnan(point.i_ty) for point in last)
    else:
        assert all(math.isfinite(point.i_ty) for point in last)
        assert h_y is ... or last[0].h_y == pytest.approx(h_y, abs=0.02)


@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("name", LOADERS)
def test_loaders_of_every_make(tmp_path, name, validates):
    loader = LOADERS[name]

    class Module(Anything):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch)

    val = loader if validates else None
    alone, _ = fitted(tmp_path, Module, loader, val)
    callback = InformationPlaneCallback()
    losses, told = fitted(tmp_path, Module, loader, val, callback)
    assert losses == alone
    assert [one for one in told if "failed" in one] == []
    assert {point.epoch for point in callback.history} == {0, 1, 2}
    assert {point.n_samples for point in callback.history} == {N}


def test_endless_data_is_measured_up_to_a_number_of_samples(tmp_path):
    options = {"max_epochs": -1, "max_steps": 3}
    alone, _ = fitted(tmp_path, Anything, lambda: DataLoader(Endless(), 16), None, **options)
    callback = InformationPlaneCallback(max_samples=100)
    losses, _ = fitted(tmp_path, Anything, lambda: DataLoader(Endless(), 16), None, callback, **options)
    assert losses == alone
    assert callback.history[0].n_samples == 100


@pytest.mark.parametrize("validates", [True, False])
def test_data_that_is_used_up_by_one_pass(tmp_path, validates):
    def once():
        return (pair for pair in zip(X.split(16), Y.split(16)))

    val = LOADERS["batches at hand"] if validates else None
    alone, _ = fitted(tmp_path, Anything, once, val, max_epochs=1)
    callback = InformationPlaneCallback()
    losses, told = fitted(tmp_path, Anything, once, val, callback, max_epochs=1)
    assert losses == alone
    assert {point.epoch for point in callback.history} == ({0, 1} if validates else set())
    assert sum("the layers are not measured in this run" in one for one in told) == (not validates)


class NoForward(Anything):
    def training_step(self, batch, batch_idx):
        loss = self.net(batch[0]).square().mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self.net(batch[0])

    forward = pl.LightningModule.forward


class TwoArguments(NoForward):
    def forward(self, x, scale):
        return self.net(x) * scale


@pytest.mark.parametrize("module", [NoForward, TwoArguments])
@pytest.mark.parametrize("validates", [True, False])
def test_modules_that_a_pass_of_its_own_cannot_call(tmp_path, module, validates):
    loader = rows(lambda i: (X[i], Y[i]))
    val = loader if validates else None
    alone, _ = fitted(tmp_path, module, loader, val)
    callback = InformationPlaneCallback()
    losses, told = fitted(tmp_path, module, loader, val, callback)
    assert losses == alone
    assert {point.epoch for point in callback.history} == ({1, 2} if validates else set())
    lacks = "there is no point before training" if validates else "the layers are not measured in this run"
    assert sum(lacks in one for one in told) == 1


def test_what_was_named_and_cannot_work_stops_before_the_first_step(tmp_path):
    loader = rows(lambda i: (X[i], Y[i]))
    for options in ({"layers": ["net.0"]}, {"data": "train"}, {"unpack": lambda batch: batch}):
        with pytest.raises(RuntimeError, match="calls TwoArguments as module"):
            fitted(tmp_path, TwoArguments, loader, None, InformationPlaneCallback(**options))


@pytest.mark.parametrize("early", ["no batch", "no forward"])
@pytest.mark.parametrize("first", [True, False])
def test_a_validation_batch_that_is_not_run_is_left_out(tmp_path, early, first):
    class Skipping(Anything):
        def validation_step(self, batch, batch_idx):
            if batch is not None and len(batch[0]) != 15:
                self(batch)

        def training_step(self, batch, batch_idx):
            return None if batch is None else super().training_step(batch, batch_idx)

    batches = [(X[k : k + 16], Y[k : k + 16]) for k in range(0, N, 16)]
    batches.insert(0 if first else 2, None if early == "no batch" else (X[:15], Y[:15]))

    class Batches:
        def __iter__(self):
            return iter(batches)

    callback = InformationPlaneCallback()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*measurement.*|.*never ran.*|.*target.*")
        warnings.filterwarnings(
            "ignore", ".*yielded None.*|no layer ran in 1 of 5 batches at epoch .: they are left out"
        )
        trainer(tmp_path, callback, max_epochs=2).fit(Skipping(), Batches(), Batches())
    ran = {point.epoch: point.n_samples for point in callback.history}
    assert ran == {0: N + 15 * (early == "no forward"), 1: N, 2: N}  # before training a pass of its own runs them all


def test_layers_that_run_in_no_batch_of_a_validation_are_named(tmp_path):
    class Idle(Anything):
        def validation_step(self, batch, batch_idx):
            pass

    callback = InformationPlaneCallback(["net.0"])
    data = DataLoader(Rows(lambda i: (X[i], Y[i])), 16)
    with pytest.warns(
        UserWarning, match="points are NaN: layer 'net.0' never ran in this forward, so there is nothing"
    ):
        trainer(tmp_path, callback, max_epochs=1).fit(Idle(), data, data)
    assert [point.n_samples for point in callback.history] == [N, 0]


class Decoder(nn.Module):
    """It cannot do without labels, as encoders with a decoder of Hugging Face."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 8), nn.Embedding(4, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, x, labels=None):
        if labels is None:
            raise ValueError("You must specify labels")
        return self.out(self.encode(x) + self.decode(labels))


@pytest.mark.parametrize("keywords", ["named", "any"])
def test_labels_are_keywords_where_forward_takes_them(tmp_path, keywords):
    class Module(Anything):
        def __init__(self):
            super().__init__()
            self.net = Decoder()

        def training_step(self, batch, batch_idx):
            return self(**batch).square().mean()

    class Named(Module):
        def forward(self, x, labels=None):
            return self.net(x, labels)

    class Any(Module):
        def forward(self, **inputs):
            return self.net(**inputs)

    labels = Y[torch.randperm(N)]
    data = DataLoader(Rows(lambda i: {"x": X[i], "labels": labels[i]}), 16)
    callback = InformationPlaneCallback()
    trainer(tmp_path, callback, max_epochs=1).fit(Named() if keywords == "named" else Any(), data)
    assert [point.layer for point in callback.history] == ["net.encode", "net.decode", "net.out"] * 2
    assert all(math.isfinite(point.i_ty) for point in callback.history)


def test_layers_that_never_ran_are_left_out_in_one_sentence(tmp_path):
    class Spare(Anything):
        def __init__(self):
            super().__init__()
            self.spare = nn.ModuleList(nn.Linear(2, 2) for _ in range(8))

    data = DataLoader(Rows(lambda i: (X[i], Y[i])), 16)
    with pytest.warns(UserWarning, match="left out") as caught:
        trainer(tmp_path, InformationPlaneCallback(), max_epochs=1).fit(Spare(), data, data)
    (sentence,) = [str(one.message) for one in caught if "left out" in str(one.message)]
    named = ", ".join(f"'spare.{k}'" for k in range(6))
    assert sentence == f"layers {named} (and 2 more) are left out: picked by default, they never ran in this forward."


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (X, r"got a Tensor: give DataLoader\(…\) or \[\(x, y\)\], say"),
        (make_data(N), r"got a TensorDataset: give DataLoader\(dataset, batch_size=256\), say"),
        ({"x": X}, r"got a mapping with the keys \['x'\]: give DataLoader"),
        (7, "got an int: give DataLoader"),
    ],
)
def test_what_gives_no_batches_is_refused(data, said):
    with pytest.raises(TypeError, match=f"the data must be an iterable of batches, {said}"):
        measure(nn.Linear(6, 4), data)
    with pytest.raises(TypeError, match=f"the data must be an iterable of batches, {said}"):
        resolution_sweep(nn.Linear(6, 4), data)


class Towers(Anything):
    """Thirty layers that never run stand before and after the head."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.ModuleList(nn.Linear(6, 6) for _ in range(15))
        self.head = nn.Linear(8, 4)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.other = nn.ModuleList(nn.Linear(6, 6) for _ in range(15))

    def forward(self, x):
        return self.head(self.net(inputs(x)))


@pytest.mark.parametrize("val", [True, False])
def test_the_layers_that_are_picked_are_those_that_run(tmp_path, val):
    data = DataLoader(Rows(lambda i: (X[i], Y[i])), 16)
    callback = InformationPlaneCallback()
    run = trainer(tmp_path, callback, max_epochs=2)
    with pytest.warns(UserWarning, match=r"layers 'teacher.0', .* \(and 24 more\) are left out") as caught:
        run.fit(Towers(), data, data if val else None)
    assert sum("left out" in str(one.message) for one in caught) == 1
    assert [point.layer for point in callback.history] == ["net.0", "net.2", "net.4", "head"] * 3
    assert callback.plane.head.layer == "head"
    assert {name for name in run.callback_metrics if name.startswith("ib/H_T/")} == {
        f"ib/H_T/{layer}" for layer in ("head", "net.0", "net.2", "net.4")
    }


def test_of_many_layers_that_run_twelve_are_picked_the_last_to_run_included():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(40)))
    points = measure(model, [(X, Y)])
    assert [int(point.layer) for point in points] == [round(k * 39 / 11) for k in range(12)]
    model[1], model[2] = nn.Linear(6, 4), nn.Linear(4, 6)
    assert [point.layer for point in measure(model, [(X, Y)], head="1")][:2] == ["0", "1"]


def test_a_forward_of_any_keywords_is_called_without_labels_where_it_can_do_without(tmp_path):
    class Strict(Anything):
        def forward(self, **inputs):
            return self.encode(**inputs)

        def encode(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return self(x=batch["x"]).square().mean()

    data = DataLoader(Rows(lambda i: {"x": X[i], "labels": Y[i]}), 16)
    callback = InformationPlaneCallback()
    trainer(tmp_path, callback, max_epochs=1).fit(Strict(), data)
    assert [point.layer for point in callback.history] == ["net.0", "net.2"] * 2

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 4)

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    points = measure(Wrapper(), [{"input": X, "labels": Y}])
    assert points[0].h_y == 2
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        measure(Wrapper(), [{"other": X, "labels": Y}])


class Distilled(Anything):
    """Training runs a student of many layers, validation also a teacher."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Sequential(nn.Linear(6, 6), *(nn.Linear(6, 6) for _ in range(20)))
        self.teacher = nn.Sequential(*(nn.Linear(6, 6) for _ in range(10)))

    def forward(self, x):
        return self.student(inputs(x))

    def validation_step(self, batch, batch_idx):
        self.teacher(self(batch))


@pytest.mark.slow
def test_a_run_that_is_resumed_or_evaluated_keeps_the_layers_it_picked(tmp_path):
    data = DataLoader(Rows(lambda i: (X[i], Y[i])), 16)
    options = {"enable_checkpointing": True, "num_sanity_val_steps": 0}
    run = trainer(tmp_path, callback := InformationPlaneCallback(), max_epochs=2, **options)
    with pytest.warns(UserWarning, match="'teacher.0', .* are left out"):
        run.fit(Distilled(), data, data)
    layers = [point.layer for point in callback.history[-12:]]
    assert layers == [f"student.{round(k * 20 / 11)}" for k in range(12)]
    run.validate(Distilled(), data, verbose=False)
    assert [point.layer for point in callback.evaluated] == layers
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = InformationPlaneCallback()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tmp_path, again, max_epochs=3, **options).fit(Distilled(), data, data, ckpt_path=tmp_path / "last.ckpt")
    assert [point.layer for point in again.history] == layers * 4


def test_a_head_that_never_runs_is_an_error(tmp_path):
    class Spare(Anything):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(8, 4)

    data = DataLoader(Rows(lambda i: (X[i], Y[i])), 16)
    callback = InformationPlaneCallback(head="spare")
    with (
        pytest.warns(UserWarning, match="layer 'spare' is left out"),
        pytest.raises(ValueError, match="head='spare' cannot be measured"),
    ):
        trainer(tmp_path, callback, max_epochs=1).fit(Spare(), data, data)


def test_a_second_fit_that_is_interrupted_before_it_measures_says_nothing(tmp_path, caplog):
    class Interrupted(Anything):
        def validation_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    data = DataLoader(Rows(lambda i: (X[i], Y[i])), 16)
    callback = InformationPlaneCallback()
    trainer(tmp_path, callback, max_epochs=1).fit(Anything(), data, data)
    caplog.clear()
    with caplog.at_level("INFO"), pytest.raises((SystemExit, KeyboardInterrupt)):
        trainer(tmp_path, callback, max_epochs=1).fit(Interrupted(), data, data)
    assert "in bits" not in caplog.text
