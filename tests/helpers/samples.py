"""Samples whose information is known, each from a seed of its own."""

import math

import torch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def correlated(n, rho, seed=0):
    x, noise = normal(2, n, seed=seed)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def two_classes(n, a, seed=0):
    y = torch.arange(n) % 2
    return normal(n, seed=seed) + a * (2 * y - 1), y


def leaves_alone(estimate, x, y):
    """An estimate changes neither its inputs nor the random state, and is the same in every mode of autograd."""
    before, state = (x.detach().clone(), y.clone()), torch.get_rng_state()
    first = estimate(x, y)
    with torch.no_grad():
        assert estimate(x, y) == first
    with torch.inference_mode():
        assert estimate(x, y) == first
        inside = x * 1
    assert estimate(inside, y) == first
    assert isinstance(first, float)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert torch.equal(torch.get_rng_state(), state)
