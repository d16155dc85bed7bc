"""The callback leaves training alone: bit for bit, and without a hook in any ending."""

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from lightning_ib import InformationPlaneCallback
from tests.helpers.callbacks import Augmented, epochs, equal, trained_state
from tests.helpers.tiny import N_TRAIN, N_VAL, TinyModule, fit, has_hooks, pl

pytestmark = pytest.mark.usefixtures("few_pictures")

# Pictures too leave training alone: with and without a loop, an own pass and a generator they are drawn.
DRAWN = [(None, True, False), (None, False, True), ("train", True, True)]

# -- what training is owed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize(("data", "val"), [(None, True), (None, False), ("train", True), ("val", True)])
def test_training_is_bit_identical_with_and_without(request, tmp_path, pictures, data, val, generator):
    if (data, val, generator) not in DRAWN:
        request.getfixturevalue("no_pictures")
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


@pytest.mark.slow
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
def test_training_is_bit_identical_with_worker_processes(tmp_path, pictures):
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


# -- hooks off in every ending -----------------------------------------------------------------------------------------


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
def test_hooks_come_off_when_training_breaks(tmp_path, pictures, where, error):
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
