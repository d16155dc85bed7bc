"""Critics: their formulas by NumPy, closed forms, what cannot be exceeded, and surroundings left as they were."""

import math
import random
import re

import numpy as np
import pytest
import torch

from lightning_ib.functional.variational import critics
from lightning_ib.functional.variational.critics import (
    critic_information,
    mutual_information_infonce,
    mutual_information_smile,
)
from lightning_ib.functional.variational.normal_critic import normal_critic
from tests.helpers.samples import generator

BOTH = pytest.mark.parametrize("estimate", [mutual_information_infonce, mutual_information_smile])
QUICK = {"steps": 40}


def normals(n, rho, d=1, seed=0):
    x, noise = torch.randn(2, n, d, generator=generator(seed))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


# --- The formulas ----------------------------------------------------------------------------------------------------


@pytest.fixture
def scores(monkeypatch):
    found = 3 * torch.randn(2, 4, 5, 5, generator=generator(), dtype=torch.float64)
    monkeypatch.setattr(critics, "held_out_scores", lambda *_, **__: found)
    return found.numpy()


def infonce(scores):
    return np.mean([np.log(np.exp(s[i, i]) / np.exp(s[i]).mean()) for s in scores for i in range(len(s))])


def smile(scores, clip):
    clipped = np.clip(scores, -clip, clip)
    paired = [s[i, i] for s in clipped for i in range(len(s))]
    mixed = [np.exp(s[i, j]) for s in clipped for i in range(len(s)) for j in range(len(s)) if i != j]
    return np.mean(paired) - np.log(np.mean(mixed))


def test_infonce_is_its_formula(scores):
    found = mutual_information_infonce(torch.zeros(40), torch.zeros(40), unit="nats")
    assert found == pytest.approx(np.mean([infonce(half) for half in scores]), abs=1e-12)


@pytest.mark.parametrize("clip", [0.5, 5.0, math.inf])
def test_smile_is_its_formula(scores, clip):
    found = mutual_information_smile(torch.zeros(40), torch.zeros(40), clip=clip, unit="nats")
    assert found == pytest.approx(np.mean([smile(half, clip) for half in scores]), abs=1e-12)


@pytest.mark.parametrize("objective", ["infonce", "smile"])
def test_the_losses_are_their_formulas(objective):
    scores = 3 * torch.randn(2, 4, 5, 5, generator=generator(), dtype=torch.float64)
    if objective == "infonce":
        assert critics._infonce_loss(scores).tolist() == pytest.approx([-infonce(half) for half in scores.numpy()])
        return
    for half, loss in zip(scores.numpy(), critics._jensen_shannon_loss(scores).tolist()):
        paired = [np.log1p(np.exp(-s[i, i])) for s in half for i in range(5)]
        mixed = [np.log1p(np.exp(s[i, j])) for s in half for i in range(5) for j in range(5) if i != j]
        assert loss == pytest.approx(np.mean(paired) + np.mean(mixed))


@pytest.mark.parametrize("objective", ["infonce", "smile"])
def test_the_standard_error_is_that_of_many_samples(objective, monkeypatch):
    """The true critic of two normals on fresh samples: the error is that of the bound alone."""
    rho, values, errors = 0.8, [], []
    for seed in range(60):
        x, y = (v.double().view(2, 2, 50) for v in normals(200, rho, seed=seed))
        x, y = x.unsqueeze(-1), y.unsqueeze(-2)
        found = (rho * x * y - rho**2 * (x.square() + y.square()) / 2) / (1 - rho**2) - math.log(1 - rho**2) / 2
        monkeypatch.setattr(critics, "held_out_scores", lambda *_, found=found, **__: found)
        value, error = critic_information(torch.zeros(200), torch.zeros(200), objective=objective)
        values.append(value)
        errors.append(error)
    assert 0.7 < np.mean(errors) / np.std(values) < 1.4
    assert np.mean(values) == pytest.approx(-math.log2(1 - rho**2) / 2, abs=0.05)


def test_the_closed_form_is_the_log_density_ratio():
    """On normal samples: compared pair by pair with the ratio of the densities, by torch.distributions."""
    rho = torch.tensor([0.8, -0.6])
    x, noise = torch.randn(2, 20_000, 2, generator=generator())
    y = rho * x + (1 - rho.square()).sqrt() * noise
    found = normal_critic(x.unsqueeze(0), y.unsqueeze(0), 12_000, 8000)
    scores = found.scores(torch.arange(300).view(1, 1, 300))[0, 0]
    alone = torch.distributions.Normal(0.0, 1.0)
    given = torch.distributions.Normal(rho * x[:300, None], (1 - rho.square()).sqrt())
    truth = (given.log_prob(y[None, :300]) - alone.log_prob(y[None, :300])).sum(-1)
    likely = truth.abs() < 4
    assert likely.float().mean() > 0.8
    assert (scores - truth)[likely].abs().mean() < 0.1
    assert found.scores(torch.arange(300).view(1, 1, 300)).abs().max() <= 6


