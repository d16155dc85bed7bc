"""Labeled samples that probes are fitted to."""

import torch

from tests.helpers.samples import generator, normal


def labels(n, classes, seed=0):
    return torch.randint(classes, (n,), generator=generator(seed + 1000))


def blobs(n=300, d=4, classes=3, apart=1.0, seed=0):
    y = labels(n, classes, seed)
    return normal(n, d, seed=seed) + apart * normal(classes, d, seed=seed + 1)[y], y
