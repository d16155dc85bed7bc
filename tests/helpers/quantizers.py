"""Values to discretize, and a quantizer fitted to them."""

import torch

from lightning_ib import Bins
from lightning_ib.binning.fitted import FittedQuantizer


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reduced(discretizer, activation):
    """One batch as it is kept: ids where the edges are known, else values."""
    z = discretizer.values(activation)
    return z if discretizer.edges is None else discretizer.discretize(z).ids


def fitted(quantizer, activation):
    """A discretizer that has seen ``activation`` in one measurement, and the ids of that."""
    discretizer = FittedQuantizer(quantizer)
    held = reduced(discretizer, activation)
    assert held.is_floating_point()
    discretizer.fit(held)
    return discretizer, discretizer.discretize_held(held).ids


def ids_in_batches(discretizer, activation, batch_size):
    return torch.cat([reduced(discretizer, batch) for batch in activation.split(batch_size)])


class OwnBins(Bins):
    """Gives what it was told to, and remembers what it was shown."""

    def __init__(self, edges, **options):
        super().__init__(**options)
        self.given, self.seen = edges, []

    def edges(self, z):
        self.seen.append(z.clone())
        return self.given