def test_independent_variables_have_no_pairs_to_start_from():
    x, y = torch.randn(2, 1, 2000, 20, generator=generator())
    assert normal_critic(x, y, 1500, 500).g.shape[2] <= 1
    assert normal_critic(x, torch.ones(1, 2000, 1), 1500, 500).g.shape[2] == 0


# --- Closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(("rho", "steps"), [(0.5, 60), (0.9, 200)])
def test_two_normals(estimate, rho, steps):
    truth = -0.5 * math.log2(1 - rho**2)
    assert estimate(*normals(3000, rho), steps=steps) == pytest.approx(truth, abs=0.15)


@BOTH
@pytest.mark.parametrize(("d", "steps"), [(1, 200), (10, 1000)])
def test_independent_variables_read_nothing(estimate, d, steps):
    assert estimate(*normals(2000, 0.0, d), steps=steps) == pytest.approx(0, abs=0.05)


@pytest.mark.slow
@BOTH
def test_a_class_that_is_known_is_read(estimate):
    y = torch.nn.functional.one_hot(torch.randint(4, (2000,), generator=generator())).double()
    x = 10 * y + torch.randn(2000, 4, generator=generator(1))
    assert estimate(x, y, steps=200) == pytest.approx(2, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimate", "steps", "least"), [(mutual_information_infonce, 100, 1.2), (mutual_information_smile, 300, 0.4)]
)
def test_a_function_that_no_correlation_shows_is_read(estimate, steps, least):
    x = torch.randn(2000, 1, generator=generator())
    assert estimate(x, x.square() + 0.1 * torch.randn(2000, 1, generator=generator(1)), steps=steps) > least


def student(n, d, freedom, seed=0):
    """Two pairs of correlated coordinates, the rest independent, all over one scale: heavy tails."""
    x, y = normals(n, 0.8, d, seed)
    y[:, 2:] = torch.randn(n, d - 2, generator=generator(seed + 1))
    scale = (freedom / torch.distributions.Chi2(torch.tensor(float(freedom))).sample((n, 1))).sqrt()
    return x * scale, y * scale


