"""Critics: their formulas by NumPy, closed forms, what cannot be exceeded, and surroundings left as they were."""

import math
import random
import re

import numpy as np
import pytest
import torch

from lightning_ib.functional.variational import critics
from lightning_ib.functional.variational.critics import mutual_information_infonce, mutual_information_smile
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
    monkeypatch.setattr(critics, "_held_out_scores", lambda *_: found)
    return found.numpy()


def test_infonce_is_its_formula(scores):
    terms = [np.log(np.exp(s[i, i]) / np.exp(s[i]).mean()) for half in scores for s in half for i in range(5)]
    found = mutual_information_infonce(torch.zeros(40), torch.zeros(40), unit="nats")
    assert found == pytest.approx(np.mean(terms), abs=1e-12)


@pytest.mark.parametrize("clip", [0.5, 5.0, math.inf])
def test_smile_is_its_formula(scores, clip):
    halves = []
    for half in scores:
        paired = [s[i, i] for s in half for i in range(5)]
        mixed = [
            np.clip(np.exp(s[i, j]), np.exp(-clip), np.exp(clip))
            for s in half
            for i in range(5)
            for j in range(5)
            if i != j
        ]
        halves.append(np.mean(paired) - np.log(np.mean(mixed)))
    found = mutual_information_smile(torch.zeros(40), torch.zeros(40), clip=clip, unit="nats")
    assert found == pytest.approx(np.mean(halves), abs=1e-12)


# --- Closed forms ----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("rho", "steps"), [(0.5, 300), (0.9, 1000)])
def test_two_normals(estimate, rho, steps):
    truth = -0.5 * math.log2(1 - rho**2)
    assert estimate(*normals(5000, rho), steps=steps) == pytest.approx(truth, abs=0.15)


@BOTH
@pytest.mark.parametrize("d", [1, 10])
def test_independent_variables_read_nothing(estimate, d):
    assert estimate(*normals(2000, 0.0, d)) == pytest.approx(0, abs=0.05)


@BOTH
def test_a_class_that_is_known_is_read(estimate):
    y = torch.nn.functional.one_hot(torch.randint(4, (2000,), generator=generator())).double()
    x = 10 * y + torch.randn(2000, 4, generator=generator(1))
    assert estimate(x, y, steps=200) == pytest.approx(2, abs=0.25)


@BOTH
def test_a_function_that_no_correlation_shows_is_read(estimate):
    x = torch.randn(2000, 1, generator=generator())
    assert estimate(x, x.square() + 0.1 * torch.randn(2000, 1, generator=generator(1)), steps=600) > 1


def test_infonce_does_not_exceed_the_batch_and_smile_does():
    x, _ = normals(2000, 0.0, 10)
    assert 3 < mutual_information_infonce(x, x, batch_size=16, steps=300) <= 4
    assert mutual_information_smile(x, x, batch_size=16, steps=300) > 5


def test_what_is_known_by_heart_is_not_counted():
    # As wide as this, a critic tells the pairs it has seen, and no others.
    x, y = normals(200, 0.0, 50)
    assert mutual_information_infonce(x, y) <= 0.05
    assert mutual_information_smile(x, y) <= 0.05


# --- Laws ------------------------------------------------------------------------------------------------------------


@BOTH
def test_scales_shifts_and_constant_coordinates_change_nothing(estimate):
    x, y = normals(300, 0.9)
    expected = estimate(x, y, **QUICK)
    assert estimate(4 * x.double(), y.double() / 2, **QUICK) == pytest.approx(expected, abs=1e-4)
    assert estimate(x + 1, 8 * y, **QUICK) == pytest.approx(expected, abs=1e-3)
    assert math.isfinite(estimate(torch.cat([x, torch.full((300, 1), 1 / 3)], 1), y, **QUICK))
    assert estimate(torch.ones(300, 2), y, **QUICK) == pytest.approx(0, abs=0.05)


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
