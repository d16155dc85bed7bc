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
