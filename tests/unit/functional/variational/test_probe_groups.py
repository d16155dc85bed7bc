"""Probes of samples that depend on each other within groups."""

import math

import pytest
import torch
from torch import nn

from lightning_ib import measure
from lightning_ib.functional import probe_information

pytestmark = pytest.mark.slow


def repeated(n_groups, size, seed=0):
    """Rows that are nearly the same within a group, and a label of the group that nothing predicts."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.arange(n_groups).repeat_interleave(size)
    t = torch.randn(n_groups, 20, generator=generator, dtype=torch.float64)[groups]
    t = t + 0.1 * torch.randn(t.shape, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (n_groups,), generator=generator)[groups]
    order = torch.randperm(len(y), generator=generator)
    return t[order], y[order], groups[order]


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_what_a_group_repeats_is_no_information(probe):
    t, y, groups = repeated(40, 15)
    assert probe_information(t, y, probe=probe).information > 0.5
    assert probe_information(t, y, probe=probe, groups=groups).information < 0.1


def test_the_standard_error_is_that_of_independent_groups():
    """Beside the scatter over data sets: the one that takes samples for independent is far too small."""
    found = []
    for seed in range(30):
        t, y, groups = repeated(60, 10, seed)
        t = t[:, :3] + (2 * y[:, None] - 1)
        found.append((probe_information(t, y, groups=groups), probe_information(t, y)))
    scatter = torch.tensor([one.information for one, _ in found]).std().item()
    grouped, single = (sum(pair[k].standard_error for pair in found) / len(found) for k in (0, 1))
    assert grouped == pytest.approx(scatter, rel=0.45)  # of 30 data sets, the scatter has an error of 13 %
    assert single < 0.5 * scatter


def test_groups_of_one_have_the_standard_error_of_samples():
    t, y, _ = repeated(80, 1)
    found = probe_information(t, y, groups=torch.arange(80))
    assert found.standard_error > 0
    assert found == probe_information(t, y, groups=torch.arange(80) * 7 - 3)


def test_the_split_is_the_same_in_any_order_of_the_rows():
    t, y, groups = repeated(40, 15)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    found, other = probe_information(t, y, groups=groups), probe_information(t[order], y[order], groups=groups[order])
    assert other.information == pytest.approx(found.information, abs=1e-6)


def test_unequal_groups_fill_all_folds():
    t, y, _ = repeated(100, 1)
    groups = torch.cat([torch.zeros(50), torch.arange(1, 51)]).long()
    for probe in ("linear", "mlp"):
        assert math.isfinite(probe_information(t, y, groups=groups, probe=probe, folds=4).information)


@pytest.mark.parametrize("sizes", [(400, 400, 400, 400, 200), (400, 400, 400, 400, 2)])
def test_a_network_learns_from_all_rows_of_unequal_folds(sizes):
    """With the labels of every group in order, so that a part of its rows has one class alone."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(5).repeat_interleave(torch.tensor(sizes))
    y = torch.cat([torch.arange(size) * 2 // size for size in sizes])
    t = 6.0 * y[:, None] + torch.randn(len(y), 3, generator=generator, dtype=torch.float64)
    for probe in ("linear", "mlp"):
        assert probe_information(t, y, groups=groups, probe=probe).information > 0.95


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (torch.zeros(40).long(), ValueError, "groups must be at least 5, one for each fold, got 1"),
        (torch.arange(39), ValueError, "t and groups must be of the same samples"),
        (torch.rand(40), TypeError, "groups must be the group of each sample, a tensor of integers"),
        (torch.zeros(40, 1).long(), ValueError, r"groups must have shape \(N,\), got \(40, 1\)"),
    ],
)
def test_groups_that_cannot_be(groups, error, message):
    t, y, _ = repeated(40, 1)
    with pytest.raises(error, match=message):
        probe_information(t, y, groups=groups)


def test_tokens_of_a_sequence_stay_in_one_fold():
    """Each sequence has words of its own and a label of its own: nothing that holds for another one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, 30, generator=generator).repeat(1, 15, 1)
    x = x + 0.1 * torch.randn(x.shape, generator=generator)
    y = torch.randint(2, (40, 1), generator=generator).expand(40, 15)
    data = [(x[k : k + 8], y[k : k + 8]) for k in range(0, 40, 8)]
    options = {"tokens": True, "estimators": ["probe"], "head": False}
    found = {one.quantity: one for one in measure(nn.Sequential(nn.Identity()), data, ["0"], **options).estimates()}
    alone = probe_information(x.flatten(0, 1), y.flatten())
    assert alone.information > 0.5 > 0.1 > found["I_TY"].value
    assert found["I_TY"].standard_error > alone.standard_error
