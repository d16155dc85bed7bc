"""Critics and projections of samples that depend on each other within groups."""

import pytest
import torch

from lightning_ib.functional import critic_information, mutual_information_infonce, mutual_information_projected
from lightning_ib.functional.continuous.projected import pointwise_projected
from lightning_ib.functional.variational.dealing import dealt_halves
from tests.helpers.messages import exactly
from tests.helpers.samples import generator


def sequences(n_groups, size, seed=0, d=1):
    """Half a bit for each coordinate, of which each sequence holds a sample, nearly the same in all its tokens."""
    drawn = generator(seed)
    groups = torch.arange(n_groups).repeat_interleave(size)
    x, noise = torch.randn(2, n_groups, d, generator=drawn, dtype=torch.float64)
    x, y = (of[groups] + 0.05 * torch.randn(len(groups), d, generator=drawn).double() for of in (x, x + noise))
    order = torch.randperm(len(groups), generator=drawn)
    return x[order], y[order], groups[order]


@pytest.mark.parametrize("sizes", [(10,) * 100, (1,) * 40, (2, 5, 3, 60, 2, 2, 40, 9, 7, 8, 4)])
def test_a_group_is_in_one_part_of_one_half(sizes):
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    halves = dealt_halves(len(groups), groups, generator(), torch.device("cpu"))
    for parts in zip(*halves.split(halves.rows)):
        assert all(len(of) == len(of.unique()) for of in parts)
        seen = [set(groups[of].tolist()) for of in parts]
        assert len(set.union(*seen)) == sum(map(len, seen))
        assert len(seen[1]) >= halves.n_independent >= 1
    unseen = halves.split(halves.rows)[2]
    assert len(unseen.unique()) == unseen.numel()


def test_groups_of_equal_size_leave_nothing_over():
    groups = torch.arange(80).repeat_interleave(6)
    halves = dealt_halves(480, groups, generator(), torch.device("cpu"))
    assert (halves.rows.shape, halves.n_fitted, halves.n_judges, halves.n_independent) == ((2, 480), 180, 60, 10)
    assert halves.rows.sort(1).values.tolist() == [list(range(480))] * 2


@pytest.mark.parametrize(
    ("estimate", "groups", "message"),
    [
        (
            mutual_information_infonce,
            torch.arange(40) // 8,
            "groups must be at least 8, one for each part of either half, got 5: give more groups.",
        ),
        (
            mutual_information_infonce,
            torch.arange(40).sub(32).clamp(min=0),
            "groups are of so unequal size that a critic is judged on a single sample: give more groups, or split the "
            "largest.",
        ),
        (
            mutual_information_projected,
            torch.zeros(40).long(),
            "groups must be at least 2, one for each half, got 1: give more groups.",
        ),
        (
            mutual_information_projected,
            torch.arange(39),
            "x and groups must be of the same samples, got 40 of one and 39 of the other.",
        ),
        (
            mutual_information_projected,
            torch.arange(40).sub(38).clamp(min=0),
            "canonical pairs of 1 coordinates are learned on half of the samples, which takes at least 2 in either "
            "half, got 1: give more, or fewer coordinates.",
        ),
    ],
)
def test_groups_that_cannot_be(estimate, groups, message):
    x = torch.randn(40, 1, generator=generator())
    with pytest.raises(ValueError, match=exactly(message)):
        estimate(x, x + 1, groups=groups)


def test_half_of_a_projection_holds_whole_groups_and_the_error_is_by_them():
    x, y, groups = sequences(60, 5, d=2)
    found = pointwise_projected(x, y, groups=groups)
    first = found.positions[: (groups < 60).sum() // 2]
    assert not set(groups[first].tolist()) & set(groups[found.positions[len(first) :]].tolist())
    of_samples = found._replace(added=0.0)
    assert of_samples.standard_error(groups) > 1.3 * of_samples.standard_error()
    assert found.standard_error(groups) >= of_samples.standard_error(groups)
    assert found.nats == pointwise_projected(x, y, groups=3 * groups - 7).nats


@pytest.mark.parametrize("objective", ["infonce", "smile"])
def test_what_a_group_repeats_is_no_information(objective):
    """Two independent variables, of which a critic knows every sequence by heart."""
    (x, _, groups), (y, _, same) = (sequences(60, 8, seed, d=4) for seed in (1, 2))
    x, y, groups = x[groups.argsort()], y[same.argsort()], groups.sort().values
    options = {"objective": objective, "steps": 100}
    assert critic_information(x, y, **options).information > 1
    assert critic_information(x, y, groups=groups, **options).information < 0.1


@pytest.mark.slow
def test_half_a_bit_of_sequences_and_its_error_by_them():
    x, y, groups = sequences(250, 4)
    found, single = (critic_information(x, y, groups=of, steps=100) for of in (groups, None))
    assert found.information == pytest.approx(0.5, abs=0.25)
    assert found.standard_error > 1.5 * single.standard_error