@BOTH
def test_heavy_tails_are_read(estimate):
    """Of 2.12 bits, 1.47 are those of the normal variables under the common scale."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = student(2000, 5, 2)
    assert 0.9 < estimate(x, y, steps=60) < 2.12


@BOTH
@pytest.mark.parametrize("critic", ["separable", "joint"])
def test_two_pairs_among_a_hundred_coordinates_are_read(estimate, critic):
    x, y = normals(2500, 0.8, 50)
    y[:, 2:] = torch.randn(2500, 48, generator=generator(1))
    assert 1.0 < estimate(x, y, critic=critic, steps=40) < 1.474


@BOTH
def test_clusters_in_many_coordinates_are_read(estimate):
    """Ten in 16 + 16 coordinates, each on axes of its own: log2(10) bits. Ranks close the gaps, and show 1.2."""
    cluster = torch.randint(10, (2000,), generator=generator())
    centers = 6.0 * torch.nn.functional.one_hot(cluster, 16)
    x, y = (centers + torch.randn(2000, 16, generator=generator(seed)) for seed in (1, 2))
    assert 2.0 < estimate(x, y, steps=120) < math.log2(10)


@pytest.mark.slow
@BOTH
def test_a_joint_critic_reads_sharp_edges(estimate):
    """Uniform x with uniform noise, of half its width: 1.36 bits."""
    x, noise = torch.rand(2, 1000, generator=generator())
    joint, separable = (estimate(x, x + (noise - 0.5), critic=c, steps=100) for c in ("joint", "separable"))
    assert joint > separable - 0.1
    assert 0.4 < joint < 1.36


def test_infonce_does_not_exceed_the_batch_and_smile_does():
    x, _ = normals(2000, 0.0, 10)
    assert 3 < mutual_information_infonce(x, x, batch_size=16, steps=100) <= 4
    assert mutual_information_smile(x, x, batch_size=16, steps=100) > 5


def test_what_is_known_by_heart_is_not_counted():
    # As wide as this, a critic tells the pairs it has seen, and no others.
    x, y = normals(200, 0.0, 50)
    assert mutual_information_infonce(x, y) <= 0.05
    assert mutual_information_smile(x, y) <= 0.05


# --- Laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("critic", ["separable", "joint"])
def test_increasing_maps_and_constant_coordinates_change_little(estimate, critic):
    x, y = normals(300, 0.9)
    expected = estimate(x, y, critic=critic, **QUICK)
    assert estimate(x.double().exp(), y.double() ** 3, critic=critic, **QUICK) == pytest.approx(expected, abs=0.1)
    assert estimate(4 * x.double() + 1, y / 2, critic=critic, **QUICK) == pytest.approx(expected, abs=0.02)
    assert math.isfinite(estimate(torch.cat([x, torch.full((300, 1), 1 / 3)], 1), y, **QUICK))
    assert estimate(torch.ones(300, 2), y, critic=critic, **QUICK) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("objective", ["infonce", "smile"])
def test_one_function_gives_both_bounds(objective):
    x, y = normals(300, 0.9)
    estimate = {"infonce": mutual_information_infonce, "smile": mutual_information_smile}[objective]
    found = critic_information(x, y, objective=objective, unit="nats", **QUICK)
    assert found.information == estimate(x, y, unit="nats", **QUICK)
    assert 0 < found.standard_error < 0.2
    in_bits = critic_information(x, y, objective=objective, **QUICK)
    assert in_bits.standard_error == pytest.approx(found.standard_error / math.log(2), rel=1e-12)


def test_rare_classes_are_read():
    """One-hot columns of classes down to a few rows, among 20."""
    y = torch.multinomial(1 / torch.arange(1.0, 21).square(), 1500, True, generator=generator())
    codes = torch.nn.functional.one_hot(y).double()
    h_y = torch.distributions.Categorical(codes.mean(0)).entropy().item() / math.log(2)
    x = 10 * codes @ torch.randn(codes.shape[1], 5, generator=generator(1), dtype=torch.float64)
    assert h_y - 0.4 < mutual_information_infonce(x, codes, steps=120) <= h_y + 0.05


@BOTH
def test_units_shapes_and_seeds(estimate):
    x, y = normals(301, 0.9)
    expected = estimate(x, y, **QUICK)
    assert isinstance(expected, float)
    assert estimate(x, y, unit="nats", **QUICK) == pytest.approx(expected * math.log(2), rel=1e-12)
    assert estimate(x.view(301, 1, 1), y.squeeze(1), **QUICK) == expected
    assert estimate(x, y, seed=1, **QUICK) != expected


@BOTH
def test_the_fewest_samples_are_enough(estimate):
    x, y = normals(16, 0.5)
    assert math.isfinite(estimate(x, y, **QUICK))


# --- Its surroundings ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@BOTH
def test_it_gives_the_same_figure_wherever_it_is_called(estimate):
    x, y = normals(200, 0.9)
    labels = torch.nn.functional.one_hot((y > 0).squeeze(1).long()).double()
    expected, of_labels = estimate(x, y, **QUICK), estimate(x, labels, **QUICK)
    assert estimate(x, y, **QUICK) == expected
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert estimate(x, y, **QUICK) == expected
            assert estimate(x.clone(), labels.clone(), **QUICK) == of_labels
            assert not torch.is_grad_enabled()
    assert estimate(x.clone().requires_grad_(), y, **QUICK) == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert estimate(x, y, **QUICK) == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert estimate(x, y, **QUICK) == expected
        assert estimate(x, labels, **QUICK) == of_labels
    finally:
        torch.set_default_dtype(torch.float32)


@BOTH
def test_it_leaves_random_states_and_its_input_as_they_were(estimate):
    x, y = normals(100, 0.9)
    kept = x.clone(), y.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    estimate(x, y, **QUICK)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


X = torch.arange(20.0)


@BOTH
@pytest.mark.parametrize(
    ("x", "y", "arguments", "error", "words"),
    [
        (X[:15], X[:15], {}, ValueError, "x must have shape (N, D) with N at least 16 and D at least 1, got (15,)."),
        (X[:15], X[:15].double(), {}, ValueError, "x must have shape (N, D) with N at least 16 and D at least 1, got"),
        (X, X[:18], {}, ValueError, "x and y must be of the same samples, got 20 of one and 18 of the other."),
        (
            X,
            X.long(),
            {},
            TypeError,
            "y must be real numbers in floating point, got torch.int64: give y.double() if these ",
        ),
        (X, X / 0, {}, ValueError, "y has NaN or infinite values in 20 of 20 rows: leave those rows out."),
        (X, [1], {}, TypeError, "y must be a tensor of shape (N, D), got a list."),
        (X, X, {"batch_size": 1}, ValueError, "batch_size must be an integer of at least 2, got 1: give at least 2."),
        (
            X,
            X,
            {"batch_size": 2.0},
            TypeError,
            "batch_size must be an integer of at least 2, got 2.0: give a whole number such as 2.",
        ),
        (X, X, {"steps": 0}, ValueError, "steps must be an integer of at least 1, got 0: give at least 1."),
        (
            X,
            X,
            {"steps": True},
            TypeError,
            "steps must be an integer of at least 1, got True: give a whole number such as 1.",
        ),
        (
            X,
            X,
            {"critic": "join"},
            ValueError,
            "critic must be 'separable' or 'joint', got 'join': did you mean 'joint'?",
        ),
        (X, X, {"unit": "bit"}, ValueError, "unit must be 'bits' or 'nats', got 'bit': did you mean 'bits'?"),
    ],
)
def test_what_cannot_be_estimated_is_named(estimate, x, y, arguments, error, words):
    with pytest.raises(error, match="^" + re.escape(words)):
        estimate(x, y, **arguments)


@pytest.mark.parametrize("clip", [0, -1.0, math.nan])
def test_a_clip_that_leaves_nothing_is_named(clip):
    with pytest.raises(ValueError, match=r"^clip must be a positive number, got "):
        mutual_information_smile(X, X, clip=clip)
