"""A loader is read in order, every sample once, and goes on as if it had not been read."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, TensorDataset

from lightning_ib.evaluation.loaders import sequential_loader
from lightning_ib.evaluation.passes import preserve_state
from tests.helpers.samples import generator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_shuffling_loader_is_read_in_order_without_moving_its_generator():
    g = generator()
    before = g.get_state()
    data = TensorDataset(torch.arange(10))
    loader = DataLoader(
        data,
        batch_size=4,
        shuffle=True,
        drop_last=True,
        generator=g,
        collate_fn=lambda b: torch.stack([x for (x,) in b]),
    )
    random_state = torch.get_rng_state()
    assert [batch.tolist() for batch in sequential_loader(loader)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(g.get_state(), before)
    assert torch.equal(torch.get_rng_state(), random_state)


class Stateful(torch.utils.data.Sampler):
    """A sampler with a random state of its own, which every pass moves."""

    def __init__(self, n):
        self.n, self.generator = n, np.random.default_rng(0)

    def __iter__(self):
        return iter(self.generator.permutation(self.n).tolist())

    def __len__(self):
        return self.n


def test_loaders_that_choose_their_samples_go_on_choosing_and_are_not_moved():
    data, model = TensorDataset(torch.arange(10)), nn.Linear(1, 1)
    for loader, sizes in (
        (DataLoader(data, sampler=SubsetRandomSampler(range(5)), batch_size=2), [2, 2, 1]),
        (DataLoader(data, sampler=RandomSampler(data, replacement=True), batch_size=5), [5, 5]),
        (DataLoader(data, sampler=RandomSampler(data, num_samples=3), batch_size=2), [2, 1]),
        (DataLoader(data, sampler=Stateful(10), batch_size=5), [5, 5]),
        (DataLoader(data, batch_sampler=[[0, 1], [2]]), [2, 1]),
        (DataLoader(data, batch_size=None), [1] * 10),
    ):
        own = sequential_loader(loader)
        assert own is not loader
        before = torch.get_rng_state()
        state = copy.deepcopy(getattr(loader.sampler, "generator", None))
        with preserve_state(model, loader):
            assert [batch[0].numel() for batch in own] == sizes
        assert torch.equal(torch.get_rng_state(), before)
        if isinstance(loader.sampler, Stateful):
            assert loader.sampler.generator.bit_generator.state == state.bit_generator.state
    for data in ([1, 2], DataLoader(Streaming())):
        assert sequential_loader(data) is data


class Streaming(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(3))
