"""The batch of several processes: two real ones have the losses and gradients of one with the whole batch."""

import pytest
import torch

from lightning_ib.objectives import gather_batch
from tests.helpers.sharing import LOSSES, SHARES, Step, batch, gradients, value_of


@pytest.fixture(scope="module")
def shared(programs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    done = programs.module("tests.helpers.sharing", folder, timeout=60)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def alone(name, part):
    step = Step(LOSSES[name]).double()
    value = value_of(step(*batch()), part)
    value.backward()
    return value.item(), gradients(step)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "apart"])
def test_a_shared_batch_has_the_loss_and_gradient_of_the_whole(shared, share, name):
    for part in ("hsic_x",) if name == "hsic" else ("rate",):
        value, gradient = alone(name, part)
        for found, _ in shared:
            assert found[share, name, part][0] == pytest.approx(value, abs=1e-12)
            torch.testing.assert_close(found[share, name, part][1], gradient, atol=1e-12, rtol=1e-9)
    if share == "even":
        value, gradient = alone(name, "loss")
        assert sum(found[share, name, "loss"][0] for found, _ in shared) / 2 == pytest.approx(value, abs=1e-12)
        torch.testing.assert_close(shared[0][0][share, name, "loss"][1], gradient, atol=1e-12, rtol=1e-9)


def test_without_gathering_each_process_has_its_own_rate(shared):
    x, y = batch()
    for rank, (found, _) in enumerate(shared):
        own = Step(LOSSES["apart"]).double()(x.split((5, 11))[rank], y.split((5, 11))[rank]).rate
        assert found["uneven", "apart", "rate"][0] == pytest.approx(own.item(), abs=1e-12)


@pytest.mark.parametrize("share", SHARES)
def test_samples_come_in_the_order_of_the_ranks(shared, share):
    for found, _ in shared:
        for gathered, whole in zip(found[share, "gathered"], batch(), strict=True):
            assert torch.equal(gathered, whole)


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("none", "0 × 0 of torch.float32, 1 × 2 of torch.float32"),
        ("wide", "2 × 2 of torch.float32, 2 × 3 of torch.float32"),
        ("kind", "2 × 2 of torch.float32, 2 × 2 of torch.float64"),
    ],
)
def test_shares_that_do_not_fit_are_refused_in_every_process(shared, name, got):
    for _, refused in shared:
        assert f"got (samples × values, by rank) {got}: drop the incomplete batch" in refused[name]


def test_one_process_keeps_its_values():
    values = torch.zeros(3, 2)
    assert gather_batch(values) is values
    with pytest.raises(TypeError, match=r"values must be a tensor of shape \(B, …\), got a list"):
        gather_batch([1, 2])
