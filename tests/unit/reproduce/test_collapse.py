"""Fitting and collapse over log time."""

import math

import pytest
import torch
from torch.nn.functional import one_hot

from lightning_ib.reproduce import collapse, collapse_training
from lightning_ib.reproduce.collapse import Times, claims_of, times_of
from lightning_ib.reproduce.collapse_training import Data, Grid, measured, measured_steps, network, train, work

TINY = Grid((0.1,), 1, n_steps=6, n_measured=4, n_train=40, n_test=100, n_kernel=100, width=8, batch=20)


def data(n_train=40, n_test=100):
    torch.manual_seed(5)
    y = torch.arange(n_train + n_test) % 10
    x = torch.randn(10, 784)[y] + 0.1 * torch.randn(len(y), 784)
    return Data(x[:n_train], y[:n_train], x[n_train:], y[n_train:])


def test_steps_are_equally_far_apart_in_their_logarithm():
    steps = measured_steps(100_000, 60)
    assert (steps[0], steps[1], steps[-1]) == (0, 1, 100_000)
    assert len(steps) <= 60
    ratios = [b / a for a, b in zip(steps[30:], steps[31:])]
    assert max(ratios) / min(ratios) < 1.02


def test_the_network_starts_with_scaled_weights():
    torch.manual_seed(1)
    first = network(8, 1.0)
    torch.manual_seed(1)
    scaled = network(8, 8.0)
    for one, other in zip(first.parameters(), scaled.parameters()):
        torch.testing.assert_close(8 * one, other)


def test_dependence_is_that_of_the_published_formula():
    """tr R_Z R_Y with the kernel centered on one side, and the linear kernel of one-hot labels, in double precision."""
    z, x, y = torch.randn(100, 6).double(), torch.randn(100, 9).double(), torch.arange(100) % 10
    center = torch.eye(100, dtype=torch.float64) - 0.01

    def gaussian(rows):
        squares = (rows[:, None] - rows).square().sum(2)
        return torch.exp(-squares / (2 * 25 * rows.shape[1])) @ center

    def regularized(kernel):
        return kernel @ torch.linalg.inv(kernel + 1e-5 * 100 * torch.eye(100, dtype=torch.float64))

    labels = one_hot(y).double()
    of_z = regularized(gaussian(z))
    expected = [float((of_z * regularized(kernel).T).sum()) for kernel in (gaussian(x), labels @ labels.T)]
    found = collapse_training._kernels(z, x, y)
    assert list(found.values()) == pytest.approx(expected, rel=1e-6)


def test_what_is_measured_is_what_the_formulas_say():
    torch.manual_seed(0)
    model, given = network(8, 1.0), data()
    row = measured(model, given, TINY)
    with torch.no_grad():
        t, outputs = model[:-1](given.x_test).double(), model(given.x_test).double()
    means = torch.stack([t[given.y_test == c].mean(0) for c in range(10)])
    within = (t - means[given.y_test]).square().sum(1).mean()
    between = (means - t.mean(0)).square().sum(1).mean()
    assert row["test_within"] == pytest.approx(float(within))
    assert row["test_nc1"] == pytest.approx(float(within / between))
    assert row["test_rnc1"] == pytest.approx(float(within / t.norm(dim=1).mean() ** 2))
    assert row["test_loss"] == pytest.approx(float((outputs - one_hot(given.y_test)).square().sum(1).mean()), rel=1e-6)
    assert row["test_accuracy"] == float((outputs.argmax(1) == given.y_test).double().mean())
    assert row["i_xt_given_y"] == pytest.approx(row["i_xt"] - row["i_ty"])


def test_a_seed_gives_the_same_rows_and_leaves_the_caller_alone():
    given, done = data(), []
    before = torch.get_rng_state()
    rows = [train(given, TINY, 0.1, seed, done.append) for seed in (1, 1, 2)]
    assert rows[0] == rows[1]
    assert rows[0][0]["test_loss"] != rows[2][0]["test_loss"]
    assert torch.equal(torch.get_rng_state(), before)
    assert [row["step"] for row in rows[0]] == [0, 1, 2, 6]
    assert done == [5, 6, 6, 9] * 3  # a measurement of 100 pictures counts as five steps
    assert sum(done) == 3 * work(TINY)


def test_weights_decay_by_the_rate_times_the_weight_decay(monkeypatch):
    """After a step with rate · decay = 1 nothing of a weight is left, and Adam's step is the rate in each."""
    norms = []
    monkeypatch.setattr(
        collapse_training, "measured", lambda model, *_: norms.append(float(model.hidden1.weight.detach().norm())) or {}
    )
    for decay in (0.0, 1000.0):
        train(data(), TINY._replace(n_steps=1, n_measured=3), decay, 0, lambda _: None)
    start, kept, again, shrunk = norms
    assert start == again
    assert kept > 0.9 * start
    assert shrunk <= 1.001 * 1e-3 * math.sqrt(784 * TINY.width)


def rows_of(accuracies, nc1, test=None, info=None):
    steps = [0, 1, 10, 100, 1000, 10_000][: len(accuracies)]
    zeros = [0.0] * len(steps)
    return [
        {
            "weight_decay": 0.1,
            "seed": 0,
            "step": step,
            "train_accuracy": a,
            "train_nc1": n,
            "test_rnc1": n,
            "test_nc1": -n,
        }
        | {"test_accuracy": t, "i_xt_given_y": i, "nhsic_zx": 2 * i, "nhsic_zy": i}
        for step, a, n, t, i in zip(steps, accuracies, nc1, test or zeros, info or zeros)
    ]


def test_times_of_fit_and_collapse():
    found = times_of(
        rows_of([0.1, 0.9, 0.99, 1, 1, 1], [9, 8, 4, 2.1, 1.9, 0.1], [0, 0, 0.5, 0.6, 0.7, 0.9], [3, 3, 3, 2.5, 2, 1])
    )
    assert (found.fitted, found.collapsed) == (10, 1000)
    assert (found.accuracy, found.information, found.kernels) == pytest.approx((0.4, -2, -2))
    assert found[-6:] == (-1, 1, 1, 1, -1, -1)


def test_a_run_that_never_fits_has_no_times():
    found = times_of(rows_of([0.1, 0.2, 0.3], [9, 8, 7]))
    assert all(math.isnan(value) for value in found[2:])


def times(decay, fitted, collapsed, rho=1.0):
    return Times(decay, 0, fitted, collapsed, 0.1, -1.0, -2.0, -rho, rho, rho, -rho, rho, rho)


def test_claims_hold_or_not():
    grid = Grid((0.3, 0.1), 1, 1000, 10)
    held = claims_of([times(0.3, 10, 20), times(0.1, 10, 60)], grid)
    assert [claim.holds for claim in held] == [True] * 5
    assert "10 for λ = 0.3, 50 for λ = 0.1" in held[1].found
    turned = claims_of([times(0.3, 10, 60, -1.0), times(0.1, 10, 12, -1.0)], grid)
    assert [claim.holds for claim in turned] == [False] * 5
    unknown = claims_of([times(0.3, math.nan, math.nan), times(0.1, math.nan, math.nan)], grid)
    assert {claim.holds for claim in unknown} == {None}
    assert "none of 2 runs came to a training accuracy of 0.99" in unknown[0].found


def test_a_weight_decay_that_never_collapses_waits_longest():
    grid = Grid((0.3, 0.1, 0.03), 1, 1000, 10)
    late = [times(0.3, 10, 20), times(0.1, 10, 60), times(0.03, 10, math.nan)]
    claim = claims_of(late, grid)[1]
    assert claim.holds is True
    assert "the other 1 take longer than the runs" in claim.found
    early = [times(0.3, 10, math.nan), times(0.1, 10, 60), times(0.03, 10, 70)]
    assert claims_of(early, grid)[1].holds is False


def test_a_run_that_fits_at_its_end_does_not_show_two_times():
    assert claims_of([times(0.3, 600, math.nan)], Grid((0.3,), 1, 1000, 10))[0].holds is False


def test_a_claim_about_a_change_needs_one():
    grid = Grid((0.3, 0.1), 1, 1000, 10)
    flat = [times(0.3, 10, 20)._replace(accuracy=0.04), times(0.1, 10, 60)._replace(accuracy=-0.01)]
    claims = claims_of(flat, grid)
    assert [claim.holds for claim in claims] == [True, True, None, True, True]
    assert "no late change to be explained" in claims[2].found


def test_a_claim_that_holds_in_half_of_the_runs_is_open():
    grid = Grid((0.3, 0.1), 1, 1000, 10)
    mixed = claims_of([times(0.3, 10, 20, 1.0), times(0.1, 10, 60, -1.0)], grid)
    assert [claim.holds for claim in mixed[2:]] == [None] * 3
    assert "-1.00 to +1.00 with the RNC1 of the test set, clear in 1 of 2 runs" in mixed[3].found


def test_a_claim_is_open_where_the_two_measures_of_the_variance_differ():
    apart = [times(0.3, 10, 20)._replace(nc1_information=-1.0), times(0.1, 10, 60)._replace(nc1_information=-1.0)]
    assert [claim.holds for claim in claims_of(apart, Grid((0.3, 0.1), 1, 1000, 10))] == [True, True, True, None, True]


def test_of_one_weight_decay_that_collapsed_nothing_can_be_said():
    claims = claims_of([times(0.3, 10, 20), times(0.1, 10, math.nan)], Grid((0.3, 0.1), 1, 1000, 10))
    assert claims[1].holds is None
    assert "not before 1000" in claims[0].found


def test_the_setting_of_the_paper_is_the_papers():
    grid = collapse.PAPER
    assert grid.weight_decays == (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    assert (grid.n_seeds, grid.n_steps, grid.n_train, grid.width, grid.init_scale) == (5, 100_000, 3000, 200, 8.0)
